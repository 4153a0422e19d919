//! [`IndexedBy`]: by what an index of a store finds sessions.

use std::sync::Arc;

use crate::record::Record;
use crate::record::user::UserId;

/// By what an index finds sessions.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum IndexedBy {
    User(UserId),
    ExternalId(Arc<str>),
}

impl IndexedBy {
    /// All that a record is found by.
    pub(crate) fn all_of(record: &Record) -> impl Iterator<Item = Self> {
        let user = record.user().cloned().map(Self::User);
        let external_id = record.fields().external_id().cloned();
        user.into_iter().chain(external_id.map(Self::ExternalId))
    }
}
