//! A Redis Cluster.

use super::super::process::Server;
use super::super::proxy::Proxy;
use super::{assert_ok, run_redis, wait_for};

/// Three masters, each with a third of the slots. The first master has a replica.
pub struct RedisCluster {
    masters: [Server; 3],
    replica: Server,
    /// A proxy in front of each node. The node announces the proxy's address as its own.
    proxies: Vec<Proxy>,
}

impl RedisCluster {
    /// Starts the nodes. Waits until all nodes work and know the replica.
    pub fn start() -> Self {
        let node = || {
            Server::redis(&[
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                // The replica may take over at any time when its master has gone.
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ])
        };
        let mut cluster = Self {
            masters: [node(), node(), node()],
            replica: node(),
            proxies: Vec::new(),
        };
        for node in cluster.nodes().map(Server::address) {
            let proxy = Proxy::to(&node);
            let port = proxy.port().to_string();
            run_redis(&node, &["CONFIG", "SET", "cluster-announce-port", &port]);
            cluster.proxies.push(proxy);
        }
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (master, (first, last)) in cluster.masters.iter().zip(slots) {
            assert_ok(master, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        let first = &cluster.masters[0];
        for (epoch, node) in cluster.nodes().into_iter().enumerate() {
            let epoch = (epoch + 1).to_string();
            assert_ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let port = node.port().to_string();
            assert_ok(first, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        let id = run_redis(&first.address(), &["CLUSTER", "MYID"]);
        // This works only after the two nodes have met.
        wait_for(&cluster.replica, &["CLUSTER", "REPLICATE", &id], |answer| {
            answer == "OK"
        });
        wait_for(&cluster.replica, &["INFO", "replication"], |info| {
            info.contains("master_link_status:up")
        });
        for node in cluster.nodes() {
            wait_for(node, &["CLUSTER", "INFO"], |info| {
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            });
            wait_for(node, &["CLUSTER", "NODES"], |nodes| {
                nodes.contains(&format!("slave {id}")) && !nodes.contains("handshake")
            });
        }
        cluster
    }

    /// The three masters, and then the replica.
    pub fn nodes(&self) -> [&Server; 4] {
        let [first, second, third] = &self.masters;
        [first, second, third, &self.replica]
    }

    /// The addresses by which clients know the nodes. The last one is the replica's.
    pub fn addresses(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::address).collect()
    }

    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    pub fn masters_without_replica(&mut self) -> &mut [Server] {
        &mut self.masters[1..]
    }

    pub fn master_with_replica(&mut self) -> &mut Server {
        &mut self.masters[0]
    }

    pub fn replica(&mut self) -> &mut Server {
        &mut self.replica
    }
}
