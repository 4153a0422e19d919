//! [`SessionEvent`]: what happened to a session.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cause::EndCause;
use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::client::Client;
use crate::record::user::UserId;

/// What happened to a session. A hook gets it: see
/// [`on_event`](crate::SessionLayerBuilder::on_event).
///
/// An event says whose session it is, which client used the session, when it happened and who asked
/// for it. An event never has a token, a secret or data of the session. With serde, an event is one
/// line of an audit trail:
///
/// ```
/// # use cloakroom::testing::Browser;
/// use cloakroom::{MemoryStore, SessionEvent, SessionEventKind, SessionLayer, SigningKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
///     .on_event(|event: &SessionEvent| {
///         if event.kind() == SessionEventKind::LoggedIn {
///             let line = serde_json::to_string(event).unwrap_or_default();
///             assert!(line.starts_with(r#"{"event":"logged_in","at":"2"#));
///             assert!(line.ends_with(r#","user":"ada"}"#));
///         }
///     })
///     .build()?;
/// # let mut browser = Browser::new(axum::Router::<()>::new());
/// # browser.with_session(&layer, |session| session.log_in("ada")).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct SessionEvent {
    #[serde(rename = "event")]
    kind: SessionEventKind,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Arc<Client>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presented_by: Option<Arc<Client>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<EndCause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<Arc<str>>,
}

/// Which kind of thing happened. Its text, and its form in serde, is the word that the field
/// `event` of a log line has, such as `logged_in`.
///
/// ```
/// use cloakroom::SessionEventKind;
///
/// assert_eq!(SessionEventKind::LoggedIn.to_string(), "logged_in");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionEventKind {
    /// A session is stored for the first time.
    Created,
    /// A user has logged in. If the session is new, `Created` comes before.
    LoggedIn,
    /// The session has a new token. The old token is dead. If the layer
    /// [rotates tokens](crate::SessionLayerBuilder::rotate_every) by itself, the old token will be
    /// dead soon.
    Rotated,
    /// Two clients have a token of the session, so one of them has stolen it. `Ended` comes next.
    /// [`SessionEvent::client`] is the client that the layer knows, and
    /// [`SessionEvent::presented_by`] the one that has just come. Nobody can say which of them is
    /// the user.
    Reuse,
    /// The credentials of the user have changed since the login. So nobody is logged in any more,
    /// and the session ends within a minute.
    Retired,
    /// The session has ended. [`SessionEvent::cause`] says why.
    Ended,
    /// The session's time was over, and somebody came with its token or waited for its end. The
    /// hooks get it once for each session and process. If nobody comes or waits, no hook hears of
    /// it.
    Expired,
    /// The layer rejected what the client presented as its token. [`SessionEvent::reason`] says
    /// why.
    Rejected,
    /// The layer refused a login, because the user has as many sessions as the layer allows.
    LoginRefused,
    /// A user acts as another one from now on, in this session of the other one. `Created` comes
    /// before.
    Acting,
    /// The user in this session acted as another one, and does so no longer. `Ended` comes before,
    /// for the session of the other one.
    StoppedActing,
    /// The browser has bound the session to its device: see
    /// [`bind_to_device`](crate::SessionLayerBuilder::bind_to_device).
    Bound,
    /// A request has the token of a bound session, and does not prove that it comes from the
    /// device. [`SessionEvent::reason`] says why. Somebody may have stolen the token.
    Unbound,
}

impl SessionEventKind {
    /// The kind as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::LoggedIn => "logged_in",
            Self::Rotated => "rotated",
            Self::Reuse => "reuse",
            Self::Retired => "retired",
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::LoginRefused => "login_refused",
            Self::Acting => "acting",
            Self::StoppedActing => "stopped_acting",
            Self::Bound => "bound",
            Self::Unbound => "unbound",
        }
    }
}

impl fmt::Display for SessionEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How the layer makes one.
impl SessionEvent {
    pub(crate) fn new(kind: SessionEventKind, at: Timestamp) -> Self {
        Self {
            kind,
            at,
            record: None,
            user: None,
            actor: None,
            client: None,
            presented_by: None,
            cause: None,
            reason: None,
            asked_by: None,
        }
    }

    /// It is about this session.
    pub(crate) fn of(mut self, id: Option<RecordId>, record: Option<&Record>) -> Self {
        self.record = id;
        if let Some(fields) = record.map(Record::fields) {
            self.client = fields.client().cloned();
            self.user = fields.login().map(|login| login.user().without_realm());
            self.actor = fields.actor().map(|actor| actor.user.without_realm());
        }
        self
    }

    pub(crate) fn with_user(mut self, user: &UserId) -> Self {
        self.user = Some(user.without_realm());
        self
    }

    pub(crate) fn with_client(mut self, client: Option<&Arc<Client>>) -> Self {
        self.client = client.cloned();
        self
    }

    pub(crate) fn with_presented_by(mut self, client: Option<&Arc<Client>>) -> Self {
        self.presented_by = client.cloned();
        self
    }

    pub(crate) fn ended(mut self, cause: EndCause, asked_by: Option<&str>) -> Self {
        self.cause = Some(cause);
        self.asked_by = asked_by.map(Arc::from);
        self
    }

    pub(crate) fn with_reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }
}

impl SessionEvent {
    /// Which kind of thing happened.
    #[must_use]
    pub fn kind(&self) -> SessionEventKind {
        self.kind
    }

    /// When it happened, by the layer's clock.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The record id of the session. It is not a secret. `None` if what the client presented leads
    /// to no record, and for the login of a session that is not stored.
    #[must_use]
    pub fn record_id(&self) -> Option<RecordId> {
        self.record
    }

    /// The user of the session, as the application knows them. `None` for a visitor's session.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// The user who acts as [`user`](Self::user) in this session, if somebody does. See
    /// [`Session::act_as`](crate::Session::act_as).
    #[must_use]
    pub fn actor(&self) -> Option<&UserId> {
        self.actor.as_ref()
    }

    /// What the application recorded with [`Session::set_client`](crate::Session::set_client).
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.client.as_deref()
    }

    /// The client that came with a token that two clients have, if the layer has a
    /// [`client_from`](crate::SessionLayerBuilder::client_from). `None` for the other kinds.
    #[must_use]
    pub fn presented_by(&self) -> Option<&Client> {
        self.presented_by.as_deref()
    }

    /// Why the session has ended or expired. `None` for the other kinds.
    #[must_use]
    pub fn cause(&self) -> Option<EndCause> {
        self.cause
    }

    /// Why the layer rejected a token, or why a request does not prove its device, as a short
    /// sentence for people. `None` for the other kinds.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason
    }

    /// Who asked for the end of a session, if somebody is named: the name that was handed to
    /// [`Sessions::by`](crate::Sessions::by), or the user who acted as another in the request that
    /// ended the session. `None` if users ended their own sessions, and if the layer did it by
    /// itself.
    #[must_use]
    pub fn asked_by(&self) -> Option<&str> {
        self.asked_by.as_deref()
    }
}
