//! The connections that a store's statements go over: the application's pool, or the store's own.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions as _, Connection, Database, Error, Pool};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Dialect;
use crate::error::StoreError;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::store::tls;

/// Connections that a store has to a server: as many as PostgreSQL's default limit lets a handful of nodes have.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const CONNECTIONS: usize = 16;

/// How long a server may take to accept the first connection and its login, or SQLite to open a file.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The same of later connections. It is shorter, since callers wait for one that an earlier caller
/// began, and a new one may work by then.
const LATER_CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server may take to answer a statement whose caller has gone away. The connection is
/// closed after that, for it may be dead, and the pool has room for another. It is short, since
/// such connections keep others waiting.
const ABANDONED_TIMEOUT: Duration = Duration::from_secs(2);

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
            abandoned: Mutex::default(),
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
            Ok(Err(error)) => {
                let how = format!("in the URL, with {}=/path/to/ca.pem", dialect.authority);
                let what = what + &tls::advice(&error, &how);
                return Err(StoreError::new(what, error));
            }
            Err(elapsed) => {
                let what = format!(
                    "{what}: the server did not answer within {CONNECTION_TIMEOUT:?}; check that the host \
                     and the port are those of {}, and that no firewall is between",
                    dialect.engine
                );
                return Err(StoreError::new(what, elapsed));
            }
        };
        // It is only a goodbye, and a server may not take it.
        drop(timeout(TRIAL, first.close()).await);
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
    /// Connections that are being made, and whose callers have gone away. The next callers take
    /// them: a login may take longer than the callers wait, and then no connection would ever be
    /// ready.
    abandoned: Mutex<Vec<Connecting<DB>>>,
}

type Connecting<DB> = JoinHandle<Result<<DB as Database>::Connection, Error>>;

impl<DB: Database> Connector<DB> {
    fn abandoned(&self) -> MutexGuard<'_, Vec<Connecting<DB>>> {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, and tries again for a while where a server starts, or has no room.
async fn connect<DB: Database>(options: Options<DB>) -> Result<DB::Connection, Error> {
    let once = async || match timeout(LATER_CONNECTION_TIMEOUT, options.connect()).await {
        Ok(result) => result,
        Err(elapsed) => Err(std::io::Error::new(ErrorKind::TimedOut, elapsed).into()),
    };
    for attempt in 0..ATTEMPTS {
        match once().await {
            Err(error) if is_passing(&error) => sleep(PAUSE * 2_u32.pow(attempt)).await,
            result => return result,
        }
    }
    once().await
}

/// A caller's wait for a connection that a task makes. Where the caller goes away, the task is kept
/// for the next one.
struct Awaited<'a, DB: Database> {
    connector: &'a Connector<DB>,
    // There until this is dropped.
    task: Option<Connecting<DB>>,
}

impl<DB: Database> Future for Awaited<'_, DB> {
    type Output = Result<DB::Connection, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.task else {
            return Poll::Pending;
        };
        let result = std::task::ready!(Pin::new(task).poll(context));
        self.task = None;
        // A task that ended otherwise belonged to a runtime that has ended.
        Poll::Ready(result.unwrap_or(Err(Error::WorkerCrashed)))
    }
}

impl<DB: Database> Drop for Awaited<'_, DB> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.connector.abandoned().push(task);
        }
    }
}

impl<DB: Database> managed::Manager for Connector<DB> {
    type Type = DB::Connection;
    type Error = Error;

    async fn create(&self) -> Result<DB::Connection, Error> {
        if !self.is_remote {
            return self.options.connect().await;
        }
        // Not in the loop's head, which would keep the lock.
        let next = || self.abandoned().pop();
        while let Some(task) = next() {
            let has_idled = task.is_finished();
            let task = Some(task);
            let connector = self;
            let connected = Awaited { connector, task }.await;
            let Ok(mut connection) = connected else {
                continue;
            };
            if !has_idled || matches!(timeout(TRIAL, connection.ping()).await, Ok(Ok(()))) {
                return Ok(connection);
            }
        }
        let task = Some(tokio::spawn(connect::<DB>(self.options.clone())));
        let connector = self;
        Awaited { connector, task }.await
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

/// A connection for one statement, or for several that belong together.
///
/// One to a server whose call was not ended is closed: nobody knows what it would answer next.
pub(super) struct Call<DB: Database> {
    // There until this is dropped.
    held: Option<Held<DB>>,
    dialect: &'static Dialect,
    outcome: Outcome,
}

impl<DB: Database> Call<DB> {
    pub(super) async fn begin(
        connections: &Connections<DB>,
        dialect: &'static Dialect,
    ) -> Result<Self, Error> {
        Ok(Self {
            held: Some(connections.get().await?),
            dialect,
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
            // Nothing was sent.
            Err(Error::Encode(_)) => false,
            // A server that ends a connection, or writes no more, says so with an error like any
            // other.
            Err(Error::Database(error)) => !(self.dialect.is_of_statement)(&**error),
            Err(_) => self.dialect.is_remote,
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
        let is_remote = self.dialect.is_remote;
        match (self.held.take(), &self.outcome) {
            (None, _) | (Some(_), Outcome::Answered) => {}
            (Some(Held::Shared(mut connection)), _) => {
                if is_remote {
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
            (Some(Held::Own(connection)), Outcome::Open) => {
                // A database in this process finishes what was begun, and then takes the next
                // statement.
                if is_remote {
                    drop(Object::take(connection));
                }
            }
        }
    }
}

/// A call that has begun. Where its caller goes away, it goes on in a task of its own until the
/// database has answered, so that its connection is good for others. A client that resets its
/// requests would else cost them a new connection each.
pub(super) struct Begun<T: Send + 'static> {
    // There until it is over.
    call: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// How long it may go on by itself.
    limit: Option<Duration>,
}

impl<T: Send + 'static> Begun<T> {
    pub(super) fn new(dialect: &Dialect, call: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            call: Some(Box::pin(call)),
            // A database in this process always answers.
            limit: dialect.is_remote.then_some(ABANDONED_TIMEOUT),
        }
    }
}

impl<T: Send + 'static> Future for Begun<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        let answer = std::task::ready!(call.as_mut().poll(context));
        self.call = None;
        Poll::Ready(answer)
    }
}

impl<T: Send + 'static> Drop for Begun<T> {
    fn drop(&mut self) {
        // Without a runtime, or with one that is about to end, the call is dropped, which closes
        // its connection.
        let Some(call) = self.call.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let limit = self.limit;
        runtime.spawn(async move {
            match limit {
                Some(limit) => drop(timeout(limit, call).await),
                None => drop(call.await),
            }
        });
    }
}
