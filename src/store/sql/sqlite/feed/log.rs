//! [`Log`]: the changes of the records, in a small table beside them.
//!
//! Triggers write it, so that every process logs, whatever program it is. It is a ring: it keeps
//! the last ten thousand changes.

use std::sync::Arc;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Error, Row as _, Sqlite};

use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;
use crate::store::sql::connections::{Call, Connections};
use crate::store::sql::implement::run;
use crate::store::sql::sqlite::{DIALECT, SqliteStore};
use crate::store::sql::statements::{Statements, sql};

/// The statements that make the log. `{log}` is its name, and `{on_insert}` and so on are the names
/// of the triggers.
///
/// The first row is a mark. If it is gone, somebody has emptied the log. The log takes whatever an
/// id is: a trigger must not refuse a write. An entry's number is one more than that of the newest
/// entry, so that numbers have no gaps. Old entries go 256 at a time, so that most writes change
/// one page of the log.
const MAKE: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS {log} (seq INTEGER PRIMARY KEY, id)",
    "INSERT OR IGNORE INTO {log} (seq, id) VALUES (0, randomblob(16))",
    "CREATE TRIGGER IF NOT EXISTS {on_insert} AFTER INSERT ON {table} BEGIN {add_new} END",
    "CREATE TRIGGER IF NOT EXISTS {on_update} AFTER UPDATE ON {table} BEGIN {add_old} END",
    "CREATE TRIGGER IF NOT EXISTS {on_delete} AFTER DELETE ON {table} BEGIN {add_old} END",
];

/// Adds an entry. `{row}` is NEW or OLD. Within a trigger, `last_insert_rowid` is the new entry's.
const ADD: &str = "INSERT INTO {log} (id) VALUES ({row}.id); \
     DELETE FROM {log} WHERE seq > 0 AND seq <= CASE WHEN last_insert_rowid() % 256 = 0 \
     THEN last_insert_rowid() - 10000 ELSE 0 END;";

/// How many triggers and tables [`MAKE`] makes.
const PARTS: i64 = 4;

/// Asks for the file of the database. In memory there is none.
const FILE: &str = "SELECT file FROM pragma_database_list WHERE name = 'main'";

/// Asks how many of the parts there are.
const COUNT: &str = "SELECT count(*) FROM sqlite_schema WHERE \
     (type = 'table' AND name = {log_text}) OR (type = 'trigger' AND tbl_name = {table_text} AND \
     name IN ({on_insert_text}, {on_update_text}, {on_delete_text}))";

/// Asks for the mark, the version of the schema, and the number and the id of the newest entry.
const FIND_END: &str = "SELECT (SELECT id FROM {log} WHERE seq = 0), \
     (SELECT schema_version FROM pragma_schema_version), seq, id \
     FROM {log} ORDER BY seq DESC LIMIT 1";

/// Asks for the mark and for all entries from this one on, each with the version of the schema.
const READ: &str = "SELECT seq, id, (SELECT schema_version FROM pragma_schema_version) FROM \
     (SELECT seq, id FROM {log} WHERE seq = 0 UNION ALL \
     SELECT seq, id FROM {log} WHERE seq >= max(?, 1)) ORDER BY seq";

/// What a read of the log finds.
pub(super) enum News {
    Changed(Vec<RecordId>),
    /// There may have been changes that the log does not have.
    Gap,
}

/// A reader of the log.
pub(super) struct Log {
    writer: Connections<Sqlite>,
    reader: Connections<Sqlite>,
    statements: Arc<Statements>,
    texts: Texts,
    source: Source,
    end: End,
}

/// Where the log is read.
enum Source {
    /// A connection of its own.
    Own(SqliteConnection),
    /// The store's: a database in memory has no other.
    Store,
}

/// The newest entry that was read, and what must stay as it is after that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    mark: Option<Vec<u8>>,
    /// It changes with each table and trigger that is made or dropped. In between, the log may have
    /// been without triggers.
    schema_version: i64,
    seq: i64,
    id: Option<Vec<u8>>,
}

struct Texts {
    make: Vec<Arc<str>>,
    file: Arc<str>,
    count: Arc<str>,
    find_end: Arc<str>,
    read: Arc<str>,
}

impl Texts {
    fn new(Statements { dialect, table, .. }: &Statements) -> Self {
        let parts = ["feed", "feed_insert", "feed_update", "feed_delete"];
        let names = ["{log}", "{on_insert}", "{on_update}", "{on_delete}"];
        let render = |text: &str| {
            let mut text = text
                .replace("{add_new}", &ADD.replace("{row}", "NEW"))
                .replace("{add_old}", &ADD.replace("{row}", "OLD"))
                .replace("{table_text}", &literal(&table.name));
            for (part, name) in parts.iter().zip(names) {
                let as_text = name.replace('}', "_text}");
                text = text
                    .replace(&as_text, &literal(&format!("{}_{part}", table.name)))
                    .replace(name, &table.index(dialect, part));
            }
            Arc::from(text.replace("{table}", &table.quoted(dialect)))
        };
        Self {
            make: MAKE.map(render).into(),
            file: render(FILE),
            count: render(COUNT),
            find_end: render(FIND_END),
            read: render(READ),
        }
    }
}

/// A text as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Log {
    /// Makes the log if there is none. The feed does not tell what is in it already.
    pub(super) async fn open(store: &SqliteStore) -> Result<Self, StoreError> {
        let mut log = Self {
            writer: store.writer.clone(),
            reader: store.reader.clone(),
            texts: Texts::new(&store.statements),
            statements: store.statements.clone(),
            source: Source::Store,
            end: End {
                mark: None,
                schema_version: 0,
                seq: 0,
                id: None,
            },
        };
        log.open_again().await?;
        Ok(log)
    }

    /// Makes the log if there is none, and goes to its end.
    pub(super) async fn open_again(&mut self) -> Result<(), StoreError> {
        self.source = Source::Store;
        self.make().await?;
        if !self.is_in_memory().await? {
            let connected = self.reader.options().read_only(true).connect().await;
            self.source = Source::Own(connected.map_err(|error| self.failed(error))?);
        }
        let rows = self.fetch(&self.texts.find_end.clone(), None).await?;
        let row = rows
            .first()
            .ok_or_else(|| self.failed(Error::RowNotFound))?;
        self.end = End {
            mark: bytes(row, 0),
            schema_version: row.try_get(1).map_err(|error| self.failed(error))?,
            seq: row.try_get(2).map_err(|error| self.failed(error))?,
            id: bytes(row, 3),
        };
        Ok(())
    }

    /// What is new since the last read.
    pub(super) async fn read(&mut self) -> Result<News, StoreError> {
        let rows = self
            .fetch(&self.texts.read.clone(), Some(self.end.seq))
            .await?;
        let mut end = self.end.clone();
        let mut ids = Vec::new();
        let mut rows = rows.iter();
        // The mark, and then the newest entry of the last read. Without entries, that is the mark.
        let is_known = rows.next().is_some_and(|mark| {
            number(mark, 2) == Some(end.schema_version)
                && number(mark, 0) == Some(0)
                && bytes(mark, 1) == end.mark
        });
        let is_next = end.seq == 0
            || rows
                .next()
                .is_some_and(|last| number(last, 0) == Some(end.seq) && bytes(last, 1) == end.id);
        if !is_known || !is_next {
            return Ok(News::Gap);
        }
        for row in rows {
            let seq = row.try_get(0).map_err(|error| self.failed(error))?;
            if seq != end.seq + 1 {
                return Ok(News::Gap);
            }
            end.seq = seq;
            end.id = bytes(row, 1);
            let id = end.id.as_deref().and_then(|id| id.try_into().ok());
            match id {
                Some(id) => ids.push(RecordId::from_bytes(id)),
                None => events::feed::ignored("sqlite", 1),
            }
        }
        self.end = end;
        Ok(News::Changed(ids))
    }

    async fn fetch(
        &mut self,
        text: &Arc<str>,
        from: Option<i64>,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let query = || match from {
            Some(from) => sqlx::query::<Sqlite>(sql(text)).bind(from),
            None => sqlx::query(sql(text)),
        };
        if let Source::Own(connection) = &mut self.source {
            let rows = query().fetch_all(connection).await;
            return rows.map_err(|error| self.failed(error));
        }
        Ok(run!(
            self,
            "read the log of changes",
            reader.fetch_all(query())
        ))
    }

    /// Whether no second connection leads to the database.
    async fn is_in_memory(&mut self) -> Result<bool, StoreError> {
        let rows = self.fetch(&self.texts.file.clone(), None).await?;
        let file = rows
            .first()
            .and_then(|row| row.try_get::<String, _>(0).ok());
        Ok(file.is_none_or(|file| file.is_empty()))
    }

    /// Makes the log and its triggers, if they are missing.
    async fn make(&mut self) -> Result<(), StoreError> {
        let rows = self.fetch(&self.texts.count.clone(), None).await?;
        let count = rows.first().and_then(|row| number(row, 0));
        if count == Some(PARTS) {
            let rows = self.fetch(&self.texts.find_end.clone(), None).await?;
            if rows.first().is_some_and(|end| bytes(end, 0).is_some()) {
                return Ok(());
            }
        }
        let failed = |error| self.statements.failed("make the log of changes", error);
        let mut call = Call::begin(&self.writer, &DIALECT).await.map_err(failed)?;
        let connection = call.connection().map_err(failed)?;
        let made = self.make_over(connection).await;
        if made.is_err() {
            // sqlx rolls back when it is at leisure. `Call::end` sees whether it has.
            let _ = connection.ping().await;
        }
        call.end(&made);
        made.map_err(failed)
    }

    /// The transaction takes the lock of writes at once: several processes may do this.
    async fn make_over(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for statement in &self.texts.make {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    fn failed(&self, error: Error) -> StoreError {
        self.statements.failed("read the log of changes", error)
    }
}

fn number(row: &SqliteRow, column: usize) -> Option<i64> {
    row.try_get(column).ok()
}

/// The bytes in a column, whatever its type.
fn bytes(row: &SqliteRow, column: usize) -> Option<Vec<u8>> {
    row.try_get_unchecked(column).ok()
}
