//! [`PostgresStore`]: sessions in a PostgreSQL table.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPool, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Connection, Postgres, Row};

use super::connections::{Call, Connections};
use super::{
    Dialect, PURGED_AT_ONCE, Statements, Table, check_login, implement_store, in_batches,
    kept_above, migrated, run, to_integer, to_timestamp,
};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

static DIALECT: Dialect = Dialect {
    engine: "PostgreSQL",
    store: "PostgresStore",
    quote: '"',
    numbered: true,
    no_table: "42P01",
    is_remote: true,
    authority: "sslrootcert",
    is_of_statement,
    // The lock makes the inner query look at the row again, should it have been touched meanwhile. It ends with the
    // statement, so that it is safe with a pooler between.
    purge: "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtext(?), 0) AS mine)
            DELETE FROM {table} WHERE (SELECT mine FROM turn) AND id IN
            (SELECT id FROM {table} WHERE expires_at <= ? LIMIT ? FOR UPDATE SKIP LOCKED)",
};

/// See `Dialect`. The first two characters of a SQLSTATE are its class (PostgreSQL's manual,
/// appendix A). What is not listed closes the connections, since new ones may be better:
///
/// - 08: the connection is lost.
/// - 0A000: the table of a prepared statement has changed. 26000, 42P05: a pooler between mixes up
///   prepared statements. A new connection has none.
/// - 25: the server became a replica and writes no more (25006), or a transaction was left open.
/// - 57: the server ends or starts. 58, F0, XX: the server has trouble of its own.
fn is_of_statement(error: &dyn DatabaseError) -> bool {
    let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else {
        return false;
    };
    // The server closes the connection after these, whatever the code.
    if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
        return false;
    }
    match error.code() {
        "42P05" => false,
        // It lost against another, or waited too long for a lock, or somebody or the setting
        // `statement_timeout` cancelled it.
        "40001" | "40P01" | "55P03" | "57014" => true,
        // A wrong number of values, wrong data, a constraint, a missing table or right, the check
        // of a view, a limit, a trigger. 53 is a full disk or memory: a new connection takes more
        // of it.
        code => matches!(
            code.get(..2),
            Some("21" | "22" | "23" | "42" | "44" | "53" | "54" | "P0")
        ),
    }
}

/// Sessions in a PostgreSQL table, for any number of machines.
///
/// Every write is one statement, and committed when it is answered: with `synchronous_commit` on, the default, a logout
/// survives a crash of the server. Reads must see the newest write, so give it the primary and no replica. Behind PgBouncer in
/// transaction mode, PgBouncer has to follow prepared statements: 1.21 or newer, with `max_prepared_statements` above 0.
///
/// When the future of a call is dropped, its statement goes on in a task, and its connection is
/// used again. A server that does not answer within two seconds loses the connection.
///
/// Something has to purge expired sessions from time to time: [`Sessions::spawn_purge`](crate::Sessions::spawn_purge). Clones
/// share one pool of connections.
///
/// ```no_run
/// use cloakroom::{PostgresStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::open("postgres://app:secret@db.example/app").await?;
/// store.migrate().await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    reader: Connections<Postgres>,
    writer: Connections<Postgres>,
    statements: Arc<Statements>,
}

impl PostgresStore {
    /// Connects to the database of a URL, `postgres://user:password@host:port/database`, with a pool of its own. Call
    /// [`migrate`](Self::migrate) once.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached within ten seconds, or it refuses the user or
    /// the database.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        check_login(url, &DIALECT)?;
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::new("the PostgreSQL URL is wrong", error))?;
        let what = format!(
            "could not connect to PostgreSQL at {}:{}, database {:?}, as {:?}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or(options.get_username()),
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
    pub fn new(pool: PgPool) -> Self {
        let connections = Connections::Shared(pool);
        Self::over(connections.clone(), connections)
    }

    /// The schema of the table, which must exist, of 1 to 63 bytes; the connection's `search_path`
    /// if this is not called.
    ///
    /// # Errors
    ///
    /// The name is empty, too long, or has a NUL in it.
    pub fn with_schema(self, schema: impl Into<String>) -> Result<Self, StoreError> {
        let table = self.statements.table.clone().in_schema(schema.into())?;
        Ok(self.on(table))
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
                     id BYTEA NOT NULL PRIMARY KEY,\n    \
                     version BIGINT NOT NULL,\n    \
                     user_id TEXT COLLATE \"C\",\n    \
                     expires_at BIGINT NOT NULL,\n    \
                     record BYTEA NOT NULL\n\
                 )"
            ),
            format!("CREATE INDEX IF NOT EXISTS {expiry} ON {quoted} (expires_at)"),
            format!(
                "CREATE INDEX IF NOT EXISTS {user} ON {quoted} (user_id) WHERE user_id IS NOT NULL"
            ),
        ]
    }

    /// Makes the table and its indexes, where they are missing. Several nodes may do so at once.
    ///
    /// It is one transaction: when the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// The database failed, the user may not make tables, or it took longer than a minute: another
    /// session of the database may hold a lock on the table.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrated(&DIALECT, self.make_table()).await
    }

    async fn make_table(&self) -> Result<(), StoreError> {
        let failed = |error| self.statements.failed("make the session table", error);
        let mut call = Call::begin(&self.writer, &DIALECT).await.map_err(failed)?;
        let connection = call.connection().map_err(failed)?;
        let mut transaction = connection.begin().await.map_err(failed)?;
        for prepare in [
            // Others wait behind a statement that waits for a lock, also when its caller has given
            // up: after `MIGRATION_TIMEOUT`.
            "SET LOCAL lock_timeout = '65s'",
            // IF NOT EXISTS alone fails where two do it at once.
            "SELECT pg_advisory_xact_lock(hashtext('cloakroom'), 1)",
        ] {
            sqlx::query(prepare)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        for statement in self.migration() {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        let committed = transaction.commit().await;
        call.end(&committed);
        committed.map_err(failed)
    }

    /// The statement takes a lock, so that one node purges at a time. The others find nothing to do.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let turn = self.statements.table.quoted(&DIALECT);
        in_batches(async || {
            let done = run!(
                self,
                "purge expired sessions",
                writer.execute(
                    sqlx::query(Self::sql(&self.statements.purge))
                        .bind(&turn)
                        .bind(to_integer(now.as_millis()))
                        .bind(PURGED_AT_ONCE)
                )
            );
            Ok(done.rows_affected())
        })
        .await
    }
}

implement_store! { PostgresStore, Postgres, PgRow }
