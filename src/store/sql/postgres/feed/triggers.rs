//! The triggers that tell of changes, whoever makes them.

use sqlx::{Connection as _, Row as _};

use crate::error::StoreError;
use crate::store::sql::connections::Call;
use crate::store::sql::dialect::Table;
use crate::store::sql::migrated;
use crate::store::sql::postgres::{DIALECT, PostgresStore};
use crate::store::sql::statements::Statements;

/// The start of the channel's name. The number of the table follows: its name could be too long,
/// and differs with the schema that a connection begins in.
pub(super) const CHANNEL: &str = "cloakroom_feed_";

/// The message that the table was emptied.
pub(super) const TRUNCATED: &str = "gap";

/// The triggers, and what each of them follows.
///
/// They run once for a statement, and not once for a row: the store writes many records by one
/// statement. A message names up to 240 records, because a message has less than 8,000 bytes. With
/// a trigger for each row, an update of 64 rows takes longer.
pub(super) const TRIGGERS: [Trigger; 4] = [
    Trigger {
        name: "cloakroom_feed_insert",
        event: "INSERT",
        rows: "\n    REFERENCING NEW TABLE AS changed",
    },
    Trigger {
        name: "cloakroom_feed_update",
        event: "UPDATE",
        rows: "\n    REFERENCING OLD TABLE AS changed",
    },
    Trigger {
        name: "cloakroom_feed_delete",
        event: "DELETE",
        rows: "\n    REFERENCING OLD TABLE AS changed",
    },
    Trigger {
        name: "cloakroom_feed_truncate",
        event: "TRUNCATE",
        rows: "",
    },
];

pub(super) struct Trigger {
    name: &'static str,
    event: &'static str,
    /// The rows that the function reads.
    rows: &'static str,
}

/// The quoted name of the function that the triggers call. It is in the table's schema.
fn function(table: &Table) -> String {
    let name = table.index(&DIALECT, "feed");
    match &table.schema {
        Some(schema) => format!("{}.{name}", DIALECT.quote(schema)),
        None => name,
    }
}

/// Asks for the server's process, the number of the table, its triggers, and how many they are.
///
/// The row of a trigger names the transaction that wrote it (`xmin`). So the answer differs even if
/// somebody turned a trigger off and on again between two questions.
pub(super) fn state_query(table: &Table) -> String {
    let name = literal(table);
    let names = TRIGGERS
        .map(|Trigger { name, .. }| format!("'{name}'"))
        .join(", ");
    format!(
        "SELECT pg_backend_pid(), coalesce(max(tgrelid::bigint), 0), \
         coalesce(string_agg(concat_ws(' ', oid, xmin, tgenabled), ', ' ORDER BY oid), ''), \
         count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = to_regclass({name}) \
         AND tgname IN ({names}) AND tgenabled IN ('O', 'A')"
    )
}

/// Sends a text on the channel of the table that this connection finds under the name.
pub(super) fn trial_query(table: &Table) -> String {
    let name = literal(table);
    format!("SELECT pg_notify('{CHANNEL}' || coalesce(to_regclass({name})::oid::bigint, 0), $1)")
}

/// The table's name as a literal. In such a literal, backslashes are escapes whatever the server's
/// settings are.
fn literal(table: &Table) -> String {
    let name = table.quoted(&DIALECT);
    format!("E'{}'", name.replace('\\', r"\\").replace('\'', "''"))
}

pub(super) fn missing(Statements { table, .. }: &Statements) -> StoreError {
    let table = table.quoted(&DIALECT);
    StoreError::new(format!(
        "could not follow the changes in PostgreSQL: the table {table} lacks the triggers that tell \
         of changes; call `PostgresStore::migrate_feed` once, or have the owner of the table run \
         the statements of `PostgresStore::feed_migration`"
    ))
}

impl PostgresStore {
    /// The statements of [`migrate_feed`](Self::migrate_feed), if you run migrations yourself. Each
    /// can run again. The owner of the table has to run them.
    ///
    /// ```no_run
    /// # use cloakroom::PostgresStore;
    /// # fn example(store: &PostgresStore) {
    /// for statement in store.feed_migration() {
    ///     println!("{statement};");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn feed_migration(&self) -> Vec<String> {
        let table = &self.statements.table;
        let quoted = table.quoted(&DIALECT);
        let function = function(table);
        let mut statements = vec![format!(
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$\n\
             DECLARE\n    \
                 ids bytea;\n\
             BEGIN\n    \
                 IF TG_OP = 'TRUNCATE' THEN\n        \
                     PERFORM pg_notify('{CHANNEL}' || TG_RELID, '{TRUNCATED}');\n        \
                     RETURN NULL;\n    \
                 END IF;\n    \
                 ids := (SELECT string_agg(id, '') FROM changed);\n    \
                 FOR part IN 1 .. coalesce(length(ids), 0) BY 3840 LOOP\n        \
                     PERFORM pg_notify('{CHANNEL}' || TG_RELID, \
                         encode(substr(ids, part, 3840), 'hex'));\n    \
                 END LOOP;\n    \
                 RETURN NULL;\n\
             END $$"
        )];
        for Trigger { name, event, rows } in TRIGGERS {
            statements.push(format!("DROP TRIGGER IF EXISTS {name} ON {quoted}"));
            statements.push(format!(
                "CREATE TRIGGER {name} AFTER {event} ON {quoted}{rows}\n    \
                     FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            ));
        }
        statements
    }

    /// Makes the triggers of the [feed](#feed), if they are missing. Call
    /// [`migrate`](Self::migrate) before this. Several nodes may call this at once. For an example,
    /// see [`with_feed`](Self::with_feed).
    ///
    /// This is one transaction. When the future is dropped, all triggers are there or none.
    ///
    /// # Errors
    ///
    /// There is no table, the database user does not own it, the database failed, or it took longer
    /// than a minute: another session of the database may hold a lock on the table.
    pub async fn migrate_feed(&self) -> Result<(), StoreError> {
        migrated(&DIALECT, self.make_triggers()).await
    }

    async fn make_triggers(&self) -> Result<(), StoreError> {
        let failed = |error| {
            self.statements
                .failed("make the triggers of the feed", error)
        };
        let mut call = Call::begin(&self.writer, &DIALECT).await.map_err(failed)?;
        let connection = call.connection().map_err(failed)?;
        let mut transaction = connection.begin().await.map_err(failed)?;
        self.prepare_migration(&mut transaction)
            .await
            .map_err(failed)?;
        let state = sqlx::raw_sql(sqlx::AssertSqlSafe(state_query(&self.statements.table)));
        let state = state.fetch_one(&mut *transaction).await.map_err(failed)?;
        // Triggers that are made again would be a gap for all nodes.
        let present: i64 = state.try_get(3).map_err(failed)?;
        if usize::try_from(present) != Ok(TRIGGERS.len()) {
            for statement in self.feed_migration() {
                sqlx::query(sqlx::AssertSqlSafe(statement))
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
            }
        }
        let committed = transaction.commit().await;
        call.end(&committed);
        committed.map_err(failed)
    }
}
