//! What a handler does with the user and the token of its session.

use std::time::Duration;

use super::detached::DetachedSession;
use super::state::DroppedChanges;
use super::{ClientFacts, Session};
use crate::clock::Timestamp;
use crate::commit::lookup::{InitialState, LoadedSession};
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;
use crate::record::client::Client;
use crate::record::lifetime::Lifetimes;
use crate::record::user::{IntoUserId, Login, UserId};

/// # Users, tokens and lifetimes
impl Session {
    /// Gives the session a new token. The old token is dead at once. Data and lifetimes stay as
    /// they are.
    ///
    /// Call it when a user's rights change. [`log_in`](Self::log_in) does it by itself. If a
    /// visitor's session is not stored yet, there is no token to rotate.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// // The user has just got more rights. Somebody who saw the old token must not have them.
    /// session.regenerate()?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("cycle_id", "renew", "rotate", "cycle_key", "changeSessionId"))]
    pub fn regenerate(&self) -> Result<(), SessionError> {
        self.write()?.regenerate();
        Ok(())
    }

    /// Logs a user in. The session gets a new token, belongs to the user, and its absolute timeout
    /// starts again.
    ///
    /// The session keeps its data, unless it belonged to another user. In that case the new user
    /// starts with an empty session, and the layer ends the other user's session once the new one
    /// is stored. These are two steps: if the request is dropped between them, the other user's
    /// session stays.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::InvalidUserId`] if the id is a text that is empty, has more than 255
    /// bytes, or has a NUL in it. [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # struct User { id: i64 }
    /// # fn log_in(session: &Session, user: &User) -> Result<(), SessionError> {
    /// session.log_in(&user.id)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("login", "authenticate"))]
    pub fn log_in(&self, user: impl IntoUserId) -> Result<(), SessionError> {
        let context = &self.0.context;
        let user = context.realm().qualify(&user.into_user_id()?);
        let login = Login::new(user, context.now());
        let dropped = self.write()?.log_in(login);
        DroppedChanges::report(dropped);
        Ok(())
    }

    /// Logs the user out. It is [`destroy`](Self::destroy), and `Clear-Site-Data` if the layer is
    /// set to send that.
    ///
    /// The layer carries out a logout after the handler, like all changes. If the client goes away
    /// before the handler is done, the session stays. [`Sessions::revoke`](crate::Sessions::revoke)
    /// does not wait for the end of a request.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// async fn log_out(session: Session) -> Result<&'static str, SessionError> {
    ///     session.log_out()?;
    ///     Ok("Goodbye.")
    /// }
    /// ```
    #[doc(alias = "logout")]
    pub fn log_out(&self) -> Result<(), SessionError> {
        let dropped = {
            let mut state = self.write()?;
            state.clear_site_data();
            state.end(self.0.client)
        };
        DroppedChanges::report(dropped);
        Ok(())
    }

    /// Ends the session, in the store and in the browser. What the handler puts into it afterwards
    /// makes a new session.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// session.destroy()?;
    /// session.insert("notice", "Your order is complete.")?; // in a new session
    /// # Ok(()) }
    /// ```
    #[doc(alias("flush", "invalidate", "purge", "delete", "end"))]
    pub fn destroy(&self) -> Result<(), SessionError> {
        let dropped = self.write()?.end(self.0.client);
        DroppedChanges::report(dropped);
        Ok(())
    }

    /// Whether the session outlives the browser. `true` gives it a persistent cookie and the
    /// layer's `remember` timeouts.
    ///
    /// If this changes a session, the session gets a new token, as with
    /// [`regenerate`](Self::regenerate). With the other timeouts, the session may be older than its
    /// absolute timeout. In that case the session ends, and the response removes its cookie. A
    /// login in the same request prevents that, because it starts the absolute timeout again.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session, stay_logged_in: bool) -> Result<(), SessionError> {
    /// session.set_remembered(stay_logged_in)?; // the box below the password
    /// session.log_in(42)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("remember_me", "set_expiry", "set_longterm", "persistent"))]
    pub fn set_remembered(&self, remembered: bool) -> Result<(), SessionError> {
        self.write()?.set_remembered(remembered);
        Ok(())
    }

    /// Says that this request is not a use of the session. It is for polling, which would keep a
    /// session alive until its absolute timeout.
    ///
    /// Call it in the first second of the handler. If the session is nearly over, the layer touches
    /// it once the handler has waited for a second, because a slow request could outlive its
    /// session.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// async fn unread(session: Session) -> Result<String, SessionError> {
    ///     session.skip_touch()?; // the page asks every few seconds, even if nobody is there
    ///     Ok(session.get::<u32>("unread")?.unwrap_or(0).to_string())
    /// }
    /// ```
    pub fn skip_touch(&self) -> Result<(), SessionError> {
        self.write()?.skip_touch();
        Ok(())
    }

    /// Records where the session is used from. [`Sessions::list_for`](crate::Sessions::list_for)
    /// shows it.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Client, Session, SessionError};
    /// # fn show(session: &Session, user_agent: &str) -> Result<(), SessionError> {
    /// session.log_in(42)?;
    /// session.set_client(Client::new().with_user_agent(user_agent))?;
    /// # Ok(()) }
    /// ```
    pub fn set_client(&self, client: Client) -> Result<(), SessionError> {
        self.write()?.set_client(client);
        Ok(())
    }

    /// The record id of the session that the request came with, or `None` if it came with no live
    /// session. The record id is not a secret.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # async fn show(session: &Session, sessions: cloakroom::Sessions<cloakroom::MemoryStore>) -> Result<(), SessionError> {
    /// // "Log out everywhere else": end all sessions except this one.
    /// if let (Some(user), Some(this)) = (session.user(), session.id()) {
    ///     sessions.revoke_others(user, this).await?;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    #[doc(alias = "session_id")]
    pub fn id(&self) -> Option<RecordId> {
        self.read().session().map(LoadedSession::id)
    }

    /// The user who is logged in, or `None` for a visitor.
    ///
    /// ```
    /// # use cloakroom::Session;
    /// # fn show(session: &Session) -> String {
    /// match session.user() {
    ///     Some(user) => format!("Hello, {user}."),
    ///     None => "Please log in.".to_owned(),
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        let state = self.read();
        state.login().map(|login| login.user().without_realm())
    }

    /// The user who is logged in, if somebody must be. The extractor
    /// [`CurrentUser`](crate::CurrentUser) calls this.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::NotLoggedIn`] for a visitor. [`SessionErrorKind::TokenRotated`] if a
    /// parallel request has just rotated the token. Then the client may be logged in, and must ask
    /// again with the new token.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// let user = session.require_user()?;
    /// # Ok(()) }
    /// ```
    pub fn require_user(&self) -> Result<UserId, SessionError> {
        self.require_login(|login| Ok(login.user().without_realm()))
    }

    fn require_login<T>(
        &self,
        accept: impl FnOnce(&Login) -> Result<T, SessionErrorKind>,
    ) -> Result<T, SessionError> {
        let state = self.read();
        let accepted = match (state.login(), state.base()) {
            (Some(login), _) => accept(login),
            (None, InitialState::Rotated(_)) => Err(SessionErrorKind::TokenRotated),
            (None, _) => Err(SessionErrorKind::NotLoggedIn),
        };
        Ok(accepted?)
    }

    /// When the user logged in, or `None` for a visitor. Later requests do not move this time.
    #[must_use]
    pub fn logged_in_at(&self) -> Option<Timestamp> {
        self.read().login().map(Login::at)
    }

    /// When the session that the request came with ends, if nobody uses it any more. `None` if the
    /// request came with no live session.
    ///
    /// ```
    /// # use cloakroom::Session;
    /// # fn show(session: &Session) -> Option<String> {
    /// let ends = session.expires_at()?;
    /// Some(format!("Without a click you are logged out at {ends}."))
    /// # }
    /// ```
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let state = self.read();
        let session = state.session()?;
        Some(self.0.context.lifetimes().expires_at(&session.record))
    }

    /// Asks for a login that is at most `max_age` old. It is for what matters: a new password, a
    /// payment.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::LoginTooOld`] if the login is older. A login whose time is more than a
    /// minute in the future counts as too old, because a clock was wrong and nobody knows the real
    /// time. Others as [`require_user`](Self::require_user).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cloakroom::{Session, SessionError};
    /// # fn change_password(session: &Session) -> Result<(), SessionError> {
    /// session.require_recent_login(Duration::from_secs(5 * 60))?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("sudo", "reauthenticate", "require_fresh", "password_confirm"))]
    pub fn require_recent_login(&self, max_age: Duration) -> Result<(), SessionError> {
        // The clock may be code of the application. So no lock is held while it runs.
        let now = self.0.context.now();
        self.require_login(
            |login| match Lifetimes::is_login_too_old(login.at(), max_age, now) {
                true => Err(SessionErrorKind::LoginTooOld),
                false => Ok(()),
            },
        )
    }

    /// A handle for what goes on after the response: a socket, a stream, a task.
    ///
    /// The handle starts with the session as the layer loaded it. It sees this request's own
    /// changes only after a [`reload`](DetachedSession::reload).
    pub fn detach(&self) -> DetachedSession {
        let base = self.read().base().clone();
        let work = Self::new(self.0.context.clone(), None, ClientFacts::default(), base);
        DetachedSession::new(self.clone(), work)
    }
}
