//! The contract that every store keeps, and the stores.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::token::RecordId;

pub(crate) mod any;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
#[cfg(feature = "memory")]
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) mod sql;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod tls;

/// What became of a [`replace`](SessionStore::replace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The record is replaced.
    Done,
    /// The record has another version than expected, and was left as it is.
    Conflict,
    /// There is no record of this id, and none was made.
    Missing,
}

/// Where sessions are kept.
///
/// Every method is atomic: parallel calls, also of other processes, take effect one after the other. An error means that
/// the system failed, and then a write may or may not have happened; everything else is an answer. A future that is dropped
/// leaves the record as it was or as the call makes it, never something between.
///
/// Bytes that cannot be decoded are "no record" to [`load`](Self::load), and stay as they are. Whether a record is expired is
/// the layer's affair: a store may answer with it, or not.
///
/// The feature `conformance` has the contract as tests: see [`conformance_tests!`](crate::conformance_tests).
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// The record of this id, or `None` where it is missing, collected or cannot be decoded.
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError>;

    /// Writes a new record; `false` if the id is taken, and then nothing changed.
    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError>;

    /// Replaces the record, its expiry included, only if it still has `expected` as its version. Never creates one.
    ///
    /// Where the record [`keeps_later_expiry`](Record::keeps_later_expiry), the stored expiry stays if it is
    /// later: a touch may have moved it since the record was loaded.
    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError>;

    /// Moves the expiry to this record's, and nothing else, only if the stored record has the same version. `false` if it has
    /// another, or is missing.
    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError>;

    /// Removes the record, which stays missing. `false` if it was missing already.
    async fn remove(&self, id: RecordId) -> Result<bool, StoreError>;

    /// Removes the records that expired at `now` or before, and says how many. A store that does so by itself returns 0.
    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// A store that finds sessions by their user.
///
/// A user is here as the record has them, with the realm of the layer: `realm:user`, in at most
/// [`UserId::STORED_LEN`] bytes.
///
/// A store that cannot do so does not implement it, and then what needs it does not compile.
#[async_trait]
pub trait UserIndex: SessionStore {
    /// The user's records, in no particular order, expired ones perhaps among them.
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError>;

    /// Removes the user's records, but for `except`, and says how many.
    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError>;
}

/// A shared store is a store: several layers can have one.
#[async_trait]
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        (**self).load(id).await
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        (**self).insert(id, record).await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        (**self).replace(id, expected, record).await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        (**self).touch(id, record).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        (**self).remove(id).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        (**self).purge_expired(now).await
    }
}

#[async_trait]
impl<S: UserIndex + ?Sized> UserIndex for Arc<S> {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        (**self).sessions_of(user).await
    }

    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        (**self).remove_all_of(user, except).await
    }
}
