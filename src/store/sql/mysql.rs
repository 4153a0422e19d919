//! [`MySqlStore`]: sessions in a MySQL or MariaDB table.

use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlRow};
use sqlx::{Error, MySql};

use super::batches::implement_single_writes;
use super::connections::{Call, Connections};
use super::dialect::{Dialect, REMOVE_BY_USER, no_advice};
use super::implement::{implement_make_table, implement_store, implement_with_schema, repeat_lost};
use super::statements::{Statements, sql, to_integer};
use super::{PURGED_AT_ONCE, check_login, migrated, timely};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::Record;
use crate::record::user::UserId;
use crate::store::batch::Batches;
use crate::store::feed::SessionFeed;

mod many;

static DIALECT: Dialect = Dialect {
    context: "MySQL",
    store: "MySqlStore",
    quote: '`',
    numbered: false,
    no_table: "42S02",
    is_remote: true,
    authority: "ssl-ca",
    is_of_statement,
    is_of_record,
    advice: no_advice,
    purge: "DELETE FROM {table} WHERE expires_at <= ? LIMIT ?",
    remove_by_user: REMOVE_BY_USER,
};

/// See `Dialect`. Reads are the only calls that go together, and no record makes them fail.
fn is_of_record(_: &dyn DatabaseError) -> bool {
    false
}

/// See `Dialect`. Many of MySQL's errors share the SQLSTATE HY000, so that their numbers count. Any
/// error that is not listed closes the connections, since new ones may work:
///
/// - 1290, 1792, 1836: the server became a replica and writes no more.
/// - SQLSTATE 08: the connection is lost, or the server ends.
/// - 1317, 1927: somebody killed the statement or the connection, perhaps because the server ends.
/// - 1243: another server answers. It does not know the prepared statement.
fn is_of_statement(error: &dyn DatabaseError) -> bool {
    let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() else {
        return false;
    };
    match error.number() {
        // A full disk or table, too long a wait for a lock, a statement that took too long
        // (MariaDB, MySQL).
        1021 | 1114 | 1205 | 1969 | 3024 => true,
        // A wrong number of values, wrong data, a constraint, a deadlock, a missing table or right,
        // the check of a view, a trigger.
        _ => matches!(
            error.code().and_then(|code| code.get(..2)),
            Some("21" | "22" | "23" | "40" | "42" | "44" | "45")
        ),
    }
}

/// Sessions in a table of MySQL 8 or MariaDB 10.11 and later, for any number of machines.
///
/// All tests of the contract pass on MariaDB 10.11 and on MySQL 9.7.4.
///
/// Every write is one statement, and is committed when the database answers. With
/// `innodb_flush_log_at_trx_commit` at 1, the default, a logout survives a crash of the server.
///
/// Reads must see the newest write: give the store the primary server, and not a replica. MySQL's
/// default login, `caching_sha2_password`, needs TLS, the feature `tls`.
///
/// Reads that wait at the same time go to the server in one statement, and each write in its own.
/// When the future of a call is dropped, a read that still waits is not sent, and a statement that
/// runs goes on. If nobody waits for it any more, and the server does not answer within two seconds,
/// the connection is closed.
///
/// The application has to purge expired sessions from time to time: see
/// [`Sessions::spawn_purge`](crate::Sessions::spawn_purge). Clones share one pool of connections.
///
/// ```no_run
/// use cloakroom::{MySqlStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MySqlStore::connect("mysql://app:secret@db.example/app").await?;
/// store.migrate().await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias("MariaDbStore", "mariadb"))]
pub struct MySqlStore {
    reader: Connections<MySql>,
    writer: Connections<MySql>,
    loads: Batches<Loads>,
    writes: Writes,
    statements: Arc<Statements>,
    feed: NoFeed,
}

impl MySqlStore {
    /// Connects to the database of a URL, `mysql://user:password@host:port/database`. The store has
    /// a pool of its own. Call [`migrate`](Self::migrate) once.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached within ten seconds, or it refuses the user or
    /// the database.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        check_login(url, &DIALECT)?;
        let options = MySqlConnectOptions::from_str(url)
            .map_err(|error| StoreError::new("the MySQL URL is wrong").with_source(error))?;
        let what = format!(
            "could not connect to MySQL at {}:{}, database {:?}, as {:?}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or_default(),
            options.get_username(),
        );
        let connections = Connections::to_server(what, options, &DIALECT).await?;
        Ok(Self::over(connections.clone(), connections))
    }

    /// A store on the application's own pool. Call [`migrate`](Self::migrate) once.
    ///
    /// sqlx's pool asks each connection that comes back whether it is alive. With
    /// `test_before_acquire`, its default, it also asks each connection that it gives out. Each
    /// question is a round trip. A store that [`connect`](Self::connect) made asks a connection
    /// only after it idled for some seconds.
    #[must_use]
    pub fn new(pool: MySqlPool) -> Self {
        let connections = Connections::Shared(pool);
        Self::over(connections.clone(), connections)
    }

    /// The statement of [`migrate`](Self::migrate), if you run migrations yourself. It can run
    /// again.
    #[must_use]
    pub fn migration(&self) -> Vec<String> {
        let table = self.statements.table.quoted(&DIALECT);
        let longest_user = UserId::STORED_LEN;
        let longest_external = Record::EXTERNAL_ID_LEN;
        // The columns are binary: a collation would take different ids for the same one.
        vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    \
                 id BINARY(16) NOT NULL PRIMARY KEY,\n    \
                 version BIGINT NOT NULL,\n    \
                 user_id VARBINARY({longest_user}),\n    \
                 expires_at BIGINT NOT NULL,\n    \
                 record MEDIUMBLOB NOT NULL,\n    \
                 external_id VARBINARY({longest_external}),\n    \
                 KEY expires_at (expires_at),\n    \
                 KEY user_id (user_id),\n    \
                 KEY external_id (external_id)\n\
             ) ENGINE = InnoDB"
        )]
    }

    /// Makes the table and its indexes, if they are missing. Several nodes may do so at once.
    ///
    /// When the future is dropped, call this again.
    ///
    /// # Errors
    ///
    /// The database failed, the user may not make tables, or it took longer than a minute: another
    /// session of the database may hold a lock on the table.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrated(&DIALECT, self.make_table()).await
    }

    /// A named lock lets one node purge at a time. The other nodes find nothing to do.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let failed = |error| self.no_turn(error);
        // The lock belongs to the connection, and ends with it. A call that is not ended closes its
        // connection, whatever happens here.
        let begin = async { Call::begin(&self.writer, &DIALECT).await.map_err(failed) };
        let mut call = timely(begin).await?;
        let connection = call.connection().map_err(failed)?;
        let turn = self.turn(connection).await?;
        if !self.takes(&turn, connection).await? {
            call.end(&Ok(()));
            return Ok(0);
        }
        let purged = self.purge_in_batches(now, connection).await?;
        let free = sqlx::query("SELECT RELEASE_LOCK(?)").bind(&*turn);
        let freed = timely(async { Ok(free.execute(&mut *connection).await) }).await?;
        call.end(&freed);
        Ok(purged)
    }

    /// As `in_batches`, and all on one connection: the pool may have no other.
    async fn purge_in_batches(
        &self,
        now: Timestamp,
        connection: &mut MySqlConnection,
    ) -> Result<u64, StoreError> {
        let mut purged = 0;
        loop {
            let removed = timely(async {
                let done = repeat_lost!(
                    sqlx::query(sql(&self.statements.purge))
                        .bind(to_integer(now.as_millis()))
                        .bind(PURGED_AT_ONCE)
                        .execute(&mut *connection)
                );
                let failed = |error| self.statements.failed("purge expired sessions", error);
                Ok(done.map_err(failed)?.rows_affected())
            })
            .await?;
            purged += removed;
            if removed < PURGED_AT_ONCE.unsigned_abs() {
                return Ok(purged);
            }
        }
    }

    /// The name of the lock that a purge of this table takes.
    async fn turn(&self, connection: &mut MySqlConnection) -> Result<String, StoreError> {
        let table = &self.statements.table;
        if let Some(schema) = &table.schema {
            return Ok(lock_name(schema, &table.name));
        }
        let current = sqlx::query_as("SELECT DATABASE()");
        let current = async { current.fetch_one(connection).await };
        let (database,): (Option<String>,) =
            timely(async { current.await.map_err(|error| self.no_turn(error)) }).await?;
        Ok(lock_name(
            database.as_deref().unwrap_or_default(),
            &table.name,
        ))
    }

    /// Whether this connection gets the lock. It does not wait for the lock.
    async fn takes(
        &self,
        turn: &str,
        connection: &mut MySqlConnection,
    ) -> Result<bool, StoreError> {
        let lock = sqlx::query_as("SELECT GET_LOCK(?, 0)").bind(turn);
        let lock = async { lock.fetch_one(connection).await };
        let (mine,): (Option<i64>,) =
            timely(async { lock.await.map_err(|error| self.no_turn(error)) }).await?;
        mine.map(|mine| mine == 1).ok_or_else(|| {
            StoreError::new(
                "could not take turns in purging expired sessions: the server gives no lock",
            )
        })
    }

    fn no_turn(&self, error: Error) -> StoreError {
        let what = "take turns in purging expired sessions";
        self.statements.failed(what, error)
    }
}

/// The name of the lock for a table. Locks are the whole server's, and their names have up to 64
/// characters. The hash is not made by the server: MySQL 9.6 and newer have no `SHA1()`.
fn lock_name(database: &str, table: &str) -> String {
    // No name has a NUL.
    let hash = Sha256::digest(format!("{database}\0{table}"));
    let hash = hash.iter().take(20).map(|byte| format!("{byte:02x}"));
    format!("cloakroom {}", hash.collect::<String>())
}

implement_single_writes! { MySql }
/// The databases have no messages between their connections.
#[derive(Clone, Default)]
struct NoFeed;

impl NoFeed {
    fn of(&self, _: &MySqlStore) -> Option<&dyn SessionFeed> {
        None
    }

    fn wrote(&self) {}
}

implement_store! { MySqlStore, MySql, MySqlRow, Writes, DIALECT, NoFeed }
implement_make_table! { MySqlStore }
implement_with_schema! {
    /// The schema (database) of the table, which must exist, of 1 to 63 bytes. If this is not
    /// called, it is the connection's own.
    MySqlStore
}
