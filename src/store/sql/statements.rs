//! [`Statements`]: what the stores ask their database, and what its errors mean.

use std::sync::Arc;

use super::dialect::{Dialect, Table};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::Record;

/// The statements of a store, rendered once.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) dialect: &'static Dialect,
    pub(super) table: Table,
    pub(super) load: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) replace: Arc<str>,
    pub(super) exists: Arc<str>,
    pub(super) touch: Arc<str>,
    pub(super) remove: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) find_by_user: Arc<str>,
    pub(super) remove_by_user: Arc<str>,
}

impl Statements {
    pub(super) fn new(dialect: &'static Dialect, table: Table) -> Arc<Self> {
        let statement = |text| dialect.statement(&table, text);
        Arc::new(Self {
            load: statement("SELECT expires_at, record FROM {table} WHERE id = ?"),
            // This is not an upsert: a taken id is an error, and the store answers `false`.
            insert: statement(
                "INSERT INTO {table} (id, version, user_id, expires_at, record) \
                 VALUES (?, ?, ?, ?, ?)",
            ),
            // A stored expiry that is later than the first of the two stays: see `kept_above`.
            replace: statement(
                "UPDATE {table} SET version = ?, user_id = ?, \
                 expires_at = CASE WHEN expires_at > ? THEN expires_at ELSE ? END, record = ? \
                 WHERE id = ? AND version = ?",
            ),
            exists: statement("SELECT 1 FROM {table} WHERE id = ?"),
            touch: statement("UPDATE {table} SET expires_at = ? WHERE id = ? AND version = ?"),
            remove: statement("DELETE FROM {table} WHERE id = ?"),
            purge: statement(dialect.purge),
            find_by_user: statement("SELECT id, expires_at, record FROM {table} WHERE user_id = ?"),
            remove_by_user: statement("DELETE FROM {table} WHERE user_id = ? AND id <> ?"),
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
        StoreError::new(format!("could not {what} in {context}")).with_source(error)
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
