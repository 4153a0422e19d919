//! The session limit: what a login does when its user has as many sessions as the layer allows.

use crate::context::LayerContext;
use crate::context::session_limit::AtLimit;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::login::Login;

/// Fails if the layer refuses a login at the limit, and the user has as many other sessions as
/// allowed. `own` is the session that the login is made in. This runs before the login is written.
pub(super) async fn admit(
    context: &LayerContext,
    login: &Login,
    own: Option<RecordId>,
) -> Result<(), SessionError> {
    let Some(limit) = context.session_limit() else {
        return Ok(());
    };
    if limit.at_limit() != AtLimit::RefuseLogin || login.actor().is_some() {
        return Ok(());
    }
    let sessions = context.find_by_user(limit.index(), login.user()).await?;
    let others = sessions
        .iter()
        .filter(|(id, record)| Some(*id) != own && counts(record))
        .count();
    if others >= limit.max() {
        return Err(SessionErrorKind::TooManySessions.into());
    }
    Ok(())
}

/// Ends the sessions that a login has brought beyond the limit. This runs after the login is
/// written, so that the last of several parallel logins sees all of them.
///
/// At this point the login is written and its token is the only good one. So a store that fails
/// here must not spoil the response that carries the token. The failure has an event, and the
/// user's next login ends the sessions beyond the limit.
pub(super) async fn enforce_limit(
    context: &LayerContext,
    login: &Login,
    own: RecordId,
    is_one_more: bool,
) -> Result<(), SessionError> {
    let Some(limit) = context.session_limit() else {
        return Ok(());
    };
    if login.actor().is_some() {
        return Ok(());
    }
    let Ok(mut sessions) = context.find_by_user(limit.index(), login.user()).await else {
        return Ok(());
    };
    sessions.retain(|(_, record)| counts(record));
    let surplus = sessions.len().saturating_sub(limit.max());
    match limit.at_limit() {
        AtLimit::EndOldest => {
            // The login's own session is the newest, whatever the clocks of other nodes say. The
            // client must not get a token of a session that has ended.
            sessions.retain(|(id, _)| *id != own);
            sessions.sort_by_key(|(id, record)| (record.fields().created_at(), *id));
            for (id, _) in sessions.into_iter().take(surplus) {
                let _ = context.remove(id).await;
            }
        }
        AtLimit::RefuseLogin => {
            if is_one_more && surplus > 0 && context.remove_with_retry(own).await.is_ok() {
                return Err(SessionErrorKind::TooManySessions.into());
            }
        }
    }
    Ok(())
}

/// Whether a session counts as one of its user's. The session of somebody who acts as the user must
/// not take the user's place.
fn counts(record: &Record) -> bool {
    record.fields().actor().is_none()
}
