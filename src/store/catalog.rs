//! [`SessionCatalog`]: a store that can list all its sessions.

#[cfg(any(
    feature = "dynamodb",
    feature = "memory",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
pub(crate) mod bounds;
#[cfg(any(
    feature = "memory",
    feature = "mysql",
    feature = "postgres",
    feature = "sqlite"
))]
pub(crate) mod walk;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::UserIndex;
use crate::error::{SessionError, SessionErrorKind, StoreError};
use crate::id::RecordId;
use crate::record::Record;

/// A store that can list all its sessions, and finds them by their external id.
///
/// It is for administration: [`Sessions::page`](crate::Sessions::page),
/// [`count`](crate::Sessions::count), [`end`](crate::Sessions::end) and
/// [`end_external`](crate::Sessions::end_external) need it. No request of a user does.
///
/// # Contract
///
/// - A walk through the store is a series of [`scan`](Self::scan) calls. Each takes the cursor of
///   the answer before. A session that is there from the first call to the last comes up in the
///   walk, and should come up once. A session that begins, changes or ends meanwhile may come up or
///   not.
/// - Each walk ends: a call that has looked at the last session answers without a cursor.
/// - [`find_by_external_id`](Self::find_by_external_id) finds each session that was written with
///   this [`external_id`](Record::external_id) before the call, and has not ended. External ids are
///   the same if their bytes are the same.
/// - A record that cannot be decoded does not come up, and stops no walk.
///
/// # Cancellation
///
/// Both calls only read. If the future of a call is dropped, no session has changed.
///
/// # How the trait may grow
///
/// As [`SessionStore`](crate::SessionStore#how-the-trait-may-grow): by methods that have a default.
///
/// # Examples
///
/// ```
/// use cloakroom::{MemoryStore, SessionCatalog, StoreError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreError> {
/// let store = MemoryStore::new();
/// let scan = store.scan(None, 10, &|_, record| record.user().is_some()).await?;
/// assert!(scan.is_some_and(|scan| scan.records.is_empty() && scan.next.is_none()));
/// # Ok(()) }
/// ```
///
/// Memcached cannot list its keys. So this does not compile:
///
/// ```compile_fail,E0277
/// use cloakroom::{AnyStore, SessionFilter, Sessions};
///
/// fn all_sessions(sessions: &Sessions<AnyStore>) {
///     let count = sessions.count(&SessionFilter::new()); // it may be a Memcached
/// }
/// ```
#[doc(alias("list_sessions", "find_all", "all_sessions"))]
#[diagnostic::on_unimplemented(
    message = "the store `{Self}` cannot list its sessions",
    label = "this store has no catalog of sessions",
    note = "use a store that implements `SessionCatalog`",
    note = "for an `AnyStore`, use the store that `AnyStore::session_catalog` answers with"
)]
#[async_trait]
pub trait SessionCatalog: UserIndex {
    /// Looks at some of the sessions that follow `after`, in an order that the store chooses.
    /// Without `after`, the walk begins. The answer has the records for which `accept` returns
    /// `true`, and `limit` of them at most. `limit` is at least 1.
    ///
    /// The call stops after a short time. So the answer may have fewer than `limit` records, or
    /// none, although others follow. Expired records may be among them.
    ///
    /// The answer is `None` if this store has not made the cursor.
    ///
    /// # Errors
    ///
    /// The store's system failed.
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError>;

    /// The records of this external id, in no particular order. Expired ones may be among them.
    ///
    /// # Errors
    ///
    /// The store's system failed.
    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError>;
}

/// Which records a [`scan`](SessionCatalog::scan) answers with.
pub type Accept<'a> = dyn Fn(RecordId, &Record) -> bool + Send + Sync + 'a;

/// What a [`scan`](SessionCatalog::scan) has found.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The records that were accepted.
    pub records: Vec<(RecordId, Record)>,
    /// Where the walk goes on. `None` if the walk is over.
    pub next: Option<Cursor>,
}

/// A place in the list of all sessions, for the link to the next page. It is a text that only the
/// store understands. The text has only letters, digits and the signs `-`, `_` and `.`, so that a
/// URL can have it.
///
/// ```
/// use cloakroom::Cursor;
///
/// let cursor: Cursor = "AAAAAAAAAAAAAAAAAAAAAA".parse()?;
/// assert_eq!(cursor.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
/// assert!("no cursor".parse::<Cursor>().is_err());
/// # Ok::<(), cloakroom::SessionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(Box<str>);

impl Cursor {
    const MAX_LEN: usize = 8 * 1024;

    /// The text, for the store that has made it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place behind a record, in a store whose order follows from the ids.
    #[must_use]
    pub fn behind(id: RecordId) -> Self {
        Self(id.to_string().into())
    }

    /// The record that was given to [`behind`](Self::behind). `None` for any other cursor.
    #[must_use]
    pub fn record(&self) -> Option<RecordId> {
        self.0.parse().ok()
    }
}

/// Reads the text of a cursor.
///
/// # Errors
///
/// [`SessionErrorKind::InvalidCursor`] if the text cannot be a cursor. Only the store knows whether
/// it has made this one.
impl FromStr for Cursor {
    type Err = SessionError;

    fn from_str(text: &str) -> Result<Self, SessionError> {
        let is_of_cursor = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match text.len() {
            1..=Self::MAX_LEN if text.bytes().all(is_of_cursor) => Ok(Self(text.into())),
            _ => Err(SessionErrorKind::InvalidCursor.into()),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
