//! Where sessions are in the table, and what their items hold.
//!
//! | item | partition key | sort key | attributes |
//! | --- | --- | --- | --- |
//! | a session | `session#` and its id | `session` | all of [`attribute`] |
//! | an entry of a user's index | `user#` and the user | `session#` and the session's id | [`attribute::ENTRY_AT`], and when it may go |
//!
//! Each partition key begins with the prefix of the store.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoDbStore;
use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Filed, Record, Version};

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
    /// The name of the last write of the record.
    pub(in super::super) const WRITE: &str = "write";
    /// When the session's entry in its user's index was written, in milliseconds: its name. The
    /// entry has it too.
    pub(in super::super) const ENTRY_AT: &str = "entry_at";
    /// Until when the index keeps the entry, in seconds. It is never before the expiry.
    pub(in super::super) const ENTRY_UNTIL: &str = "entry_until";
}

const SESSION: &str = "session";
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
        let partition = format!("{}{SESSION_PREFIX}{id}", self.prefix);
        self.key(partition, SESSION.into())
    }

    pub(super) fn entry_key(&self, user: &UserId, id: RecordId) -> Item {
        self.key(self.entries_of(user), format!("{SESSION_PREFIX}{id}"))
    }

    /// The partition of a user's index.
    pub(super) fn entries_of(&self, user: &UserId) -> String {
        format!("{}user#{}", self.prefix, user.as_str())
    }

    fn key(&self, partition: String, sort: String) -> Item {
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

/// What a write compares with. It is `None` for an item that no store has written.
pub(super) struct Stored {
    pub(super) version: Version,
    pub(super) expires_at: Timestamp,
    pub(super) write: Option<Vec<u8>>,
    user: Option<String>,
    entry_until: Option<u64>,
}

impl Stored {
    pub(super) fn of(item: &Item) -> Option<Self> {
        let user = item.get(attribute::USER).and_then(|user| user.as_s().ok());
        let write = item.get(attribute::WRITE).and_then(|name| name.as_b().ok());
        Some(Self {
            version: Version::from_u64(number_in(item, attribute::VERSION)?),
            expires_at: Timestamp::from_millis(number_in(item, attribute::EXPIRES)?),
            write: write.map(|name| name.as_ref().to_vec()),
            user: user.cloned(),
            entry_until: number_in(item, attribute::ENTRY_UNTIL),
        })
    }

    /// Whether the index has the session under this user.
    pub(super) fn filed(&self, user: Option<&UserId>) -> Filed {
        match self.entry_until {
            Some(until) if self.user.as_deref() == user.map(UserId::as_str) => Filed::Until(until),
            _ => Filed::No,
        }
    }
}

/// The user of a session's item.
pub(super) fn user_in(item: &Item) -> Option<UserId> {
    let user = item.get(attribute::USER)?.as_s().ok()?;
    Some(UserId::stored(user.as_str().into()))
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
        let stored = stored?;
        let filed = stored.filed(record.user());
        let record = record.with_expires_at(stored.expires_at);
        Some(record.with(|fields| fields.set_filed(filed)))
    }
}
