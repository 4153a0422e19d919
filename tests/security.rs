//! What the security page of the documentation says is tested, is.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../docs/security.md");

/// How many requirements the page has.
const REQUIREMENTS: usize = 45;

/// The tests of a file of `tests/`, or of `lib` for those in `src`, as the programs that were built of it list them.
///
/// They are beside this one. To have cargo say where would have it build them, while they run.
fn tests_of(file: &str) -> BTreeSet<String> {
    let program = match file {
        "lib" => "cloakroom",
        name => name,
    };
    let is_its_hash = |rest: &str| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    let own = std::env::current_exe().unwrap();
    let mut tests = BTreeSet::new();
    for entry in std::fs::read_dir(own.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.strip_suffix(std::env::consts::EXE_SUFFIX);
        let hash = stem.and_then(|stem| stem.strip_prefix(program)?.strip_prefix('-'));
        if !hash.is_some_and(is_its_hash) {
            continue;
        }
        let listed = Command::new(&path)
            .args(["--list", "--format", "terse"])
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let names = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        tests.extend(names.map(|name| format!("{file}::{name}")));
    }
    assert!(
        !tests.is_empty(),
        "build all tests first, with `cargo test --no-run`: there is none of {file}"
    );
    tests
}

/// The rows of the page that begin with a number: that, and what stands in backquotes in the last column.
fn rows() -> Vec<(usize, Vec<&'static str>)> {
    let row = |line: &'static str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let number = cells.get(1)?.parse().ok()?;
        let shown_by = cells.get(4).unwrap();
        Some((number, shown_by.split('`').skip(1).step_by(2).collect()))
    };
    PAGE.lines().filter_map(row).collect()
}

#[test]
fn every_requirement_of_the_security_page_names_tests_that_exist() {
    let rows = rows();
    let numbers: Vec<_> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=REQUIREMENTS).collect::<Vec<_>>());
    let mut tests: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (number, shown_by) in rows {
        assert!(!shown_by.is_empty(), "{number} names no test");
        for name in shown_by {
            let (file, _) = name.split_once("::").unwrap();
            let listed = tests.entry(file).or_insert_with(|| tests_of(file));
            assert!(listed.contains(name), "{number}: there is no test {name}");
        }
    }
}

#[test]
fn every_file_that_the_security_page_names_exists() {
    let files = PAGE
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with("tests/") || text.starts_with("fuzz/"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<_> = files.filter(|file| !root.join(file).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
