//! What a handler learns of the device.

use super::Session;
use crate::binding::device::Device;
use crate::commit::lookup::InitialState;

/// # The device
impl Session {
    /// Whether the request comes from the device that its session is bound to. See
    /// [`bind_to_device`](crate::SessionLayerBuilder::bind_to_device).
    ///
    /// With [`WhenUnbound::Refuse`](crate::WhenUnbound::Refuse), a request that does not prove its
    /// device has no user and no data, and this says [`Device::Unproven`]. A login of this request
    /// is not bound yet.
    ///
    /// ```
    /// use cloakroom::{Device, Session};
    ///
    /// async fn security_page(session: Session) -> &'static str {
    ///     match session.device() {
    ///         Device::Bound => "Your session works on this device only.",
    ///         _ => "Your browser does not bind sessions to the device.",
    ///     }
    /// }
    /// ```
    #[must_use]
    #[doc(alias("dbsc", "is_bound"))]
    pub fn device(&self) -> Device {
        if self.context().devices().is_none() {
            return Device::NotBound;
        }
        let state = self.read();
        match state.base() {
            _ if state.changes().login().is_some() => Device::NotBound,
            InitialState::Unbound(_) => Device::Unproven,
            InitialState::Session(session) if session.is_unproven => Device::Unproven,
            InitialState::Session(session) => {
                let fields = session.record.fields();
                match fields.device().is_some() {
                    true => Device::Bound,
                    false => Device::NotBound,
                }
            }
            InitialState::Visitor | InitialState::Rotated(_) | InitialState::Ambiguous(_) => {
                Device::NotBound
            }
        }
    }
}
