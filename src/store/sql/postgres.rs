//! [`PostgresStore`]: sessions in a PostgreSQL table.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPool, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Connection, Error, PgConnection, Postgres};

use self::feed::FeedSettings;
use super::batches::{WRITE_LANES, implement_batched_writes};
use super::connections::{Call, Connections};
use super::dialect::Dialect;
use super::implement::{implement_store, implement_with_schema, run};
use super::statements::{Statements, WriteManyTexts, sql, to_integer};
use super::{PURGED_AT_ONCE, check_login, in_batches, migrated, pooler};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::store::batch::Batches;

mod feed;
mod many;

static DIALECT: Dialect = Dialect {
    context: "PostgreSQL",
    store: "PostgresStore",
    quote: '"',
    numbered: true,
    no_table: "42P01",
    is_remote: true,
    authority: "sslrootcert",
    is_of_statement,
    is_of_record,
    advice: pooler::advice,
    // A parallel touch may move the expiry of a row. `FOR UPDATE` locks the row, and so looks at
    // its expiry again. The turn ends with the statement, so that a pooler may be on the way.
    purge: "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtext(?), 0) AS mine)
            DELETE FROM {table} WHERE (SELECT mine FROM turn) AND id IN
            (SELECT id FROM {table} WHERE expires_at <= ? LIMIT ? FOR UPDATE SKIP LOCKED)",
    remove_by_user: "DELETE FROM {table} WHERE id IN
                     (SELECT id FROM {table} WHERE user_id = ? AND id <> ? ORDER BY id FOR UPDATE)",
};

/// Rows that another transaction has locked are left out, so that no call waits for the record of
/// another call. The store runs such a write again, alone. Inserts that wait for those of another
/// node do so in the order of their ids, and never in a circle.
///
/// The rows are `VALUES`, and not arrays: for arrays, PostgreSQL would plan most batches again.
static WRITE_MANY: WriteManyTexts = WriteManyTexts {
    insert: "INSERT INTO {table} (id, version, user_id, external_id, expires_at, record) \
             SELECT column1, column2, column3, column4, column5, column6 FROM (VALUES {rows}) AS new \
             WHERE column1 IS NOT NULL ORDER BY column1 ON CONFLICT DO NOTHING \
             RETURNING id",
    replace: "UPDATE {table} AS old SET version = column2, user_id = column3, \
              external_id = column4, expires_at = CASE WHEN old.expires_at > column5 \
              THEN old.expires_at ELSE column6 END, record = column7 FROM \
              (SELECT new.* FROM (VALUES {rows}) AS new JOIN {table} AS stored ON id = column1 \
              FOR NO KEY UPDATE OF stored SKIP LOCKED) AS new \
              WHERE old.id = column1 AND old.version = column8 RETURNING old.id",
    touch: "UPDATE {table} AS old SET expires_at = column2 FROM \
            (SELECT new.* FROM (VALUES {rows}) AS new JOIN {table} AS stored ON id = column1 \
            FOR NO KEY UPDATE OF stored SKIP LOCKED) AS new \
            WHERE old.id = column1 AND old.version = column3 RETURNING old.id",
    remove: "WITH stored AS MATERIALIZED (SELECT id FROM {table} \
             WHERE id IN ({rows}) FOR UPDATE SKIP LOCKED) \
             DELETE FROM {table} WHERE id IN (SELECT id FROM stored) RETURNING id",
    renews_plans: true,
};

/// See `Dialect`. Wrong data, a constraint, a limit of the server, a trigger. Too long a wait for a
/// lock (55P03), a statement that took too long (57014), a policy of row security (42501).
fn is_of_record(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    matches!(&*code, "42501" | "55P03" | "57014")
        || matches!(code.get(..2), Some("21" | "22" | "23" | "44" | "54" | "P0"))
}

/// See `Dialect`. The first two characters of a SQLSTATE are its class (PostgreSQL's manual,
/// appendix A). Any code that is not listed closes the connections, since new ones may work:
///
/// - 08: the connection is lost.
/// - 0A000: the table of a prepared statement has changed. 26000, 42P05: a pooler on the way mixes
///   up prepared statements. A new connection has no prepared statements.
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
        // The statement lost against another, or waited too long for a lock, or somebody or the
        // setting `statement_timeout` cancelled it.
        "40001" | "40P01" | "55P03" | "57014" => true,
        // A wrong number of values, wrong data, a constraint, a missing table or right, the check
        // of a view, a limit, a trigger. 53 is a full disk or memory: a new connection would need
        // more of it.
        code => matches!(
            code.get(..2),
            Some("21" | "22" | "23" | "42" | "44" | "53" | "54" | "P0")
        ),
    }
}

/// Sessions in a PostgreSQL table, for any number of machines.
///
/// Every write is one statement, and is committed when the database answers. With
/// `synchronous_commit` on, the default, a logout survives a crash of the server.
///
/// Reads must see the newest write: give the store the primary server, and not a replica.
///
/// A pooler on the way must follow prepared statements, as PgBouncer does in session mode, and in
/// transaction mode from version 1.21 on: see [operations](crate::docs::operations#pgbouncer).
/// Behind any other pooler, a read may remove a session without an error.
/// [`connect`](Self::connect) refuses such a pooler. [`new`](Self::new) cannot notice it.
///
/// Calls that wait at the same time go to the server in one statement. When the future of a call is
/// dropped, a call that still waits is not sent, and a statement that runs goes on. If all its
/// callers have gone away, and the server does not answer within two seconds, the connection is
/// closed.
///
/// The application has to purge expired sessions from time to time: see
/// [`Sessions::spawn_purge`](crate::Sessions::spawn_purge). Clones share one pool of connections.
///
/// # Feed
///
/// The store can report to each node which records change on any node: see
/// [`SessionFeed`](crate::SessionFeed). The feed is off until you call
/// [`migrate_feed`](Self::migrate_feed), which makes triggers, and [`with_feed`](Self::with_feed).
///
/// The feed has a price: each write notifies, and PostgreSQL has one lock for the commits of all
/// transactions that notify. Such commits wait for each other. Reads do not pay. See
/// [operations](crate::docs::operations#postgresql) for the statements, and for what a database
/// administrator should know.
///
/// Each subscription has a connection of its own, beside the pool. Notices do not pass PgBouncer in
/// transaction mode: see [`with_feed_url`](Self::with_feed_url).
///
/// ```no_run
/// use cloakroom::{PostgresStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://app:secret@db.example/app").await?;
/// store.migrate().await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias("PgStore", "postgresql"))]
pub struct PostgresStore {
    reader: Connections<Postgres>,
    writer: Connections<Postgres>,
    loads: Batches<Loads>,
    writes: Writes,
    statements: Arc<Statements>,
    feed: FeedSettings,
}

impl PostgresStore {
    /// Connects to the database of a URL, `postgres://user:password@host:port/database`. The store
    /// has a pool of its own. Call [`migrate`](Self::migrate) once.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached within ten seconds, or it refuses the user or
    /// the database. A pooler on the way mixes up prepared statements.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        check_login(url, &DIALECT)?;
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::new("the PostgreSQL URL is wrong").with_source(error))?;
        let what = format!(
            "could not connect to PostgreSQL at {}:{}, database {:?}, as {:?}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or(options.get_username()),
            options.get_username(),
        );
        let connections = Connections::to_server(what, options.clone(), &DIALECT).await?;
        pooler::refuse_if_unfit(&options).await?;
        Ok(Self::over(connections.clone(), connections))
    }

    /// A store on the application's own pool. Call [`migrate`](Self::migrate) once.
    ///
    /// sqlx's pool asks each connection that comes back whether it is alive. With
    /// `test_before_acquire`, its default, it also asks each connection that it gives out. Each
    /// question is a round trip. A store that [`connect`](Self::connect) made asks a connection
    /// only after it idled for some seconds.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
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
                     id BYTEA NOT NULL PRIMARY KEY,\n    \
                     version BIGINT NOT NULL,\n    \
                     user_id TEXT COLLATE \"C\",\n    \
                     expires_at BIGINT NOT NULL,\n    \
                     record BYTEA NOT NULL,\n    \
                     external_id TEXT COLLATE \"C\"\n\
                 )"
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

    /// Makes the table and its indexes, if they are missing. Several nodes may do so at once.
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
        self.prepare_migration(&mut transaction)
            .await
            .map_err(failed)?;
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

    /// Begins the transaction of a migration.
    async fn prepare_migration(&self, transaction: &mut PgConnection) -> Result<(), Error> {
        for prepare in [
            // Other statements wait behind one that waits for a lock, even if its caller has given
            // up. This is a little longer than `MIGRATION_TIMEOUT`.
            "SET LOCAL lock_timeout = '65s'",
            // IF NOT EXISTS alone fails if two nodes make the table at once.
            "SELECT pg_advisory_xact_lock(hashtext('cloakroom'), 1)",
        ] {
            sqlx::query(prepare).execute(&mut *transaction).await?;
        }
        Ok(())
    }

    /// The statement takes a lock, so that one node purges at a time. The other nodes find nothing
    /// to do.
    async fn purge(&self, now: Timestamp) -> Result<u64, StoreError> {
        let turn = self.statements.table.quoted(&DIALECT);
        in_batches(async || {
            let done = run!(
                self,
                "purge expired sessions",
                writer.execute(
                    sqlx::query(sql(&self.statements.purge))
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

implement_batched_writes! {
    Postgres, WRITE_MANY, lanes: WRITE_LANES, mixes_kinds: false, skips_locked: true
}
implement_store! { PostgresStore, Postgres, PgRow, Writes, DIALECT, FeedSettings }
implement_with_schema! {
    /// The schema of the table, which must exist, of 1 to 63 bytes. If this is not called, it is
    /// the connection's `search_path`.
    PostgresStore
}
