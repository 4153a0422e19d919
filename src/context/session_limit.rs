//! [`SessionLimit`]: how many sessions a user may have.

use std::sync::Arc;

use crate::store::UserIndex;

/// What a login does when the user has as many sessions as the layer allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtLimit {
    /// The login ends the user's oldest session.
    EndOldest,
    /// The layer refuses the login. The response becomes a 403, and the session stays as it was.
    RefuseLogin,
}

/// How many sessions a user may have.
#[derive(Clone, Debug)]
pub(crate) struct SessionLimit {
    index: Arc<dyn UserIndex>,
    max: usize,
    at_limit: AtLimit,
}

impl SessionLimit {
    pub(crate) fn new(index: Arc<dyn UserIndex>, max: usize, at_limit: AtLimit) -> Self {
        Self {
            index,
            max,
            at_limit,
        }
    }

    pub(crate) fn index(&self) -> &dyn UserIndex {
        &*self.index
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn at_limit(&self) -> AtLimit {
        self.at_limit
    }
}
