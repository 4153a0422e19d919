//! The keys, and what is kept under a session's key: the bytes of a record. In a cluster, the names
//! of the last writes follow.

use redis::{RedisResult, RedisWrite, ToRedisArgs};

use crate::events;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::encoding::{stored_length, stored_user};
pub(super) use crate::store::indexed_by::IndexedBy;

/// A key, which is written into a command without a copy.
pub(super) struct Key<'a> {
    pub(super) prefix: &'a str,
    pub(super) of: KeyOf<'a>,
}

pub(super) enum KeyOf<'a> {
    Session(RecordId),
    Index(&'a IndexedBy),
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let prefix = self.prefix;
        match self.of {
            KeyOf::Session(id) => out.write_arg_fmt(format_args!("{prefix}session:{id}")),
            KeyOf::Index(IndexedBy::User(user)) => {
                out.write_arg_fmt(format_args!("{prefix}user:{user}"));
            }
            KeyOf::Index(IndexedBy::ExternalId(id)) => {
                out.write_arg_fmt(format_args!("{prefix}external:{id}"));
            }
        }
    }
}

/// The value of a session's key.
pub(super) enum Value {
    Missing,
    Bytes(Vec<u8>),
    /// Something of another type. It is a corrupt record, and not an error.
    Foreign,
}

impl Value {
    pub(super) fn of(answer: RedisResult<Option<Vec<u8>>>) -> RedisResult<Self> {
        match answer {
            Ok(bytes) => Ok(bytes.map_or(Self::Missing, Self::Bytes)),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Self::Foreign),
            Err(error) => Err(error),
        }
    }

    /// Whether an index should find this session.
    pub(super) fn is_found_by(&self, by: &IndexedBy, id: RecordId) -> bool {
        match (self, by) {
            (Self::Missing | Self::Foreign, _) => false,
            (Self::Bytes(bytes), IndexedBy::User(user)) => {
                stored_user(bytes) == Some(user.as_str().as_bytes())
            }
            (Self::Bytes(bytes), IndexedBy::ExternalId(external_id)) => {
                let record = Self::Bytes(bytes.clone()).decode(id);
                record.is_some_and(|record| record.external_id() == Some(external_id))
            }
        }
    }

    pub(super) fn decode(self, id: RecordId) -> Option<Record> {
        match self {
            Self::Missing => None,
            Self::Foreign => {
                events::corrupt_record(id, "its key holds something else");
                None
            }
            Self::Bytes(mut bytes) => {
                // What follows the record are the names of writes.
                bytes.truncate(stored_length(&bytes).unwrap_or(usize::MAX));
                Record::decode(id, bytes)
            }
        }
    }
}
