//! [`SessionFilter`]: which sessions are meant.

use crate::clock::Timestamp;
use crate::error::{SessionError, SessionErrorKind};
use crate::record::client::Client;
use crate::record::lifetime::Lifetimes;
use crate::record::realm::Realm;
use crate::record::user::{IntoUserId, InvalidUserId, UserId};
use crate::record::{Record, is_external_id};

/// Which sessions are meant, for [`Sessions::page`](crate::Sessions::page),
/// [`count`](crate::Sessions::count) and [`end`](crate::Sessions::end). A session matches if it
/// fulfils all conditions. Without any condition, all sessions match.
///
/// With a user or an external id, a call reads the sessions of that user or id. Any other filter
/// looks at all sessions of the store, one after the other.
///
/// ```
/// use cloakroom::{SessionFilter, Timestamp};
///
/// fn unused_since(month_ago: Timestamp) -> SessionFilter {
///     SessionFilter::new()
///         .logged_in(true)
///         .last_seen_before(month_ago)
/// }
///
/// let of_a_user = SessionFilter::new().user(42);
/// let of_a_login = SessionFilter::new().external_id("the sid of an OpenID provider");
/// let of_a_network = SessionFilter::new().client("192.0.2.");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "hand it to a method of `Sessions`"]
pub struct SessionFilter {
    /// An id that is not valid is an error of the call, and not of the setter.
    user: Option<Result<UserId, InvalidUserId>>,
    logged_in: Option<bool>,
    external_id: Option<Box<str>>,
    /// In lower case.
    client: Option<Box<str>>,
    #[cfg(feature = "dbsc")]
    device_bound: Option<bool>,
    created: Period,
    last_seen: Period,
}

/// From a time on, and before another time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Period {
    since: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl Period {
    fn has(self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= time)
            && self.before.is_none_or(|before| time < before)
    }

    fn is_empty(self) -> bool {
        matches!((self.since, self.before), (Some(since), Some(before)) if since >= before)
    }
}

impl SessionFilter {
    /// A filter without any condition: all sessions match.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only the sessions of this user. If the id is not valid, the call that takes the filter fails
    /// with [`SessionErrorKind::InvalidFilter`].
    pub fn user(mut self, user: impl IntoUserId) -> Self {
        self.user = Some(user.into_user_id());
        self
    }

    /// With `true`, only the sessions of logged-in users. With `false`, only those of visitors.
    pub fn logged_in(mut self, logged_in: bool) -> Self {
        self.logged_in = Some(logged_in);
        self
    }

    /// Only the sessions of this external id: see
    /// [`Session::set_external_id`](crate::Session::set_external_id). An id that no session can
    /// have is an error of the call that takes the filter.
    pub fn external_id(mut self, id: impl Into<Box<str>>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// Only the sessions whose client has this text in its user agent or its address. Upper and
    /// lower case are the same. An empty text is an error of the call that takes the filter.
    ///
    /// `192.0.2.1` is in `192.0.2.10` too, and a client can write anything into its user agent. So
    /// look at a page of the sessions before you end them.
    #[doc(alias("user_agent", "address", "ip"))]
    pub fn client(mut self, text: &str) -> Self {
        self.client = Some(lowercase(text).into());
        self
    }

    /// With `true`, only the sessions that are bound to a device. With `false`, only the others.
    #[cfg(feature = "dbsc")]
    pub fn device_bound(mut self, bound: bool) -> Self {
        self.device_bound = Some(bound);
        self
    }

    /// Only the sessions whose creation or last login, whichever is later, is at this time or
    /// later.
    pub fn created_since(mut self, time: Timestamp) -> Self {
        self.created.since = Some(time);
        self
    }

    /// Only the sessions whose creation or last login, whichever is later, is before this time.
    pub fn created_before(mut self, time: Timestamp) -> Self {
        self.created.before = Some(time);
        self
    }

    /// Only the sessions that were used at this time or later, as far as the store knows. See
    /// [`SessionInfo::last_seen_at`](crate::SessionInfo::last_seen_at).
    pub fn last_seen_since(mut self, time: Timestamp) -> Self {
        self.last_seen.since = Some(time);
        self
    }

    /// Only the sessions that were last used before this time, as far as the store knows. See
    /// [`SessionInfo::last_seen_at`](crate::SessionInfo::last_seen_at).
    pub fn last_seen_before(mut self, time: Timestamp) -> Self {
        self.last_seen.before = Some(time);
        self
    }

    /// Whether there is no condition, so that all sessions match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a condition that nobody can mean. An empty text would be in each client.
    pub(super) fn check(&self) -> Result<(), SessionError> {
        let why = if let Some(Err(_)) = &self.user {
            "a user id has 1 to 255 bytes, none of them NUL"
        } else if self.client.as_deref() == Some("") {
            "the text of the client is empty"
        } else if self
            .external_id
            .as_deref()
            .is_some_and(|id| !is_external_id(id))
        {
            "an external id has 1 to 255 bytes, none of them NUL"
        } else if self.created.is_empty() {
            "`created_since` is not before `created_before`"
        } else if self.last_seen.is_empty() {
            "`last_seen_since` is not before `last_seen_before`"
        } else if self.logged_in == Some(false)
            && (self.user.is_some() || self.external_id.is_some())
        {
            "no visitor has a user or an external id"
        } else {
            return Ok(());
        };
        Err(SessionError::new(SessionErrorKind::InvalidFilter).because(why))
    }

    /// The user, as the store has them.
    pub(super) fn stored_user(&self, realm: &Realm) -> Option<UserId> {
        let user = self.user.as_ref()?.as_ref().ok()?;
        Some(realm.qualify(user))
    }

    pub(super) fn external_id_text(&self) -> Option<&str> {
        self.external_id.as_deref()
    }

    /// Whether the session of this record is meant. `user` is [`stored_user`](Self::stored_user).
    pub(super) fn has(
        &self,
        record: &Record,
        user: Option<&UserId>,
        lifetimes: &Lifetimes,
    ) -> bool {
        let fields = record.fields();
        #[cfg(feature = "dbsc")]
        if self
            .device_bound
            .is_some_and(|bound| bound != fields.device().is_some())
        {
            return false;
        }
        user.is_none_or(|user| record.user() == Some(user))
            && self
                .logged_in
                .is_none_or(|logged_in| logged_in == record.user().is_some())
            && self
                .external_id
                .as_deref()
                .is_none_or(|id| record.external_id() == Some(id))
            && self.created.has(fields.created_at())
            && (self.last_seen == Period::default()
                || self.last_seen.has(lifetimes.last_seen_at(record)))
            && self
                .client
                .as_deref()
                .is_none_or(|text| fields.client().is_some_and(|client| mentions(client, text)))
    }
}

/// The text in lower case, where each letter is the same at each place: `str::to_lowercase` has two
/// forms of the Greek sigma.
fn lowercase(text: &str) -> String {
    let letters = text.chars().flat_map(char::to_lowercase);
    letters.map(|c| if c == 'ς' { 'σ' } else { c }).collect()
}

/// Whether a text in lower case is in what is known of the client.
fn mentions(client: &Client, text: &str) -> bool {
    let known = [client.user_agent(), client.address()];
    known
        .into_iter()
        .flatten()
        .any(|known| lowercase(known).contains(text))
}
