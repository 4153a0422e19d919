//! Redis with sentinels.

use std::fs;

use super::super::process::Server;
use super::super::programs::text;
use super::{REDIS, run_redis, wait_for};

/// A master, a replica, and three sentinels. Two sentinels are enough for a decision. The master's
/// name is `cloakroom`.
pub struct RedisSentinel {
    master: Server,
    replica: Server,
    sentinels: [Server; 3],
}

impl RedisSentinel {
    /// Starts the servers. Waits until every sentinel knows the other sentinels and the replica.
    pub fn start() -> Self {
        let master = Server::redis(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port().to_string();
        let replica = Server::redis(&[
            "--repl-diskless-sync-delay",
            "0",
            "--replicaof",
            "127.0.0.1",
            &port,
        ]);
        wait_for(&replica, &["INFO", "replication"], |info| {
            info.contains("master_link_status:up")
        });
        let sentinel = || {
            Server::launch(REDIS, |place| {
                let config = place.dir.join("sentinel.conf");
                let lines = [
                    format!("port {}", place.port),
                    "bind 127.0.0.1".to_owned(),
                    format!("dir {}", text(&place.dir)),
                    format!("sentinel monitor cloakroom 127.0.0.1 {port} 2"),
                    "sentinel down-after-milliseconds cloakroom 1000".to_owned(),
                    "sentinel failover-timeout cloakroom 3000\n".to_owned(),
                ];
                fs::write(&config, lines.join("\n")).unwrap();
                vec![text(&config), "--sentinel".to_owned()]
            })
        };
        let sentinels = [sentinel(), sentinel(), sentinel()];
        for sentinel in &sentinels {
            // With this command the sentinels find each other sooner. An older Redis does not know
            // it, and needs some seconds.
            run_redis(
                &sentinel.address(),
                &["SENTINEL", "DEBUG", "PUBLISH-PERIOD", "100"],
            );
        }
        for sentinel in &sentinels {
            wait_for(sentinel, &["INFO", "sentinel"], |info| {
                info.contains("status=ok") && info.contains("slaves=1,sentinels=3")
            });
        }
        // The replica reports the link as up before the master sends writes. The master first waits
        // for a message from the replica.
        wait_for(&replica, &["INFO", "replication"], |info| {
            !info.contains("slave_repl_offset:0\r")
        });
        Self {
            master,
            replica,
            sentinels,
        }
    }

    /// The master and the replica.
    pub fn nodes(&self) -> [&Server; 2] {
        [&self.master, &self.replica]
    }

    /// The addresses of the sentinels.
    pub fn sentinels(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::address).collect()
    }

    pub fn master(&mut self) -> &mut Server {
        &mut self.master
    }

    pub fn replica(&mut self) -> &mut Server {
        &mut self.replica
    }
}
