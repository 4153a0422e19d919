//! [`SqliteStore`]: sessions in one SQLite file.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Sqlite;
use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous,
};
use tokio::time::timeout;

use self::feed::Wake;
use super::batches::{ONE_LANE, implement_batched_writes};
use super::connections::{Call, Connections};
use super::dialect::{Dialect, REMOVE_BY_USER, no_advice};
use super::implement::{implement_make_table, implement_store, run};
use super::statements::{Statements, WriteManyTexts, sql, to_integer};
use super::{PURGED_AT_ONCE, in_batches, migrated};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::store::batch::{Batches, MOST_CALLS, READ_LANES};
use crate::store::pool::CONNECTION_TIMEOUT;

mod feed;
mod many;

/// How long a write waits for a write of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

static DIALECT: Dialect = Dialect {
    context: "SQLite",
    store: "SqliteStore",
    quote: '"',
    numbered: false,
    is_remote: false,
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    authority: "",
    is_of_statement,
    is_of_record,
    advice: no_advice,
    no_table: "no such table",
    purge: "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE expires_at <= ? LIMIT ?)",
    remove_by_user: REMOVE_BY_USER,
};

static WRITE_MANY: WriteManyTexts = WriteManyTexts {
    insert: "INSERT INTO {table} (id, version, user_id, external_id, expires_at, record) \
             SELECT column1, column2, column3, column4, column5, column6 FROM (VALUES {rows}) \
             WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING RETURNING id",
    replace: "UPDATE {table} AS old SET version = column2, user_id = column3, \
              external_id = column4, expires_at = CASE WHEN old.expires_at > column5 \
              THEN old.expires_at ELSE column6 END, record = column7 FROM (VALUES {rows}) \
              WHERE old.id = column1 AND old.version = column8 RETURNING id",
    touch: "UPDATE {table} AS old SET expires_at = column2 FROM (VALUES {rows}) \
            WHERE old.id = column1 AND old.version = column3 RETURNING id",
    remove: "DELETE FROM {table} WHERE id IN ({rows}) RETURNING id",
    renews_plans: false,
};

/// See `Dialect`. These are SQLITE_TOOBIG, SQLITE_CONSTRAINT and SQLITE_MISMATCH. The last eight
/// bits of a code are its kind.
fn is_of_record(error: &dyn DatabaseError) -> bool {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    matches!(code.map(|code| code & 0xff), Some(18..=20))
}

/// See `Dialect`. A database in this process never closes a connection, and a new connection would
/// lead to the same database.
fn is_of_statement(_: &dyn DatabaseError) -> bool {
    true
}

/// A database that ends with its connection.
const IN_MEMORY: &str = ":memory:";

/// The options that SQLite and sqlx take behind a path in a URL.
const OPTIONS: [&str; 6] = ["cache=", "immutable=", "mode=", "nolock=", "psow=", "vfs="];

/// Refuses a text that is not a path, and says what to write. SQLite would make a file whose name
/// nobody expects; or two databases, one for the writer and one for the readers.
///
/// The error does not show the text: it may be a URL with a password in it.
fn check_path(path: &Path) -> Result<(), StoreError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let begins = |start: &str| {
        let first = bytes.get(..start.len());
        first.is_some_and(|first| first.eq_ignore_ascii_case(start.as_bytes()))
    };
    let has_options = path.to_str().and_then(|path| path.rsplit_once('?'));
    let has_options = has_options
        .is_some_and(|(_, options)| OPTIONS.iter().any(|option| options.starts_with(option)));
    let reason = if bytes.is_empty() {
        "is empty: name a file, or `:memory:` for a database that ends with the store"
    } else if bytes.contains(&0) {
        "has a NUL in it, and no file can have such a name"
    } else if path.as_os_str() == IN_MEMORY {
        return Ok(());
    } else if begins(":") {
        "begins with a colon: a database in memory is `:memory:`, and a file of such a name is \
         `./:name`"
    } else if begins("file:") || begins("sqlite:") {
        "is a URL: give the path alone; a file whose name begins so is `./file:name`. \
         `AnyStore::connect` takes the URL `sqlite:path`"
    } else if is_url(bytes) {
        "is a URL, and not one of a file: give a path, or give the URL to `AnyStore::connect`"
    } else if path.components().next() == Some(Component::Normal("~".as_ref())) {
        "begins with `~`, which only a shell replaces by the home directory: write it out; a \
         directory of that name is `./~`"
    } else if has_options {
        "has options behind a question mark, and takes none: leave them out"
    } else {
        return Ok(());
    };
    Err(StoreError::new(format!(
        "the path of the SQLite database {reason}"
    )))
}

/// Whether a text begins with a scheme (RFC 3986, section 3.1) and two slashes. A single letter is
/// a drive of Windows.
fn is_url(bytes: &[u8]) -> bool {
    let is_of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme = bytes.iter().take_while(|byte| is_of_scheme(byte)).count();
    scheme > 1
        && bytes
            .get(scheme..)
            .is_some_and(|rest| rest.starts_with(b"://"))
}

/// What may be wrong with a path that could not be opened.
fn hint(path: &Path) -> String {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    match parent {
        _ if path.is_dir() => ": it is a directory; name a file in it".to_owned(),
        Some(parent) if !parent.exists() => {
            format!(
                ": there is no directory {}; make it first",
                parent.display()
            )
        }
        Some(parent) if !parent.is_dir() => format!(": {} is no directory", parent.display()),
        _ => String::new(),
    }
}

/// Sessions in one SQLite file. Several processes of a machine may share it. SQLite itself is
/// compiled in.
///
/// A write that was answered survives a crash of the process and of the machine. Each commit is
/// synced to the disk: otherwise a power failure could undo a logout. Writes that wait at the same
/// time share a transaction and a sync.
///
/// When the future of a call is dropped, a call that still waits does not happen, and one that runs
/// goes on.
///
/// The application has to purge expired sessions from time to time: see
/// [`Sessions::spawn_purge`](crate::Sessions::spawn_purge). Clones share one pool of connections.
///
/// # Feed
///
/// The store reports which records change, also if another process changes them: see
/// [`SessionFeed`](crate::SessionFeed). The feed reports a write of this process at once, and a
/// write of another process within about 50 milliseconds.
///
/// The first subscription makes a table beside the sessions, with `_feed` behind the name, and
/// triggers that write to it. From then on, each write logs the id of its record there, whichever
/// process writes. The table keeps the last 10,000 changes. Without a subscription there is no such
/// table. [Operations](crate::docs::operations#sqlite) says how to remove it.
///
/// A pool of your own on a database in memory should have one connection. If several share a cache,
/// SQLite lets a write fail while another connection reads.
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
    /// Several connections. A database in memory has only the writer's.
    reader: Connections<Sqlite>,
    /// One connection: writes of this process wait in a queue, and not in SQLite's busy loop.
    writer: Connections<Sqlite>,
    loads: Batches<Loads>,
    writes: Writes,
    statements: Arc<Statements>,
    feed: Wake,
}

/// How many readers there may be beside the one writer that SQLite allows: one for each lane, and
/// some that list the sessions of users. Each has a thread of its own, from its first use on.
const READERS: usize = READ_LANES.most + 4;

impl SqliteStore {
    /// Opens a file in WAL mode, and makes the table in it. If there is no file, this makes one.
    /// `:memory:` is a database that ends with the store.
    ///
    /// Give a path, and not a URL. If the name of your file looks like a URL, or begins with a
    /// colon, write `./` before it.
    ///
    /// # Errors
    ///
    /// The text is not a path, the file cannot be opened within ten seconds, or it is not a SQLite
    /// database.
    #[doc(alias = "connect")]
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        check_path(path)?;
        let what = || format!("could not open the SQLite database {}", path.display());
        let failed = |error| StoreError::new(what() + &hint(path)).with_source(error);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // SQLite's thread need not wait while the answer of a batch is read.
            .row_buffer_size(MOST_CALLS + 1)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = Connections::own(options.clone(), &DIALECT, 1)?;
        // A database in memory ends with its connection.
        let reader = match path.as_os_str() == IN_MEMORY {
            true => writer.clone(),
            false => Connections::own(options.read_only(true), &DIALECT, READERS)?,
        };
        for connections in [&writer, &reader] {
            let first = timeout(CONNECTION_TIMEOUT, Call::begin(connections, &DIALECT)).await;
            let first = first.map_err(|elapsed| {
                let why = "its disk did not answer, or another process kept it locked";
                StoreError::new(format!("{} within {CONNECTION_TIMEOUT:?}: {why}", what()))
                    .with_source(elapsed)
            })?;
            first.map_err(failed)?.end(&Ok(()));
        }
        let store = Self::over(reader, writer);
        store.migrate().await?;
        Ok(store)
    }

    /// A store on the application's own pool. Call [`migrate`](Self::migrate) before use. The pool
    /// should have WAL mode and a busy timeout.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let connections = Connections::Shared(pool);
        Self::over(connections.clone(), connections)
    }

    /// The statements of [`migrate`](Self::migrate), if you run migrations yourself. Each can run
    /// again.
    #[must_use]
    pub fn migration(&self) -> Vec<String> {
        let table = &self.statements.table;
        let quoted = table.quoted(&DIALECT);
        let expiry = table.index(&DIALECT, "expires_at");
        let user = table.index(&DIALECT, "user_id");
        let external = table.index(&DIALECT, "external_id");
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (\n    \
                     id BLOB NOT NULL PRIMARY KEY,\n    \
                     version INTEGER NOT NULL,\n    \
                     user_id TEXT,\n    \
                     expires_at INTEGER NOT NULL,\n    \
                     record BLOB NOT NULL,\n    \
                     external_id TEXT\n\
                 ) STRICT"
            ),
            format!("CREATE INDEX IF NOT EXISTS {expiry} ON {quoted} (expires_at)"),
            format!(
                "CREATE INDEX IF NOT EXISTS {user} ON {quoted} (user_id) WHERE user_id IS NOT NULL"
            ),
            format!(
                "CREATE INDEX IF NOT EXISTS {external} ON {quoted} (external_id) \
                 WHERE external_id IS NOT NULL"
            ),
        ]
    }

    /// Makes the table and its indexes, if they are missing.
    ///
    /// When the future is dropped, call this again.
    ///
    /// # Errors
    ///
    /// The database failed, or it took longer than a minute: the application's pool may have no
    /// connection free.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrated(&DIALECT, self.make_table()).await
    }

    /// SQLite lets one process write at a time, so that the nodes need not take turns.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        in_batches(async || {
            let done = run!(
                self,
                "purge expired sessions",
                writer.execute(
                    sqlx::query(sql(&self.statements.purge))
                        .bind(to_integer(now.as_millis()))
                        .bind(PURGED_AT_ONCE)
                )
            );
            Ok(done.rows_affected())
        })
        .await
    }
}

implement_batched_writes! {
    Sqlite, WRITE_MANY, lanes: ONE_LANE, mixes_kinds: true, skips_locked: false
}
implement_store! { SqliteStore, Sqlite, SqliteRow, Writes, DIALECT, Wake }
implement_make_table! { SqliteStore }
