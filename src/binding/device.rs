//! Device Bound Session Credentials (W3C): a session is worth nothing without a key that its device
//! cannot give away.
//!
//! After a login, the browser makes a key pair in the hardware of the device and registers the
//! public key. From then on, it proves every few minutes that it has the private key. For each
//! proof, it gets a new bound cookie, which stands beside the session cookie and ends soon. A copy
//! of all cookies is worth nothing after that.
//!
//! The parts: [`settings`] of the application; [`devices`], what a layer makes of them; the
//! [`challenge`] that a browser signs; its [`proof`]; the [`key`] that verifies the proof; the
//! [`bound_cookie`]; the [`headers`] in which all of it travels.

pub(crate) mod bound_cookie;
pub(crate) mod challenge;
pub(crate) mod devices;
pub(crate) mod headers;
mod key;
pub(crate) mod proof;
pub(crate) mod refusal;
pub(crate) mod settings;
mod signed_time;

/// Whether the request comes from the device that its session is bound to.
///
/// [`Session::device`](crate::Session::device) gives it. Browsers that cannot bind a session leave
/// it [`NotBound`](Self::NotBound) for ever, so do not lock them out.
///
/// ```
/// use cloakroom::{Device, Session};
///
/// fn may_change_password(session: &Session) -> bool {
///     session.device() != Device::Unproven
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The session is bound to no device, or there is no session. A session in which a user acts as
    /// another has no binding of its own either, although it needs the proof of the user's own one.
    NotBound,
    /// The session is bound, and the request has the bound cookie of its device. Or the browser has
    /// registered its key a moment ago, and the grace period of
    /// [`DeviceBinding::grace_period`](crate::DeviceBinding::grace_period) runs.
    Bound,
    /// The session is bound, and the request did not prove that it comes from the device.
    Unproven,
}
