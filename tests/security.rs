//! What the security page of the documentation says is tested, is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../docs/security.md");

/// How many requirements the page has.
const REQUIREMENTS: usize = 45;

/// All tests of the project, as `file::test`, or `lib::test` where they are in `src`.
fn tests() -> BTreeSet<String> {
    // Built with the features that this one is built with, so that nothing has to be built.
    let features: &[&str] = match cfg!(feature = "tls") {
        true => &["--all-features"],
        false => &[],
    };
    let built = Command::new(env!("CARGO"))
        .args(["test", "--lib", "--tests", "--no-run", "--quiet"])
        .args(["--message-format", "json"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let mut tests = BTreeSet::new();
    for line in String::from_utf8(built.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(program), Some(name)) = (
            message["executable"].as_str(),
            message["target"]["name"].as_str(),
        ) else {
            continue;
        };
        let file = match message["target"]["kind"][0].as_str() {
            Some("test") => name,
            _ => "lib",
        };
        let listed = Command::new(program)
            .args(["--list", "--format", "terse"])
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let names = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        tests.extend(names.map(|name| format!("{file}::{name}")));
    }
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
    let tests = tests();
    for (number, shown_by) in rows {
        assert!(!shown_by.is_empty(), "{number} names no test");
        for name in shown_by {
            assert!(tests.contains(name), "{number}: there is no test {name}");
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
