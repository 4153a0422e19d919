//! The look-up of the user: one for each request, whoever asks first.

use std::any::Any;
use std::sync::Arc;

use super::users::Users;
use crate::error::{SessionError, SessionErrorKind};
use crate::events;
use crate::record::login::Stamp;
use crate::record::user::UserId;
use crate::session::Session;
use crate::session::lazy::SessionSlot;
use crate::session::user_cell::{Turn, UserStep};

/// Who is logged in, after the look-up.
pub(super) struct Visit<U: Users> {
    session: Session,
    /// What the look-up has found. There is none for a visitor.
    found: Option<Arc<Found<U>>>,
}

/// What a look-up has found: `None` if nobody is logged in, whatever the session says.
type Found<U> = Option<<U as Users>::User>;

/// The way to a [`Visit`], as far as it goes without waiting.
pub(super) enum Start<U: Users> {
    /// Nobody is logged in, or somebody has looked up the user.
    Known(Visit<U>),
    /// Nobody has looked up the user.
    LookUp(Turn),
    /// The session is not loaded, or somebody looks up the user now.
    Wait(SessionSlot),
}

impl<U: Users> Start<U> {
    pub(super) fn at(slot: &SessionSlot) -> Self {
        let Some(Ok(session)) = slot_of::<U>(slot).map(SessionSlot::get) else {
            return Self::Wait(slot.clone());
        };
        match session.user_step() {
            UserStep::Visitor => Self::Known(Visit::of_visitor(session)),
            UserStep::Take(found) => Self::Known(Visit::of_user(session, found)),
            UserStep::LookUp(turn) => Self::LookUp(turn),
            UserStep::Wait(_) => Self::Wait(slot.clone()),
        }
    }

    /// Who is logged in. Loads the session, and looks up the user, if nobody has.
    pub(super) async fn finish(self) -> Result<Visit<U>, SessionError> {
        match self {
            Self::Known(visit) => Ok(visit),
            Self::LookUp(turn) => look_up(turn).await,
            Self::Wait(slot) => Box::pin(wait(slot)).await,
        }
    }
}

async fn wait<U: Users>(slot: SessionSlot) -> Result<Visit<U>, SessionError> {
    let own = slot_of::<U>(&slot).ok_or(SessionErrorKind::NoUsers)?;
    let session = own.load().await?;
    loop {
        match session.user_step() {
            UserStep::Visitor => return Ok(Visit::of_visitor(session)),
            UserStep::Take(found) => return Ok(Visit::of_user(session, found)),
            UserStep::LookUp(turn) => return look_up(turn).await,
            UserStep::Wait(others) => others.await,
        }
    }
}

async fn look_up<U: Users>(turn: Turn) -> Result<Visit<U>, SessionError> {
    let (session, login) = (turn.session(), turn.login());
    let users = users::<U>(session)?;
    let mut user = find_as_stamped(session, users, login.user(), login.stamp()).await?;
    if user.is_some()
        && let Some(actor) = login.actor()
    {
        let actor = Box::pin(find_as_stamped(session, users, &actor.user, actor.stamp)).await?;
        user = user.filter(|_| actor.is_some());
    }
    let found = Arc::new(user);
    Ok(Visit::of_user(turn.keep(found.clone()), found))
}

impl<U: Users> Visit<U> {
    fn of_visitor(session: Session) -> Self {
        let found = None;
        Self { session, found }
    }

    fn of_user(session: Session, found: Arc<Found<U>>) -> Self {
        let found = Some(found);
        Self { session, found }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn users(&self) -> Result<&U, SessionError> {
        users(&self.session)
    }

    pub(super) fn user(&self) -> Option<&U::User> {
        self.found.as_ref()?.as_ref().as_ref()
    }

    /// The user who is logged in. Fails as [`Session::require_user`] if there is none.
    pub(super) fn require_user(&self) -> Result<&U::User, SessionError> {
        if let Some(user) = self.user() {
            return Ok(user);
        }
        self.session.require_user()?;
        Err(SessionErrorKind::NotLoggedIn.into())
    }
}

/// The slot of the innermost layer whose users are `U`.
fn slot_of<U: Users>(slot: &SessionSlot) -> Option<&SessionSlot> {
    slot.chain()
        .find(|slot| users_of::<U>(slot.context().users()).is_some())
}

fn users_of<U: Users>(users: Option<&(dyn Any + Send + Sync)>) -> Option<&U> {
    users?.downcast_ref()
}

fn users<U: Users>(session: &Session) -> Result<&U, SessionError> {
    let users = users_of(session.context().users());
    users.ok_or_else(|| SessionErrorKind::NoUsers.into())
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
