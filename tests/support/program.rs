//! Starts a program as a process of its own, and asks it over a socket.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// A running program, which is killed when this is dropped.
pub struct Program {
    pub process: Child,
    /// The host and the port that it listens on.
    pub address: String,
}

impl Program {
    /// Starts a program that takes its port from `PORT`, and says first where it listens.
    pub fn start(binary: impl AsRef<OsStr>, environment: &[(&str, &str)]) -> Self {
        Self::spawn(binary, environment, Stdio::inherit())
    }

    /// Also gives the lines that the program complains with, as they come.
    pub fn start_to_listen(
        binary: impl AsRef<OsStr>,
        environment: &[(&str, &str)],
    ) -> (Self, Receiver<String>) {
        let mut program = Self::spawn(binary, environment, Stdio::piped());
        let errors = BufReader::new(program.process.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in errors.lines() {
                // Nobody listens after the test.
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
        }
    }

    /// The status, the headers and the body of an answer.
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

/// The Cookie header that goes back.
pub fn cookie(head: &str) -> String {
    format!("Cookie: {}\r\n", value(head, "set-cookie"))
}
