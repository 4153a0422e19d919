//! [`Data`]: a session's values by key.

mod entry;
mod finite;
mod json;
mod table;
mod unordered;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub(crate) use self::entry::{Entry, EntryRef};
use self::table::Table;

/// How many bytes keys and values have at most, whatever a layer allows. Their places are numbers
/// of four bytes, also while a change adds one more value of this size.
pub(crate) const MAX_SIZE: usize = 1 << 30;

/// A session's values. A value is parsed when it is read, and a clone copies no value.
///
/// The values and the table of their places are one piece of memory, as a record's bytes have it:
/// see [`Table`]. So nothing is copied out of a record that a store has loaded, and a change of a
/// value makes one new piece. Sessions are small, so that the copy costs less than many pieces.
#[derive(Clone, Default)]
pub(crate) struct Data(Piece);

/// The memory that clones share.
#[derive(Clone)]
enum Piece {
    Made(Arc<[u8]>),
    /// The end of a record's bytes, from this place on. This is not a slice of `Bytes`, because the
    /// first clone of a slice makes an allocation.
    Loaded(Arc<(Bytes, usize)>),
}

impl Default for Piece {
    fn default() -> Self {
        Self::Made(Arc::default())
    }
}

impl Data {
    /// The data at the end of a record's bytes, if it is sound.
    pub(super) fn of_record(record: Bytes, start: usize) -> Option<Self> {
        let bytes = record.get(start..)?;
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let is_sound = Table::of(bytes).is_sound();
        is_sound.then(|| Self(Piece::Loaded(Arc::new((record, start)))))
    }

    /// The bytes as a record has them.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Piece::Made(bytes) => bytes,
            Piece::Loaded(record) => record.0.get(record.1..).unwrap_or_default(),
        }
    }

    fn table(&self) -> Table<'_> {
        Table::of(self.as_bytes())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.table().entries().map(EntryRef::key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<EntryRef<'_>> {
        let table = self.table();
        table.entry(table.find(key.as_bytes()).ok()?)
    }

    /// The data with this entry, in place of the one with the same key. It is `None` if the old entry
    /// is equal, so that nothing changes.
    pub(crate) fn with(&self, entry: &Entry) -> Option<Self> {
        let table = self.table();
        let new = entry.as_ref();
        let range = match table.find(new.key) {
            Ok(index) if table.entry(index).is_some_and(|old| old.has_value_of(new)) => {
                return None;
            }
            Ok(index) => index..index + 1,
            Err(index) => index..index,
        };
        Some(Self(Piece::Made(table.with(range, Some(entry)))))
    }

    /// The data without the entry of this key. It is `None` if the key has no entry.
    pub(crate) fn without(&self, key: &str) -> Option<Self> {
        let table = self.table();
        let index = table.find(key.as_bytes()).ok()?;
        Some(Self(Piece::Made(table.with(index..index + 1, None))))
    }

    /// Whether both are the same piece of memory. Equal data need not be.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.as_bytes(), other.as_bytes()) || self.is_empty() && other.is_empty()
    }

    /// Bytes of all keys and values.
    pub(crate) fn size(&self) -> usize {
        self.table().text().len()
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.table().is_equal(other.table())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} values)", self.table().len())
    }
}

/// An object. A value that is not JSON, which only a faulty program can have written, is `null`.
impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = self.table();
        let mut map = serializer.serialize_map(Some(table.len()))?;
        for entry in table.entries() {
            let value: Option<&RawValue> = serde_json::from_slice(entry.json).unwrap_or_default();
            map.serialize_entry(entry.key(), &value)?;
        }
        map.end()
    }
}
