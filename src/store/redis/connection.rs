//! How Redis is reached: one server, the master that Sentinel names, or a cluster.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, ConnectionManager};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::SentinelNodeConnectionInfo;
use redis::{
    Cmd, FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult, TlsMode,
    Value, from_redis_value,
};

use super::link::{Link, is_of_demoted};
use super::servers::{Servers, tcp, version_of_old};
use crate::error::StoreError;
use crate::store::tls;

/// The server is asked to close a connection of the application at most once in this time.
const CLOSED_EVERY: Duration = Duration::from_secs(1);

/// A connection that all requests share. It is replaced when it is lost.
#[derive(Clone)]
pub(super) enum Connection {
    /// The store made it.
    Own(Link),
    /// The application's, to one server.
    Manager(Manager),
    /// The application's, to a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// See [`RedisStore::connect`](super::RedisStore::connect) for the URLs.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (kind, plain) = match scheme.split_once('+') {
            Some((plain, kind)) => (kind, plain),
            None => ("", scheme),
        };
        #[cfg(feature = "tls")]
        if matches!(plain, "rediss" | "valkeys") {
            // The client library uses the crypto provider of the whole process. If the application
            // has chosen none, and its crates bring more than one, rustls would panic. An error
            // here means that the application has chosen one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        match (plain, kind) {
            ("redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "unix", "") => {
                Self::server(url).await
            }
            ("redis" | "rediss", "unix") => Self::server(url).await,
            ("redis" | "rediss", "cluster") => Self::cluster(plain, rest).await,
            ("redis" | "rediss", "sentinel") => Self::sentinel(plain, rest).await,
            _ => Err(StoreError::new(
                "the Redis URL must begin with redis://, rediss://, redis+cluster:// or \
                 redis+sentinel://",
            )),
        }
    }

    async fn server(url: &str) -> Result<Self, StoreError> {
        let info = url.into_connection_info().map_err(wrong_url)?;
        let address = info.addr().to_string();
        let settings = info
            .redis_settings()
            .clone()
            // With RESP3, the client notices that an idle connection ends. The next request does
            // not fail because of it.
            .set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
        Self::own(Servers::One(Box::new(info)), &address).await
    }

    async fn cluster(scheme: &str, rest: &str) -> Result<Self, StoreError> {
        let nodes = nodes(scheme, rest)?;
        let addresses = addresses(&nodes);
        Self::own(Servers::Cluster(nodes), &addresses).await
    }

    /// `user:password@host:port,host:port/master/database`: the addresses of the sentinels, and the
    /// login of the servers.
    async fn sentinel(scheme: &str, rest: &str) -> Result<Self, StoreError> {
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() {
            return Err(StoreError::new(
                "the Redis Sentinel URL must end with the name of the master: \
                 redis+sentinel://host:port,host:port/name",
            ));
        }
        let nodes = nodes(scheme, hosts)?;
        let addresses = addresses(&nodes);
        let login = format!(
            "{scheme}://{}/{database}",
            hosts.split(',').next().unwrap_or(hosts)
        );
        let login = login.into_connection_info().map_err(wrong_url)?;
        let settings = login
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let mut servers = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(settings)
            .set_tcp_settings(tcp());
        if scheme == "rediss" {
            servers = servers.set_tls_mode(TlsMode::Secure);
        }
        // The login is for the servers. The sentinels get none.
        let sentinels = nodes
            .iter()
            .map(|node| node.addr().clone())
            .collect::<Vec<_>>();
        let servers = Servers::Sentinel {
            sentinels,
            master: String::from(master),
            servers: Box::new(servers),
        };
        Self::own(servers, &addresses).await
    }

    /// Connects to these servers. The text is for an error.
    async fn own(servers: Servers, addresses: &str) -> Result<Self, StoreError> {
        let source = servers.source().map_err(wrong_url)?;
        match Link::open(servers.clone(), source).await {
            Ok(link) => Ok(Self::Own(link)),
            Err(error) => Err(match &servers {
                Servers::One(info) => match version_of_old(info, &error).await {
                    Some(version) => too_old(&version, addresses, error),
                    None => could_not_connect(addresses, error),
                },
                _ => could_not_connect(addresses, error),
            }),
        }
    }

    /// The server's answer to a command.
    ///
    /// It is not a call of the client's trait, which would put each call in a box.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let answer = match self {
            Self::Own(link) => link.call(command).await,
            Self::Manager(manager) => manager.call(command).await,
            Self::Cluster(connection) => connection.clone().req_packed_command(command).await,
        };
        Ok(from_redis_value(answer?.extract_error()?)?)
    }

    /// The answer of the master that has a slot. Without a cluster, it is that of the server.
    pub(super) async fn ask_master(&self, slot: u16, command: &Cmd) -> RedisResult<Value> {
        let mut cluster = match self {
            Self::Own(link) => match link.cluster().await? {
                Some(cluster) => cluster,
                None => return self.ask(command).await,
            },
            Self::Manager(_) => return self.ask(command).await,
            Self::Cluster(connection) => connection.clone(),
        };
        let route = Route::new(slot, SlotAddr::Master);
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
        cluster
            .route_command(command.clone(), route)
            .await?
            .extract_error()
    }

    pub(super) fn is_cluster(&self) -> bool {
        match self {
            Self::Own(link) => link.is_cluster(),
            Self::Manager(_) => false,
            Self::Cluster(_) => true,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_cluster() {
            true => "Cluster",
            false => "Server",
        })
    }
}

/// The application's manager. It makes a new connection only if the old one is closed.
#[derive(Clone)]
pub(super) struct Manager {
    connection: ConnectionManager,
    /// When the server was last asked to close the connection.
    closed_at: Arc<Mutex<Option<Instant>>>,
}

impl Manager {
    pub(super) fn new(connection: ConnectionManager) -> Self {
        Self {
            connection,
            closed_at: Arc::default(),
        }
    }

    /// The server's answer. A demoted server is asked to close the connection.
    async fn call(&self, command: &Cmd) -> RedisResult<Value> {
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_command(command).await;
        if !is_of_demoted(&answer) || !self.may_close() {
            return answer;
        }
        // The manager sees the end of the connection at the next call, or before.
        for last in ["QUIT", "PING"] {
            let _ = connection.send_packed_command(&redis::cmd(last)).await;
        }
        connection.send_packed_command(command).await
    }

    /// Whether this call may ask for the end of the connection. One call asks for all others, and
    /// not too often.
    fn may_close(&self) -> bool {
        let mut closed_at = self
            .closed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let may = closed_at.is_none_or(|at| at.elapsed() >= CLOSED_EVERY);
        if may {
            *closed_at = Some(Instant::now());
        }
        may
    }
}

/// The nodes of `user:password@host:port,host:port`, each with the login.
fn nodes(scheme: &str, rest: &str) -> Result<Vec<redis::ConnectionInfo>, StoreError> {
    let (login, hosts) = match rest.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), rest),
    };
    hosts
        .trim_end_matches('/')
        .split(',')
        .map(|host| {
            let url = format!("{scheme}://{login}{host}");
            url.into_connection_info().map_err(wrong_url)
        })
        .collect()
}

fn addresses(nodes: &[redis::ConnectionInfo]) -> String {
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
    addresses.join(", ")
}

fn wrong_url(error: RedisError) -> StoreError {
    StoreError::new("the Redis URL is wrong").with_source(error)
}

fn could_not_connect(address: &str, error: RedisError) -> StoreError {
    let how = "in the environment variable SSL_CERT_FILE";
    let advice = tls::advice(&error, how);
    StoreError::new(format!("could not connect to Redis at {address}{advice}")).with_source(error)
}

fn too_old(version: &str, address: &str, error: RedisError) -> StoreError {
    StoreError::new(format!(
        "the Redis at {address} has the version {version}, and the store needs Redis 7"
    ))
    .with_source(error)
}
