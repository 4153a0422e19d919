//! Whether a user who acts as another may go on.

use crate::context::LayerContext;
use crate::context::ending::Ending;
use crate::error::SessionError;
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::login::Actor;

/// Whether the user who acts in this session may go on. It counts as a use of their own session,
/// to which they go back later.
pub(super) async fn keep_acting(
    context: &LayerContext,
    id: RecordId,
    record: &Record,
    actor: &Actor,
) -> Result<bool, SessionError> {
    let Some(own) = find_actor(context, id, Some(record), actor).await? else {
        let reason = "the session of the user who acts has ended";
        context.report_rejected_for(id, Some(record), reason);
        return Ok(false);
    };
    let renewal = context.lifetimes().renewal(own.fields(), context.now());
    if let Some(expires_at) = renewal {
        let touched = own.with_expires_at(expires_at);
        // A touch that fails loses some minutes of idle time, and the failure has an event.
        let _ = context.touch(actor.session, &touched).await;
    }
    Ok(true)
}

/// The own session of the user who acts in the session of this id. If it is over, the session of
/// this id ends as well. `acting` is the record of that session, if the caller has it.
pub(crate) async fn find_actor(
    context: &LayerContext,
    id: RecordId,
    acting: Option<&Record>,
    actor: &Actor,
) -> Result<Option<Record>, SessionError> {
    let is_live = |record: &Record| {
        record.user() == Some(&actor.user) && !context.lifetimes().is_over(record, context.now())
    };
    let mut record = context.load(actor.session).await?.filter(is_live);
    // The session of this id ends for good, so a cache must not decide it.
    if record.is_none() && context.answers_from_cache() {
        record = context.reload(actor.session).await?.filter(is_live);
    }
    if record.is_none() {
        // The session is over even if the store cannot remove it now, and a failure has an event.
        let ending = Ending::new(EndCause::ActorEnded).with_record(acting);
        let _ = context.remove(id, ending).await;
    }
    Ok(record)
}
