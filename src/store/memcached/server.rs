//! [`Server`]: one Memcached server, and the connections to it.

use async_memcached::{Client, Error};
use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::error::{BoxError, StoreError};
use crate::store::pool::{CONNECTIONS, TRUSTED_IDLE};

const DEFAULT_PORT: u16 = 11211;

pub(super) struct Server {
    pub(super) address: String,
    pool: Pool<Connector>,
}

impl Server {
    pub(super) fn new(host: &str) -> Result<Self, StoreError> {
        let address = match host.rsplit_once(':') {
            Some(_) => host.to_owned(),
            None => format!("{host}:{DEFAULT_PORT}"),
        };
        let connector = Connector {
            address: address.clone(),
        };
        let pool = Pool::builder(connector)
            .max_size(CONNECTIONS)
            .build()
            .map_err(|error| {
                StoreError::new("could not make a pool of connections").with_source(error)
            })?;
        Ok(Self { address, pool })
    }

    pub(super) async fn connection(&self) -> Result<Object<Connector>, Failure> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error.into(),
            error => Failure(Box::new(error)),
        })
    }

    /// The largest item that the server takes. The client library has no call for it.
    pub(super) async fn largest_item(&self) -> Result<usize, std::io::Error> {
        let mut stream = BufReader::new(TcpStream::connect(&self.address).await?);
        stream.write_all(b"stats settings\r\n").await?;
        let mut lines = stream.lines();
        let mut largest = None;
        while let Some(line) = lines.next_line().await? {
            if let Some(size) = line.strip_prefix("STAT item_size_max ") {
                largest = size.parse().ok();
            } else if !line.starts_with("STAT ") {
                break;
            }
        }
        largest.ok_or_else(|| {
            std::io::Error::other("the server does not list its settings as Memcached does")
        })
    }

    /// Whether the error means that the connection broke. Then the idle connections are broken too,
    /// and are dropped.
    pub(super) fn is_broken(&self, error: &Error) -> bool {
        let is_broken = matches!(error, Error::Io(_) | Error::ConnectionClosed);
        if is_broken {
            self.pool.retain(|_, _| false);
        }
        is_broken
    }
}

/// Makes the connections of a pool.
pub(super) struct Connector {
    address: String,
}

impl managed::Manager for Connector {
    type Type = Client;
    type Error = Error;

    async fn create(&self) -> Result<Client, Error> {
        Client::new(format!("tcp://{}", self.address)).await
    }

    async fn recycle(&self, client: &mut Client, metrics: &Metrics) -> RecycleResult<Error> {
        // A connection whose call was dropped midway has closed itself.
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if metrics.last_used() > TRUSTED_IDLE {
            client.version().await?;
        }
        Ok(())
    }
}

/// Why a call failed.
pub(super) struct Failure(BoxError);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(Box::new(error))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message.into())
    }
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}
