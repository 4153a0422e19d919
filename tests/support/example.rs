//! Starts an example as a process of its own, and asks it over a socket.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::programs::binary;

/// A running example, which is killed when this is dropped.
pub struct Example {
    process: Child,
    pub address: String,
}

impl Example {
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    pub fn start_with(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::spawn(name, environment, Stdio::inherit())
    }

    /// Also gives the lines that the example complains with, as they come.
    pub fn start_to_listen(name: &str, environment: &[(&str, &str)]) -> (Self, Receiver<String>) {
        let mut example = Self::spawn(name, environment, Stdio::piped());
        let errors = BufReader::new(example.process.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in errors.lines() {
                // Nobody listens after the test.
                let _ = sender.send(line.unwrap());
            }
        });
        (example, lines)
    }

    fn spawn(name: &str, environment: &[(&str, &str)], stderr: Stdio) -> Self {
        let mut process = Command::new(binary(name))
            .env("PORT", "0")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().to_owned();
        Self { process, address }
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

impl Drop for Example {
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
