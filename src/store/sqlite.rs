//! [`SqliteStore`]: sessions in one SQLite file.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, SqliteExecutor};

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

/// How long a write waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// Readers beside the one writer that SQLite allows.
const READERS: u32 = 4;

/// How many records one statement of a purge removes, so that no write waits long for it.
const PURGED_AT_ONCE: i64 = 500;

/// Sessions in one SQLite file, which several processes of a machine may share. SQLite itself is compiled in.
///
/// What is answered survives a crash of the process and of the machine: commits are synced to the disk, or a logout could be
/// undone by a power failure. Something has to call [`Sessions::purge_expired`](crate::Sessions::purge_expired) from time to
/// time. Clones share one pool of connections.
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
    reader: SqlitePool,
    /// One connection, so that writes of this process wait in a queue and not in SQLite's busy loop.
    writer: SqlitePool,
}

impl SqliteStore {
    /// The statements of [`migrate`](Self::migrate), for those who run migrations themselves. Each can run again.
    pub const MIGRATION: &'static [&'static str] = &[
        "CREATE TABLE IF NOT EXISTS cloakroom_sessions (
            id BLOB NOT NULL PRIMARY KEY,
            version INTEGER NOT NULL,
            user_id TEXT,
            expires_at INTEGER NOT NULL,
            record BLOB NOT NULL
        ) STRICT",
        "CREATE INDEX IF NOT EXISTS cloakroom_sessions_expires_at ON cloakroom_sessions (expires_at)",
        "CREATE INDEX IF NOT EXISTS cloakroom_sessions_user_id ON cloakroom_sessions (user_id) WHERE user_id IS NOT NULL",
    ];

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
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                // A database in memory ends with its connection.
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        let reader = match path.as_os_str() == ":memory:" {
            true => writer.clone(),
            false => pool(READERS)
                .connect_with(options.read_only(true))
                .await
                .map_err(failed)?,
        };
        let store = Self { reader, writer };
        store.migrate().await?;
        Ok(store)
    }

    /// A store on the application's own pool. Call [`migrate`](Self::migrate) before use. The pool should have WAL mode and a
    /// busy timeout.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self {
            reader: pool.clone(),
            writer: pool,
        }
    }

    /// Makes the table and its indexes, where they are missing.
    ///
    /// When the future is dropped, it can be called again.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        for statement in Self::MIGRATION {
            sqlx::query(*statement)
                .execute(&self.writer)
                .await
                .map_err(failed("migrate the session table"))?;
        }
        Ok(())
    }
}

/// What an SQLite error means for the store.
fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| match &error {
        sqlx::Error::Database(inner) if inner.message().contains("no such table") => {
            StoreError::new(
                format!(
                    "could not {what}: SQLite has no table `cloakroom_sessions`; call `SqliteStore::migrate` first"
                ),
                error,
            )
        }
        _ => StoreError::new(format!("could not {what} in SQLite"), error),
    }
}

fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_timestamp(integer: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(integer).unwrap_or(0))
}

/// The record of a row with the columns `expires_at` and `record`. Columns of other types are a corrupt record too.
fn to_record(id: RecordId, row: &SqliteRow) -> Option<Record> {
    let expires_at = row.try_get("expires_at").unwrap_or(0);
    let bytes: &[u8] = row.try_get("record").unwrap_or_default();
    Some(Record::decode(id, bytes)?.with_expires_at(to_timestamp(expires_at)))
}

async fn exists(id: RecordId, executor: impl SqliteExecutor<'_>) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM cloakroom_sessions WHERE id = ?")
        .bind(&id.as_bytes()[..])
        .fetch_optional(executor)
        .await?;
    Ok(row.is_some())
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let row = sqlx::query("SELECT expires_at, record FROM cloakroom_sessions WHERE id = ?")
            .bind(&id.as_bytes()[..])
            .fetch_optional(&self.reader)
            .await
            .map_err(failed("read a session"))?;
        Ok(row.and_then(|row| to_record(id, &row)))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO cloakroom_sessions (id, version, user_id, expires_at, record) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&id.as_bytes()[..])
        .bind(to_integer(record.version().number()))
        .bind(record.user().map(UserId::as_str))
        .bind(to_integer(record.expires_at().as_millis()))
        .bind(record.encode()?)
        .execute(&self.writer)
        .await
        .map_err(failed("write a new session"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let done = sqlx::query(
            "UPDATE cloakroom_sessions SET version = ?, user_id = ?, expires_at = ?, record = ?
             WHERE id = ? AND version = ?",
        )
        .bind(to_integer(record.version().number()))
        .bind(record.user().map(UserId::as_str))
        .bind(to_integer(record.expires_at().as_millis()))
        .bind(record.encode()?)
        .bind(&id.as_bytes()[..])
        .bind(to_integer(expected.number()))
        .execute(&self.writer)
        .await
        .map_err(failed("write a session"))?;
        if done.rows_affected() == 1 {
            return Ok(Replaced::Done);
        }
        let is_there = exists(id, &self.reader)
            .await
            .map_err(failed("read a session"))?;
        Ok(if is_there {
            Replaced::Conflict
        } else {
            Replaced::Missing
        })
    }

    async fn touch(&self, id: RecordId, expires_at: Timestamp) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE cloakroom_sessions SET expires_at = ? WHERE id = ?")
            .bind(to_integer(expires_at.as_millis()))
            .bind(&id.as_bytes()[..])
            .execute(&self.writer)
            .await
            .map_err(failed("touch a session"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM cloakroom_sessions WHERE id = ?")
            .bind(&id.as_bytes()[..])
            .execute(&self.writer)
            .await
            .map_err(failed("remove a session"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut purged = 0;
        loop {
            let done = sqlx::query(
                "DELETE FROM cloakroom_sessions WHERE rowid IN
                 (SELECT rowid FROM cloakroom_sessions WHERE expires_at <= ? LIMIT ?)",
            )
            .bind(to_integer(now.as_millis()))
            .bind(PURGED_AT_ONCE)
            .execute(&self.writer)
            .await
            .map_err(failed("purge expired sessions"))?;
            purged += done.rows_affected();
            if done.rows_affected() < PURGED_AT_ONCE.unsigned_abs() {
                return Ok(purged);
            }
        }
    }
}

#[async_trait]
impl UserIndex for SqliteStore {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let rows =
            sqlx::query("SELECT id, expires_at, record FROM cloakroom_sessions WHERE user_id = ?")
                .bind(user.as_str())
                .fetch_all(&self.reader)
                .await
                .map_err(failed("list a user's sessions"))?;
        let session = |row: &SqliteRow| {
            let id = RecordId::from_bytes(row.try_get::<&[u8], _>("id").ok()?.try_into().ok()?);
            Some((id, to_record(id, row)?))
        };
        Ok(rows.iter().filter_map(session).collect())
    }

    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM cloakroom_sessions WHERE user_id = ?1 AND (?2 IS NULL OR id <> ?2)",
        )
        .bind(user.as_str())
        .bind(except.as_ref().map(|id| &id.as_bytes()[..]))
        .execute(&self.writer)
        .await
        .map_err(failed("remove a user's sessions"))?;
        Ok(done.rows_affected())
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("connections", &self.reader.size())
            .finish_non_exhaustive()
    }
}
