//! [`MySqlStore`]: sessions in a MySQL or MariaDB table.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlRow};
use sqlx::{AssertSqlSafe, MySql, Row};

use super::connections::{Call, Connections};
use super::{
    Dialect, PURGED_AT_ONCE, Statements, Table, check_login, implement_store, repeat_lost, run,
    timely, to_integer, to_timestamp,
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
    purge: "DELETE FROM {table} WHERE expires_at <= ? LIMIT ?",
};

/// Sessions in a table of MySQL 8 or MariaDB 10.11 and later, for any number of machines.
///
/// Every write is one statement, and committed when it is answered: with `innodb_flush_log_at_trx_commit` at 1, the default, a
/// logout survives a crash of the server. Reads must see the newest write, so give it the primary and no replica. MySQL's
/// default login, `caching_sha2_password`, needs TLS, the feature `tls`.
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
    /// The URL is wrong, the server cannot be reached, or it refuses the user or the database.
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

    /// The schema (database) of the table, which must exist; the connection's own if this is not called.
    #[must_use]
    pub fn with_schema(self, schema: impl Into<String>) -> Self {
        let name = self.statements.table.name.clone();
        let schema = Some(schema.into());
        self.on(Table { schema, name })
    }

    /// The statement of [`migrate`](Self::migrate), for those who run migrations themselves. It can run again.
    #[must_use]
    pub fn migration(&self) -> Vec<String> {
        let table = self.statements.table.quoted(&DIALECT);
        // Binary columns, since a collation would take different ids for one.
        vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    \
                 id BINARY(16) NOT NULL PRIMARY KEY,\n    \
                 version BIGINT NOT NULL,\n    \
                 user_id VARBINARY(255),\n    \
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
    /// The database failed, or the user may not make tables.
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
        let lock = sqlx::query_as(
            "SELECT GET_LOCK(CONCAT('cloakroom ', SHA1(CONCAT(COALESCE(DATABASE(), ''), ?))), 0)",
        )
        .bind(self.statements.table.quoted(&DIALECT));
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
        let free = sqlx::query(
            "SELECT RELEASE_LOCK(CONCAT('cloakroom ', SHA1(CONCAT(COALESCE(DATABASE(), ''), ?))))",
        )
        .bind(self.statements.table.quoted(&DIALECT));
        let freed = timely(async { Ok(free.execute(&mut *connection).await) }).await?;
        call.end(&freed);
        Ok(purged)
    }
}

implement_store! { MySqlStore, MySql, MySqlRow }
