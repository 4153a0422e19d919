//! What the SQL stores share: one table, the statements on it, its rows, and errors.
//!
//! Each store's own file has how its database is opened, how its table is made, and how a purge takes turns.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::Record;

mod connections;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

/// How many records one statement of a purge removes, so that no write waits long for it.
const PURGED_AT_ONCE: i64 = 500;

/// How long one statement of a purge may take. A connection that died in silence would keep it, and the turn, for hours.
const PURGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a migration may take. It is instant where the table and its indexes are there.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// How many bytes the name of a table may have. PostgreSQL cuts a name after 63 bytes in silence,
/// and the name of an index is the table's with that of a column.
const LONGEST_TABLE: usize = 50;

/// The same of a schema.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const LONGEST_SCHEMA: usize = 63;

/// How a database writes what the others write differently.
#[derive(Debug)]
struct Dialect {
    engine: &'static str,
    store: &'static str,
    /// What quotes an identifier, and is doubled inside it.
    quote: char,
    /// Are parameters numbered (`$1`), or is each a `?`.
    numbered: bool,
    /// What says that there is no table: the error's code, or a part of its message.
    no_table: &'static str,
    /// Is there a network between.
    is_remote: bool,
    /// What names the file of an authority for TLS in a URL.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    authority: &'static str,
    /// Does an error belong to the statement alone, so that the connection, and the server behind
    /// it, are as good as before.
    is_of_statement: fn(&dyn DatabaseError) -> bool,
    /// Removes some expired records. The last parameters are: now, how many at most.
    purge: &'static str,
}

impl Dialect {
    fn quote(&self, identifier: &str) -> String {
        let quote = self.quote;
        let inner = identifier.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{inner}{quote}")
    }

    /// A statement in which each `?` is a parameter and `{table}` is the table.
    fn statement(&self, table: &Table, text: &str) -> Arc<str> {
        let mut statement = String::new();
        let mut parameters = 0;
        for part in text.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(before) if self.numbered => {
                    parameters += 1;
                    statement += &format!("{before}${parameters}");
                }
                _ => statement += part,
            }
        }
        statement.replace("{table}", &table.quoted(self)).into()
    }
}

/// The table's name, and the schema where it is not the connection's own.
#[derive(Clone, Debug)]
struct Table {
    schema: Option<String>,
    name: String,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            schema: None,
            name: "cloakroom_sessions".into(),
        }
    }
}

impl Table {
    fn named(self, name: String) -> Result<Self, StoreError> {
        check_name("table", &name, LONGEST_TABLE)?;
        Ok(Self { name, ..self })
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    fn in_schema(self, schema: String) -> Result<Self, StoreError> {
        check_name("schema", &schema, LONGEST_SCHEMA)?;
        let schema = Some(schema);
        Ok(Self { schema, ..self })
    }

    fn quoted(&self, dialect: &Dialect) -> String {
        let name = dialect.quote(&self.name);
        match &self.schema {
            Some(schema) => format!("{}.{name}", dialect.quote(schema)),
            None => name,
        }
    }

    /// The name of an index of the table, which lies in the table's schema.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn index(&self, dialect: &Dialect, column: &str) -> String {
        dialect.quote(&format!("{}_{column}", self.name))
    }
}

/// Databases cut a name that is too long, or end it at a NUL, and some do so in silence: two tables
/// would be one.
fn check_name(what: &str, name: &str, longest: usize) -> Result<(), StoreError> {
    if name.is_empty() || name.len() > longest || name.contains('\0') {
        return Err(StoreError::message(format!(
            "the name of the session {what} must have 1 to {longest} bytes, none of them NUL; this one \
             has {} bytes",
            name.len()
        )));
    }
    Ok(())
}

/// The statements of a store, rendered once.
#[derive(Debug)]
struct Statements {
    dialect: &'static Dialect,
    table: Table,
    load: Arc<str>,
    insert: Arc<str>,
    replace: Arc<str>,
    exists: Arc<str>,
    touch: Arc<str>,
    remove: Arc<str>,
    purge: Arc<str>,
    sessions_of: Arc<str>,
    remove_all_of: Arc<str>,
}

impl Statements {
    fn new(dialect: &'static Dialect, table: Table) -> Arc<Self> {
        let statement = |text| dialect.statement(&table, text);
        Arc::new(Self {
            load: statement("SELECT expires_at, record FROM {table} WHERE id = ?"),
            // No upsert: an id that is taken is an error, which is seen as such.
            insert: statement(
                "INSERT INTO {table} (id, version, user_id, expires_at, record) VALUES (?, ?, ?, ?, ?)",
            ),
            // An expiry that is later than the first of the two stays: see `kept_above`.
            replace: statement(
                "UPDATE {table} SET version = ?, user_id = ?, \
                 expires_at = CASE WHEN expires_at > ? THEN expires_at ELSE ? END, record = ? \
                 WHERE id = ? AND version = ?",
            ),
            exists: statement("SELECT 1 FROM {table} WHERE id = ?"),
            touch: statement("UPDATE {table} SET expires_at = ? WHERE id = ? AND version = ?"),
            remove: statement("DELETE FROM {table} WHERE id = ?"),
            purge: statement(dialect.purge),
            sessions_of: statement("SELECT id, expires_at, record FROM {table} WHERE user_id = ?"),
            remove_all_of: statement("DELETE FROM {table} WHERE user_id = ? AND id <> ?"),
            dialect,
            table,
        })
    }

    /// What a database's error means for the store.
    fn failed(&self, what: &str, error: sqlx::Error) -> StoreError {
        let Dialect { engine, store, .. } = self.dialect;
        if self.lacks_table(&error) {
            let table = self.table.quoted(self.dialect);
            return StoreError::new(
                format!(
                    "could not {what} in {engine}: there is no table {table}; call `{store}::migrate` first, or run the \
                     statements of `{store}::migration`"
                ),
                error,
            );
        }
        StoreError::new(format!("could not {what} in {engine}"), error)
    }

    fn lacks_table(&self, error: &sqlx::Error) -> bool {
        let Some(error) = error.as_database_error() else {
            return false;
        };
        let mark = self.dialect.no_table;
        error.code().is_some_and(|code| code == mark) || error.message().contains(mark)
    }
}

/// Did a statement lose against another, so that it had no effect and can be run again: a deadlock (40P01, or MySQL's 40001)
/// or a serialization failure (40001).
fn lost_a_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// Above which expiry a stored one stays where this record replaces it. It is one statement for
/// both cases, so that a connection prepares one.
fn kept_above(record: &Record) -> i64 {
    match record.keeps_later_expiry() {
        true => to_integer(record.expires_at().as_millis()),
        false => i64::MAX,
    }
}

/// A migration, or an error where it takes too long.
async fn migrated(
    dialect: &Dialect,
    migration: impl Future<Output = Result<(), StoreError>>,
) -> Result<(), StoreError> {
    match tokio::time::timeout(MIGRATION_TIMEOUT, migration).await {
        Ok(result) => result,
        Err(elapsed) => {
            let Dialect { engine, store, .. } = dialect;
            let what = format!(
                "could not make the session table in {engine} within {MIGRATION_TIMEOUT:?}: another \
                 session of the database may hold a lock on the table, or the table is large; try \
                 again, or run the statements of `{store}::migration` by hand"
            );
            Err(StoreError::new(what, elapsed))
        }
    }
}

/// A statement of a purge, or an error where it takes too long.
async fn timely<T>(
    statement: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(PURGE_TIMEOUT, statement)
        .await
        .unwrap_or_else(|_| Err(StoreError::timeout(PURGE_TIMEOUT)))
}

/// Runs batches of a purge until one is not full, and counts what they removed.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
async fn in_batches<F>(mut batch: impl FnMut() -> F) -> Result<u64, StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    let mut purged = 0;
    loop {
        let removed = timely(batch()).await?;
        purged += removed;
        if removed < PURGED_AT_ONCE.unsigned_abs() {
            return Ok(purged);
        }
    }
}

/// Refuses a login behind the host, where it stands with a slash too few or too many, or with a slash or a question mark in the
/// password: sqlx takes it for the name of a database, which errors show, or of an option, which it logs.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn check_login(url: &str, dialect: &Dialect) -> Result<(), StoreError> {
    let (_scheme, rest) = url.split_once(':').unwrap_or_default();
    let is_in_place = rest.strip_prefix("//").is_some_and(|rest| {
        let (place, options) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
        let (_host, database) = place.split_once('/').unwrap_or((place, ""));
        let mut options = options.split('&');
        let is_login = |option: &str| option.split('=').next().unwrap_or(option).contains('@');
        !database.contains('@') && !options.any(is_login)
    });
    if !is_in_place {
        return Err(StoreError::message(format!(
            "the {} URL must look like scheme://user:password@host:port/database; in the password, a slash is %2F and a question mark %3F",
            dialect.engine
        )));
    }
    Ok(())
}

fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_timestamp(integer: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(integer).unwrap_or(0))
}

/// A statement's result. It is run again where it lost a race.
macro_rules! repeat_lost {
    ($statement:expr) => {
        loop {
            match $statement.await {
                Err(error) if $crate::store::sql::lost_a_race(&error) => {}
                result => break result,
            }
        }
    };
}
use repeat_lost;

/// The result of a statement on a connection of one of the store's pools.
macro_rules! attempt {
    ($store:ident, $pool:ident.$method:ident($statement:expr)) => {
        $crate::store::sql::repeat_lost!(async {
            let dialect = $store.statements.dialect;
            let mut call =
                $crate::store::sql::connections::Call::begin(&$store.$pool, dialect).await?;
            let statement = $statement;
            $crate::store::sql::connections::Begun::new(dialect, async move {
                let answer = statement.$method(call.connection()?).await;
                call.end(&answer);
                answer
            })
            .await
        })
    };
}
use attempt;

/// The same, or the store's error.
macro_rules! run {
    ($store:ident, $what:literal, $pool:ident.$method:ident($statement:expr)) => {
        $crate::store::sql::attempt!($store, $pool.$method($statement))
            .map_err(|error| $store.statements.failed($what, error))?
    };
}
use run;

/// The contract on a store with the fields `reader`, `writer` and `statements`, and a method `purge`.
macro_rules! implement_store {
    ($Store:ident, $Database:ident, $Row:ident) => {
        impl $Store {
            /// Another table's name, of 1 to 50 bytes; `cloakroom_sessions` if this is not called.
            ///
            /// # Errors
            ///
            /// The name is empty, too long, or has a NUL in it.
            pub fn with_table(self, name: impl Into<String>) -> Result<Self, StoreError> {
                let table = self.statements.table.clone().named(name.into())?;
                Ok(self.on(table))
            }

            fn on(self, table: Table) -> Self {
                let statements = Statements::new(self.statements.dialect, table);
                Self { statements, ..self }
            }

            fn over(reader: Connections<$Database>, writer: Connections<$Database>) -> Self {
                Self {
                    reader,
                    writer,
                    statements: Statements::new(&DIALECT, Table::default()),
                }
            }

            fn sql(statement: &std::sync::Arc<str>) -> AssertSqlSafe<std::sync::Arc<str>> {
                // The only dynamic part is the quoted name of the table.
                AssertSqlSafe(statement.clone())
            }

            /// The record of a row with the columns `expires_at` and `record`. Columns of other types are a corrupt record
            /// too.
            fn to_record(id: RecordId, row: &$Row) -> Option<Record> {
                let expires_at = row.try_get("expires_at").unwrap_or(0);
                let bytes: &[u8] = row.try_get("record").unwrap_or_default();
                Some(Record::decode(id, bytes)?.with_expires_at(to_timestamp(expires_at)))
            }
        }

        #[async_trait]
        impl SessionStore for $Store {
            async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
                let row = run!(
                    self,
                    "read a session",
                    reader.fetch_optional(
                        sqlx::query(Self::sql(&self.statements.load)).bind(&id.as_bytes()[..])
                    )
                );
                Ok(row.and_then(|row| Self::to_record(id, &row)))
            }

            async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
                let bytes = record.encode()?;
                let inserted = $crate::store::sql::attempt!(
                    self,
                    writer.execute(
                        sqlx::query(Self::sql(&self.statements.insert))
                            .bind(&id.as_bytes()[..])
                            .bind(to_integer(record.version().number()))
                            .bind(record.user().map(UserId::as_str))
                            .bind(to_integer(record.expires_at().as_millis()))
                            .bind(&*bytes)
                    )
                );
                match inserted {
                    Ok(_) => Ok(true),
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
                    Err(error) => Err(self.statements.failed("write a new session", error)),
                }
            }

            async fn replace(
                &self,
                id: RecordId,
                expected: Version,
                record: &Record,
            ) -> Result<Replaced, StoreError> {
                let bytes = record.encode()?;
                let done = run!(
                    self,
                    "write a session",
                    writer.execute(
                        sqlx::query(Self::sql(&self.statements.replace))
                            .bind(to_integer(record.version().number()))
                            .bind(record.user().map(UserId::as_str))
                            .bind(kept_above(record))
                            .bind(to_integer(record.expires_at().as_millis()))
                            .bind(&*bytes)
                            .bind(&id.as_bytes()[..])
                            .bind(to_integer(expected.number()))
                    )
                );
                if done.rows_affected() == 1 {
                    return Ok(Replaced::Done);
                }
                let row = run!(
                    self,
                    "read a session",
                    reader.fetch_optional(
                        sqlx::query(Self::sql(&self.statements.exists)).bind(&id.as_bytes()[..])
                    )
                );
                Ok(match row {
                    Some(_) => Replaced::Conflict,
                    None => Replaced::Missing,
                })
            }

            async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
                let done = run!(
                    self,
                    "touch a session",
                    writer.execute(
                        sqlx::query(Self::sql(&self.statements.touch))
                            .bind(to_integer(record.expires_at().as_millis()))
                            .bind(&id.as_bytes()[..])
                            .bind(to_integer(record.version().number()))
                    )
                );
                Ok(done.rows_affected() == 1)
            }

            async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
                let done = run!(
                    self,
                    "remove a session",
                    writer.execute(
                        sqlx::query(Self::sql(&self.statements.remove)).bind(&id.as_bytes()[..])
                    )
                );
                Ok(done.rows_affected() == 1)
            }

            async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
                self.purge(now).await
            }
        }

        #[async_trait]
        impl UserIndex for $Store {
            async fn sessions_of(
                &self,
                user: &UserId,
            ) -> Result<Vec<(RecordId, Record)>, StoreError> {
                let rows = run!(
                    self,
                    "list a user's sessions",
                    reader.fetch_all(
                        sqlx::query(Self::sql(&self.statements.sessions_of)).bind(user.as_str())
                    )
                );
                let session = |row: &$Row| {
                    let id =
                        RecordId::from_bytes(row.try_get::<&[u8], _>("id").ok()?.try_into().ok()?);
                    Some((id, Self::to_record(id, row)?))
                };
                Ok(rows.iter().filter_map(session).collect())
            }

            async fn remove_all_of(
                &self,
                user: &UserId,
                except: Option<RecordId>,
            ) -> Result<u64, StoreError> {
                // No id is empty.
                let except = except.as_ref().map_or(&[][..], |id| id.as_bytes());
                let done = run!(
                    self,
                    "remove a user's sessions",
                    writer.execute(
                        sqlx::query(Self::sql(&self.statements.remove_all_of))
                            .bind(user.as_str())
                            .bind(except)
                    )
                );
                Ok(done.rows_affected())
            }
        }

        impl fmt::Debug for $Store {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Store))
                    .field("table", &self.statements.table)
                    .field("connections", &self.writer.count())
                    .finish_non_exhaustive()
            }
        }
    };
}
use implement_store;
