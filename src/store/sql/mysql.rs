//! [`MySqlStore`]: sessions in a MySQL or MariaDB table.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlRow};
use sqlx::{AssertSqlSafe, MySql, Row};

use super::connections::{Call, Connections};
use super::{
    Dialect, PURGED_AT_ONCE, Statements, Table, check_login, implement_store, kept_above, migrated,
    repeat_lost, run, timely, to_integer, to_timestamp,
};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

static DIALECT: Dialect = Dialect {
    engine: "MySQL",
    store: "MySqlStore",
    quote: '`',
    numbered: false,
    no_table: "42S02",
    is_remote: true,
    authority: "ssl-ca",
    is_of_statement,
    purge: "DELETE FROM {table} WHERE expires_at <= ? LIMIT ?",
};

/// See `Dialect`. Many of MySQL's errors share the SQLSTATE HY000, so that their numbers count.
/// What is not listed closes the connections, since new ones may be better:
///
/// - 1290, 1792, 1836: the server became a replica and writes no more.
/// - SQLSTATE 08: the connection is lost, or the server ends.
/// - 1317, 1927: somebody killed the statement or the connection, perhaps since the server ends.
/// - 1243: another server answers, which does not know the prepared statement.
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
/// All tests of the contract pass on MariaDB 10.11 and on MySQL 9.7.4, which has no `SHA1()` any
/// more.
///
/// Every write is one statement, and committed when it is answered: with `innodb_flush_log_at_trx_commit` at 1, the default, a
/// logout survives a crash of the server. Reads must see the newest write, so give it the primary and no replica. MySQL's
/// default login, `caching_sha2_password`, needs TLS, the feature `tls`.
///
/// When the future of a call is dropped, its statement goes on in a task, and its connection is
/// used again. A server that does not answer within two seconds loses the connection.
///
/// Something has to purge expired sessions from time to time: [`Sessions::spawn_purge`](crate::Sessions::spawn_purge). Clones
/// share one pool of connections.
///
/// ```no_run
/// use cloakroom::{MySqlStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MySqlStore::open("mysql://app:secret@db.example/app").await?;
/// store.migrate().await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MySqlStore {
    reader: Connections<MySql>,
    writer: Connections<MySql>,
    statements: Arc<Statements>,
}

impl MySqlStore {
    /// Connects to the database of a URL, `mysql://user:password@host:port/database`, with a pool of its own. Call
    /// [`migrate`](Self::migrate) once.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached within ten seconds, or it refuses the user or
    /// the database.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        check_login(url, &DIALECT)?;
        let options = MySqlConnectOptions::from_str(url)
            .map_err(|error| StoreError::new("the MySQL URL is wrong", error))?;
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
    /// sqlx's pool asks a connection that comes back whether it is alive and, with `test_before_acquire`, its default, one that
    /// is taken out as well: a round trip each. The connections of [`open`](Self::open) are asked only after they idled for
    /// some seconds.
    #[must_use]
    pub fn new(pool: MySqlPool) -> Self {
        let connections = Connections::Shared(pool);
        Self::over(connections.clone(), connections)
    }

    /// The schema (database) of the table, which must exist, of 1 to 63 bytes; the connection's own
    /// if this is not called.
    ///
    /// # Errors
    ///
    /// The name is empty, too long, or has a NUL in it.
    pub fn with_schema(self, schema: impl Into<String>) -> Result<Self, StoreError> {
        let table = self.statements.table.clone().in_schema(schema.into())?;
        Ok(self.on(table))
    }

    /// The statement of [`migrate`](Self::migrate), for those who run migrations themselves. It can run again.
    #[must_use]
    pub fn migration(&self) -> Vec<String> {
        let table = self.statements.table.quoted(&DIALECT);
        let longest_user = UserId::STORED_LEN;
        // Binary columns, since a collation would take different ids for one.
        vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    \
                 id BINARY(16) NOT NULL PRIMARY KEY,\n    \
                 version BIGINT NOT NULL,\n    \
                 user_id VARBINARY({longest_user}),\n    \
                 expires_at BIGINT NOT NULL,\n    \
                 record MEDIUMBLOB NOT NULL,\n    \
                 KEY expires_at (expires_at),\n    \
                 KEY user_id (user_id)\n\
             ) ENGINE = InnoDB"
        )]
    }

    /// Makes the table and its indexes, where they are missing. Several nodes may do so at once.
    ///
    /// When the future is dropped, it can be called again.
    ///
    /// # Errors
    ///
    /// The database failed, the user may not make tables, or it took longer than a minute: another
    /// session of the database may hold a lock on the table.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrated(&DIALECT, self.make_table()).await
    }

    async fn make_table(&self) -> Result<(), StoreError> {
        for statement in self.migration() {
            run!(
                self,
                "make the session table",
                writer.execute(sqlx::query(AssertSqlSafe(statement.clone())))
            );
        }
        Ok(())
    }

    /// A named lock lets one node purge at a time. The others find nothing to do.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let failed = |error| {
            self.statements
                .failed("take turns in purging expired sessions", error)
        };
        // The lock is the connection's, and ends with it: a call that is not ended closes it, whatever happens here.
        let begin = async { Call::begin(&self.writer, &DIALECT).await.map_err(failed) };
        let mut call = timely(begin).await?;
        let connection = call.connection().map_err(failed)?;
        let (database,): (Option<String>,) = match &self.statements.table.schema {
            Some(schema) => (Some(schema.clone()),),
            None => {
                let current = sqlx::query_as("SELECT DATABASE()");
                timely(async { current.fetch_one(&mut *connection).await.map_err(failed) }).await?
            }
        };
        let turn = turn(
            database.as_deref().unwrap_or_default(),
            &self.statements.table.name,
        );
        let lock = sqlx::query_as("SELECT GET_LOCK(?, 0)").bind(&*turn);
        let (mine,): (Option<i64>,) =
            timely(async { lock.fetch_one(&mut *connection).await.map_err(failed) }).await?;
        match mine {
            Some(1) => {}
            Some(_) => {
                call.end(&Ok(()));
                return Ok(0);
            }
            None => {
                return Err(StoreError::message(
                    "could not take turns in purging expired sessions: the server gives no lock",
                ));
            }
        }
        let mut purged = 0;
        loop {
            // On the same connection: the pool may have no other.
            let removed = timely(async {
                let done = repeat_lost!(
                    sqlx::query(Self::sql(&self.statements.purge))
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
                break;
            }
        }
        let free = sqlx::query("SELECT RELEASE_LOCK(?)").bind(&*turn);
        let freed = timely(async { Ok(free.execute(&mut *connection).await) }).await?;
        call.end(&freed);
        Ok(purged)
    }
}

/// The name of the lock that a purge of a table takes. Locks are the whole server's, and their
/// names have up to 64 characters. The hash is not the server's: MySQL 9.6 and newer have no
/// `SHA1()`.
fn turn(database: &str, table: &str) -> String {
    // No name has a NUL.
    let hash = Sha256::digest(format!("{database}\0{table}"));
    let hash = hash.iter().take(20).map(|byte| format!("{byte:02x}"));
    format!("cloakroom {}", hash.collect::<String>())
}

implement_store! { MySqlStore, MySql, MySqlRow }
