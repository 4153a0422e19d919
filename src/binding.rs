//! What makes a stolen token worth little: tokens that rotate, so that a copy is found out, and
//! sessions that are bound to a device.

#[cfg(feature = "dbsc")]
pub(crate) mod device;
pub(crate) mod presented;
pub(crate) mod rotation;
