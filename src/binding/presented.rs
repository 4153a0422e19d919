//! [`PresentedProof`]: what a request says of its client, besides a token.

use std::sync::Arc;

#[cfg(feature = "dbsc")]
use super::device::bound_cookie::PresentedCookies;
use crate::clock::Timestamp;
use crate::record::client::Client;

/// What a request says of its client, besides a token: who it is, if the application has a function
/// for that, and a proof that it comes from the session's device, if the layer binds sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct PresentedProof {
    /// Who the client is, if the layer has a function that says so.
    pub(crate) client: Option<Arc<Client>>,
    /// When the request came, if its session is loaded later than that.
    pub(crate) arrived_at: Option<Timestamp>,
    /// Boxed, so that the future of a request without it stays small.
    #[cfg(feature = "dbsc")]
    pub(crate) cookies: Option<Box<PresentedCookies>>,
    /// Nobody asks for a proof: the request is there to bring one.
    #[cfg(feature = "dbsc")]
    pub(crate) is_waived: bool,
}

#[cfg(feature = "dbsc")]
impl PresentedProof {
    /// For a request that is there to bring a proof.
    pub(crate) fn waived() -> Self {
        Self {
            client: None,
            arrived_at: None,
            cookies: None,
            is_waived: true,
        }
    }

    /// Whether the client has a bound cookie, good or not.
    pub(crate) fn has_cookie(&self) -> bool {
        self.cookies
            .as_ref()
            .is_some_and(|cookies| cookies.is_anything())
    }
}
