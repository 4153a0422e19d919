//! How a request ends sessions: what it asked for, and what a login leaves behind.

use std::slice;

use super::CommitOutcome;
use super::lookup::KnownSession;
use crate::context::LayerContext;
use crate::context::ending::Ending;
use crate::error::SessionError;
use crate::hooks::cause::EndCause;

/// Ends the sessions whose end the request asked for.
pub(super) async fn end_sessions(
    context: &LayerContext,
    cause: EndCause,
    sessions: &[KnownSession],
) -> Result<(), SessionError> {
    let asked_by = actor(sessions);
    for session in sessions {
        context
            .remove(session.id, ending(cause, session, asked_by))
            .await?;
    }
    Ok(())
}

/// Ends the session in which a user acted as another. The user goes back to their own session.
pub(super) async fn end_acting(
    context: &LayerContext,
    acting: &KnownSession,
    outcome: &CommitOutcome,
) -> Result<(), SessionError> {
    let asked_by = actor(slice::from_ref(acting));
    let ending = ending(EndCause::StoppedActing, acting, asked_by);
    context.remove_with_retry(acting.id, ending).await?;
    if let Some(own) = outcome.session() {
        context.report_stopped_acting(own.id(), &own.record);
    }
    Ok(())
}

/// Ends the sessions that a login leaves behind. They stay until the login's own session is stored,
/// so that a login that fails takes nothing away.
pub(super) async fn end_previous(
    context: &LayerContext,
    sessions: &[KnownSession],
    cause: EndCause,
    outcome: CommitOutcome,
) -> Result<CommitOutcome, SessionError> {
    let asked_by = actor(sessions);
    for session in sessions {
        // If both remove calls took effect but both answers were lost, the user ends up with no
        // session.
        let ending = ending(cause, session, asked_by);
        if let Err(error) = context.remove_with_retry(session.id, ending).await {
            if let Some(new) = outcome.into_session() {
                let failed = Ending::new(EndCause::LoginFailed).with_record(Some(&new.record));
                let _ = context.remove(new.id(), failed).await;
            }
            return Err(error);
        }
    }
    Ok(outcome)
}

/// The end of a session that a request asked for, or that a login leaves behind.
fn ending<'a>(cause: EndCause, session: &'a KnownSession, asked_by: Option<&'a str>) -> Ending<'a> {
    Ending::new(cause)
        .with_record(session.record.as_ref())
        .asked_by(asked_by)
}

/// The user who acted as another in one of these sessions. The request that ends them is theirs.
fn actor(sessions: &[KnownSession]) -> Option<&str> {
    sessions.iter().find_map(|session| {
        let actor = session.record.as_ref()?.fields().actor()?;
        Some(actor.user.name())
    })
}
