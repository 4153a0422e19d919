//! Redis: a single server, and commands to it.

mod cluster;
mod sentinel;

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

pub use cluster::RedisCluster;
pub use sentinel::RedisSentinel;

use super::ports::CLUSTER_BUS;
use super::process::{Certificate, PATIENCE, Place, Server};
use super::programs::{ServerProgram, connect, strings, text};

const REDIS: ServerProgram = ServerProgram {
    name: "redis-server",
    package: "redis-server",
    refuses_root: false,
    is_ready: redis_is_ready,
};

impl Server {
    /// A Redis server. It stores nothing on disk, unless the arguments say so.
    pub fn redis(args: &[&str]) -> Self {
        Self::launch(REDIS, |place| redis_args(place, args))
    }

    /// Like [`redis`](Self::redis), but it also speaks TLS at [`tls_port`](Self::tls_port).
    pub fn redis_with(certificate: &Certificate, args: &[&str]) -> Self {
        Self::launch(REDIS, |place| {
            let (file, key) = certificate.write(place, &REDIS);
            let port = (place.port + CLUSTER_BUS).to_string();
            let mut all = redis_args(place, args);
            all.extend(strings(&["--tls-port", &port, "--tls-auth-clients", "no"]));
            all.extend(strings(&["--tls-cert-file", &file, "--tls-key-file", &key]));
            all
        })
    }

    pub fn tls_port(&self) -> u16 {
        self.place.port + CLUSTER_BUS
    }
}

fn redis_args(place: &Place, args: &[&str]) -> Vec<String> {
    let mut all = strings(&["--port", &place.port.to_string(), "--bind", "127.0.0.1"]);
    all.extend(strings(&["--dir", &text(&place.dir), "--save", ""]));
    all.extend(strings(args));
    all
}

/// Every answer means that the server is ready. Even a demand for a password does.
fn redis_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    let answer = exchange(stream, &["PING"])?;
    Ok(!answer.starts_with("LOADING"))
}

/// Redis's answer to one command, over a new connection. Nil is an empty text. An array has one
/// line for each element.
#[track_caller]
pub fn run_redis(address: &str, command: &[&str]) -> String {
    try_run_redis(address, command)
        .unwrap_or_else(|error| panic!("{command:?} at {address}: {error}"))
}

fn try_run_redis(address: &str, command: &[&str]) -> io::Result<String> {
    exchange(&mut connect(address, Duration::from_secs(5))?, command)
}

fn exchange(stream: &mut TcpStream, command: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    read_answer(&mut BufReader::new(stream))
}

fn read_answer(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let length = || rest.parse::<i64>().map_err(io::Error::other);
    match kind {
        "$" => match usize::try_from(length()?) {
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(_) => Ok(String::new()),
        },
        "*" => {
            let elements = (0..length()?).map(|_| read_answer(reader));
            Ok(elements.collect::<io::Result<Vec<_>>>()?.join("\n"))
        }
        "+" | "-" | ":" => Ok(rest.to_owned()),
        other => Err(io::Error::other(format!("an answer of the type {other}"))),
    }
}

/// Sends a command to Redis again and again, until the answer is right.
#[track_caller]
fn wait_for(server: &Server, command: &[&str], is_good: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = try_run_redis(&server.address(), command);
        if answer.as_ref().is_ok_and(|answer| is_good(answer)) {
            return;
        }
        if Instant::now() > deadline {
            panic!("{}", server.report(&format!("{command:?}: {answer:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_ok(server: &Server, command: &[&str]) {
    assert_eq!(run_redis(&server.address(), command), "OK", "{command:?}");
}
