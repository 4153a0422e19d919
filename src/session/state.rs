//! [`State`]: what one request knows of its session and has done to it. It is pure: it calls no
//! store, no clock and no code of the application.

mod describe;
mod dropped;

use std::mem;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::Notify;

pub(super) use self::dropped::DroppedChanges;
use crate::binding::rotation::Chance;
#[cfg(feature = "login")]
use crate::clock::Timestamp;
use crate::commit::changes::{ChangeSet, DataChange, check_size};
use crate::commit::lookup::{InitialState, KnownSession, LoadedSession};
use crate::commit::request::{Activity, CommitRequest, EndRequest};
use crate::error::{SessionError, SessionErrorKind};
use crate::events::DropReason;
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::data::{Data, Entry, EntryRef};
use crate::record::login::{Actor, Login};

/// What one request knows of its session and has done to it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What the request came with, or what a commit has written since.
    base: InitialState,
    end: Option<EndRequest>,
    changes: ChangeSet,
    /// The base's data after the changes, once there are any.
    data: Option<Data>,
    /// Counts changes of the data, so that `update` sees a change that came between.
    revision: u64,
    activity: Activity,
    /// Whether the response is on its way, or will never be made.
    is_sealed: bool,
    /// Whether the response depends on the session.
    is_looked_at: bool,
    clears_site_data: bool,
    /// Whether the layer has finished: what the request did is stored, or never will be.
    is_settled: bool,
    /// Wakes whoever waits until the layer has finished.
    waiting: Option<Arc<Notify>>,
}

/// The sessions to which a client loses its way. Few requests leave more than one.
type LeftSessions = SmallVec<[KnownSession; 1]>;

/// What the response says of its session, besides the token.
#[derive(Clone, Copy)]
pub(crate) struct ResponseFlags {
    /// The response depends on the session.
    pub(crate) varies: bool,
    /// The browser must forget what it keeps of the site.
    pub(crate) clears_site_data: bool,
    /// Somebody has logged in, so that the browser may bind the session to its device.
    #[cfg(feature = "dbsc")]
    pub(crate) has_login: bool,
}

/// Reads.
impl State {
    pub(super) fn starting_from(base: InitialState) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    pub(super) fn base(&self) -> &InitialState {
        &self.base
    }

    pub(super) fn session(&self) -> Option<&LoadedSession> {
        self.base.session()
    }

    fn record(&self) -> Option<&Record> {
        self.session().map(|session| &session.record)
    }

    pub(super) fn data(&self) -> Option<&Data> {
        let of_base = || self.record().map(|record| record.fields().data());
        self.data.as_ref().or_else(of_base)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn login(&self) -> Option<&Login> {
        let of_base = self.record().and_then(|record| record.fields().login());
        self.changes.login().or(of_base)
    }

    pub(super) fn activity(&self) -> Activity {
        self.activity
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    pub(super) fn changes(&self) -> &ChangeSet {
        &self.changes
    }

    /// The session that the request came with, even if the request has ended it.
    pub(super) fn record_id(&self) -> Option<RecordId> {
        match (&self.base, &self.end) {
            (InitialState::Session(session), _) => Some(session.id()),
            (InitialState::Rotated(id), _) => Some(*id),
            #[cfg(feature = "dbsc")]
            (InitialState::Unbound(session), _) => Some(session.id),
            (_, Some(EndRequest::Destroy(_, sessions))) => match &**sessions {
                [session] => Some(session.id),
                _ => None,
            },
            (_, Some(EndRequest::SwitchUser(sessions))) => sessions.first().map(|first| first.id),
            _ => None,
        }
    }

    /// Whether the client may get its next token in another way than it sent the last one. A script
    /// in a page must not get a token for the live session of a cookie that it cannot read. Only a
    /// login proves that the user is there. Who begins to act as another proves nothing.
    pub(super) fn may_change_transport(&self) -> bool {
        match self.changes.login() {
            Some(login) => login.actor().is_none(),
            None => self.record_id().is_none(),
        }
    }

    /// Whether the data differs from what the request came with. Changes that cancel each other out
    /// stay in the list, because on newer data they may not cancel each other out.
    fn changes_data(&self) -> bool {
        match (&self.data, self.record()) {
            (None, _) => false,
            (Some(data), None) => !data.is_empty(),
            (Some(data), Some(record)) => data != record.fields().data(),
        }
    }

    fn changes_more_than_data(&self) -> bool {
        self.end.is_some() || self.changes.changes_more_than_data(self.record())
    }

    /// Whether there is something to write.
    pub(super) fn is_dirty(&self) -> bool {
        self.changes_data() || self.changes_more_than_data()
    }
}

/// Changes. After each of them, the data is what the list of changes makes of the base's data.
impl State {
    /// The response depends on the session from now on.
    pub(super) fn mark_looked_at(&mut self) {
        self.is_looked_at = true;
    }

    /// Changes the data, and adds the change to the list. Only this function adds to the list. The
    /// data must not become larger than `limit`.
    pub(super) fn change_data(
        &mut self,
        change: DataChange,
        limit: usize,
    ) -> Result<(), SessionError> {
        match &change {
            DataChange::Insert(entry) => self.put(entry, limit)?,
            DataChange::Update(update) => self.put(update.first(), limit)?,
            DataChange::Remove(key) => self.take_out(key, |_| true),
            DataChange::RemoveEmptyList(key) => self.take_out(key, |entry| entry.is_empty_list()),
            DataChange::Clear => {
                if self.data().is_some_and(|data| !data.is_empty()) {
                    self.set_data(Some(Data::default()));
                }
            }
        }
        self.changes.push(change);
        Ok(())
    }

    fn put(&mut self, entry: &Entry, limit: usize) -> Result<(), SessionError> {
        let nothing = Data::default();
        let old = self.data().unwrap_or(&nothing);
        if let Some(data) = old.with(entry) {
            // If the application lowers the limit, larger data can still be made smaller.
            check_size(data.size(), limit.max(old.size()))?;
            self.set_data(Some(data));
        }
        Ok(())
    }

    fn take_out(&mut self, key: &str, is_meant: impl FnOnce(EntryRef<'_>) -> bool) {
        let Some(old) = self.data() else { return };
        if old.get(key).is_some_and(is_meant) {
            let data = old.without(key);
            self.set_data(data);
        }
    }

    fn set_data(&mut self, data: Option<Data>) {
        self.data = data;
        self.revision += 1;
    }

    /// Asks for a new token, if there is a session whose token can be rotated.
    pub(super) fn regenerate(&mut self) {
        if self.session().is_some() {
            self.changes.regenerate();
        }
    }

    /// Logs a user in. The user's id has its realm.
    pub(super) fn log_in(&mut self, login: Login) -> Option<DroppedChanges> {
        let is_other = self
            .login()
            .is_some_and(|own| own.user() != login.user() || own.actor().is_some());
        let dropped = is_other.then(|| self.switch_user()).flatten();
        self.changes.log_in(login);
        dropped
    }

    /// Leaves the previous user's session. What the request knows of the browser holds for both
    /// users.
    fn switch_user(&mut self) -> Option<DroppedChanges> {
        let browser_changes = self.changes.take_browser_changes();
        let (dropped, left) = self.leave(DropReason::OtherUser);
        if !left.is_empty() {
            self.end = Some(EndRequest::SwitchUser(Arc::from(&*left)));
        }
        self.changes = browser_changes;
        dropped
    }

    /// Begins a session of another user, beside that of the user who acts.
    pub(super) fn act_as(&mut self, login: Login) -> Result<Option<DroppedChanges>, SessionError> {
        let (id, actor, client) = match (self.session(), self.login()) {
            (Some(session), Some(own)) if self.may_act_as(&login) => {
                let client = session.record.fields().client().cloned();
                (session.id(), own.clone(), client)
            }
            (_, None) => return Err(SessionErrorKind::NotLoggedIn.into()),
            _ => return Err(SessionErrorKind::CannotAct.into()),
        };
        let browser_changes = self.changes.take_browser_changes();
        let (dropped, _) = self.start_over(DropReason::OtherUser);
        self.changes = browser_changes;
        if let Some(client) = client
            && self.changes.client().is_none()
        {
            self.changes.set_client(client);
        }
        self.changes.log_in(login.acted_by(&actor, id));
        Ok(dropped)
    }

    /// Nobody acts as themselves, or through somebody else. A login of the same request has no
    /// session yet to come back to.
    fn may_act_as(&self, login: &Login) -> bool {
        self.changes.login().is_none()
            && self
                .login()
                .is_some_and(|own| own.actor().is_none() && own.user() != login.user())
    }

    /// The session in which a user acts as another, and the user who acts.
    pub(super) fn acting(&self) -> Option<(Option<RecordId>, Actor)> {
        let actor = self.login()?.actor()?.clone();
        Some((self.session().map(LoadedSession::id), actor))
    }

    /// Goes back to the own session of the user who acted in the session of this id, which ends.
    pub(super) fn stop_acting(
        &mut self,
        acting: RecordId,
        own: LoadedSession,
    ) -> Option<DroppedChanges> {
        let (dropped, left) = self.start_over(DropReason::OtherUser);
        self.base = InitialState::Session(own);
        self.changes.regenerate();
        let left = left.filter(|left| left.id == acting);
        self.end = Some(EndRequest::StopActing(Arc::new(KnownSession {
            id: acting,
            record: left.and_then(|left| left.record),
        })));
        dropped
    }

    /// Ends the session. Who acts as another ends their own session as well: they have no other way
    /// to it any more.
    pub(super) fn end(&mut self, cause: EndCause, presents_token: bool) -> Option<DroppedChanges> {
        let (dropped, left) = self.leave(DropReason::EndedByRequest);
        let request = match (&*left, self.end.take(), &self.base) {
            ([], None, InitialState::Rotated(_)) => Some(EndRequest::StaleToken),
            ([], None, InitialState::Ambiguous(all)) => {
                Some(EndRequest::Destroy(cause, all.clone()))
            }
            #[cfg(feature = "dbsc")]
            ([], None, InitialState::Unbound(session)) => {
                Some(EndRequest::Destroy(cause, session.with_actor().into()))
            }
            ([], None, _) if presents_token => Some(EndRequest::DeadToken),
            ([], earlier, _) => earlier,
            (all, _, _) => Some(EndRequest::Destroy(cause, all.into())),
        };
        if let Some(EndRequest::Destroy(..)) = request {
            self.base = InitialState::Visitor;
        }
        self.end = request;
        dropped
    }

    /// Goes on as a visitor, and drops what the request has changed so far. Returns the sessions to
    /// which the client loses its way. The own session of a user who acts as another comes first,
    /// because its end ends the other one too.
    fn leave(&mut self, reason: DropReason) -> (Option<DroppedChanges>, LeftSessions) {
        let actor = self.acting().map(|(_, actor)| KnownSession {
            id: actor.session,
            record: None,
        });
        let (dropped, left) = self.start_over(reason);
        let mut all: LeftSessions = actor.into_iter().chain(left).collect();
        // The request has left these before.
        match &self.end {
            Some(EndRequest::SwitchUser(earlier)) => all.extend(earlier.iter().cloned()),
            Some(EndRequest::StopActing(acting)) => all.push((**acting).clone()),
            _ => {}
        }
        (dropped, all)
    }

    /// Goes on as a visitor, and drops what the request has changed so far. Returns the session that
    /// it leaves.
    fn start_over(&mut self, reason: DropReason) -> (Option<DroppedChanges>, Option<KnownSession>) {
        let left = self.session().map(LoadedSession::known);
        let has_login = self.changes.login().is_some();
        let dropped = (has_login || self.changes_data()).then_some(DroppedChanges {
            id: left.as_ref().map(|left| left.id),
            has_login,
            reason,
        });
        if left.is_some() {
            self.base = InitialState::Visitor;
        }
        self.changes = ChangeSet::default();
        self.set_data(None);
        (dropped, left)
    }

    /// The login of the session that the request came with is worth nothing any more.
    #[cfg(feature = "login")]
    pub(super) fn retire(&mut self, at: Timestamp) {
        if self.changes.login().is_none() && self.session().is_some() {
            self.changes.retire(at);
            self.skip_touch();
        }
    }

    pub(super) fn skip_touch(&mut self) {
        self.activity = Activity::Passive;
    }
}

/// The way to the store.
impl State {
    /// Closes the session to changes. Returns whether it was open.
    pub(super) fn seal(&mut self) -> bool {
        !mem::replace(&mut self.is_sealed, true)
    }

    /// What the response says of its session. `may_clear` tells whether the layer is set to clear
    /// site data.
    pub(super) fn response_flags(&self, may_clear: bool) -> ResponseFlags {
        ResponseFlags {
            varies: self.is_looked_at,
            clears_site_data: self.clears_site_data && may_clear,
            #[cfg(feature = "dbsc")]
            has_login: self
                .changes
                .login()
                .is_some_and(|login| login.actor().is_none()),
        }
    }

    /// What there is to write, if anything. The list of data changes leaves the session with it.
    ///
    /// If the base comes from a cache, changes that change nothing in it may change something in
    /// the newest record. So the commit has to look at that.
    pub(super) fn take_request(
        &mut self,
        is_from_cache: impl FnOnce() -> bool,
    ) -> Option<CommitRequest> {
        // Most requests change nothing, and this is the quickest way to see it.
        if self.end.is_none() && self.changes.is_empty() {
            return None;
        }
        let changes_data = self.changes_data();
        let mut looks_again = false;
        if !changes_data && !self.changes_more_than_data() {
            looks_again = self.base.session().is_some() && is_from_cache();
            if !looks_again {
                return None;
            }
        }
        let changes = self.changes.hand_over();
        let mut request = self.request(changes, changes_data);
        request.looks_again = looks_again;
        Some(request)
    }

    /// What there is to write now. All changes stay in the session, until a commit has written
    /// them.
    pub(super) fn copy_request(&self) -> CommitRequest {
        self.request(self.changes.clone(), self.changes_data())
    }

    /// A commit that does nothing but touch the session.
    pub(super) fn touch_request(&self) -> CommitRequest {
        self.request(ChangeSet::default(), false)
    }

    fn request(&self, changes: ChangeSet, changes_data: bool) -> CommitRequest {
        CommitRequest {
            end: self.end.clone(),
            base: self.base.clone(),
            changes,
            changes_data,
            data: self.data.clone(),
            activity: self.activity,
            looks_again: false,
            chance: Chance::Never,
            client: None,
        }
    }

    /// Goes on from what a commit has written.
    pub(super) fn adopt_committed(&mut self, session: Option<LoadedSession>) {
        self.base = session.into();
        self.end = None;
        self.changes = ChangeSet::default();
        self.set_data(None);
        self.settle();
    }

    /// Goes on from a newer record. `data` is that record's data after the changes.
    pub(super) fn rebase(&mut self, session: LoadedSession, data: Data) {
        self.base = InitialState::Session(session);
        self.set_data(Some(data));
    }

    /// Goes on from a record of which only the expiry is newer.
    pub(super) fn adopt_touched(&mut self, touched: LoadedSession) {
        if let InitialState::Session(own) = &mut self.base
            && own.record.version() == touched.record.version()
        {
            *own = touched;
        }
    }

    /// The layer has finished. Whoever waits for that goes on.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.notify_waiters();
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// What wakes those who wait until the layer has finished.
    pub(super) fn waiting(&mut self) -> Arc<Notify> {
        self.waiting.get_or_insert_default().clone()
    }
}
