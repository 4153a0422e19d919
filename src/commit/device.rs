//! Writes the device of a session, with the same compare-and-set as everything else.

use super::contention::Contention;
use super::lookup::{LoadedSession, TokenLookup, reload};
use crate::binding::device::refusal::Refusal;
use crate::context::LayerContext;
use crate::error::SessionError;
use crate::events;
use crate::record::Record;
use crate::record::device::BoundDevice;
use crate::store::Replaced;

/// Binds a session to a device, or notes that the device has answered a challenge. `next` decides
/// what to write, each time for the newest record.
///
/// It is no use of the session, so the expiry stays. When the future is dropped, the store call
/// that is under way may or may not take effect.
pub(crate) async fn write_device(
    context: &LayerContext,
    mut session: LoadedSession,
    next: impl Fn(&Record) -> Result<BoundDevice, Refusal>,
) -> Result<Result<Record, Refusal>, SessionError> {
    let id = session.id();
    let mut contention: Option<Contention<'_>> = None;
    loop {
        let device = match next(&session.record) {
            Ok(device) => device,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let old = session.record.fields();
        let mut fields = old.next(old.data().clone());
        fields.bind_to(device);
        fields.keep_later_expiry();
        let record = Record::new(fields);
        match context
            .replace(id, session.record.version(), &record)
            .await?
        {
            Replaced::Done => return Ok(Ok(record)),
            Replaced::Missing => return Ok(Err(Refusal::NoSession)),
            Replaced::Conflict => events::conflict(id),
        }
        match &contention {
            None => contention = Some(Contention::begin(context, id).await?),
            Some(contention) => contention.check_deadline()?,
        }
        match reload(context, &session.token, session.was_nearly_over).await? {
            TokenLookup::Live(record, _) => session.record = record,
            TokenLookup::Rotated { .. } | TokenLookup::Reused(_) => {
                return Ok(Err(Refusal::TokenRotated));
            }
            TokenLookup::Gone => return Ok(Err(Refusal::NoSession)),
        }
    }
}
