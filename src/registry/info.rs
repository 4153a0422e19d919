//! [`SessionInfo`]: one session, as its owner may see it.

use std::sync::Arc;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::client::Client;
use crate::record::lifetime::Lifetimes;
use crate::record::user::UserId;

/// One session, as its owner may see it. With serde it can be part of a page's JSON.
///
/// ```
/// # use cloakroom::SessionInfo;
/// fn describe(session: &SessionInfo) -> String {
///     let browser = session.client().and_then(|client| client.user_agent()).unwrap_or("an unknown browser");
///     format!("{browser}, session {}", session.id())
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct SessionInfo {
    id: RecordId,
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<UserId>,
    client: Option<Arc<Client>>,
    created_at: Timestamp,
    last_seen_at: Timestamp,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_bound_at: Option<Timestamp>,
}

impl SessionInfo {
    pub(super) fn new(id: RecordId, record: &Record, lifetimes: &Lifetimes) -> Self {
        let fields = record.fields();
        let actor = fields.actor();
        Self {
            id,
            user: record.user().map(UserId::without_realm),
            actor: actor.map(|actor| actor.user.without_realm()),
            client: fields.client().cloned(),
            created_at: fields.created_at(),
            last_seen_at: lifetimes.last_seen_at(record),
            expires_at: lifetimes.expires_at(record),
            external_id: fields.external_id().cloned(),
            device_bound_at: fields.device().map(|device| device.bound_at),
        }
    }

    /// The record id, which [`Sessions::revoke`](crate::Sessions::revoke) takes. It is not a secret.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Who is logged in.
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

    /// The external id of the login. See
    /// [`Session::set_external_id`](crate::Session::set_external_id).
    #[must_use]
    pub fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }

    /// When the browser bound the session to its device, or `None` if it has not. See
    /// [`bind_to_device`](crate::SessionLayerBuilder::bind_to_device).
    #[cfg(feature = "dbsc")]
    #[must_use]
    pub fn device_bound_at(&self) -> Option<Timestamp> {
        self.device_bound_at
    }

    /// When the session was created or its user logged in, whichever is later.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When the session was last used, as far as the store knows. The real time may be later, by up
    /// to the layer's touch interval.
    #[must_use]
    pub fn last_seen_at(&self) -> Timestamp {
        self.last_seen_at
    }

    /// When the session ends, if nobody uses it any more.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}
