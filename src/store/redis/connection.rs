//! How Redis is reached: one server, the master that Sentinel names, or a cluster.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisError, RedisFuture, RedisResult, ServerErrorKind, TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::error::StoreError;

/// For one attempt. The layer's store timeout bounds the whole.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// After which a node that says nothing is taken for lost, where there may be another in its place.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The manager of a connection asks again after an error only until then, and would never come back afterwards from one that
/// is not the network's: a server that had too many clients for a second, say. Calls that wait for it have their own timeout.
const RECONNECTIONS: usize = usize::MAX;

/// How often a cluster's client follows a move of slots or a failover before it gives up.
const CLUSTER_RETRIES: u32 = 6;

/// A connection that all requests share, and which comes back by itself.
#[derive(Clone)]
pub(super) enum Connection {
    Server(ConnectionManager),
    Sentinel(Sentinel),
    Cluster(ClusterConnection),
}

impl Connection {
    /// See [`RedisStore::open`](super::RedisStore::open) for the URLs.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (kind, plain) = match scheme.split_once('+') {
            Some((plain, kind)) => (kind, plain),
            None => ("", scheme),
        };
        match (plain, kind) {
            ("redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "unix", "") => {
                Self::server(url).await
            }
            ("redis" | "rediss", "unix") => Self::server(url).await,
            ("redis" | "rediss", "cluster") => Self::cluster(plain, rest).await,
            ("redis" | "rediss", "sentinel") => Self::sentinel(plain, rest).await,
            _ => Err(StoreError::message(
                "the Redis URL must begin with redis://, rediss://, redis+cluster:// or redis+sentinel://",
            )),
        }
    }

    async fn server(url: &str) -> Result<Self, StoreError> {
        let info = url.into_connection_info().map_err(wrong_url)?;
        let address = info.addr().to_string();
        let settings = info
            .redis_settings()
            .clone()
            // With it the end of an idle connection is noticed, and not at the cost of the next request.
            .set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
        let client = Client::open(info).map_err(wrong_url)?;
        // The manager would try again for a while, and then not say why.
        let _connected = client
            .get_multiplexed_async_connection_with_config(&config(None))
            .await
            .map_err(could_not_connect(&address))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_max_delay(Duration::from_millis(200))
            .set_number_of_retries(RECONNECTIONS)
            .set_response_timeout(None);
        let manager = ConnectionManager::new_lazy_with_config(client, config)
            .map_err(could_not_connect(&address))?;
        Ok(Self::Server(manager))
    }

    async fn cluster(scheme: &str, rest: &str) -> Result<Self, StoreError> {
        let nodes = nodes(scheme, rest)?;
        let addresses = addresses(&nodes);
        let connection = ClusterClient::builder(nodes)
            .connection_timeout(CONNECTION_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .retries(CLUSTER_RETRIES)
            .max_retry_wait(200)
            .min_retry_wait(20)
            .tcp_settings(tcp())
            .build()
            .map_err(wrong_url)?
            .get_async_connection()
            .await
            .map_err(could_not_connect(&addresses))?;
        Ok(Self::Cluster(connection))
    }

    /// `user:password@host:port,host:port/master/database`: the sentinels' addresses, and the servers' login.
    async fn sentinel(scheme: &str, rest: &str) -> Result<Self, StoreError> {
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() {
            return Err(StoreError::message(
                "the Redis Sentinel URL must end with the name of the master: redis+sentinel://host:port,host:port/name",
            ));
        }
        let nodes = nodes(scheme, hosts)?;
        let addresses = addresses(&nodes);
        let login = format!(
            "{scheme}://{}/{database}",
            hosts.split(',').next().unwrap_or(hosts)
        );
        let login = login.into_connection_info().map_err(wrong_url)?;
        let mut servers = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(login.redis_settings().clone())
            .set_tcp_settings(tcp());
        if scheme == "rediss" {
            servers = servers.set_tls_mode(TlsMode::Secure);
        }
        // The sentinels have no login, where the servers have one.
        let sentinels = nodes
            .iter()
            .map(|node| node.addr().clone())
            .collect::<Vec<_>>();
        let client = SentinelClient::build(
            sentinels,
            String::from(master),
            Some(servers),
            SentinelServerType::Master,
        )
        .map_err(wrong_url)?;
        let sentinel = Sentinel(Arc::new(SentinelState {
            client: Mutex::new(client),
            current: std::sync::Mutex::new(None),
        }));
        sentinel
            .connection()
            .await
            .map_err(could_not_connect(&addresses))?;
        Ok(Self::Sentinel(sentinel))
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
            Self::Sentinel(sentinel) => Box::pin(async move {
                let mut connection = sentinel.connection().await?;
                sentinel.watch(connection.req_packed_command(command).await)
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Sentinel(sentinel) => Box::pin(async move {
                let mut connection = sentinel.connection().await?;
                let answer = connection.req_packed_commands(pipeline, offset, count);
                sentinel.watch(answer.await)
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
            Self::Sentinel(_) => 0,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Sentinel(_) => "Sentinel",
            Self::Cluster(_) => "Cluster",
        })
    }
}

/// A connection to the master of the hour.
#[derive(Clone)]
pub(super) struct Sentinel(Arc<SentinelState>);

struct SentinelState {
    /// Locked while the sentinels are asked, so that one request does so for all.
    client: Mutex<SentinelClient>,
    current: std::sync::Mutex<Option<MultiplexedConnection>>,
}

impl Sentinel {
    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = self.current().clone() {
            return Ok(connection);
        }
        let mut client = self.0.client.lock().await;
        if let Some(connection) = self.current().clone() {
            return Ok(connection);
        }
        let connection = client
            .get_async_connection_with_config(&config(Some(RESPONSE_TIMEOUT)))
            .await?;
        *self.current() = Some(connection.clone());
        Ok(connection)
    }

    /// Passes an answer on, and asks the sentinels at the next call where it says that there may be another master.
    fn watch<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        if let Err(error) = &answer
            && is_no_master(error)
        {
            *self.current() = None;
        }
        answer
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_no_master(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_timeout()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

fn config(response_timeout: Option<Duration>) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_response_timeout(response_timeout)
}

fn tcp() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    // A network that swallows packets ends the connection, which is then made anew.
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(5));
    settings
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
    StoreError::new("the Redis URL is wrong", error)
}

fn could_not_connect(address: &str) -> impl Fn(RedisError) -> StoreError {
    move |error| StoreError::new(format!("could not connect to Redis at {address}"), error)
}
