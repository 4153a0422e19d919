//! The connections that a store's statements go over: the application's pool, or the store's own.

use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleResult};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions as _, Connection, Database, Error, Pool};

use super::Dialect;
use crate::error::StoreError;

/// A connection that idled for longer is tried before it is used, which is a round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);

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
        self.options.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut DB::Connection,
        metrics: &Metrics,
    ) -> RecycleResult<Error> {
        if self.is_remote && metrics.last_used() > TRUSTED_IDLE {
            connection.ping().await?;
        }
        Ok(())
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
        self.outcome = match answer {
            Ok(_) | Err(Error::Database(_)) => Outcome::Answered,
            Err(_) => Outcome::Failed,
        };
    }
}

impl<DB: Database> Drop for Call<DB> {
    fn drop(&mut self) {
        let closes = match self.outcome {
            Outcome::Answered => false,
            // A database in this process finishes what was begun.
            Outcome::Open => self.is_remote,
            Outcome::Failed => true,
        };
        match self.held.take() {
            Some(Held::Shared(mut connection)) if closes => connection.close_on_drop(),
            Some(Held::Own(connection)) if closes => drop(Object::take(connection)),
            Some(_) | None => {}
        }
    }
}
