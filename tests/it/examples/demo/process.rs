//! Starts the demo as its own process, as a user would.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use support::program::binary;
use tempfile::TempDir;
use url::Url;

/// A running demo with its own directory. It is killed when this value is dropped.
pub(crate) struct Demo {
    process: Child,
    url: Url,
    dir: Arc<TempDir>,
}

impl Demo {
    /// Starts the demo on a free port, with an empty database.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(args: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), args)
    }

    /// Starts another process on the same files.
    pub(crate) fn another(&self, args: &[&str]) -> Self {
        Self::start_in(Arc::clone(&self.dir), args)
    }

    fn start_in(dir: Arc<TempDir>, args: &[&str]) -> Self {
        let (process, url) = spawn(dir.path(), args);
        Self { process, url, dir }
    }

    /// Kills the demo, as a crash would. Starts it again, with the same files and another port.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    pub(crate) fn restart_with(&mut self, args: &[&str]) {
        self.kill();
        (self.process, self.url) = spawn(self.dir.path(), args);
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The address of a page.
    pub(crate) fn page(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    pub(crate) fn database(&self) -> PathBuf {
        database(self.dir.path())
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.database().with_extension("key")
    }

    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Sends the signal with this name.
    pub(crate) fn signal(&mut self, name: &str) {
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

/// Starts the demo's process, and waits for its address.
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
