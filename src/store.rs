//! The contract that every store keeps, and the stores.

use std::fmt;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::feed::SessionFeed;

pub(crate) mod any;
#[cfg(any(
    feature = "memcached",
    feature = "mysql",
    feature = "postgres",
    feature = "sqlite"
))]
mod batch;
pub(crate) mod catalog;
#[cfg(feature = "dynamodb")]
pub(crate) mod dynamodb;
#[cfg(feature = "encryption")]
pub(crate) mod encrypted;
pub(crate) mod feed;
mod forward;
#[cfg(any(feature = "dynamodb", feature = "redis"))]
mod indexed_by;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
#[cfg(feature = "memory")]
pub(crate) mod memory;
#[cfg(feature = "near-cache")]
pub(crate) mod near;
#[cfg(any(
    feature = "memcached",
    feature = "mysql",
    feature = "postgres",
    feature = "sqlite"
))]
mod pool;
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
    /// The record has another version than expected. The store left it as it was.
    Conflict,
    /// There is no record of this id. The store made none.
    Missing,
}

/// Where sessions are kept: six calls, each about records under their ids, and three more that have
/// a default.
///
/// To write a store, implement this trait with [`async_trait`](https://docs.rs/async-trait). The
/// page
#[cfg_attr(
    any(doc, doctest),
    doc = "[writing a store](crate::docs::writing_a_store) explains each call."
)]
/// The file `examples/custom_store.rs` is a whole store with its tests.
///
/// # Contract
///
/// - Every call is atomic. Parallel calls, also those of other processes, take effect one after the
///   other.
/// - An error means that the system failed. A write that failed may or may not have happened. A
///   record that is missing or has another version is an answer, and not an error.
/// - [`load`](Self::load) sees the newest write. A store with a cache says how old an answer may be.
///   [`reload`](Self::reload) always sees the newest write.
/// - [`replace`](Self::replace) and [`touch`](Self::touch) never create a record, and
///   [`insert`](Self::insert) never overwrites one. So a session that has ended does not come back.
/// - Bytes that cannot be decoded are "no record" to [`load`](Self::load). The store leaves them as
///   they are.
/// - The layer checks at each load whether a record has expired. A store may answer with an expired
///   record, or with none.
///
/// The feature `conformance` has the contract as tests: see
/// [`conformance_tests!`](crate::conformance_tests).
///
/// # Cancellation
///
/// The layer drops the future of a call when the client goes away, or when the store timeout has
/// passed. A write that is under way then takes effect as a whole or not at all.
///
/// # Clones and wrappers
///
/// A clone of one of this crate's stores is the same store. An `Arc` or a `Box` around a store is a
/// store too, and several layers can share an `Arc`.
///
/// A store that wraps another store must pass every call on, even the calls that have a default.
/// Put `#[deny(clippy::missing_trait_methods)]` on its `impl`: then Clippy names each call that is
/// missing there.
///
/// # How the trait may grow
///
/// A minor release may add a method. Such a method has a default that works with every store, so
/// that older stores still compile. If only some stores can do something, it becomes a trait of its
/// own, as [`UserIndex`] is.
#[doc(alias("Store", "Backend", "StorageBackend"))]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session store",
    label = "this type does not implement `SessionStore`",
    note = "give the store itself, or an `Arc` of it, and not a reference",
    note = "a store of your own implements `SessionStore`: see `cloakroom::docs::writing_a_store`"
)]
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// The record of this id, or `None` if it is missing, was purged, or cannot be decoded.
    #[doc(alias("get", "read"))]
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError>;

    /// As [`load`](Self::load), but never from a cache. The layer calls this if the record of
    /// `load` does not fit the client's token, or if a write found another version.
    ///
    /// The default calls `load`. A store whose `load` answers from a cache has to implement
    /// `reload`.
    async fn reload(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.load(id).await
    }

    /// Whether [`load`](Self::load) may answer from a cache, so that
    /// [`reload`](Self::reload) may know more. `false` by default.
    fn answers_from_cache(&self) -> bool {
        false
    }

    /// This store as a [`SessionFeed`], or `None` if it has no feed. `None` by default. A store
    /// around another store passes the call on.
    ///
    /// [`DetachedSession::ended`](crate::DetachedSession::ended) uses the feed. Without a feed, the
    /// layer asks the store at the [poll interval](crate::SessionLayerBuilder::poll_interval).
    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        None
    }

    /// Writes a new record. The answer is `false` if the id is taken, and then nothing has changed.
    #[doc(alias("create"))]
    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError>;

    /// Replaces the record and its expiry, if the stored record has the version `expected`. It
    /// never creates a record.
    ///
    /// If the new record [`keeps_later_expiry`](Record::keeps_later_expiry) and the stored expiry
    /// is later than the new record's, the stored expiry stays. A touch may have moved it since the
    /// request loaded the record.
    #[doc(alias("save", "update", "compare_and_set"))]
    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError>;

    /// Moves the expiry to this record's expiry, and changes nothing else. It does so only if the
    /// stored record has the same version. The answer is `false` if the stored record has another
    /// version, or is missing.
    #[doc(alias("update_ttl"))]
    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError>;

    /// Removes the record. The answer is `false` if the record was missing already.
    #[doc(alias("delete", "destroy"))]
    async fn remove(&self, id: RecordId) -> Result<bool, StoreError>;

    /// Removes the records that expired at `now` or before, and answers how many they were. A store
    /// that removes expired records by itself answers 0.
    #[doc(alias("delete_expired", "cleanup"))]
    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// A store that finds sessions by their user.
///
/// Code that needs this trait, such as [`Sessions::list_for`](crate::Sessions::list_for) and
/// [`session_limit`](crate::SessionLayerBuilder::session_limit), does not compile with a store that
/// does not implement this trait. An [`AnyStore`](crate::AnyStore) may have it: see
/// [`AnyStore::user_index`](crate::AnyStore::user_index).
///
/// # Contract
///
/// - A user is the text of the record's user: the layer's realm, a colon, and the application's id
///   of the user, in at most [`UserId::STORED_LEN`] bytes. Users are the same if these bytes are
///   the same.
/// - A session that was written before a call, and has not ended, is found by the call.
/// - The rest of [the contract of `SessionStore`](SessionStore#contract) applies to these calls
///   too, except that a call about several sessions need not be atomic: each session by itself is
///   found or removed as a whole.
///
/// # Cancellation
///
/// A dropped [`remove_by_user`](Self::remove_by_user) may have removed some of the sessions.
///
/// # How the trait may grow
///
/// As [`SessionStore`](SessionStore#how-the-trait-may-grow): by methods that have a default.
///
/// ```compile_fail,E0277
/// use cloakroom::{AnyStore, UserIndex};
///
/// fn needs_an_index(store: impl UserIndex) {}
/// # async fn example() -> Result<(), cloakroom::StoreError> {
/// needs_an_index(AnyStore::connect("memory:").await?); // it may be a store without one
/// # Ok(()) }
/// ```
#[doc(alias("SessionIndex", "sessions_by_user"))]
#[diagnostic::on_unimplemented(
    message = "the store `{Self}` cannot find the sessions of a user",
    label = "this store has no index of users",
    note = "use a store that implements `UserIndex`",
    note = "for an `AnyStore`, use the store that `AnyStore::user_index` answers with"
)]
#[async_trait]
pub trait UserIndex: SessionStore {
    /// The user's records, in no particular order. Expired ones may be among them.
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError>;

    /// Removes the user's records, except the one of the id `except`, and answers how many it
    /// removed.
    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError>;
}
