//! [`Asserted`]: what a service behind a gateway knows of the user.

use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::record::login::Authentication;
use crate::record::user::UserId;

/// The user of a request, as a gateway asserts it to a service behind.
///
/// It is an extractor for Axum. The router's state must be an [`AssertionVerifier`], or have one by
/// `FromRef`. The extractor takes the assertion of `Authorization: Bearer`. It answers with a 401
/// to a request without a good assertion, and with a 503 while the service has no keys of the
/// gateway. `Option<Asserted>` is `None` if the request has no bearer token. It answers to a bad
/// token as `Asserted` does.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use cloakroom::assertion::{Asserted, AssertionVerifier};
///
/// async fn orders(user: Asserted) -> String {
///     match user.actor() {
///         Some(actor) => format!("{actor} looks at the orders of {}.", user.user()),
///         None => format!("The orders of {}.", user.user()),
///     }
/// }
///
/// # fn show(verifier: AssertionVerifier) {
/// let app: Router = Router::new().route("/orders", get(orders)).with_state(verifier);
/// # } }
/// ```
///
/// [`AssertionVerifier`]: crate::assertion::AssertionVerifier
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asserted {
    pub(super) user: UserId,
    pub(super) session: RecordId,
    pub(super) authentication: Authentication,
    pub(super) actor: Option<UserId>,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) jti: Box<str>,
}

impl Asserted {
    /// The user, by the id that the application uses: `sub`.
    #[must_use]
    #[doc(alias("sub", "subject"))]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The record id of the session at the gateway: `sid`. It is no credential.
    #[must_use]
    #[doc(alias = "sid")]
    pub fn session(&self) -> RecordId {
        self.session
    }

    /// How and when the user proved who they are: `auth_time`, `amr` and `acr`. The time is always
    /// there. If somebody acts as the user, this is about the one who acts.
    #[must_use]
    #[doc(alias("auth_time", "amr", "acr"))]
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// The one who acts as [`user`](Self::user), or `None` if the user acts for themselves: `act`
    /// (RFC 8693, section 4.1).
    #[must_use]
    #[doc(alias = "act")]
    pub fn actor(&self) -> Option<&UserId> {
        self.actor.as_ref()
    }

    /// When the gateway made the assertion, to the second: `iat`.
    #[must_use]
    #[doc(alias = "iat")]
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// When the assertion ends, to the second: `exp`. The session may end earlier.
    #[must_use]
    #[doc(alias = "exp")]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The random id of this one assertion: `jti`. A service that must not do anything twice keeps
    /// the ids that it has seen, until the assertions end: see
    /// [replay](crate::docs::assertions#replay).
    #[must_use]
    pub fn jti(&self) -> &str {
        &self.jti
    }
}
