//! [`Data`]: a session's values by key.

mod finite;
mod json;
mod unordered;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::error::{SessionError, SessionErrorKind};

/// A session's values. A value is parsed when it is read, and a clone copies no value.
///
/// Keys are few and short, so that a sorted list is smaller and as fast as a map. It is one
/// allocation of the size that it needs, since a store in this process keeps very many.
#[derive(Clone, Default)]
pub(crate) struct Data(Arc<[Entry]>);

/// A key and its value, which is JSON: both in one text, and so in one allocation.
#[derive(Clone)]
pub(crate) struct Entry {
    text: Arc<str>,
    key_len: usize,
}

impl Entry {
    /// The value as it is kept, or an error where it could not be read back.
    pub(crate) fn new<T: Serialize>(key: &str, value: &T) -> Result<Self, SessionError> {
        // Most values are short, and then the entry itself is the only allocation.
        let mut text = SmallVec::<[u8; 128]>::from_slice(key.as_bytes());
        // serde_json's message may quote the value, so it is left out.
        let unserializable = || SessionError::new(SessionErrorKind::Unserializable).with_key(key);
        json::write(&mut text, value).map_err(|_| unserializable())?;
        let text = str::from_utf8(&text).map_err(|_| unserializable())?;
        Ok(Self {
            text: text.into(),
            key_len: key.len(),
        })
    }

    pub(crate) fn key(&self) -> &str {
        self.text.get(..self.key_len).unwrap_or_default()
    }

    /// The value's JSON.
    fn json(&self) -> &str {
        self.text.get(self.key_len..).unwrap_or_default()
    }

    /// Whether the value is an array or an object, so that its parts can be in another order.
    fn is_compound(&self) -> bool {
        matches!(self.text.as_bytes().get(self.key_len), Some(b'[' | b'{'))
    }

    pub(crate) fn is_empty_list(&self) -> bool {
        self.json() == "[]"
    }

    /// The value as the application knows it.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<T, SessionError> {
        // serde_json's message may quote the value, so it is left out.
        serde_json::from_str(self.json())
            .map_err(|_| SessionError::new(SessionErrorKind::WrongType).with_key(self.key()))
    }
}

/// A value that is written in another order is equal: enough to see that the application did not
/// change it.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.key_len == other.key_len
            || self.is_compound()
                && self.key() == other.key()
                && unordered::is_equal(self.json(), other.json())
    }
}

impl Data {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Entry::key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        let index = self.find(key).ok()?;
        self.0.get(index)
    }

    /// Puts an entry in place of the one with the same key. Returns whether that changes the data:
    /// an equal entry changes nothing.
    pub(crate) fn insert(&mut self, entry: Entry) -> bool {
        match self.find(entry.key()) {
            Ok(index) => {
                if self.0.get(index) == Some(&entry) {
                    return false;
                }
                if let Some(old) = Arc::make_mut(&mut self.0).get_mut(index) {
                    *old = entry;
                }
            }
            Err(index) => {
                let (before, after) = self.0.split_at(index);
                let before = before.iter().cloned();
                let after = after.iter().cloned();
                self.0 = before.chain([entry]).chain(after).collect();
            }
        }
        true
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if self.find(key).is_ok() {
            let others = self.0.iter().filter(|entry| entry.key() != key);
            self.0 = others.cloned().collect();
        }
    }

    /// Whether both are the same allocation. Equal data need not be.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Bytes of all keys and values.
    pub(crate) fn size(&self) -> usize {
        self.0.iter().map(|entry| entry.text.len()).sum()
    }

    /// Bytes of its JSON: besides keys and values two quotes, a colon and a comma for each.
    pub(crate) fn encoded_size(&self) -> usize {
        self.size() + 4 * self.0.len() + 2
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        let key = key.as_bytes();
        self.0.binary_search_by(|entry| {
            let other = entry.key().as_bytes();
            other.first().cmp(&key.first()).then_with(|| other.cmp(key))
        })
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&*other.0)
                .all(|(a, b)| Arc::ptr_eq(&a.text, &b.text) || a == b)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} values)", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for entry in &*self.0 {
            let value: &RawValue = serde_json::from_str(entry.json()).map_err(S::Error::custom)?;
            map.serialize_entry(entry.key(), value)?;
        }
        map.end()
    }
}

/// Borrowed, unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of keys to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
                let mut entries = Vec::with_capacity(8);
                let mut text = String::with_capacity(256);
                while let Some((Key(key), json)) = map.next_entry::<Key<'de>, &RawValue>()? {
                    text.clear();
                    text.push_str(&key);
                    text.push_str(json.get());
                    entries.push(Entry {
                        text: (*text).into(),
                        key_len: key.len(),
                    });
                }
                // They are in order, and each is there once, as long as nobody else wrote them. Of
                // two, the later counts.
                entries.sort_by(|a, b| a.key().cmp(b.key()));
                entries.dedup_by(|later, kept| {
                    let is_same = later.key() == kept.key();
                    if is_same {
                        std::mem::swap(later, kept);
                    }
                    is_same
                });
                Ok(Data(entries.into()))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
