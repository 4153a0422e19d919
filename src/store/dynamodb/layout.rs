//! Where sessions are in the table, and what their items hold.
//!
//! | item | partition key | sort key | attributes |
//! | --- | --- | --- | --- |
//! | a session | `session#` and its id | `session` | all of [`attribute`] |
//! | an entry of a user's index | `user#` and the user | `session#` and the session's id | [`attribute::ENTRY_AT`], and when it may go |
//! | an entry of an external id's index | `external#` and the external id | as above | as above |
//!
//! Each partition key begins with the prefix of the store.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoDbStore;
use crate::clock::Timestamp;
use crate::events;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Filed, Record, Version};
use crate::store::indexed_by::IndexedBy;

/// An item, as the client has it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The names of the attributes, except those of the keys and the TTL. The names count into the size
/// of an item.
pub(super) mod attribute {
    /// The bytes of the record.
    pub(in super::super) const RECORD: &str = "record";
    pub(in super::super) const VERSION: &str = "version";
    /// In milliseconds. The expiry in the bytes of the record may be older.
    pub(in super::super) const EXPIRES: &str = "expires";
    pub(in super::super) const USER: &str = "user";
    pub(in super::super) const EXTERNAL_ID: &str = "external_id";
    /// The name of the last write of the record.
    pub(in super::super) const WRITE: &str = "write";
    /// When the session's entries in its indexes were written, in milliseconds: their name. The
    /// entries have it too.
    pub(in super::super) const ENTRY_AT: &str = "entry_at";
    /// Until when the indexes keep the entries, in seconds. It is never before the expiry.
    pub(in super::super) const ENTRY_UNTIL: &str = "entry_until";
}

/// The sort key of a session.
pub(super) const SESSION: &str = "session";
const SESSION_PREFIX: &str = "session#";

/// What the table is called, and its keys.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) table: String,
    pub(super) partition_key: String,
    pub(super) sort_key: String,
    pub(super) ttl: String,
    pub(super) prefix: String,
}

impl Names {
    pub(super) fn session_key(&self, id: RecordId) -> Item {
        self.key(format!("{}{id}", self.session_partitions()), SESSION.into())
    }

    /// What the partition keys of all sessions begin with.
    pub(super) fn session_partitions(&self) -> String {
        format!("{}{SESSION_PREFIX}", self.prefix)
    }

    pub(super) fn entry_key(&self, by: &IndexedBy, id: RecordId) -> Item {
        self.key(self.entries_of(by), format!("{SESSION_PREFIX}{id}"))
    }

    /// The partition of an index.
    pub(super) fn entries_of(&self, by: &IndexedBy) -> String {
        let prefix = &self.prefix;
        match by {
            IndexedBy::User(user) => format!("{prefix}user#{}", user.as_str()),
            IndexedBy::ExternalId(id) => format!("{prefix}external#{id}"),
        }
    }

    pub(super) fn key(&self, partition: String, sort: String) -> Item {
        Item::from([
            (self.partition_key.clone(), AttributeValue::S(partition)),
            (self.sort_key.clone(), AttributeValue::S(sort)),
        ])
    }

    /// The session that an item belongs to.
    pub(super) fn id_in_session_key(&self, item: &Item) -> Option<RecordId> {
        let key = item.get(&self.partition_key)?.as_s().ok()?;
        let id = key.strip_prefix(&self.prefix)?;
        id.strip_prefix(SESSION_PREFIX)?.parse().ok()
    }

    /// The session that an entry of an index names.
    pub(super) fn id_in_entry_key(&self, item: &Item) -> Option<RecordId> {
        let key = item.get(&self.sort_key)?.as_s().ok()?;
        key.strip_prefix(SESSION_PREFIX)?.parse().ok()
    }
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn bytes(bytes: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(super) fn number_in(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// A time in seconds, and not before it.
pub(super) fn seconds(time: Timestamp) -> u64 {
    time.as_millis().div_ceil(1000)
}

/// The attribute by which the item of a session says that an index finds it, and its value.
pub(super) fn attribute_of(by: &IndexedBy) -> (&'static str, &str) {
    match by {
        IndexedBy::User(user) => (attribute::USER, user.as_str()),
        IndexedBy::ExternalId(id) => (attribute::EXTERNAL_ID, id),
    }
}

/// Whether an index finds the session of this item.
pub(super) fn is_found_by(item: &Item, by: &IndexedBy) -> bool {
    let (name, text) = attribute_of(by);
    text_in(item, name) == Some(text)
}

/// All that indexes find the session of this item by.
pub(super) fn indexes_in(item: &Item) -> impl Iterator<Item = IndexedBy> {
    let user = text_in(item, attribute::USER);
    let user = user.map(|user| IndexedBy::User(UserId::stored(user.into())));
    let external_id = text_in(item, attribute::EXTERNAL_ID);
    let external_id = external_id.map(|id| IndexedBy::ExternalId(id.into()));
    user.into_iter().chain(external_id)
}

fn text_in<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    Some(item.get(name)?.as_s().ok()?)
}

/// What a write compares with. It is `None` for an item that no store has written.
pub(super) struct Stored<'a> {
    pub(super) version: Version,
    pub(super) expires_at: Timestamp,
    pub(super) write: Option<&'a [u8]>,
    item: &'a Item,
}

impl<'a> Stored<'a> {
    pub(super) fn of(item: &'a Item) -> Option<Self> {
        let write = item.get(attribute::WRITE).and_then(|name| name.as_b().ok());
        Some(Self {
            version: Version::from_u64(number_in(item, attribute::VERSION)?),
            expires_at: Timestamp::from_millis(number_in(item, attribute::EXPIRES)?),
            write: write.map(AsRef::as_ref),
            item,
        })
    }

    /// Whether the indexes have the session under all that the record is found by.
    pub(super) fn filed(&self, record: &Record) -> Filed {
        match number_in(self.item, attribute::ENTRY_UNTIL) {
            Some(until) if IndexedBy::all_of(record).all(|by| is_found_by(self.item, &by)) => {
                Filed::Until(until)
            }
            _ => Filed::No,
        }
    }
}

impl DynamoDbStore {
    /// The record of an item, if it has not expired. DynamoDB removes an expired item some days
    /// later.
    pub(super) fn record_in(&self, id: RecordId, mut item: Item, now: Timestamp) -> Option<Record> {
        let bytes = match item.remove(attribute::RECORD) {
            Some(AttributeValue::B(bytes)) => bytes.into_inner(),
            // This is not a record, and `decode` says so in the log.
            _ => Vec::new(),
        };
        let stored = Stored::of(&item);
        if stored
            .as_ref()
            .is_some_and(|stored| stored.expires_at <= now)
        {
            return None;
        }
        let record = Record::decode(id, bytes)?;
        let Some(stored) = stored else {
            events::corrupt_record(id, "the version or the expiry of its item is not a number");
            return None;
        };
        let filed = stored.filed(&record);
        let record = record.with_expires_at(stored.expires_at);
        Some(record.with(|fields| fields.set_filed(filed)))
    }
}
