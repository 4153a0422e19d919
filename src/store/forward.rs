//! Stores that pass every call on to another store.

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
use crate::store::feed::{Feed, SessionFeed};
use crate::store::{Replaced, SessionStore, UserIndex};

/// Implements `SessionStore` for a type: each call goes to the store that `$inner` names.
///
/// Needs in scope: `async_trait`, and the types of the contract.
macro_rules! forward_session_store {
    ([$($generics:tt)*] $Type:ty, |$this:ident| $inner:expr) => {
        #[async_trait]
        // A method with a default must be passed on as well.
        #[deny(clippy::missing_trait_methods)]
        impl<$($generics)*> SessionStore for $Type {
            async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
                let $this = self;
                $inner.load(id).await
            }

            async fn reload(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
                let $this = self;
                $inner.reload(id).await
            }

            fn answers_from_cache(&self) -> bool {
                let $this = self;
                $inner.answers_from_cache()
            }

            fn session_feed(&self) -> Option<&dyn SessionFeed> {
                let $this = self;
                $inner.session_feed()
            }

            async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
                let $this = self;
                $inner.insert(id, record).await
            }

            async fn replace(
                &self,
                id: RecordId,
                expected: Version,
                record: &Record,
            ) -> Result<Replaced, StoreError> {
                let $this = self;
                $inner.replace(id, expected, record).await
            }

            async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
                let $this = self;
                $inner.touch(id, record).await
            }

            async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
                let $this = self;
                $inner.remove(id).await
            }

            async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
                let $this = self;
                $inner.purge_expired(now).await
            }
        }
    };
}
pub(super) use forward_session_store;

/// The same of `UserIndex`.
macro_rules! forward_user_index {
    ([$($generics:tt)*] $Type:ty, |$this:ident| $inner:expr) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$($generics)*> UserIndex for $Type {
            async fn find_by_user(
                &self,
                user: &UserId,
            ) -> Result<Vec<(RecordId, Record)>, StoreError> {
                let $this = self;
                $inner.find_by_user(user).await
            }

            async fn remove_by_user(
                &self,
                user: &UserId,
                except: Option<RecordId>,
            ) -> Result<u64, StoreError> {
                let $this = self;
                $inner.remove_by_user(user, except).await
            }
        }
    };
}

/// The same of `SessionCatalog`.
macro_rules! forward_session_catalog {
    ([$($generics:tt)*] $Type:ty, |$this:ident| $inner:expr) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$($generics)*> SessionCatalog for $Type {
            async fn scan(
                &self,
                after: Option<&Cursor>,
                limit: usize,
                accept: &Accept<'_>,
            ) -> Result<Option<Scan>, StoreError> {
                let $this = self;
                $inner.scan(after, limit, accept).await
            }

            async fn find_by_external_id(
                &self,
                external_id: &str,
            ) -> Result<Vec<(RecordId, Record)>, StoreError> {
                let $this = self;
                $inner.find_by_external_id(external_id).await
            }
        }
    };
}

/// The same of `SessionFeed`.
macro_rules! forward_session_feed {
    ([$($generics:tt)*] $Type:ty, |$this:ident| $inner:expr) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$($generics)*> SessionFeed for $Type {
            async fn subscribe(&self) -> Result<Feed, StoreError> {
                let $this = self;
                $inner.subscribe().await
            }
        }
    };
}

// Several layers can have one store.
forward_session_store! { [S: SessionStore + ?Sized] Arc<S>, |store| (**store) }
forward_user_index! { [S: UserIndex + ?Sized] Arc<S>, |store| (**store) }
forward_session_catalog! { [S: SessionCatalog + ?Sized] Arc<S>, |store| (**store) }
forward_session_feed! { [S: SessionFeed + ?Sized] Arc<S>, |store| (**store) }

// A store whose type is chosen at run time, and which nobody shares.
forward_session_store! { [S: SessionStore + ?Sized] Box<S>, |store| (**store) }
forward_user_index! { [S: UserIndex + ?Sized] Box<S>, |store| (**store) }
forward_session_catalog! { [S: SessionCatalog + ?Sized] Box<S>, |store| (**store) }
forward_session_feed! { [S: SessionFeed + ?Sized] Box<S>, |store| (**store) }
