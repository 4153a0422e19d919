//! Stores of every kind, each with its own servers. A URL opens the store, as in an application.

use cloakroom::AnyStore;
use tempfile::TempDir;

use crate::servers::{Proxy, RedisCluster, RedisSentinel, Server, run_redis};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
    MySql,
    /// It stores nothing on disk.
    Redis,
    /// It answers only after it has written to the disk.
    DurableRedis,
    RedisCluster,
    RedisSentinel,
    /// Two servers.
    Memcached,
    /// It stores nothing on disk, not even its table.
    #[cfg(feature = "dynamodb")]
    DynamoDb,
}

/// The store of a URL. Applications have no URL of DynamoDB, but the tests do.
pub async fn open(url: &str) -> AnyStore {
    #[cfg(feature = "dynamodb")]
    if let Some(address) = url.strip_prefix("dynamodb://") {
        let wire = crate::dynamodb::Wire::to_address(address);
        return AnyStore::from_user_index(wire.store("sessions").await);
    }
    AnyStore::connect(url).await.unwrap()
}

/// A store's servers. They end when this value is dropped.
pub struct Backend {
    kind: Kind,
    servers: Servers,
    /// There is one proxy in front of each server. A cluster has its own proxies, and Sentinel has
    /// none.
    proxies: Vec<Proxy>,
}

enum Servers {
    File(TempDir),
    Single(Vec<Server>),
    Cluster(RedisCluster),
    Sentinel(RedisSentinel),
}

impl Backend {
    pub fn start(kind: Kind) -> Self {
        let servers = match kind {
            Kind::Sqlite => Servers::File(tempfile::tempdir().unwrap()),
            Kind::Postgres => Servers::Single(vec![Server::postgres()]),
            Kind::MySql => Servers::Single(vec![Server::mariadb()]),
            Kind::Redis => Servers::Single(vec![Server::redis(&[])]),
            Kind::DurableRedis => {
                let durable = ["--appendonly", "yes", "--appendfsync", "always"];
                Servers::Single(vec![Server::redis(&durable)])
            }
            Kind::RedisCluster => Servers::Cluster(RedisCluster::start()),
            Kind::RedisSentinel => Servers::Sentinel(RedisSentinel::start()),
            Kind::Memcached => {
                Servers::Single(vec![Server::memcached(&[]), Server::memcached(&[])])
            }
            #[cfg(feature = "dynamodb")]
            Kind::DynamoDb => Servers::Single(vec![Server::dynalite()]),
        };
        let proxies = match &servers {
            Servers::Single(servers) => servers
                .iter()
                .map(|server| Proxy::to(&server.address()))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            kind,
            servers,
            proxies,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The store's URL. It leads through the proxies.
    pub fn url(&self) -> String {
        self.url_of(self.proxies.iter().map(Proxy::address).collect())
    }

    /// The store's URL. It leads directly to the servers.
    pub fn direct_url(&self) -> String {
        self.url_of(match &self.servers {
            Servers::Single(servers) => servers.iter().map(Server::address).collect(),
            _ => Vec::new(),
        })
    }

    /// The URL of servers with these addresses. A store that names its servers itself ignores them.
    fn url_of(&self, single: Vec<String>) -> String {
        let addresses = match &self.servers {
            Servers::File(dir) => {
                return format!("sqlite:{}", dir.path().join("sessions.sqlite3").display());
            }
            Servers::Single(_) => single,
            Servers::Cluster(cluster) => cluster.addresses(),
            Servers::Sentinel(sentinel) => sentinel.sentinels(),
        };
        let addresses = addresses.join(",");
        match self.kind {
            Kind::Sqlite => panic!("a file has no address"),
            Kind::Postgres => format!("postgres://cloakroom:secret@{addresses}/cloakroom"),
            Kind::MySql => format!("mysql://cloakroom:secret@{addresses}/cloakroom"),
            Kind::Redis | Kind::DurableRedis => format!("redis://{addresses}"),
            Kind::RedisCluster => format!("redis+cluster://{addresses}"),
            Kind::RedisSentinel => format!("redis+sentinel://{addresses}/cloakroom"),
            Kind::Memcached => format!("memcache://{addresses}"),
            #[cfg(feature = "dynamodb")]
            Kind::DynamoDb => format!("dynamodb://{addresses}"),
        }
    }

    pub async fn store(&self) -> AnyStore {
        open(&self.url()).await
    }

    /// The servers that hold sessions and take writes.
    pub fn servers(&mut self) -> Vec<&mut Server> {
        match &mut self.servers {
            Servers::File(_) => Vec::new(),
            Servers::Single(servers) => servers.iter_mut().collect(),
            Servers::Cluster(cluster) => vec![cluster.master_with_replica()],
            Servers::Sentinel(sentinel) => vec![sentinel.master()],
        }
    }

    /// The servers that hold sessions and have no replica to replace them.
    pub fn irreplaceable(&mut self) -> Vec<&mut Server> {
        match &mut self.servers {
            Servers::Cluster(cluster) => cluster.masters_without_replica().iter_mut().collect(),
            Servers::Single(servers) => servers.iter_mut().collect(),
            Servers::File(_) | Servers::Sentinel(_) => Vec::new(),
        }
    }

    /// Drops the answers on every connection that goes through a proxy.
    pub fn mute(&self) {
        self.proxies().iter().for_each(Proxy::mute);
    }

    /// Closes every connection. New connections work.
    pub fn cut(&mut self) {
        self.proxies().iter().for_each(Proxy::cut);
        // Sentinels give clients the master's own address, so there is no proxy on the way.
        if let Servers::Sentinel(sentinel) = &mut self.servers {
            let master = sentinel.master().address();
            run_redis(&master, &["CLIENT", "KILL", "TYPE", "normal"]);
        }
    }

    fn proxies(&self) -> &[Proxy] {
        match &self.servers {
            Servers::Cluster(cluster) => cluster.proxies(),
            _ => &self.proxies,
        }
    }

    /// How many times a client has sent something and waited for the answer.
    pub fn round_trips(&self) -> u64 {
        self.proxies.iter().map(Proxy::round_trips).sum()
    }
}
