//! One statement for several records.

use sqlx::{Error, MySqlConnection};

use super::{Loads, in_order};
use crate::id::RecordId;
use crate::store::sql::calls::StoredRow;
use crate::store::sql::statements::{LOAD_MANY, SizedStatement, Sizes, Statements, sql};

/// Reads of several records.
pub(super) struct LoadMany(Sizes);

impl LoadMany {
    pub(super) fn new(statements: &Statements) -> Self {
        Self(Sizes::new(statements, LOAD_MANY, 1))
    }
}

impl Loads {
    pub(super) async fn read_many(
        &self,
        ids: &[RecordId],
        connection: &mut MySqlConnection,
    ) -> Result<Vec<Option<StoredRow>>, Error> {
        let SizedStatement { size, text } = self.many.0.for_records(ids.len());
        let mut read = sqlx::query(sql(text));
        for index in 0..*size {
            read = read.bind(ids.get(index).map(|id| &id.as_bytes()[..]));
        }
        in_order(ids, &read.fetch_all(connection).await?)
    }
}
