//! Data directories that all tests share as templates. Each one is made once.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::{NOBODY, ServerProgram, find_program, is_root, run};

/// Increase this number if the code makes the templates in another way.
const TEMPLATE_FORMAT: u32 = 1;

/// The directory for the files that tests share. It is in cargo's target directory.
pub(crate) fn home() -> PathBuf {
    // A test is at target/<profile>/deps/<test>. A benchmark is at target/<profile>/<program>.
    let program = env::current_exe().unwrap();
    let directory = program.parent().unwrap();
    let profile = match directory.ends_with("deps") {
        true => directory.parent().unwrap(),
        false => directory,
    };
    profile.parent().unwrap().join("test-servers")
}

/// A directory that the program may use.
pub(crate) fn temporary_dir(program: &ServerProgram) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if program.refuses_root && is_root() {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    dir
}

/// The template of a program's data directory. `make` gets the path, and makes the template once
/// for all tests.
pub(crate) fn template(program: &ServerProgram, make: impl FnOnce(&Path)) -> PathBuf {
    let version = run(Command::new(find_program(program.name, program.package)).arg("--version"));
    let version = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap();
    let name = format!("{}-{version}-{TEMPLATE_FORMAT}", program.name);
    let template = home().join(&name);
    if template.exists() {
        return template;
    }
    fs::create_dir_all(home()).unwrap();
    let lock = File::create(home().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let dir = temporary_dir(program);
        make(&dir.path().join("data"));
        let draft = home().join(format!("{name}.draft"));
        // A killed test may have left this directory.
        let _ = fs::remove_dir_all(&draft);
        copy(&dir.path().join("data"), &draft);
        fs::rename(draft, &template).unwrap();
    }
    template
}

pub(crate) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([from, to]));
}
