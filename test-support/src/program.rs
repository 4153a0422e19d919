//! Starts a program as its own process, and sends it requests over a socket.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use url::Url;

/// A running program. It is killed when this value is dropped.
pub struct Program {
    pub process: Child,
    /// The host and the port that it listens on.
    pub address: String,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a program that takes its port from `PORT`. The first line that it prints is its
    /// address.
    pub fn start(binary: impl AsRef<OsStr>, environment: &[(&str, &str)]) -> Self {
        Self::spawn(binary, environment, Stdio::inherit())
    }

    /// Starts a program, and also gives the lines of its standard error as they come.
    pub fn start_to_listen(
        binary: impl AsRef<OsStr>,
        environment: &[(&str, &str)],
    ) -> (Self, Receiver<String>) {
        let mut program = Self::spawn(binary, environment, Stdio::piped());
        let errors = BufReader::new(program.process.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in errors.lines() {
                // After the test nobody reads these lines.
                let _ = sender.send(line.unwrap());
            }
        });
        (program, lines)
    }

    fn spawn(binary: impl AsRef<OsStr>, environment: &[(&str, &str)], stderr: Stdio) -> Self {
        let mut process = Command::new(&binary)
            .env("PORT", "0")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("http://") else {
            let (program, ended) = (binary.as_ref().display(), process.wait());
            panic!("{program} says no address: {line:?}, {ended:?}");
        };
        Self {
            process,
            address: address.to_owned(),
            output,
        }
    }

    /// The next line that the program prints.
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub fn page(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    /// Sends a request. Returns the status, the headers and the body of the answer.
    pub fn send(&self, method: &str, path: &str, header: &str) -> (u16, String, String) {
        self.send_form(method, path, header, "")
    }

    pub fn send_form(
        &self,
        method: &str,
        path: &str,
        header: &str,
        form: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let (host, length) = (&self.address, form.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n{header}\r\n{form}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].parse().unwrap(),
            head.to_owned(),
            body.to_owned(),
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The value of a header, up to a semicolon.
pub fn value(head: &str, header: &str) -> String {
    let line = head.lines().find(|line| line.starts_with(header)).unwrap();
    let value = line[header.len() + 2..].split(';').next();
    value.unwrap().to_owned()
}

/// The Cookie header that a client sends back.
pub fn cookie(head: &str) -> String {
    format!("Cookie: {}\r\n", value(head, "set-cookie"))
}

/// A command that may call cargo again. Cargo gives a test some variables about its package. With
/// these variables, the build of some dependencies would look different, and cargo would build them
/// once more.
pub fn without_variables_of_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// The program of one of cloakroom's examples. The same cargo that runs the tests builds it, with
/// the tests' profile. Not every test run builds the examples.
pub fn binary(example: &str) -> PathBuf {
    // This test is at target/<profile>/deps/<test>.
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.ancestors().nth(2).unwrap();
    let profile = match profile_dir.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        name => name,
    };
    let built = without_variables_of_cargo(env!("CARGO"))
        .args(["build", "--quiet", "--all-features"])
        .args(["--example", example, "--profile", profile, "--target-dir"])
        .arg(profile_dir.parent().unwrap())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
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
