//! The demo over HTTPS.

use std::path::Path;
use std::process::{Command, Output};

use super::client::DemoClient;
use super::process::Demo;
use support::program::binary;

#[test]
fn over_tls_the_cookie_has_the_host_prefix_and_a_login_works() {
    let demo = Demo::start_with(&["--tls"]);
    assert_eq!(demo.url().scheme(), "https");
    let mut browser = DemoClient::new(&demo);
    let reply = browser.log_in("ada", "lovelace");
    assert_eq!(reply.location(), "/");
    let cookie = reply.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-session=") && cookie.contains("; Secure"),
        "{cookie}"
    );
    // Browsers that cannot bind a session to their device ignore this header.
    let offer = reply.header("secure-session-registration").unwrap();
    assert!(offer.contains("path=\"/session/bind\""), "{offer}");
    assert_eq!(browser.user().as_deref(), Some("ada"));
    let devices = browser.get("/devices").body;
    assert!(!devices.contains("bound-since"), "{devices}");
}

#[test]
fn without_tls_a_login_offers_no_binding() {
    let demo = Demo::start();
    let reply = DemoClient::new(&demo).log_in("ada", "lovelace");
    assert_eq!(reply.header("secure-session-registration"), None);
}

#[test]
fn the_certificate_stays_over_a_restart() {
    let mut demo = Demo::start_with(&["--tls"]);
    let (file, hash) = (
        std::fs::read(demo.certificate_file()).unwrap(),
        demo.public_key_hash().to_owned(),
    );
    let mut browser = DemoClient::ada(&demo);
    demo.restart_with(&["--tls"]);
    assert_eq!(std::fs::read(demo.certificate_file()).unwrap(), file);
    assert_eq!(demo.public_key_hash(), hash);
    browser.base = demo.url().clone();
    assert_eq!(browser.user().as_deref(), Some("ada"));
}

#[cfg(unix)]
#[test]
fn the_private_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let demo = Demo::start_with(&["--tls"]);
    let file = demo.certificate_file();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_certificate_of_the_users_own_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = make_certificate(dir.path(), "own");
    let demo = Demo::start_with(&["--tls", "--cert", &certificate, "--key", &key]);
    assert!(!demo.certificate_file().exists());
    // The client trusts this file only.
    std::fs::copy(&certificate, demo.certificate_file()).unwrap();
    assert_eq!(DemoClient::ada(&demo).user().as_deref(), Some("ada"));
}

#[test]
fn a_bad_certificate_or_key_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = make_certificate(dir.path(), "own");
    let (_, other_key) = make_certificate(dir.path(), "other");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let empty = file("empty.pem", "");
    let broken = file(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    let no_file = dir.path().join("none.pem").display().to_string();
    for (certificate, key, reason) in [
        (&no_file, &key, "cannot read the certificate from"),
        (&certificate, &no_file, "cannot read the private key from"),
        (&empty, &key, "no certificate in"),
        (&certificate, &empty, "there is none in the file"),
        (&broken, &key, "cannot read the certificate from"),
        (&certificate, &other_key, "do not make a TLS certificate"),
        // The two files the wrong way round.
        (&key, &certificate, "no certificate in"),
    ] {
        let output = run(dir.path(), &["--tls", "--cert", certificate, "--key", key]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{reason:?} is not in {said}");
    }
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(binary("login"))
        .args(["--listen", "127.0.0.1:0"])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// Makes a certificate for 127.0.0.1. Returns its file, and the file of its key.
fn make_certificate(dir: &Path, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let write = |extension: &str, content: String| {
        let path = dir.join(name).with_extension(extension);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    (
        write("crt", made.cert.pem()),
        write("key", made.signing_key.serialize_pem()),
    )
}
