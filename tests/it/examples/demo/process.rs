//! Starts the demo as its own process, as a user would.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::program::binary;
use tempfile::TempDir;
use url::Url;

/// A running demo with its own directory. It is killed when this value is dropped.
pub(crate) struct Demo {
    process: Child,
    url: Url,
    dir: Arc<TempDir>,
    /// With TLS: the hash of the certificate's public key, as the demo prints it.
    public_key_hash: Option<String>,
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
        let (process, url, public_key_hash) = spawn(dir.path(), args);
        Self {
            process,
            url,
            dir,
            public_key_hash,
        }
    }

    /// Kills the demo, as a crash would. Starts it again, with the same files and another port.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    pub(crate) fn restart_with(&mut self, args: &[&str]) {
        self.kill();
        (self.process, self.url, self.public_key_hash) = spawn(self.dir.path(), args);
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

    /// The file of the certificate that the demo makes for itself, and of its private key.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.database().with_extension("tls.pem")
    }

    pub(crate) fn public_key_hash(&self) -> &str {
        self.public_key_hash.as_deref().unwrap()
    }

    /// How many lines of the log have this text.
    pub(crate) fn count_logged(&self, text: &str) -> usize {
        let log = std::fs::read_to_string(log_file(self.dir.path())).unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// The first line of the log that has this text.
    pub(crate) fn logged(&self, text: &str) -> String {
        let log = std::fs::read_to_string(log_file(self.dir.path())).unwrap();
        let line = log.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no {text:?} in {log}"))
            .to_owned()
    }

    /// Waits until so many lines of the log have this text, or fails.
    pub(crate) async fn until_logged(&self, text: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.count_logged(text) < count {
            let log = || std::fs::read_to_string(log_file(self.dir.path())).unwrap();
            assert!(Instant::now() < deadline, "no {text:?} in {}", log());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
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

fn log_file(dir: &Path) -> PathBuf {
    dir.join("demo.log")
}

/// Starts the demo's process, and waits for its address.
fn spawn(dir: &Path, args: &[&str]) -> (Child, Url, Option<String>) {
    let mut process = Command::new(binary("login"))
        .args(["--listen", "127.0.0.1:0", "--database"])
        .arg(database(dir))
        .args(args)
        .env("RUST_LOG", "warn,cloakroom=debug")
        // Otherwise the log has colours, between a name and its value as well.
        .env("NO_COLOR", "1")
        .env_remove("PORT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log_file(dir)).unwrap())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut public_key_hash = None;
    let url = loop {
        match lines.next() {
            Some(Ok(line)) => {
                if let Some(url) = line.strip_prefix("cloakroom demo on ") {
                    break Url::parse(url).unwrap();
                }
                if let Some(hash) = line.strip_prefix("SHA-256 of the certificate's public key: ") {
                    public_key_hash = Some(hash.to_owned());
                }
            }
            _ => panic!("the demo ended without an address: {:?}", process.wait()),
        }
    };
    (process, url, public_key_hash)
}
