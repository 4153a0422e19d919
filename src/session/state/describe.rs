//! What a request says of its session besides data, token and user.

use std::sync::Arc;

use super::State;
use crate::clock::Timestamp;
use crate::error::{SessionError, SessionErrorKind};
use crate::record::client::Client;
use crate::record::lifetime::class::LifetimeClass;

impl State {
    pub(in crate::session) fn clear_site_data(&mut self) {
        self.clears_site_data = true;
    }

    pub(in crate::session) fn set_lifetime(&mut self, lifetime: LifetimeClass) {
        self.changes.set_lifetime(lifetime);
    }

    pub(in crate::session) fn set_client(&mut self, client: Client) {
        self.changes.set_client(Arc::new(client));
    }

    pub(in crate::session) fn set_ends_by(&mut self, at: Timestamp) {
        self.changes.set_ends_by(at);
    }

    /// Sets what somebody else calls the login. A visitor has no login.
    pub(in crate::session) fn set_external_id(&mut self, id: Arc<str>) -> Result<(), SessionError> {
        if self.login().is_none() {
            return Err(SessionErrorKind::NotLoggedIn.into());
        }
        self.changes.set_external_id(id);
        Ok(())
    }

    pub(in crate::session) fn external_id(&self) -> Option<&str> {
        let set = self.changes.external_id();
        set.or(self.login()?.external_id()).map(|id| &**id)
    }
}
