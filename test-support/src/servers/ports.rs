//! Ports. Each server claims a port that no other test uses.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

use super::templates::home;

/// These ports are lower than the ones that Linux gives to outgoing connections. So nothing else
/// takes the port of a killed server.
const PORTS: std::ops::Range<u16> = 20_000..22_000;

/// A Redis Cluster node listens for the other nodes at its port plus this number.
pub(crate) const CLUSTER_BUS: u16 = 10_000;

/// A free port, whose cluster bus port is also free. Other tests do not use it while the file is
/// open.
pub(crate) fn claim_port() -> (u16, File) {
    let claims = home().join("ports");
    fs::create_dir_all(&claims).unwrap();
    let start = RandomState::new().hash_one(0) % u64::from(PORTS.end - PORTS.start);
    let ports = PORTS.cycle().skip(start as usize);
    for port in ports.take(PORTS.len()) {
        let claim = File::create(claims.join(port.to_string())).unwrap();
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if claim.try_lock().is_ok() && is_free(port) && is_free(port + CLUSTER_BUS) {
            return (port, claim);
        }
    }
    panic!("no port is free");
}
