//! Writes that a cluster's client sends twice, because the first answer was lost.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cloakroom::{RedisStore, SessionLayer};
use support::servers::{RedisCluster, run_redis};
use support::{Browser, app, key};

/// The scripts that a node ran for a session's key, as `MONITOR` shows them.
#[derive(Clone)]
struct Watched {
    node: String,
    calls: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
}

impl Watched {
    fn start(node: String) -> Self {
        let mut stream = TcpStream::connect(&node).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        // The thread ends with the server.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let words = words(&line);
                let is_of_session = |words: &[Vec<u8>]| {
                    words
                        .get(3)
                        .is_some_and(|key| key.starts_with(b"cloakroom:session:"))
                };
                if words.first().is_some_and(|name| name == b"EVALSHA") && is_of_session(&words) {
                    seen.lock().unwrap().push(words);
                }
            }
        });
        Self { node, calls }
    }

    /// The last call since the last time a test asked for it.
    fn last(&self) -> Option<Vec<Vec<u8>>> {
        // `MONITOR` shows a command before the client gets its answer, but on another connection.
        run_redis(&self.node, &["ECHO", "done"]);
        thread::sleep(Duration::from_millis(50));
        std::mem::take(&mut *self.calls.lock().unwrap()).pop()
    }

    /// Sends the call again. Returns the answer.
    fn repeat(&self, call: &[Vec<u8>]) -> String {
        let mut request = format!("*{}\r\n", call.len()).into_bytes();
        for word in call {
            request.extend(format!("${}\r\n", word.len()).into_bytes());
            request.extend(word);
            request.extend(b"\r\n");
        }
        let mut stream = TcpStream::connect(&self.node).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    fn value(&self, call: &[Vec<u8>]) -> String {
        run_redis(&self.node, &["GET", str::from_utf8(&call[3]).unwrap()])
    }
}

/// The words of a line of `MONITOR`, which are between quotes.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word = None::<Vec<u8>>;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, &mut word) {
            (b'"', None) => word = Some(Vec::new()),
            (b'"', Some(_)) => words.extend(word.take()),
            (_, None) => {}
            (b'\\', Some(word)) => word.push(match bytes.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            }),
            (other, Some(word)) => word.push(other),
        }
    }
    words
}

const DONE: &str = ":1";
const CONFLICT: &str = ":0";

#[tokio::test]
async fn a_write_that_a_cluster_gets_twice_is_done_once_and_both_answers_say_done() {
    let cluster = RedisCluster::start();
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let store = RedisStore::connect(&url).await.unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    let masters = &cluster.nodes()[..3];
    let nodes: Vec<_> = masters
        .iter()
        .map(|node| Watched::start(node.address()))
        .collect();
    let last = || {
        let mut calls = nodes.iter().filter_map(|node| Some((node, node.last()?)));
        let call = calls.next().unwrap();
        assert!(calls.next().is_none());
        call
    };

    browser.get("/insert/number/0").await.assert(200, "done");
    let (node, insert) = last();
    let mut replaces: Vec<Vec<Vec<u8>>> = Vec::new();
    for number in 1..=30 {
        let path = format!("/insert/number/{number}");
        browser.get(&path).await.assert(200, "done");
        let (_, replace) = last();
        let value = node.value(&replace);
        assert_eq!(node.repeat(&replace), DONE, "write {number}");
        if let Some(before) = replaces.last() {
            assert_eq!(node.repeat(before), DONE, "the one before {number}");
        }
        if number < 5 {
            assert_eq!(node.repeat(&insert), DONE, "the insert, after {number}");
        }
        assert_eq!(node.value(&replace), value);
        replaces.push(replace);
    }
    // The last twelve or so are known.
    let value = node.value(&insert);
    assert_eq!(node.repeat(&replaces[20]), DONE);
    assert_eq!(node.repeat(&replaces[0]), CONFLICT);
    assert_eq!(node.repeat(&insert), CONFLICT);
    // A write with another name is another write.
    let mut other = replaces[29].clone();
    other.last_mut().unwrap()[0] ^= 1;
    assert_eq!(node.repeat(&other), CONFLICT);
    assert_eq!(node.value(&insert), value);
    browser.get("/get/number").await.assert(200, "30");
}
