//! [`IdMap`] and [`IdSet`]: maps and sets of record ids.

use std::collections::HashMap;
#[cfg(any(
    feature = "memcached",
    feature = "mysql",
    feature = "postgres",
    feature = "sqlite"
))]
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::RecordId;

/// A map of ids that computes no hashes.
pub(crate) type IdMap<T> = HashMap<RecordId, T, BuildHasherDefault<IdHasher>>;

/// A set of ids that computes no hashes.
#[cfg(any(
    feature = "memcached",
    feature = "mysql",
    feature = "postgres",
    feature = "sqlite"
))]
pub(crate) type IdSet = HashSet<RecordId, BuildHasherDefault<IdHasher>>;

/// A record id is random, so it is its own hash.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The length comes first, and then the id. In the memory store, its first byte chose the
        // shard, so that the hash is made of its last bytes.
        if let Some(tail) = bytes.last_chunk() {
            self.0 = u64::from_ne_bytes(*tail);
        }
    }
}
