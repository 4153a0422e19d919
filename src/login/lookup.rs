//! The look-up of the user: one for each request, whoever asks first.

use std::any::Any;
use std::sync::Arc;

use super::users::Users;
use crate::error::{SessionError, SessionErrorKind};
use crate::events;
use crate::record::login::Stamp;
use crate::record::user::UserId;
use crate::session::lazy::SessionSlot;
use crate::session::{LoginFacts, Session};
/// What the look-up of a request has found, and for which login. The session keeps it.
pub(super) struct Found<U: Users> {
    facts: LoginFacts,
    /// `None` if nobody is logged in, whatever the session says.
    pub(super) user: Option<U::User>,
}

/// The session of the innermost layer whose users are `U`.
pub(super) async fn session_of<U: Users>(slot: &SessionSlot) -> Result<Session, SessionError> {
    let own = slot
        .chain()
        .find(|slot| users_of::<U>(slot.context().users()).is_some());
    own.ok_or(SessionErrorKind::NoUsers)?.load().await
}

fn users_of<U: Users>(users: Option<&(dyn Any + Send + Sync)>) -> Option<&U> {
    users?.downcast_ref()
}

/// The users of a session that [`session_of`] gave.
pub(super) fn users<U: Users>(session: &Session) -> Result<&U, SessionError> {
    let users = users_of(session.context().users());
    users.ok_or_else(|| SessionErrorKind::NoUsers.into())
}

/// The user who is logged in. Fails as [`Session::require_user`] if there is none.
pub(super) async fn require_user<U: Users>(
    session: &Session,
) -> Result<Arc<Found<U>>, SessionError> {
    match find_user::<U>(session).await? {
        Some(found) if found.user.is_some() => Ok(found),
        Some(_) => Err(SessionErrorKind::NotLoggedIn.into()),
        None => {
            session.require_user()?;
            Err(SessionErrorKind::NotLoggedIn.into())
        }
    }
}

/// What the look-up of the user has found. `None` for a visitor, without a look-up.
pub(super) async fn find_user<U: Users>(
    session: &Session,
) -> Result<Option<Arc<Found<U>>>, SessionError> {
    let Some(facts) = session.login_facts() else {
        return Ok(None);
    };
    let cell = session.user_cell();
    // The request may have logged in somebody else, or the same user with a new password.
    let known = || {
        cell.found::<Found<U>>()
            .filter(|found| found.facts == facts)
    };
    if let Some(found) = known() {
        return Ok(Some(found));
    }
    let _turn = cell.turn().await;
    if let Some(found) = known() {
        return Ok(Some(found));
    }
    let user = look_up::<U>(session, &facts).await?;
    let found = Arc::new(Found { facts, user });
    cell.set_found(found.clone());
    Ok(Some(found))
}

async fn look_up<U: Users>(
    session: &Session,
    facts: &LoginFacts,
) -> Result<Option<U::User>, SessionError> {
    let users = users::<U>(session)?;
    let Some(user) = find_as_stamped(session, users, &facts.user, facts.stamp).await? else {
        return Ok(None);
    };
    if let Some((actor, stamp)) = &facts.actor {
        let actor = Box::pin(find_as_stamped(session, users, actor, *stamp)).await?;
        return Ok(actor.map(|_| user));
    }
    Ok(Some(user))
}

/// The user of this id, which has its realm, if the stamp of the login is still the user's.
async fn find_as_stamped<U: Users>(
    session: &Session,
    users: &U,
    id: &UserId,
    stamp: Stamp,
) -> Result<Option<U::User>, SessionError> {
    let found = users.find(&id.without_realm()).await.map_err(failed)?;
    let Some(user) = found else {
        return Ok(None);
    };
    if U::credentials(&user) == stamp {
        return Ok(Some(user));
    }
    if stamp == Stamp::none() {
        let context = session.context();
        let warning = &context.warnings().login_without_stamp;
        warning.call(|| events::login_without_stamp(context.transport().name()));
    } else {
        session.retire();
    }
    Ok(None)
}

/// The application's users could not be asked.
pub(super) fn failed(source: super::BoxError) -> SessionError {
    let error = SessionError::new(SessionErrorKind::Users).with_source(source);
    events::users_error(&error);
    error
}
