//! The session limit: what a login does when its user has as many sessions as the layer allows.

use std::sync::Arc;

use crate::context::LayerContext;
use crate::context::ending::Ending;
use crate::context::session_limit::AtLimit;
use crate::error::{SessionError, SessionErrorKind};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::client::Client;
use crate::record::login::Login;

/// Fails if the layer refuses a login at the limit, and the user has as many other sessions as
/// allowed. `own` is the session that the login is made in, and `client` is what is known of its
/// client. This runs before the login is written.
pub(super) async fn admit(
    context: &LayerContext,
    login: &Login,
    own: Option<RecordId>,
    client: Option<&Arc<Client>>,
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
        context.report_login_refused(own, login, client);
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
    (own, record): (RecordId, &Record),
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
            for (id, record) in sessions.into_iter().take(surplus) {
                let ending = Ending::new(EndCause::SessionLimit).with_record(Some(&record));
                let _ = context.remove(id, ending).await;
            }
        }
        AtLimit::RefuseLogin => {
            let ending = Ending::new(EndCause::LoginRefused).with_record(Some(record));
            if is_one_more && surplus > 0 && context.remove_with_retry(own, ending).await.is_ok() {
                context.report_login_refused(Some(own), login, record.fields().client());
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
