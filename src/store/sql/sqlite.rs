//! [`SqliteStore`]: sessions in one SQLite file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Row, Sqlite};

use super::connections::{Call, Connections};
use super::{
    Dialect, PURGED_AT_ONCE, Statements, Table, implement_store, in_batches, run, to_integer,
    to_timestamp,
};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

/// How long a write waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

static DIALECT: Dialect = Dialect {
    engine: "SQLite",
    store: "SqliteStore",
    quote: '"',
    numbered: false,
    is_remote: false,
    no_table: "no such table",
    purge: "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE expires_at <= ? LIMIT ?)",
};

/// Sessions in one SQLite file, which several processes of a machine may share. SQLite itself is compiled in.
///
/// What is answered survives a crash of the process and of the machine: commits are synced to the disk, or a logout could be
/// undone by a power failure. Something has to purge expired sessions from time to time:
/// [`Sessions::spawn_purge`](crate::Sessions::spawn_purge). Clones share one pool of connections.
///
/// ```
/// use cloakroom::{SessionLayer, SigningKey, SqliteStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = SqliteStore::open(":memory:").await?; // or a path
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    /// Several connections, or the writer's where a database has but one.
    reader: Connections<Sqlite>,
    /// One connection, so that writes of this process wait in a queue and not in SQLite's busy loop.
    writer: Connections<Sqlite>,
    statements: Arc<Statements>,
}

/// Readers beside the one writer that SQLite allows: each has a thread of its own. They are more than the processors, since a
/// reader rests while its answer is on the way: with as many, a loaded store does little more than half as much.
fn readers() -> usize {
    std::thread::available_parallelism().map_or(8, |processors| (4 * processors.get()).min(16))
}

impl SqliteStore {
    /// Opens a file, which is made where there is none, in WAL mode, and migrates it. `:memory:` is a database that ends with
    /// the store.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or is no SQLite database.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let failed = |error| {
            StoreError::new(
                format!("could not open the SQLite database {}", path.display()),
                error,
            )
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = Connections::own(options.clone(), &DIALECT, 1)?;
        // A database in memory ends with its connection.
        let reader = match path.as_os_str() == ":memory:" {
            true => writer.clone(),
            false => Connections::own(options.read_only(true), &DIALECT, readers())?,
        };
        for connections in [&writer, &reader] {
            let first = Call::begin(connections, &DIALECT).await.map_err(failed)?;
            first.end(&Ok(()));
        }
        let store = Self::over(reader, writer);
        store.migrate().await?;
        Ok(store)
    }

    /// A store on the application's own pool. Call [`migrate`](Self::migrate) before use. The pool should have WAL mode and a
    /// busy timeout.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let connections = Connections::Shared(pool);
        Self::over(connections.clone(), connections)
    }

    /// The statements of [`migrate`](Self::migrate), for those who run migrations themselves. Each can run again.
    #[must_use]
    pub fn migration(&self) -> Vec<String> {
        let table = &self.statements.table;
        let quoted = table.quoted(&DIALECT);
        let expiry = table.index(&DIALECT, "expires_at");
        let user = table.index(&DIALECT, "user_id");
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (\n    \
                     id BLOB NOT NULL PRIMARY KEY,\n    \
                     version INTEGER NOT NULL,\n    \
                     user_id TEXT,\n    \
                     expires_at INTEGER NOT NULL,\n    \
                     record BLOB NOT NULL\n\
                 ) STRICT"
            ),
            format!("CREATE INDEX IF NOT EXISTS {expiry} ON {quoted} (expires_at)"),
            format!(
                "CREATE INDEX IF NOT EXISTS {user} ON {quoted} (user_id) WHERE user_id IS NOT NULL"
            ),
        ]
    }

    /// Makes the table and its indexes, where they are missing.
    ///
    /// When the future is dropped, it can be called again.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        for statement in self.migration() {
            run!(
                self,
                "make the session table",
                writer.execute(sqlx::query(AssertSqlSafe(statement.clone())))
            );
        }
        Ok(())
    }

    /// SQLite lets one process write at a time, so that nobody has to take turns.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        in_batches(async || {
            let done = run!(
                self,
                "purge expired sessions",
                writer.execute(
                    sqlx::query(Self::sql(&self.statements.purge))
                        .bind(to_integer(now.as_millis()))
                        .bind(PURGED_AT_ONCE)
                )
            );
            Ok(done.rows_affected())
        })
        .await
    }
}

implement_store! { SqliteStore, Sqlite, SqliteRow }
