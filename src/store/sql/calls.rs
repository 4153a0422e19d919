//! The calls that go to the database in batches: [`Write`], and what a read finds.

use bytes::Bytes;

use super::statements::{kept_above, to_integer};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::batch::BatchCall;

/// A write of one record. Its answer is whether it took effect.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Insert(Row),
    /// Of the record that has this version.
    Replace(Version, Row),
    Touch(RecordId, Record),
    Remove(RecordId),
}

/// What of a [`Write`] decides its statement.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteKind {
    Insert,
    Replace,
    Touch,
    Remove,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl WriteKind {
    pub(super) const ALL: [Self; 4] = [Self::Insert, Self::Replace, Self::Touch, Self::Remove];
}

/// The columns of a record.
#[derive(Clone, Debug)]
pub(super) struct Row {
    id: RecordId,
    record: Record,
    bytes: Vec<u8>,
}

/// A row that a read found. It is decoded by who asked for it, so that the lane does not wait for
/// that.
#[derive(Clone, Debug)]
pub(super) struct StoredRow {
    pub(super) expires_at: i64,
    pub(super) record: Bytes,
}

impl Row {
    pub(super) fn new(id: RecordId, record: &Record) -> Result<Self, StoreError> {
        Ok(Self {
            id,
            bytes: record.encode()?,
            record: record.clone(),
        })
    }

    pub(super) fn id(&self) -> &[u8] {
        self.id.as_bytes()
    }

    pub(super) fn version(&self) -> i64 {
        to_integer(self.record.version().as_u64())
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.record.user().map(UserId::as_str)
    }

    pub(super) fn external_id(&self) -> Option<&str> {
        self.record.external_id()
    }

    pub(super) fn kept_above(&self) -> i64 {
        kept_above(&self.record)
    }

    pub(super) fn expires_at(&self) -> i64 {
        to_integer(self.record.expires_at().as_millis())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Write {
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn kind(&self) -> WriteKind {
        match self {
            Self::Insert(_) => WriteKind::Insert,
            Self::Replace(..) => WriteKind::Replace,
            Self::Touch(..) => WriteKind::Touch,
            Self::Remove(_) => WriteKind::Remove,
        }
    }

    /// What the write does, for an error.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Insert(_) => "write a new session",
            Self::Replace(..) => "write a session",
            Self::Touch(..) => "touch a session",
            Self::Remove(_) => "remove a session",
        }
    }

    /// The same for a batch.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn what_all(writes: &[Self]) -> &'static str {
        match writes {
            [first, others @ ..] if others.iter().all(|other| other.kind() == first.kind()) => {
                first.what()
            }
            _ => "write sessions",
        }
    }

    pub(super) fn row(&self) -> Option<&Row> {
        match self {
            Self::Insert(row) | Self::Replace(_, row) => Some(row),
            Self::Touch(..) | Self::Remove(_) => None,
        }
    }

    /// The version that the stored record must have.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn expected(&self) -> Option<i64> {
        let version = match self {
            Self::Replace(expected, _) => *expected,
            Self::Touch(_, record) => record.version(),
            Self::Insert(_) | Self::Remove(_) => return None,
        };
        Some(to_integer(version.as_u64()))
    }

    /// The expiry that the write gives to the record.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn expires_at(&self) -> Option<i64> {
        let record = match self {
            Self::Insert(row) | Self::Replace(_, row) => &row.record,
            Self::Touch(_, record) => record,
            Self::Remove(_) => return None,
        };
        Some(to_integer(record.expires_at().as_millis()))
    }
}

impl BatchCall for Write {
    const IS_READ: bool = false;

    fn id(&self) -> RecordId {
        match self {
            Self::Insert(row) | Self::Replace(_, row) => row.id,
            Self::Touch(id, _) | Self::Remove(id) => *id,
        }
    }

    fn bytes(&self) -> usize {
        self.row().map_or(0, |row| row.bytes.len())
    }
}
