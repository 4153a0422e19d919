//! What the layer reports of its sessions: to the log, to the metrics, and to the hooks of the
//! application.

use std::sync::Arc;

use super::LayerContext;
use crate::events::{self, Who};
use crate::hooks::Hooks;
use crate::hooks::cause::EndCause;
use crate::hooks::event::{SessionEvent, SessionEventKind};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::client::Client;
use crate::record::login::Login;

/// What hooks hear. Without a hook, none of this costs more than a look at an empty list.
impl LayerContext {
    /// The hooks, if there are any.
    pub(super) fn hooks(&self) -> Option<&Hooks> {
        Some(&self.settings.hooks).filter(|hooks| !hooks.is_empty())
    }

    /// Calls the hooks, if there are any, with an event of this kind.
    pub(super) fn raise(
        &self,
        kind: SessionEventKind,
        fill: impl FnOnce(SessionEvent) -> SessionEvent,
    ) {
        if let Some(hooks) = self.hooks() {
            hooks.raise(&fill(SessionEvent::new(kind, self.now())));
        }
    }

    fn raise_of(&self, kind: SessionEventKind, id: RecordId, record: &Record) {
        self.raise(kind, |event| event.of(Some(id), Some(record)));
    }
}

/// What a commit has written.
impl LayerContext {
    /// A session is stored for the first time. Somebody may have logged in with it.
    pub(crate) fn report_created(&self, id: RecordId, record: &Record) {
        events::created(id, who(record));
        self.raise_of(SessionEventKind::Created, id, record);
        if let Some(login) = record.fields().login() {
            self.report_login(id, record, login);
        }
    }

    fn report_login(&self, id: RecordId, record: &Record, login: &Login) {
        match login.actor() {
            None => {
                events::logged_in(id, who(record));
                self.raise_of(SessionEventKind::LoggedIn, id, record);
            }
            Some(actor) => {
                let (user, own) = (login.user().name(), actor.user.name());
                events::acting(id, user, actor.session, own);
                self.raise_of(SessionEventKind::Acting, id, record);
            }
        }
    }

    /// A session has another record. `login` is the login that came with it.
    pub(crate) fn report_changed(
        &self,
        id: RecordId,
        record: &Record,
        is_rotated: bool,
        login: Option<&Login>,
    ) {
        if is_rotated {
            events::rotated(id, who(record));
            self.raise_of(SessionEventKind::Rotated, id, record);
        }
        if let Some(login) = login {
            if let Some(hooks) = self.hooks() {
                hooks.forget_retired(id);
            }
            self.report_login(id, record, login);
        }
    }

    /// The credentials of the user have changed, so that the session ends soon.
    pub(crate) fn report_retired(&self, id: RecordId, record: &Record) {
        events::retired(id, who(record));
        if let Some(hooks) = self.hooks() {
            hooks.note_retired(id);
        }
        self.raise_of(SessionEventKind::Retired, id, record);
    }

    /// A user has gone back to this session, which is their own.
    pub(crate) fn report_stopped_acting(&self, id: RecordId, record: &Record) {
        events::stopped_acting(id, who(record));
        self.raise_of(SessionEventKind::StoppedActing, id, record);
    }

    /// The layer refuses a login at the session limit. `id` is the session that it was made in.
    pub(crate) fn report_login_refused(
        &self,
        id: Option<RecordId>,
        login: &Login,
        client: Option<&Arc<Client>>,
    ) {
        events::login_refused(id, login.user().name());
        self.raise(SessionEventKind::LoginRefused, |event| {
            event
                .of(id, None)
                .with_user(login.user())
                .with_client(client)
        });
    }
}

/// Devices.
#[cfg(feature = "dbsc")]
impl LayerContext {
    /// The browser has bound this session to its device.
    pub(crate) fn report_bound(&self, id: RecordId, record: &Record) {
        events::bound(id, who(record));
        self.raise_of(SessionEventKind::Bound, id, record);
    }

    /// A request came with the token of a bound session, and did not prove its device.
    pub(crate) fn report_unbound(&self, id: RecordId, record: &Record, reason: &'static str) {
        events::unbound(id, who(record), reason);
        self.raise(SessionEventKind::Unbound, |event| {
            event.of(Some(id), Some(record)).with_reason(reason)
        });
    }

    /// The browser has proved its device again.
    pub(crate) fn report_device_refreshed(&self, id: RecordId, record: &Record) {
        events::device_refreshed(id, who(record));
    }

    /// The layer refuses a registration or a proof. `session` is the session that it was for.
    pub(crate) fn report_device_rejected(
        &self,
        session: Option<(RecordId, &Record)>,
        reason: &'static str,
    ) {
        let who = session.map(|(_, record)| who(record)).unwrap_or_default();
        events::device_rejected(session.map(|(id, _)| id), who, reason);
    }
}

/// What a look-up has found.
impl LayerContext {
    /// The layer accepts nothing of what the client presented.
    pub(crate) fn report_rejected(&self, reason: &'static str) {
        events::rejected(reason);
        self.raise(SessionEventKind::Rejected, |event| {
            event.with_reason(reason)
        });
    }

    /// The client presented several tokens, and more than one leads to a live session.
    pub(crate) fn report_ambiguous(&self) {
        events::ambiguous(self.transport().name());
        self.raise(SessionEventKind::Rejected, |event| {
            event.with_reason(events::TWO_TOKENS)
        });
    }

    /// The client presented the cookie of a live session, and a bearer token of another one or of
    /// none.
    pub(crate) fn report_cookie_beside_bearer(&self) {
        events::cookie_beside_bearer(self.transport().name());
        self.raise(SessionEventKind::Rejected, |event| {
            event.with_reason(events::COOKIE_BESIDE_BEARER)
        });
    }

    /// The token is good, but it leads to no live session.
    pub(crate) fn report_rejected_for(
        &self,
        id: RecordId,
        record: Option<&Record>,
        reason: &'static str,
    ) {
        events::rejected_for(id, record.map(who).unwrap_or_default(), reason);
        self.raise(SessionEventKind::Rejected, |event| {
            event.of(Some(id), record).with_reason(reason)
        });
    }

    /// Two clients have a token of this session, which ends.
    pub(crate) fn report_reuse(
        &self,
        id: RecordId,
        record: &Record,
        presented_by: Option<&Arc<Client>>,
    ) {
        let address = |client: Option<&Arc<Client>>| {
            client.and_then(|client| client.address().map(str::to_owned))
        };
        let known = record.fields().client();
        events::reuse(id, who(record), address(known), address(presented_by));
        self.raise(SessionEventKind::Reuse, |event| {
            event
                .of(Some(id), Some(record))
                .with_presented_by(presented_by)
        });
    }

    /// The session's time is over. The hooks hear it once.
    pub(crate) fn report_expired(&self, id: RecordId, record: &Record) {
        events::expired(id, who(record));
        let Some(hooks) = self.hooks().filter(|hooks| hooks.is_first_expiry(id)) else {
            return;
        };
        let (kind, cause) = match hooks.is_retired(id) {
            true => (SessionEventKind::Ended, EndCause::CredentialsChanged),
            false => (SessionEventKind::Expired, EndCause::Expired),
        };
        self.raise(kind, |event| {
            event.of(Some(id), Some(record)).ended(cause, None)
        });
    }
}

pub(super) fn who(record: &Record) -> Who<'_> {
    let login = record.fields().login();
    Who {
        user: login.map(|login| login.user().name()),
        actor: login.and_then(Login::actor).map(|actor| actor.user.name()),
        asked_by: None,
    }
}
