//! [`CommitRequest`]: what a request leaves behind for the commit.

use std::sync::Arc;

use super::changes::ChangeSet;
use super::lookup::{InitialState, KnownSession};
use crate::binding::rotation::Chance;
use crate::events::{self, DropReason};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::client::Client;
use crate::record::data::Data;

/// What a request leaves behind for the commit.
#[derive(Debug)]
pub(crate) struct CommitRequest {
    pub(crate) end: Option<EndRequest>,
    /// What the changes are about.
    pub(crate) base: InitialState,
    pub(crate) changes: ChangeSet,
    /// Whether the changes make other data of the base's data.
    pub(crate) changes_data: bool,
    /// The data after the changes, as the handler saw it.
    pub(crate) data: Option<Data>,
    pub(crate) activity: Activity,
    /// Whether the commit reads the newest record first, because the base comes from a cache and
    /// the changes change nothing in it.
    pub(crate) looks_again: bool,
    /// Whether the response can carry a new token, if the layer rotates tokens.
    pub(crate) chance: Chance,
    /// Who the client is, if the layer has a function that says so.
    pub(crate) client: Option<Arc<Client>>,
}

/// Which session a request ended, and how. It is small, because each commit has room for one: glibc
/// takes longer for a commit of more than a kilobyte.
#[derive(Clone, Debug)]
pub(crate) enum EndRequest {
    /// It asked for the end of this session. There are several if it came with the tokens of all
    /// of them, or if its user acted as another.
    Destroy(EndCause, Arc<[KnownSession]>),
    /// It logged in another user, who gets a session of their own. These sessions are the previous
    /// user's. There are two if that user acted as another.
    SwitchUser(Arc<[KnownSession]>),
    /// Its user has acted as another in this session, and goes back to a session of their own.
    StopActing(Arc<KnownSession>),
    /// It asked for the end with a token that was rotated just before. So it ends nothing.
    StaleToken,
    /// It asked for the end with a token that leads to no session. The client must forget the
    /// token.
    DeadToken,
}

/// Whether a request counts as a use of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    #[default]
    Active,
    Passive,
}

impl CommitRequest {
    /// Says which client gets the answer.
    pub(crate) fn answers(&mut self, chance: Chance, client: Option<&Arc<Client>>) {
        self.chance = chance;
        if let Some(client) = client {
            // What the handler says of the client comes first.
            if self.changes.login().is_some() && self.changes.client().is_none() {
                self.changes.set_client(client.clone());
            }
            self.client = Some(client.clone());
        }
    }

    /// Drops the changes of a handler that failed, and reports that. If the handler asked for the
    /// end of the session, the end stays. Returns whether it did.
    pub(crate) fn keep_only_the_end(&mut self, id: Option<RecordId>, reason: DropReason) -> bool {
        if self.has_changes() {
            events::dropped_write(id, self.changes.login().is_some(), reason);
        }
        self.base = InitialState::Visitor;
        self.changes = ChangeSet::default();
        self.changes_data = false;
        self.data = None;
        self.asks_for_an_end()
    }

    /// Reports that the layer writes nothing of this.
    pub(crate) fn report_dropped(&self, id: Option<RecordId>, reason: DropReason) {
        if self.has_changes() || self.asks_for_an_end() {
            events::dropped_write(id, self.changes.login().is_some(), reason);
        }
    }

    fn asks_for_an_end(&self) -> bool {
        matches!(self.end, Some(EndRequest::Destroy(..)))
    }

    fn has_changes(&self) -> bool {
        let base = self.base.session().map(|session| &session.record);
        self.changes_data || (!self.changes.is_empty() && self.changes.changes_more_than_data(base))
    }
}
