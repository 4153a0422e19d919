//! [`Statements`]: what the stores ask their database, and what its errors mean.

use std::sync::Arc;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::AssertSqlSafe;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use super::calls::{Write, WriteKind};
use super::dialect::{Dialect, Table};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::Record;
use crate::store::batch::{BatchError, MOST_CALLS};

/// The statements of a store, rendered once.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) dialect: &'static Dialect,
    pub(super) table: Table,
    pub(super) load: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) replace: Arc<str>,
    pub(super) touch: Arc<str>,
    pub(super) remove: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) find_by_user: Arc<str>,
    pub(super) remove_by_user: Arc<str>,
    pub(super) scan: Arc<str>,
    pub(super) find_by_external_id: Arc<str>,
}

/// The statements that write several records at once.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug)]
pub(super) struct WriteMany {
    insert: Sizes,
    replace: Sizes,
    touch: Sizes,
    remove: Sizes,
    renews_plans: bool,
    /// How many records this store has inserted.
    inserted: AtomicU64,
}

/// The texts of [`WriteMany`]. Each statement answers with the ids of the records that it wrote. In
/// each text, `{rows}` are the parameters. Their order in a row:
///
/// - `insert`: id, version, user, external id, expiry, record.
/// - `replace`: id, version, user, external id, the expiry above which the stored one stays,
///   expiry, record, the expected version.
/// - `touch`: id, expiry, the expected version.
/// - `remove`: id.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) struct WriteManyTexts {
    pub(super) insert: &'static str,
    pub(super) replace: &'static str,
    pub(super) touch: &'static str,
    pub(super) remove: &'static str,
    /// Whether the database keeps the plan of a statement, and would read a whole table by a plan
    /// that it made when the table was small.
    pub(super) renews_plans: bool,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl WriteMany {
    pub(super) fn new(statements: &Statements, texts: &WriteManyTexts) -> Self {
        let sizes = |text, columns| Sizes::new(statements, text, columns);
        Self {
            insert: sizes(texts.insert, 6),
            replace: sizes(texts.replace, 8),
            touch: sizes(texts.touch, 3),
            remove: sizes(texts.remove, 1),
            renews_plans: texts.renews_plans,
            inserted: AtomicU64::new(0),
        }
    }

    /// Counts these writes, if they are inserts.
    pub(super) fn count(&self, writes: &[Write]) {
        let inserts = writes.iter().filter(|it| it.kind() == WriteKind::Insert);
        let inserts = u64::try_from(inserts.count()).unwrap_or_default();
        if inserts > 0 {
            self.inserted.fetch_add(inserts, Ordering::Relaxed);
        }
    }

    /// The text of a statement. If plans must be renewed, it is another text each time that the
    /// store has inserted twice as many records. So the database makes a new plan, which fits the
    /// size of the table.
    pub(super) fn text(&self, statement: &SizedStatement) -> AssertSqlSafe<Arc<str>> {
        if !self.renews_plans {
            return sql(&statement.text);
        }
        let inserted = self.inserted.load(Ordering::Relaxed);
        let doublings = u64::BITS - inserted.leading_zeros();
        AssertSqlSafe(format!("{} /* {doublings} */", statement.text).into())
    }

    pub(super) fn of_kind(&self, kind: WriteKind) -> &Sizes {
        match kind {
            WriteKind::Insert => &self.insert,
            WriteKind::Replace => &self.replace,
            WriteKind::Touch => &self.touch,
            WriteKind::Remove => &self.remove,
        }
    }
}

/// Reads several records. `{rows}` are the parameters of their ids.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) const LOAD_MANY: &str =
    "SELECT id, expires_at, record FROM {table} WHERE id IN ({rows})";

/// One statement in a few sizes: for 2, 4, 8 … records. A connection prepares each of them once.
/// With a statement for every number of records, it would prepare many more.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The smallest first.
    smaller: Vec<SizedStatement>,
    largest: SizedStatement,
}

/// A statement for this many records. Those that are not there are NULL.
#[derive(Clone, Debug)]
pub(super) struct SizedStatement {
    pub(super) size: usize,
    pub(super) text: Arc<str>,
}

impl Sizes {
    /// Renders a text in which `{rows}` becomes the parameters of the records. Each record has this
    /// many of them.
    pub(super) fn new(statements: &Statements, text: &str, columns: usize) -> Self {
        let Statements { dialect, table, .. } = statements;
        let row = vec!["?"; columns].join(", ");
        let row = match columns {
            1 => row,
            _ => format!("({row})"),
        };
        let sizes = (1..).map(|power| 1 << power);
        let sizes = sizes.take_while(|&size: &usize| size < MOST_CALLS);
        let of_size = |size| {
            let rows = vec![&*row; size].join(", ");
            let text = dialect.statement(table, &text.replace("{rows}", &rows));
            SizedStatement { size, text }
        };
        Self {
            smaller: sizes.map(of_size).collect(),
            largest: of_size(MOST_CALLS),
        }
    }

    /// The smallest statement that is for at least this many records. A batch has no more than the
    /// largest one takes.
    pub(super) fn for_records(&self, records: usize) -> &SizedStatement {
        let mut smaller = self.smaller.iter();
        let fits = smaller.find(|statement| statement.size >= records);
        fits.unwrap_or(&self.largest)
    }
}

impl Statements {
    pub(super) fn new(dialect: &'static Dialect, table: Table) -> Arc<Self> {
        let statement = |text| dialect.statement(&table, text);
        Arc::new(Self {
            load: statement("SELECT expires_at, record FROM {table} WHERE id = ?"),
            // This is not an upsert: a taken id is an error, and the store answers `false`.
            insert: statement(
                "INSERT INTO {table} (id, version, user_id, external_id, expires_at, record) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            ),
            // A stored expiry that is later than the first of the two stays: see `kept_above`.
            replace: statement(
                "UPDATE {table} SET version = ?, user_id = ?, external_id = ?, \
                 expires_at = CASE WHEN expires_at > ? THEN expires_at ELSE ? END, record = ? \
                 WHERE id = ? AND version = ?",
            ),
            touch: statement("UPDATE {table} SET expires_at = ? WHERE id = ? AND version = ?"),
            remove: statement("DELETE FROM {table} WHERE id = ?"),
            purge: statement(dialect.purge),
            find_by_user: statement("SELECT id, expires_at, record FROM {table} WHERE user_id = ?"),
            remove_by_user: statement(dialect.remove_by_user),
            // The primary key has this order, so that a page in the middle costs no more than the
            // first one. A row with another id is not one of this store, and must stop no walk.
            scan: statement(
                "SELECT id, expires_at, record FROM {table} WHERE id > ? AND length(id) = 16 \
                 ORDER BY id LIMIT ?",
            ),
            find_by_external_id: statement(
                "SELECT id, expires_at, record FROM {table} WHERE external_id = ?",
            ),
            dialect,
            table,
        })
    }

    /// The store's error for an error of the database.
    pub(super) fn failed(&self, what: &str, error: sqlx::Error) -> StoreError {
        let Dialect { context, store, .. } = self.dialect;
        if self.lacks_table(&error) {
            let table = self.table.quoted(self.dialect);
            let what = format!(
                "could not {what} in {context}: there is no table {table}; call `{store}::migrate` \
                 first, or run the statements of `{store}::migration`"
            );
            return StoreError::new(what).with_source(error);
        }
        let advice = self.dialect.advice(&error);
        StoreError::new(format!("could not {what} in {context}{advice}")).with_source(error)
    }

    /// The error of each call of a batch.
    pub(super) fn batch_failed(&self, what: &str, error: sqlx::Error) -> BatchError {
        let is_refused = match &error {
            // A value that sqlx cannot send. Nothing was sent.
            sqlx::Error::Encode(_) => true,
            sqlx::Error::Database(error) => (self.dialect.is_of_record)(&**error),
            _ => false,
        };
        let error = self.failed(what, error);
        BatchError { error, is_refused }
    }

    fn lacks_table(&self, error: &sqlx::Error) -> bool {
        let Some(error) = error.as_database_error() else {
            return false;
        };
        let mark = self.dialect.no_table;
        error.code().is_some_and(|code| code == mark) || error.message().contains(mark)
    }
}

/// Whether a statement lost against a parallel one. It had no effect then, and can run again. It is
/// a deadlock (40P01, or MySQL's 40001) or a serialization failure (40001).
pub(super) fn lost_a_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// The statement as sqlx takes it. Its only dynamic part is the quoted name of the table.
pub(super) fn sql(statement: &Arc<str>) -> AssertSqlSafe<Arc<str>> {
    AssertSqlSafe(statement.clone())
}

/// A stored expiry that is later than this stays when the record replaces the stored one. One
/// statement serves both kinds of records, so that a connection prepares one statement.
pub(super) fn kept_above(record: &Record) -> i64 {
    match record.keeps_later_expiry() {
        true => to_integer(record.expires_at().as_millis()),
        false => i64::MAX,
    }
}

pub(super) fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn to_timestamp(integer: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(integer).unwrap_or(0))
}
