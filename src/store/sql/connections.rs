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

use super::dialect::Dialect;
use crate::error::StoreError;
use crate::store::pool::{ABANDONED_TIMEOUT, TRUSTED_IDLE};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::store::pool::{CONNECTION_TIMEOUT, CONNECTIONS};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::store::tls;

/// How long a server may take to accept a connection after the first one. It is shorter than
/// `CONNECTION_TIMEOUT`: callers wait for a connection that an earlier caller began, and a new
/// attempt may succeed by then.
const LATER_CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

impl Dialect {
    /// How long a call may go on after its callers have gone away. A database in this process
    /// always answers.
    pub(super) fn abandoned_timeout(&self) -> Option<Duration> {
        self.is_remote.then_some(ABANDONED_TIMEOUT)
    }
}

/// How long the trial of an idle connection may take.
const TRIAL: Duration = Duration::from_secs(1);

/// A connection that idled for longer is closed: a firewall on the way may have forgotten it.
const LONGEST_IDLE: Duration = Duration::from_secs(10 * 60);

/// A connection that is older is closed: its server may have another role by now.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);

/// The pause after the first attempt to connect to a server that starts, or has no room. Each pause
/// is twice as long as the one before, so that all of them take three seconds.
const PAUSE: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 6;

/// Where the statements of a store go.
pub(super) enum Connections<DB: Database> {
    /// The application's pool.
    Shared(Pool<DB>),
    /// The store's own pool. sqlx's pool asks each connection that comes back whether it is alive.
    /// That is one more round trip for each statement; with SQLite, another thread has to answer.
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
        pool.map(Self::Own).map_err(|error| {
            StoreError::new("could not make a pool of connections").with_source(error)
        })
    }

    /// A pool of connections to a server. The first connection fails at once if something is wrong.
    /// Later connections are tried for a while.
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
                let what = what + &tls::advice(&error, &how) + &dialect.advice(&error);
                return Err(StoreError::new(what).with_source(error));
            }
            Err(elapsed) => {
                let what = format!(
                    "{what}: the server did not answer within {CONNECTION_TIMEOUT:?}; check that \
                     the host and the port are those of {}, and that no firewall is between",
                    dialect.context
                );
                return Err(StoreError::new(what).with_source(elapsed));
            }
        };
        // This tells the server that the connection ends. A server may not answer it.
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

    /// What a further connection to the same database is made with.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn options(&self) -> Options<DB> {
        match self {
            Self::Shared(pool) => (*pool.connect_options()).clone(),
            Self::Own(pool) => pool.manager().options.clone(),
        }
    }

    /// How many connections there are now.
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
    /// them. Otherwise no connection would ever be ready if a login takes longer than callers wait.
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

/// Connects, and tries again for a while if the server starts, or has no room.
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

/// A caller's wait for a connection that a task makes. If the caller goes away, the task is kept
/// for the next caller.
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
        // A task without a result belonged to a runtime that has ended.
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
        // The head of the loop would keep the lock.
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

/// Whether the server may accept a connection in a moment: nobody listens yet, the server starts
/// (57P03), or it has too many connections (53300, and MySQL's 08004).
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
/// If the call is not ended, a connection to a server is closed: nobody knows what the server would
/// answer next.
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

    /// Notes what came of the statement, and gives the connection back.
    pub(super) fn end<T>(mut self, answer: &Result<T, Error>) {
        let has_failed = match answer {
            Ok(_) => false,
            Err(Error::WorkerCrashed) => true,
            // Nothing was sent.
            Err(Error::Encode(_)) => false,
            // A server that ends a connection, or writes no more, answers with such an error too.
            Err(Error::Database(error)) => !(self.dialect.is_of_statement)(&**error),
            Err(_) => self.dialect.is_remote,
        };
        // SQLite rolls back by itself if the disk is full. Then sqlx's own rollback fails, and sqlx
        // takes each later transaction for a part of the old one: it would never be committed.
        let is_stuck = answer.is_err()
            && self
                .connection()
                .is_ok_and(|connection| connection.is_in_transaction());
        self.outcome = if has_failed || is_stuck {
            Outcome::Failed
        } else {
            Outcome::Answered
        };
    }
}

impl<DB: Database> Drop for Call<DB> {
    fn drop(&mut self) {
        let is_remote = self.dialect.is_remote;
        let has_failed = matches!(self.outcome, Outcome::Failed);
        match (self.held.take(), &self.outcome) {
            (None, _) | (Some(_), Outcome::Answered) => {}
            (Some(Held::Shared(mut connection)), _) => {
                if is_remote || has_failed {
                    connection.close_on_drop();
                }
            }
            (Some(Held::Own(connection)), Outcome::Failed) => {
                // The idle connections have most likely failed as well.
                if let Some(pool) = Object::pool(&connection) {
                    pool.retain(|_, _| false);
                }
                drop(Object::take(connection));
            }
            (Some(Held::Own(connection)), Outcome::Open) => {
                // A network connection whose call was cancelled may be dead, and sqlx would wait
                // for it without a limit before the next use. A database in this process finishes
                // the statement, and then takes the next one.
                if is_remote {
                    drop(Object::take(connection));
                }
            }
        }
    }
}

/// A call that has begun. If its caller goes away, the call goes on in a task until the database
/// has answered. Then its connection is good for other calls. Otherwise, a client that resets its
/// requests would cost a new connection for each of them.
pub(super) struct Begun<T: Send + 'static> {
    // There until the call is over.
    call: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// How long the call may go on in a task.
    limit: Option<Duration>,
}

impl<T: Send + 'static> Begun<T> {
    pub(super) fn new(dialect: &Dialect, call: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            call: Some(Box::pin(call)),
            limit: dialect.abandoned_timeout(),
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
        // Without a runtime, the call is dropped here. A runtime that is about to end drops it too.
        // Either closes its connection.
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
