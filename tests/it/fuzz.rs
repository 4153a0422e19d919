//! Replays the seeds of the fuzz targets. Each seed has once found something new.

use std::collections::BTreeSet;
use std::fs::{read, read_dir};
use std::path::{Path, PathBuf};

use support::processes::runs_alone;

fn files(directory: &str) -> BTreeSet<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let files = read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    files.map(|file| file.unwrap().path()).collect()
}

/// Runs a target with all its seeds.
fn replay(name: &str, target: fn(&[u8])) {
    let seeds = files(&format!("fuzz/corpus/{name}"));
    assert!(!seeds.is_empty(), "the corpus of {name} has no seeds");
    for seed in seeds {
        // This shows the seed if the target panics.
        println!("{}", seed.display());
        target(&read(&seed).unwrap());
    }
}

#[test]
fn every_seed_of_the_cookie_header_is_anonymous_but_for_a_good_token() {
    replay("cookie", cloakroom_fuzz::cookie);
}

#[test]
fn every_seed_of_the_authorization_header_is_anonymous_but_for_a_good_token() {
    replay("bearer", cloakroom_fuzz::bearer);
}

#[test]
fn every_seed_of_both_headers_is_a_visitor_unless_all_good_tokens_are_of_one_session() {
    replay("transports", cloakroom_fuzz::transports);
}

#[test]
fn every_seed_of_a_record_is_refused_or_decodes_to_what_it_is_encoded_to() {
    replay("record", cloakroom_fuzz::record);
}

#[test]
fn every_seed_of_a_proof_header_is_refused_but_for_the_good_proof() {
    replay(
        "secure_session_response",
        cloakroom_fuzz::secure_session_response,
    );
}

#[test]
fn every_seed_of_a_session_id_header_names_the_own_session_or_is_refused() {
    replay("secure_session_id", cloakroom_fuzz::secure_session_id);
}

#[test]
fn every_seed_of_a_signed_proof_is_refused_but_for_the_good_one() {
    replay("device_proof", cloakroom_fuzz::device_proof);
}

#[test]
fn every_seed_of_an_assertion_is_refused_but_for_good_ones() {
    replay("assertion", cloakroom_fuzz::assertion);
}

/// This test runs in its own process, because for a while the process cannot open files.
#[test]
fn every_seed_of_a_store_url_is_opened_or_an_error_without_its_password() {
    let test = "every_seed_of_a_store_url_is_opened_or_an_error_without_its_password";
    if runs_alone(module_path!(), test) {
        replay("store_url", cloakroom_fuzz::store_url);
    }
}

#[test]
fn every_fuzz_target_has_its_seeds_replayed_here() {
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let targets: Vec<_> = files("fuzz/fuzz_targets").into_iter().map(name).collect();
    assert_eq!(
        targets,
        [
            "assertion",
            "bearer",
            "cookie",
            "device_proof",
            "record",
            "secure_session_id",
            "secure_session_response",
            "store_url",
            "transports",
        ]
    );
}
