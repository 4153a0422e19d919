//! [`Login`]: who logged in to a session, when and how, and who acts for whom.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::secret_hash::SecretHash;
use super::user::{IntoUserId, InvalidUserId, UserId};
use crate::clock::Timestamp;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;

/// A hash of a user's credentials, for example of the stored password hash.
///
/// A login keeps the stamp. Once the user has another stamp, because of a new password, the logins
/// of before are worth nothing. The feature `login` compares them: see
/// [`Account::with_stamp`].
///
/// ```
/// use cloakroom::Stamp;
///
/// let before = Stamp::of("$argon2id$v=19$…");
/// let after = Stamp::of("$argon2id$v=19$…, of the new password");
/// assert_ne!(before, after);
/// assert_eq!(before, Stamp::of("$argon2id$v=19$…"));
/// ```
#[derive(Clone, Copy)]
pub struct Stamp(Option<SecretHash>);

impl Stamp {
    /// The stamp of these credentials. Hand in the stored hash of the password, and not the
    /// password. If a login needs more than a password, join the parts.
    #[must_use]
    pub fn of(credentials: impl AsRef<[u8]>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"cloakroom stamp\0");
        hasher.update(credentials);
        let hash = hasher.finalize();
        let mut half = [0; SecretHash::LEN];
        half.iter_mut()
            .zip(hash)
            .for_each(|(byte, hashed)| *byte = hashed);
        Self(Some(SecretHash::from_bytes(half)))
    }

    /// No stamp: a new password does not end the sessions of before.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    pub(super) fn stored(hash: SecretHash) -> Self {
        Self(Some(hash))
    }

    pub(super) fn hash(&self) -> Option<&SecretHash> {
        self.0.as_ref()
    }

    /// Whether this is no stamp.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

/// In constant time.
impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(other)) => own.matches(other),
            _ => false,
        }
    }
}

impl Eq for Stamp {}

impl Default for Stamp {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "none" } else { "Stamp(..)" })
    }
}

/// Who logs in: the id of a user, and the stamp of the user's credentials.
///
/// Everything that is a user id is an account without a stamp. An application that compares stamps
/// makes its accounts in one place:
///
/// ```
/// use cloakroom::{Account, Session, SessionError, Stamp};
/// # struct User { id: i64, password_hash: String }
///
/// fn log_in(session: &Session, user: &User) -> Result<(), SessionError> {
///     session.log_in(Account::new(user.id).with_stamp(Stamp::of(&user.password_hash)))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Account {
    /// An id that is not valid is an error of the login, and not of this constructor.
    user: Result<UserId, InvalidUserId>,
    stamp: Stamp,
}

impl Account {
    /// The account of this user, without a stamp. If the id is not valid, the login fails.
    #[must_use]
    pub fn new(user: impl IntoUserId) -> Self {
        Self {
            user: user.into_user_id(),
            stamp: Stamp::none(),
        }
    }

    /// The same account with the stamp of its credentials.
    #[must_use]
    pub fn with_stamp(mut self, stamp: Stamp) -> Self {
        self.stamp = stamp;
        self
    }
}

/// What can log in: a user id of any kind, or an [`Account`].
///
/// You need not implement this trait. Implement [`IntoUserId`] for an id type of your own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can not log in",
    label = "neither a user id nor an `Account`",
    note = "a text, an integer, a `Uuid` (feature `uuid`), a `UserId` and an `Account` can log in",
    note = "hand in `id.to_string()`, or implement `IntoUserId` for `{Self}`"
)]
pub trait IntoAccount {
    /// The account.
    fn into_account(self) -> Account;
}

impl<T: IntoUserId> IntoAccount for T {
    fn into_account(self) -> Account {
        Account::new(self)
    }
}

impl IntoAccount for Account {
    fn into_account(self) -> Account {
        self
    }
}

/// How and when a user proved who they are. It is for a login through an identity provider, and for
/// applications that know several ways to log in.
///
/// With OpenID Connect, the claims `auth_time`, `amr` and `acr` say it.
///
/// ```
/// use cloakroom::{Authentication, Session, SessionError, Timestamp};
///
/// fn after_sign_on(session: &Session, user: i64, auth_time: u64) -> Result<(), SessionError> {
///     let how = Authentication::at(Timestamp::from_millis(auth_time * 1000))
///         .with_methods(["pwd", "otp"])
///         .with_level("aal2");
///     session.log_in_with(user, how)
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    pub(super) time: Option<Timestamp>,
    pub(super) methods: Vec<Box<str>>,
    pub(super) level: Option<Box<str>>,
}

impl Authentication {
    const MAX_METHODS: usize = 16;
    const MAX_TEXT: usize = 255;

    /// The user has proved it just now.
    #[must_use]
    pub fn now() -> Self {
        Self::default()
    }

    /// The user proved it at this time: `auth_time` of OpenID Connect.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self {
            time: Some(time),
            ..Self::default()
        }
    }

    /// The same with the methods that the user proved it by: `amr` of OpenID Connect (RFC 8176).
    #[must_use]
    pub fn with_methods<T: Into<Box<str>>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// The same with the level that this reached: `acr` of OpenID Connect.
    #[must_use]
    pub fn with_level(mut self, level: impl Into<Box<str>>) -> Self {
        self.level = Some(level.into());
        self
    }

    /// When the user proved who they are. `None` says: at the login.
    /// [`Session::authentication`](crate::Session::authentication) always knows the time.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// By which methods. It is empty if nobody said it.
    #[must_use]
    pub fn methods(&self) -> &[Box<str>] {
        &self.methods
    }

    /// The level that the login reached, if somebody said it.
    #[must_use]
    pub fn level(&self) -> Option<&str> {
        self.level.as_deref()
    }

    /// Each request loads these texts. So a provider must not make them long.
    fn check(&self) -> Result<(), SessionError> {
        let mut texts = self.methods.iter().chain(&self.level);
        let is_long =
            self.methods.len() > Self::MAX_METHODS || texts.any(|text| text.len() > Self::MAX_TEXT);
        match is_long {
            true => Err(SessionErrorKind::TooLarge.into()),
            false => Ok(()),
        }
    }
}

/// Who logged in to a session, when and how.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    user: UserId,
    at: Timestamp,
    /// What few logins have.
    details: Option<Arc<Details>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    pub(super) how: Authentication,
    pub(super) stamp: Stamp,
    pub(super) actor: Option<Actor>,
    /// See [`Session::set_external_id`](crate::Session::set_external_id).
    pub(super) external_id: Option<Arc<str>>,
}

/// The user who acts as another one. They have a session of their own, and act only as long as that
/// session is live.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) session: RecordId,
    pub(crate) user: UserId,
    pub(crate) stamp: Stamp,
}

impl Login {
    /// A login at this time. `qualify` gives the user's id its realm.
    pub(crate) fn new(
        account: Account,
        how: Authentication,
        at: Timestamp,
        qualify: impl FnOnce(&UserId) -> UserId,
    ) -> Result<Self, SessionError> {
        how.check()?;
        let user = qualify(&account.user?);
        let details = Details {
            how,
            stamp: account.stamp,
            ..Details::default()
        };
        Ok(Self::with_details(user, at, details))
    }

    fn with_details(user: UserId, at: Timestamp, details: Details) -> Self {
        let is_plain = details.stamp.is_none()
            && details.actor.is_none()
            && details.external_id.is_none()
            && details.how == Authentication::default();
        Self {
            user,
            at,
            details: (!is_plain).then(|| Arc::new(details)),
        }
    }

    /// A login as a record keeps it.
    pub(super) fn stored(user: UserId, at: Timestamp, details: Option<Details>) -> Self {
        Self::with_details(user, at, details.unwrap_or_default())
    }

    /// A login of which nothing but user and time is known.
    #[cfg(any(feature = "conformance", test))]
    pub(crate) fn plain(user: UserId, at: Timestamp) -> Self {
        Self::with_details(user, at, Details::default())
    }

    /// The same login, made by the user of this session, who acts as another. The actor has proved
    /// who they are, and nobody else has.
    pub(crate) fn acted_by(self, actor: &Self, session: RecordId) -> Self {
        let details = Details {
            how: actor.authentication(),
            stamp: self.stamp(),
            actor: Some(Actor {
                session,
                user: actor.user.clone(),
                stamp: actor.stamp(),
            }),
            external_id: None,
        };
        Self::with_details(self.user, self.at, details)
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) fn details(&self) -> Option<&Details> {
        self.details.as_deref()
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.details
            .as_ref()
            .map(|more| more.stamp)
            .unwrap_or_default()
    }

    pub(crate) fn actor(&self) -> Option<&Actor> {
        self.details.as_ref()?.actor.as_ref()
    }

    /// Whether both are logins of the same user, with the same stamp, and with the same actor if
    /// there is one.
    #[cfg(feature = "login")]
    pub(crate) fn is_of_same_users(&self, other: &Self) -> bool {
        let has_same_actor = match (self.actor(), other.actor()) {
            (None, None) => true,
            (Some(own), Some(other)) => own.user == other.user && own.stamp == other.stamp,
            _ => false,
        };
        has_same_actor && self.user == other.user && self.stamp() == other.stamp()
    }

    /// What somebody else calls this login.
    pub(crate) fn external_id(&self) -> Option<&Arc<str>> {
        self.details.as_ref()?.external_id.as_ref()
    }

    /// The same login, which somebody else calls this.
    pub(super) fn with_external_id(self, external_id: Arc<str>) -> Self {
        let mut details = self.details.as_deref().cloned().unwrap_or_default();
        details.external_id = Some(external_id);
        Self::with_details(self.user, self.at, details)
    }

    /// When the user proved who they are.
    pub(crate) fn proved_at(&self) -> Timestamp {
        let told = self.details.as_ref().and_then(|more| more.how.time);
        told.unwrap_or(self.at)
    }

    pub(crate) fn level(&self) -> Option<&str> {
        self.details.as_ref()?.how.level()
    }

    pub(crate) fn authentication(&self) -> Authentication {
        let how = self.details.as_ref().map(|more| more.how.clone());
        Authentication {
            time: Some(self.proved_at()),
            ..how.unwrap_or_default()
        }
    }
}
