//! Memcached.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::process::Server;
use super::programs::{ServerProgram, is_root, strings};

const MEMCACHED: ServerProgram = ServerProgram {
    name: "memcached",
    package: "memcached",
    refuses_root: false,
    is_ready: memcached_is_ready,
};

impl Server {
    pub fn memcached(args: &[&str]) -> Self {
        Self::launch(MEMCACHED, |place| {
            let mut all = strings(&["-l", "127.0.0.1", "-p", &place.port.to_string(), "-U", "0"]);
            if is_root() {
                all.extend(strings(&["-u", "root"]));
            }
            all.extend(strings(args));
            all
        })
    }
}

fn memcached_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(b"version\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"VERSION")
}
