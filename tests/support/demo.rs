//! Starts the demo as a process of its own, as a user would.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use url::Url;

/// A running demo with a directory of its own. It is killed when this is dropped.
pub struct Demo {
    process: Child,
    url: Url,
    dir: Arc<TempDir>,
}

impl Demo {
    /// Starts the demo on a free port, with an empty database.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(args: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), args)
    }

    /// Starts another process on the same files.
    pub fn another(&self, args: &[&str]) -> Self {
        Self::start_in(Arc::clone(&self.dir), args)
    }

    fn start_in(dir: Arc<TempDir>, args: &[&str]) -> Self {
        let (process, url) = spawn(dir.path(), args);
        Self { process, url, dir }
    }

    /// Kills the demo, as a crash would, and starts it again on the same files and another port.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    pub fn restart_with(&mut self, args: &[&str]) {
        self.kill();
        (self.process, self.url) = spawn(self.dir.path(), args);
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The address of a page.
    pub fn page(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    pub fn database(&self) -> PathBuf {
        database(self.dir.path())
    }

    pub fn key_file(&self) -> PathBuf {
        self.database().with_extension("key")
    }

    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Sends a signal, by its name.
    pub fn signal(&mut self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("demo.sqlite3")
}

/// The demo's process, once it has said where it listens.
fn spawn(dir: &Path, args: &[&str]) -> (Child, Url) {
    let mut process = Command::new(binary("login"))
        .args(["--listen", "127.0.0.1:0", "--database"])
        .arg(database(dir))
        .args(args)
        .env("RUST_LOG", "off")
        .env_remove("PORT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let url = loop {
        match lines.next() {
            Some(Ok(line)) => {
                if let Some(url) = line.strip_prefix("cloakroom demo on ") {
                    break Url::parse(url).unwrap();
                }
            }
            _ => panic!("the demo ended without an address: {:?}", process.wait()),
        }
    };
    (process, url)
}

/// An example's program, built by the cargo that runs the tests, with its profile. Not every test run builds the examples.
pub fn binary(example: &str) -> PathBuf {
    // This is target/<profile>/deps/<test>.
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.ancestors().nth(2).unwrap();
    let profile = match profile_dir.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        name => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test of its package would be news to the build of some dependencies: to be built once more.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    let built = cargo
        .args(["build", "--quiet", "--all-features"])
        .args(["--example", example, "--profile", profile, "--target-dir"])
        .arg(profile_dir.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    let binary = profile_dir
        .join("examples")
        .join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        built.is_ok_and(|status| status.success()) && binary.exists(),
        "the example cannot be built; see what `cargo build --example {example}` says"
    );
    binary
}
