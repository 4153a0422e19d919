//! The security page of the documentation names a test for each requirement. These tests exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../../../docs/security.md");

/// The number of requirements on the page.
const REQUIREMENTS: usize = 51;

/// The names of the tests in a program. The program itself lists them.
fn tests_of(program: &Path) -> BTreeSet<String> {
    let listed = Command::new(program)
        .args(["--list", "--format", "terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// The tests in `src`. Cargo builds them into a program next to this one. Each name begins with
/// `lib::`.
///
/// Cargo could say where that program is. But then cargo would build the tests while they run.
fn tests_of_lib() -> BTreeSet<String> {
    let is_its_hash = |rest: &str| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    let own = std::env::current_exe().unwrap();
    let mut tests = BTreeSet::new();
    for entry in std::fs::read_dir(own.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.strip_suffix(std::env::consts::EXE_SUFFIX);
        let hash = stem.and_then(|stem| stem.strip_prefix("cloakroom-"));
        if hash.is_some_and(is_its_hash) {
            let names = tests_of(&path);
            tests.extend(names.into_iter().map(|name| format!("lib::{name}")));
        }
    }
    assert!(
        !tests.is_empty(),
        "build all tests first, with `cargo test --no-run`: there is none of `src`"
    );
    tests
}

/// The rows of the page that begin with a number. For each one: the number, and the texts in
/// backquotes in the last column.
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
    let mut tests = tests_of(&std::env::current_exe().unwrap());
    tests.extend(tests_of_lib());
    for (number, shown_by) in rows {
        assert!(!shown_by.is_empty(), "{number} names no test");
        for name in shown_by {
            assert!(tests.contains(name), "{number}: there is no test {name}");
        }
    }
}

/// The page for auditors, and how many requirements chapter 7 of the ASVS has.
const AUDIT_PAGE: &str = include_str!("../../../docs/audit.md");
const OF_CHAPTER_7: usize = 19;

#[test]
fn every_line_of_the_page_for_auditors_names_tests_that_exist() {
    let mut tests = tests_of(&std::env::current_exe().unwrap());
    tests.extend(tests_of_lib());
    let lines = AUDIT_PAGE.lines().filter(|line| line.starts_with("| 7."));
    let mut requirements = BTreeSet::new();
    for line in lines {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let names: Vec<_> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{line}");
        for name in names {
            assert!(
                tests.contains(name),
                "{}: there is no test {name}",
                cells[1]
            );
        }
        requirements.insert(cells[1]);
    }
    assert_eq!(requirements.len(), OF_CHAPTER_7);
}

/// How many attacks the page has on tokens that rotate, on sessions that are bound to a device, on
/// encrypted records, and on assertions.
const ATTACKS: [(char, usize); 4] = [('R', 9), ('D', 25), ('E', 7), ('A', 27)];

#[test]
fn every_attack_of_the_security_page_names_tests_that_exist() {
    let mut tests = tests_of(&std::env::current_exe().unwrap());
    tests.extend(tests_of_lib());
    for (letter, count) in ATTACKS {
        check_attacks(&tests, letter, count);
    }
}

fn check_attacks(tests: &BTreeSet<String>, letter: char, count: usize) {
    let start = format!("| {letter}");
    let is_attack = |line: &&str| {
        let rest = line.strip_prefix(&*start);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let attacks = PAGE.lines().filter(is_attack);
    let mut numbers = Vec::new();
    for line in attacks {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        numbers.push(cells[1][1..].parse::<usize>().unwrap());
        let names: Vec<_> = cells[4].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{line}");
        for name in names {
            assert!(
                tests.contains(name),
                "{}: there is no test {name}",
                cells[1]
            );
        }
    }
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
}

#[test]
fn every_file_that_the_security_page_names_exists() {
    let files = PAGE.split('`').skip(1).step_by(2).filter(|text| {
        let folders = ["tests/", "test-support/", "fuzz/"];
        folders.iter().any(|folder| text.starts_with(folder))
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<_> = files.filter(|file| !root.join(file).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
