//! The connections that a store's statements go over: the application's pool, or the store's own.

use std::io::ErrorKind;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions as _, Connection, Database, Error, Pool};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::{Dialect, lost_a_race};
use crate::error::StoreError;

/// Connections that a store has to a server: as many as PostgreSQL's default limit lets a handful of nodes have.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const CONNECTIONS: usize = 16;

/// How long a server may take to accept the first of them.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that idled for longer is tried before it is used, which is a round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// How long such a trial may take.
const TRIAL: Duration = Duration::from_secs(1);

/// A connection that idled for longer is closed: a firewall between may have forgotten it.
const LONGEST_IDLE: Duration = Duration::from_secs(10 * 60);

/// One that is older is closed as well: the server that it leads to may have another role by now.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);

/// The pause after the first of several attempts to connect to a server that starts, or has no room. Each is twice as long as
/// the one before, so that all take three seconds.
const PAUSE: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 6;

/// Where the statements of a store go.
pub(super) enum Connections<DB: Database> {
    /// The application's pool.
    Shared(Pool<DB>),
    /// The store's own pool. That of sqlx asks each connection that comes back whether it is alive: one more round trip a
    /// statement, and with SQLite one more turn of another thread.
    Own(managed::Pool<Connector<DB>>),
}

impl<DB: Database> Connections<DB> {
    /// A pool of the store's own. Nothing is connected yet.
    pub(super) fn own(
        options: Options<DB>,
        dialect: &Dialect,
        max: usize,
    ) -> Result<Self, StoreError> {
        let connector = Connector {
            options,
            is_remote: dialect.is_remote,
        };
        let pool = managed::Pool::builder(connector).max_size(max).build();
        pool.map(Self::Own)
            .map_err(|error| StoreError::new("could not make a pool of connections", error))
    }

    /// A pool of connections to a server. The first says at once what is wrong, where the others are tried for a while.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn to_server(
        what: String,
        options: Options<DB>,
        dialect: &Dialect,
    ) -> Result<Self, StoreError> {
        let first = match timeout(CONNECTION_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(StoreError::new(what, error)),
            Err(elapsed) => return Err(StoreError::new(what, elapsed)),
        };
        // It is only a goodbye.
        drop(first.close().await);
        Self::own(options, dialect, CONNECTIONS)
    }

    async fn get(&self) -> Result<Held<DB>, Error> {
        match self {
            Self::Shared(pool) => pool.acquire().await.map(Held::Shared),
            Self::Own(pool) => match pool.get().await {
                Ok(connection) => Ok(Held::Own(connection)),
                Err(PoolError::Backend(error)) => Err(error),
                Err(_) => Err(Error::PoolClosed),
            },
        }
    }

    /// How many there are now.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Shared(pool) => usize::try_from(pool.size()).unwrap_or(usize::MAX),
            Self::Own(pool) => pool.status().size,
        }
    }
}

impl<DB: Database> Clone for Connections<DB> {
    fn clone(&self) -> Self {
        match self {
            Self::Shared(pool) => Self::Shared(pool.clone()),
            Self::Own(pool) => Self::Own(pool.clone()),
        }
    }
}

type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// Opens the connections of a store's own pool.
pub(super) struct Connector<DB: Database> {
    options: Options<DB>,
    is_remote: bool,
}

impl<DB: Database> managed::Manager for Connector<DB> {
    type Type = DB::Connection;
    type Error = Error;

    async fn create(&self) -> Result<DB::Connection, Error> {
        for attempt in 0..ATTEMPTS {
            match self.options.connect().await {
                Err(error) if is_passing(&error) => sleep(PAUSE * 2_u32.pow(attempt)).await,
                result => return result,
            }
        }
        self.options.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut DB::Connection,
        metrics: &Metrics,
    ) -> RecycleResult<Error> {
        if !self.is_remote {
            return Ok(());
        }
        let idle = metrics.last_used();
        if idle > LONGEST_IDLE || metrics.age() > LONGEST_LIFE {
            return Err(RecycleError::message("the connection is too old"));
        }
        if idle > TRUSTED_IDLE {
            match timeout(TRIAL, connection.ping()).await {
                Ok(answer) => answer?,
                Err(_) => return Err(RecycleError::message("the connection does not answer")),
            }
        }
        Ok(())
    }
}

/// Does a server refuse connections that it will take in a moment: nobody listens, it starts (57P03), or has too many (53300,
/// and MySQL's 08004).
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        Error::Database(error) => {
            matches!(error.code().as_deref(), Some("57P03" | "53300" | "08004"))
        }
        _ => false,
    }
}

enum Held<DB: Database> {
    Shared(PoolConnection<DB>),
    Own(Object<Connector<DB>>),
}

/// What is known of a call's statement.
enum Outcome {
    /// Nothing yet.
    Open,
    /// The database has answered.
    Answered,
    /// The connection has failed.
    Failed,
}

/// A connection for one statement.
///
/// One to a server whose call was dropped midway is closed: it may be dead, and sqlx would wait for it without end before it
/// is used again, and let nobody else have its place.
pub(super) struct Call<DB: Database> {
    // There until this is dropped.
    held: Option<Held<DB>>,
    is_remote: bool,
    outcome: Outcome,
}

impl<DB: Database> Call<DB> {
    pub(super) async fn begin(
        connections: &Connections<DB>,
        dialect: &Dialect,
    ) -> Result<Self, Error> {
        Ok(Self {
            held: Some(connections.get().await?),
            is_remote: dialect.is_remote,
            outcome: Outcome::Open,
        })
    }

    pub(super) fn connection(&mut self) -> Result<&mut DB::Connection, Error> {
        match &mut self.held {
            Some(Held::Shared(connection)) => Ok(connection),
            Some(Held::Own(connection)) => Ok(connection),
            None => Err(Error::PoolClosed),
        }
    }

    /// The statement came to this.
    pub(super) fn end<T>(mut self, answer: &Result<T, Error>) {
        let has_failed = match answer {
            Ok(_) => false,
            Err(Error::WorkerCrashed) => true,
            // A server that ends a connection, or writes no more, says so with an error like any other. Those that belong to
            // the statement are few.
            Err(Error::Database(error)) if error.is_unique_violation() => false,
            Err(error) => self.is_remote && !lost_a_race(error),
        };
        self.outcome = if has_failed {
            Outcome::Failed
        } else {
            Outcome::Answered
        };
    }
}

impl<DB: Database> Drop for Call<DB> {
    fn drop(&mut self) {
        match (self.held.take(), &self.outcome) {
            (None, _) | (Some(_), Outcome::Answered) => {}
            (Some(Held::Shared(mut connection)), _) => {
                if self.is_remote {
                    connection.close_on_drop();
                }
            }
            (Some(Held::Own(connection)), Outcome::Failed) => {
                // What else waits has most likely failed as well.
                if let Some(pool) = Object::pool(&connection) {
                    pool.retain(|_, _| false);
                }
                drop(Object::take(connection));
            }
            (Some(Held::Own(mut connection)), Outcome::Open) => {
                if self.is_remote {
                    drop(Object::take(connection));
                } else if let Ok(runtime) = Handle::try_current() {
                    // A database in this process finishes what was begun. Nobody else waits behind it.
                    runtime.spawn(async move { drop(connection.ping().await) });
                }
            }
        }
    }
}
