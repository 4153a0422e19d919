//! The events of sessions that are bound to devices.

use super::Who;
use crate::id::RecordId;

pub(crate) fn bound(id: RecordId, Who { user, actor, .. }: Who<'_>) {
    event!(debug, "bound", record = %id, user, actor, "session bound to the device of its browser");
}

/// Somebody came with the token of a bound session, and perhaps has stolen it.
pub(crate) fn unbound(id: RecordId, Who { user, actor, .. }: Who<'_>, reason: &'static str) {
    event!(
        info,
        "unbound",
        record = %id,
        user,
        actor,
        reason,
        "a request has the token of a bound session, and does not prove its device"
    );
}

pub(crate) fn device_refreshed(id: RecordId, Who { user, actor, .. }: Who<'_>) {
    event!(debug, "device_refreshed", record = %id, user, actor, "the browser has proved its device");
}

/// The layer refused what a client sent to prove a device.
pub(crate) fn device_rejected(
    id: Option<RecordId>,
    Who { user, actor, .. }: Who<'_>,
    reason: &'static str,
) {
    let record = id.as_ref().map(tracing::field::display);
    event!(
        info,
        "device_rejected",
        record,
        user,
        actor,
        reason,
        "a registration or a proof of a device was refused"
    );
}
