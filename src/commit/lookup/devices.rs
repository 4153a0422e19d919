//! Whether a request comes from the device that its session is bound to.

use super::{InitialState, LoadedSession};
use crate::binding::device::devices::Devices;
use crate::binding::device::refusal::Refusal;
use crate::binding::presented::PresentedProof;
use crate::clock::Timestamp;
use crate::context::LayerContext;
use crate::error::SessionError;
use crate::record::login::Actor;

/// What a request starts from that came with the good token of this session.
pub(super) async fn admit(
    context: &LayerContext,
    devices: &Devices,
    session: LoadedSession,
    proof: &PresentedProof,
    now: Timestamp,
) -> Result<InitialState, SessionError> {
    if proof.is_waived {
        return Ok(InitialState::Session(session));
    }
    let fields = session.record.fields();
    let checked = match (fields.device(), fields.actor()) {
        (Some(device), _) => devices.check(session.id(), device, proof, now),
        (None, Some(actor)) => Box::pin(check_actor(context, devices, actor, proof, now)).await?,
        (None, None) => Ok(()),
    };
    Ok(match checked {
        Ok(()) => InitialState::Session(session),
        Err(refusal) => unproven(context, devices, session, refusal),
    })
}

/// The session of a user who acts as another has no binding. The device is that of their own
/// session, to which the browser has a bound cookie.
async fn check_actor(
    context: &LayerContext,
    devices: &Devices,
    actor: &Actor,
    proof: &PresentedProof,
    now: Timestamp,
) -> Result<Result<(), Refusal>, SessionError> {
    let own = context.load(actor.session).await?;
    let device = own.as_ref().and_then(|own| own.fields().device());
    Ok(match device {
        Some(device) => devices.check(actor.session, device, proof, now),
        None => Ok(()),
    })
}

#[cold]
fn unproven(
    context: &LayerContext,
    devices: &Devices,
    mut session: LoadedSession,
    refusal: Refusal,
) -> InitialState {
    context.report_unbound(session.id(), &session.record, refusal.as_str());
    if devices.refuses_unbound() {
        return InitialState::Unbound(session.known());
    }
    session.is_unproven = true;
    InitialState::Session(session)
}
