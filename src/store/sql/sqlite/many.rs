//! One statement for several records.

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Error, Row as _};

use super::{Loads, in_order};
use crate::id::RecordId;
use crate::id::maps::IdMap;
use crate::store::sql::calls::StoredRow;
use crate::store::sql::statements::{LOAD_MANY, SizedStatement, Sizes, Statements, sql};

/// Reads of several records.
pub(super) struct LoadMany {
    packed: Sizes,
    rows: Sizes,
}

/// Reads several records in one row. sqlx hands each row from thread to thread by itself, and that
/// takes longer than the read. All columns have the same order.
///
/// SQLite joins the bytes of BLOBs as they are, if the database's encoding is UTF-8, which is the
/// default. The first column has one byte then.
const LOAD_PACKED: &str = "SELECT CAST('8' AS BLOB), CAST(group_concat(id, '') AS BLOB), \
     group_concat(expires_at), group_concat(length(record)), \
     CAST(group_concat(record, '') AS BLOB) FROM {table} WHERE id IN ({rows})";

impl LoadMany {
    pub(super) fn new(statements: &Statements) -> Self {
        Self {
            packed: Sizes::new(statements, LOAD_PACKED, 1),
            rows: Sizes::new(statements, LOAD_MANY, 1),
        }
    }
}

impl Loads {
    pub(super) async fn read_many(
        &self,
        ids: &[RecordId],
        connection: &mut SqliteConnection,
    ) -> Result<Vec<Option<StoredRow>>, Error> {
        let of_ids = |SizedStatement { size, text }: &SizedStatement| {
            let mut read = sqlx::query(sql(text));
            for index in 0..*size {
                read = read.bind(ids.get(index).map(|id| id.as_bytes().to_vec()));
            }
            read
        };
        let packed = of_ids(self.many.packed.for_records(ids.len()));
        let row = packed.fetch_one(&mut *connection).await?;
        if let Some(mut found) = unpack(&row) {
            return Ok(ids.iter().map(|id| found.remove(id)).collect());
        }
        let rows = of_ids(self.many.rows.for_records(ids.len()));
        in_order(ids, &rows.fetch_all(connection).await?)
    }
}

/// The records of a row of [`LOAD_PACKED`]. It is `None` if the database has another encoding, or a
/// column has another type.
fn unpack(row: &SqliteRow) -> Option<IdMap<StoredRow>> {
    let encoding: &[u8] = row.try_get(0).ok()?;
    if encoding != b"8" {
        return None;
    }
    // Without any record, these are NULL.
    let ids: Option<&[u8]> = row.try_get(1).ok()?;
    let expiries: Option<&str> = row.try_get(2).ok()?;
    let lengths: Option<&str> = row.try_get(3).ok()?;
    let records: Option<&[u8]> = row.try_get(4).ok()?;
    let (ids, odd) = ids.unwrap_or_default().as_chunks();
    let mut expiries = numbers(expiries);
    let mut lengths = numbers(lengths);
    let mut records = records.unwrap_or_default();
    let mut found = IdMap::with_capacity_and_hasher(ids.len(), Default::default());
    for id in ids {
        let length = usize::try_from(lengths.next()??).ok()?;
        let (record, rest) = records.split_at_checked(length)?;
        records = rest;
        let row = StoredRow {
            expires_at: expiries.next()??,
            record: Bytes::copy_from_slice(record),
        };
        found.insert(RecordId::from_bytes(*id), row);
    }
    let is_whole = odd.is_empty()
        && records.is_empty()
        && expiries.next().is_none()
        && lengths.next().is_none();
    is_whole.then_some(found)
}

/// The numbers of a text with commas between them.
fn numbers(text: Option<&str>) -> impl Iterator<Item = Option<i64>> {
    let parts = text.into_iter().flat_map(|text| text.split(','));
    parts.map(|number| number.parse().ok())
}
