//! Each short example does what its first lines say.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/demo.rs"]
mod programs;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running example, which is killed when this is dropped.
struct Example {
    process: Child,
    address: String,
}

impl Example {
    fn start(name: &str) -> Self {
        let mut process = Command::new(programs::binary(name))
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().to_owned();
        Self { process, address }
    }

    /// The status, the headers and the body of an answer.
    fn send(&self, method: &str, path: &str, header: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n"
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
fn value(head: &str, header: &str) -> String {
    let line = head.lines().find(|line| line.starts_with(header)).unwrap();
    let value = line[header.len() + 2..].split(';').next();
    value.unwrap().to_owned()
}

/// The Cookie header that goes back.
fn cookie(head: &str) -> String {
    format!("Cookie: {}\r\n", value(head, "set-cookie"))
}

#[test]
fn counter_and_custom_store_count_each_visitors_visits() {
    for name in ["counter", "custom_store"] {
        let example = Example::start(name);
        let (_, head, body) = example.send("GET", "/", "");
        assert_eq!(body, "This is your visit number 1.\n");
        let cookie = cookie(&head);
        for n in 2..4 {
            let (_, _, body) = example.send("GET", "/", &cookie);
            assert_eq!(body, format!("This is your visit number {n}.\n"));
        }
        assert_eq!(
            example.send("GET", "/", "").2,
            "This is your visit number 1.\n"
        );
    }
}

#[test]
fn typed_keys_keeps_a_cart() {
    let example = Example::start("typed_keys");
    let (_, head, body) = example.send("GET", "/add/7", "");
    assert_eq!(body, "In your cart now: [7]\n");
    let cookie = cookie(&head);
    assert_eq!(
        example.send("GET", "/add/8", &cookie).2,
        "In your cart now: [7, 8]\n"
    );
    assert_eq!(
        example.send("GET", "/", &cookie).2,
        "In your cart: [7, 8]\n"
    );
    assert_eq!(
        example.send("GET", "/empty", &cookie).2,
        "Out of your cart: [7, 8]\n"
    );
    assert_eq!(example.send("GET", "/", &cookie).2, "In your cart: []\n");
}

#[test]
fn flash_shows_its_message_once() {
    let example = Example::start("flash");
    assert!(!example.send("GET", "/", "").2.contains("saved"));
    let (status, head, _) = example.send("POST", "/", "");
    assert_eq!(status, 303);
    let cookie = cookie(&head);
    assert!(
        example
            .send("GET", "/", &cookie)
            .2
            .contains("Your changes are saved.")
    );
    assert!(!example.send("GET", "/", &cookie).2.contains("saved"));
}

#[test]
fn bearer_gives_a_token_in_a_header_and_takes_it_in_another() {
    let example = Example::start("bearer");
    assert_eq!(example.send("GET", "/me", "").0, 401);
    let (status, head, _) = example.send("POST", "/login/ada", "");
    assert_eq!(status, 204);
    let token = format!(
        "Authorization: Bearer {}\r\n",
        value(&head, "x-session-token")
    );
    assert_eq!(example.send("GET", "/me", &token).2, "You are ada.\n");
    assert_eq!(example.send("POST", "/logout", &token).0, 204);
    assert_eq!(example.send("GET", "/me", &token).0, 401);
}

#[test]
fn plain_tower_counts_without_a_server() {
    let output = Command::new(programs::binary("plain_tower"))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "visit 1\nvisit 2\nvisit 3\n"
    );
}

#[test]
fn every_example_begins_with_how_to_run_it() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let main = if path.is_dir() {
            path.join("main.rs")
        } else {
            path
        };
        let text = std::fs::read_to_string(&main).unwrap();
        assert!(
            text.starts_with("//! Run with `cargo run --example "),
            "{}",
            main.display()
        );
        seen += 1;
    }
    assert!(seen >= 7);
}
