//! [`Servers`]: what a URL says about the servers, and the clients that connect to them.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    RedisError, RedisResult,
};

use super::link::{CONNECTION_TIMEOUT, RESPONSE_TIMEOUT};

/// How often a cluster's client follows a move of slots or a failover until it gives up.
const CLUSTER_RETRIES: u32 = 6;

/// The servers of a URL, with the login and the settings of connections to them.
#[derive(Clone)]
pub(super) enum Servers {
    One(Box<ConnectionInfo>),
    Sentinel {
        sentinels: Vec<ConnectionAddr>,
        master: String,
        servers: Box<SentinelNodeConnectionInfo>,
    },
    /// Some nodes of a cluster.
    Cluster(Vec<ConnectionInfo>),
}

/// The client that makes connections.
pub(super) enum Source {
    Server(Box<Client>),
    Sentinel(Box<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

/// One connection to a server, or one to each node of a cluster.
#[derive(Clone)]
pub(super) enum Wire {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Servers {
    pub(super) fn source(&self) -> RedisResult<Source> {
        Ok(match self {
            Self::One(info) => Source::Server(Box::new(Client::open((**info).clone())?)),
            Self::Sentinel {
                sentinels,
                master,
                servers,
            } => Source::Sentinel(Box::new(SentinelClient::build(
                sentinels.clone(),
                master.clone(),
                Some((**servers).clone()),
                SentinelServerType::Master,
            )?)),
            Self::Cluster(nodes) => Source::Cluster(Box::new(
                ClusterClient::builder(nodes.clone())
                    .connection_timeout(CONNECTION_TIMEOUT)
                    .response_timeout(RESPONSE_TIMEOUT)
                    .retries(CLUSTER_RETRIES)
                    .max_retry_wait(200)
                    .min_retry_wait(20)
                    .tcp_settings(tcp())
                    .build()?,
            )),
        })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

impl Source {
    /// A new connection. A cluster's client has settings of its own.
    pub(super) async fn connect(&mut self, config: &AsyncConnectionConfig) -> RedisResult<Wire> {
        Ok(match self {
            Self::Server(client) => Wire::Server(
                client
                    .get_multiplexed_async_connection_with_config(config)
                    .await?,
            ),
            Self::Sentinel(client) => {
                Wire::Server(client.get_async_connection_with_config(config).await?)
            }
            Self::Cluster(client) => Wire::Cluster(client.get_async_connection().await?),
        })
    }
}

pub(super) fn tcp() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    // If the network loses all packets, the connection ends, and the store makes another one.
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(5));
    settings
}

/// The version that a server names, if it is too old for the protocol of the store's connections.
pub(super) async fn version_of_old(info: &ConnectionInfo, error: &RedisError) -> Option<String> {
    if error.kind() != ErrorKind::RESP3NotSupported {
        return None;
    }
    let settings = info.redis_settings().clone();
    let settings = settings.set_protocol(ProtocolVersion::RESP2);
    let info = info.clone().set_redis_settings(settings);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let client = Client::open(info).ok()?;
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connection.await.ok()?;
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("server").query_async(&mut connection).await.ok()?;
    line_of(&info, "redis_version").map(str::to_owned)
}

/// The value of a line `name:value` of an answer to `INFO`.
pub(super) fn line_of<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| (found == name).then_some(value))
}
