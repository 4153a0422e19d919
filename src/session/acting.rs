//! What a handler does if one user acts as another.

use super::Session;
use super::state::DroppedChanges;
use crate::commit::lookup::{LoadedSession, find_actor};
use crate::error::{SessionError, SessionErrorKind};
use crate::hooks::cause::EndCause;
use crate::record::login::{Authentication, IntoAccount};
use crate::record::user::UserId;
use crate::token::SessionToken;

/// # Acting as another user
impl Session {
    /// The user acts as another one from now on, for example to help them. The application must
    /// check first that the user may do that.
    ///
    /// It begins a second session, which is empty and belongs to the other user. There
    /// [`user`](Self::user) is the other user, and [`actor`](Self::actor) is the one who acts.
    /// [`Sessions`](crate::Sessions) shows both, and the event `acting` says both. The own session
    /// of the one who acts stays in the store, and [`stop_acting`](Self::stop_acting) leads back to
    /// it. The end of either session ends the second one. A logout ends both, and so does a login,
    /// because afterwards no way leads back. The second session does not count for the other user's
    /// session limit.
    ///
    /// What the request has changed in its session before this call is dropped, and an event says
    /// so.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::NotLoggedIn`] for a visitor. [`SessionErrorKind::CannotAct`] if the user
    /// acts as somebody already, is the other user, or has logged in with this request.
    /// [`SessionErrorKind::InvalidUserId`] as [`log_in`](Self::log_in).
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError, SessionErrorKind};
    /// # fn show(session: &Session, is_staff: bool, customer: i64) -> Result<(), SessionError> {
    /// if is_staff {
    ///     session.act_as(customer)?;
    /// }
    /// # Ok(()) }
    /// ```
    #[doc(alias("impersonate", "hijack", "switch_user", "sudo", "masquerade"))]
    pub fn act_as(&self, account: impl IntoAccount) -> Result<(), SessionError> {
        let login = self.new_login(account.into_account(), Authentication::now())?;
        let dropped = self.write()?.act_as(login)?;
        DroppedChanges::report(dropped);
        Ok(())
    }

    /// The user who acts as [`user`](Self::user), or `None` if users act for themselves.
    ///
    /// ```
    /// # use cloakroom::Session;
    /// # fn show(session: &Session) -> Option<String> {
    /// let actor = session.actor()?;
    /// Some(format!("You are {actor}, and act as {}.", session.user()?))
    /// # }
    /// ```
    #[must_use]
    #[doc(alias("impersonator", "true_user"))]
    pub fn actor(&self) -> Option<UserId> {
        let (_, actor) = self.read().acting()?;
        Some(actor.user.without_realm())
    }

    /// Goes back to the own session of the user who acts as another. It is there as the user left
    /// it, and gets a new token. The session of the other user ends. Returns whether the user acted
    /// as another.
    ///
    /// What the request has changed before this call is dropped, and an event says so. What it
    /// changes afterwards is a change of the own session.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::NotLoggedIn`] if the own session has just ended. The other one ends as
    /// well. [`SessionErrorKind::CannotAct`] if the request began to act itself.
    /// [`SessionErrorKind::Store`] if the store fails. [`SessionErrorKind::Sealed`] after the
    /// response.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// async fn back(session: Session) -> Result<&'static str, SessionError> {
    ///     session.stop_acting().await?;
    ///     Ok("You are yourself again.")
    /// }
    /// ```
    pub async fn stop_acting(&self) -> Result<bool, SessionError> {
        let context = &self.0.context;
        let Some((id, actor)) = self.write()?.acting() else {
            return Ok(false);
        };
        let id = id.ok_or(SessionErrorKind::CannotAct)?;
        let acting = self.read().session().map(|acting| acting.record.clone());
        #[cfg(feature = "dbsc")]
        let acting_is_unproven = self
            .read()
            .session()
            .is_some_and(|acting| acting.is_unproven);
        let Some(record) = find_actor(context, id, acting.as_ref(), &actor).await? else {
            self.destroy_because(EndCause::ActorEnded)?;
            return Err(SessionErrorKind::NotLoggedIn.into());
        };
        let was_nearly_over = context.lifetimes().is_nearly_over(&record, context.now());
        let own = LoadedSession {
            token: SessionToken::of_record(actor.session, record.fields()),
            record,
            was_nearly_over,
            #[cfg(feature = "dbsc")]
            is_unproven: acting_is_unproven,
        };
        let dropped = self.write()?.stop_acting(id, own);
        DroppedChanges::report(dropped);
        Ok(true)
    }
}
