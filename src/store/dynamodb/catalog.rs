//! All sessions: a walk by `Scan`. And those of an external id.
//!
//! The order of a scan is that of the hashes of the partition keys. A scan begins behind any key,
//! whether there is an item under it or not. So a walk goes on behind a session that has ended since.

use std::time::Instant;

use async_trait::async_trait;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::DynamoDbStore;
use super::failure::Failure;
use super::layout::{Item, Names, SESSION};
use crate::clock::{Clock, SystemClock};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::{Record, is_external_id};
use crate::store::catalog::bounds::{LONGEST_LOOK, MOST_LOOKED_AT};
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
use crate::store::indexed_by::IndexedBy;

/// How many items one `Scan` looks at, at most. It ends at 1 MB too, before the filter. A call that
/// looks at fewer than some items is not cheaper.
const SCANNED_AT_ONCE: std::ops::RangeInclusive<usize> = 8..=1000;

/// A key of DynamoDB has so many bytes at most.
const LONGEST_PARTITION_KEY: usize = 2048;
const LONGEST_SORT_KEY: usize = 1024;

/// What the cursor of a place behind another item begins with. No other store has such cursors.
const ITEM: &str = "item";

/// Behind which key a walk goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Session(RecordId),
    /// Not a session of this store: an entry of an index, or an item of the application.
    Item {
        partition: String,
        sort: String,
    },
}

impl Place {
    fn at(names: &Names, partition: String, sort: String) -> Self {
        let id = partition.strip_prefix(&names.session_partitions());
        match id.and_then(|id| id.parse().ok()) {
            Some(id) if sort == SESSION => Self::Session(id),
            _ => Self::Item { partition, sort },
        }
    }

    /// The place behind a key that DynamoDB has named.
    fn of_key(names: &Names, mut key: Item) -> Result<Self, Failure> {
        let mut take = |name| match key.remove(name) {
            Some(AttributeValue::S(text)) => Ok(text),
            _ => Err(Failure::new(
                "the keys of the table are others than those of the store; it must have a \
                 partition key and a sort key, both of them strings: give their names to \
                 `DynamoDbStore::with_key_names`",
            )),
        };
        let partition = take(&names.partition_key)?;
        let sort = take(&names.sort_key)?;
        Ok(Self::at(names, partition, sort))
    }

    fn key(&self, names: &Names) -> Item {
        match self {
            Self::Session(id) => names.session_key(*id),
            Self::Item { partition, sort } => names.key(partition.clone(), sort.clone()),
        }
    }

    /// The place of a cursor. `None` if the text is not one that this store could have made. Whoever
    /// makes up such a text gets to another place of the table, as a walk does, and to no other item
    /// than a session of this store.
    fn read(names: &Names, cursor: &Cursor) -> Option<Self> {
        if let Some(id) = cursor.record() {
            return Some(Self::Session(id));
        }
        let (partition, sort) = cursor
            .as_str()
            .strip_prefix(ITEM)?
            .strip_prefix('.')?
            .split_once('.')?;
        // DynamoDB takes no other keys.
        let partition = decode(partition, LONGEST_PARTITION_KEY)?;
        let sort = decode(sort, LONGEST_SORT_KEY)?;
        match Self::at(names, partition, sort) {
            // Each place has one text.
            Self::Session(_) => None,
            item @ Self::Item { .. } => Some(item),
        }
    }

    /// `None` only if the keys are longer than those of DynamoDB.
    fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Session(id) => Some(Cursor::behind(*id)),
            Self::Item { partition, sort } => {
                let [partition, sort] = [partition, sort].map(|key| URL_SAFE_NO_PAD.encode(key));
                format!("{ITEM}.{partition}.{sort}").parse().ok()
            }
        }
    }
}

fn decode(text: &str, longest: usize) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let key = String::from_utf8(bytes).ok()?;
    matches!(key.len(), 1.. if key.len() <= longest).then_some(key)
}

impl DynamoDbStore {
    /// A scan from this place on. `None` if DynamoDB does not take the place.
    async fn scan_from(
        &self,
        mut place: Option<Place>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, Failure> {
        let began = Instant::now();
        let now = SystemClock.now();
        let limit = limit.max(1);
        let mut part = limit.clamp(*SCANNED_AT_ONCE.start(), *SCANNED_AT_ONCE.end());
        let (mut records, mut looked_at) = (Vec::new(), 0);
        let mut is_first = true;
        loop {
            let left = MOST_LOOKED_AT.saturating_sub(looked_at).max(1);
            let page = match self.scan_items(place.as_ref(), part.min(left)).await {
                // It is the caller's place, and not one that DynamoDB has just named.
                Err(failure) if is_first && failure.is_of_start_key() => return Ok(None),
                page => page?,
            };
            is_first = false;
            part = (part * 2).min(*SCANNED_AT_ONCE.end());
            let end = page.last_evaluated_key.filter(|key| !key.is_empty());
            let end = end.map(|key| Place::of_key(&self.names, key)).transpose()?;
            let items = page.items.unwrap_or_default();
            let scanned = usize::try_from(page.scanned_count).unwrap_or_default();
            looked_at += scanned.max(items.len());

            let mut last = None;
            let mut sessions = items.into_iter().filter_map(|item| {
                let id = self.names.id_in_session_key(&item)?;
                Some((id, item))
            });
            for (id, item) in sessions.by_ref() {
                last = Some(id);
                if let Some(record) = self.record_in(id, item, now)
                    && accept(id, &record)
                {
                    records.push((id, record));
                    if records.len() >= limit {
                        break;
                    }
                }
            }
            if sessions.next().is_some() {
                // Nobody has looked at these. The next call reads them again.
                let next = last.map(Cursor::behind);
                return Ok(Some(Scan { records, next }));
            }
            let Some(end) = end else {
                if place.is_none() && last.is_none() {
                    // If the table's keys have other names, a scan finds nothing and is no error. A
                    // read is one.
                    self.read(RecordId::from_bytes([0; 16])).await?;
                }
                let next = None;
                return Ok(Some(Scan { records, next }));
            };
            let is_full = records.len() >= limit || looked_at >= MOST_LOOKED_AT;
            if is_full || began.elapsed() >= LONGEST_LOOK {
                // The next call reads what follows the last session of this part again. So the cursor
                // seldom names an item that is none, whose key may say something.
                let end = last.map_or(end, Place::Session);
                let next = Some(end.cursor().ok_or_else(key_too_long)?);
                return Ok(Some(Scan { records, next }));
            }
            place = Some(end);
        }
    }

    /// Looks at so many items at most. The answer has those that are sessions.
    async fn scan_items(&self, after: Option<&Place>, most: usize) -> Result<ScanOutput, Failure> {
        let Names {
            table,
            partition_key,
            sort_key,
            ..
        } = &*self.names;
        let partitions = self.names.session_partitions();
        let scan = self
            .reader
            .scan()
            .table_name(table)
            .consistent_read(true)
            .limit(i32::try_from(most).unwrap_or(i32::MAX))
            .filter_expression("begins_with(#key, :sessions) AND #sort = :session")
            .expression_attribute_names("#key", partition_key)
            .expression_attribute_names("#sort", sort_key)
            .expression_attribute_values(":sessions", AttributeValue::S(partitions))
            .expression_attribute_values(":session", AttributeValue::S(SESSION.into()))
            .set_exclusive_start_key(after.map(|place| place.key(&self.names)));
        scan.send().await.map_err(Failure::of)
    }
}

/// A walk that ended here would leave sessions out.
fn key_too_long() -> Failure {
    Failure::new("an item of the table has a longer key than DynamoDB allows")
}

#[async_trait]
impl SessionCatalog for DynamoDbStore {
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError> {
        let place = match after {
            None => None,
            Some(cursor) => match Place::read(&self.names, cursor) {
                None => return Ok(None),
                place => place,
            },
        };
        let scan = self.scan_from(place, limit, accept).await;
        scan.map_err(self.failed("list the sessions"))
    }

    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        // It may be too long for a key of DynamoDB.
        if !is_external_id(external_id) {
            return Ok(Vec::new());
        }
        let sessions = self.list(&IndexedBy::ExternalId(external_id.into())).await;
        sessions.map_err(self.failed("find sessions by their external id"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that panics is a test that fails"
    )]

    use super::*;

    #[test]
    fn a_place_comes_back_from_its_cursor_and_nothing_else_is_a_place() {
        let names = Names {
            table: "sessions".into(),
            partition_key: "pk".into(),
            sort_key: "sk".into(),
            ttl: "ttl".into(),
            prefix: "cloakroom#".into(),
        };
        let item = |partition: &str, sort: &str| Place::Item {
            partition: partition.into(),
            sort: sort.into(),
        };
        let id = RecordId::from_bytes([255; 16]);
        let longest = item(&"ü".repeat(1024), &"s".repeat(1024));
        for place in [
            Place::Session(id),
            item("cloakroom#user#main:ada", &format!("session#{id}")),
            item(&format!("cloakroom#session#{id}"), "sessions"),
            item(&format!("session#{id}"), "session"),
            longest,
        ] {
            let cursor = place.cursor().unwrap();
            assert_eq!(Place::read(&names, &cursor).unwrap(), place);
            let key = place.key(&names);
            assert_eq!(Place::of_key(&names, key).unwrap(), place);
        }
        let cursor = |partition: &str, sort: &str| item(partition, sort).cursor().unwrap();
        for refused in [
            cursor("", "sort"),
            cursor("partition", ""),
            cursor(&"p".repeat(2049), "sort"),
            cursor("partition", &"s".repeat(1025)),
            // This place has another text.
            cursor(&format!("cloakroom#session#{id}"), "session"),
            "item".parse().unwrap(),
            "item.cA".parse().unwrap(),
            "item.cA.cB".parse().unwrap(),
            "item.cA.cw.cw".parse().unwrap(),
            "item._w.cw".parse().unwrap(),
            "0.begin".parse().unwrap(),
        ] {
            assert_eq!(Place::read(&names, &refused), None, "{refused}");
        }
        let key = |value| Item::from([("pk".to_owned(), value)]);
        Place::of_key(&names, key(AttributeValue::S("p".into()))).unwrap_err();
        Place::of_key(&names, key(AttributeValue::N("1".into()))).unwrap_err();
    }
}
