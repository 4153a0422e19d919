//! dynalite, which speaks as Amazon DynamoDB does. It keeps its tables in memory.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::process::Server;
use super::programs::{ServerProgram, strings};

const DYNALITE: ServerProgram = ServerProgram {
    name: "dynalite",
    package: "npm dynalite@4",
    refuses_root: false,
    is_ready: dynalite_is_ready,
};

impl Server {
    pub fn dynalite() -> Self {
        Self::launch(DYNALITE, |place| {
            let port = place.port.to_string();
            strings(&[
                "--host",
                "127.0.0.1",
                "--port",
                &port,
                "--createTableMs",
                "20",
            ])
        })
    }
}

fn dynalite_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: dynalite\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"HTTP/1.1 200")
}
