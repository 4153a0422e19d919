//! One statement for several records. Its parameter is an array, so that one text serves any number
//! of records.

use std::sync::Arc;

use sqlx::{Error, PgConnection};

use super::{Loads, in_order};
use crate::id::RecordId;
use crate::store::sql::calls::StoredRow;
use crate::store::sql::statements::{Statements, sql};

/// The read of several records.
pub(super) struct LoadMany(Arc<str>);

impl LoadMany {
    pub(super) fn new(Statements { dialect, table, .. }: &Statements) -> Self {
        let text = "SELECT id, expires_at, record FROM {table} WHERE id = ANY(?)";
        Self(dialect.statement(table, text))
    }
}

impl Loads {
    pub(super) async fn read_many(
        &self,
        ids: &[RecordId],
        connection: &mut PgConnection,
    ) -> Result<Vec<Option<StoredRow>>, Error> {
        let bytes: Vec<_> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
        let read = sqlx::query(sql(&self.many.0)).bind(bytes);
        in_order(ids, &read.fetch_all(connection).await?)
    }
}
