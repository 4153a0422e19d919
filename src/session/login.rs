//! What a handler does with the user and the token of its session.

use std::time::Duration;

use super::detached::DetachedSession;
use super::state::DroppedChanges;
use super::{ClientFacts, Session};
use crate::clock::Timestamp;
use crate::commit::lookup::{InitialState, LoadedSession};
use crate::error::{SessionError, SessionErrorKind, StepUp};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::client::Client;
use crate::record::is_external_id;
use crate::record::lifetime::Lifetimes;
use crate::record::login::{Account, Authentication, IntoAccount, Login};
use crate::record::user::UserId;

/// # Users and tokens
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
    /// An application that compares stamps of its users' credentials hands in an
    /// [`Account`](crate::Account), and all others hand in the user's id.
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
    pub fn log_in(&self, account: impl IntoAccount) -> Result<(), SessionError> {
        self.log_in_with(account, Authentication::now())
    }

    /// [`log_in`](Self::log_in), and how and when the user proved who they are. It is for a login
    /// through an identity provider: the user may have given the password there long ago.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::TooLarge`] for more than 16 methods, and for a method or a level of more
    /// than 255 bytes. Others as [`log_in`](Self::log_in).
    ///
    /// ```
    /// # use cloakroom::{Authentication, Session, SessionError, Timestamp};
    /// # fn show(session: &Session, user: i64, auth_time: Timestamp) -> Result<(), SessionError> {
    /// let how = Authentication::at(auth_time).with_methods(["pwd", "otp"]).with_level("aal2");
    /// session.log_in_with(user, how)?;
    /// # Ok(()) }
    /// ```
    pub fn log_in_with(
        &self,
        account: impl IntoAccount,
        how: Authentication,
    ) -> Result<(), SessionError> {
        let login = self.new_login(account.into_account(), how)?;
        let dropped = self.write()?.log_in(login);
        DroppedChanges::report(dropped);
        Ok(())
    }

    pub(super) fn new_login(
        &self,
        account: Account,
        how: Authentication,
    ) -> Result<Login, SessionError> {
        let context = &self.0.context;
        let now = context.now();
        Login::new(account, how, now, |user| context.realm().qualify(user))
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
        self.log_out_because(EndCause::LoggedOut)
    }

    pub(crate) fn log_out_because(&self, cause: EndCause) -> Result<(), SessionError> {
        let dropped = {
            let mut state = self.write()?;
            state.clear_site_data();
            state.end(cause, self.0.client.presents_token)
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
        self.destroy_because(EndCause::Destroyed)
    }

    pub(super) fn destroy_because(&self, cause: EndCause) -> Result<(), SessionError> {
        let dropped = self.write()?.end(cause, self.0.client.presents_token);
        DroppedChanges::report(dropped);
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

    /// Records the external id of this login: the name that another system has for it, for example
    /// the `sid` of an OpenID provider. It is a text of 1 to 255 bytes.
    /// [`Sessions::end_external`](crate::Sessions::end_external) ends the sessions of an external
    /// id.
    ///
    /// Call this after [`log_in`](Self::log_in). The external id belongs to that login: the next
    /// login begins without one. If the application has several providers, put the name of the
    /// provider before the `sid`.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::NotLoggedIn`] for a visitor. [`SessionErrorKind::InvalidExternalId`] if
    /// the text is empty, has more than 255 bytes, or has a NUL in it.
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session, user: &str, sid: &str) -> Result<(), SessionError> {
    /// session.log_in(user)?;
    /// session.set_external_id(sid)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("sid", "session_index", "backchannel"))]
    pub fn set_external_id(&self, id: impl AsRef<str>) -> Result<(), SessionError> {
        let id = id.as_ref();
        if !is_external_id(id) {
            return Err(SessionErrorKind::InvalidExternalId.into());
        }
        self.write()?.set_external_id(id.into())
    }

    /// The external id of the login, or `None` if the application has set none. See
    /// [`set_external_id`](Self::set_external_id).
    #[must_use]
    pub fn external_id(&self) -> Option<String> {
        self.read().external_id().map(str::to_owned)
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

    pub(super) fn require_login<T>(
        &self,
        accept: impl FnOnce(&Login) -> Result<T, SessionErrorKind>,
    ) -> Result<T, SessionError> {
        let state = self.read();
        let accepted = match (state.login(), state.base()) {
            (Some(login), _) => accept(login),
            (None, InitialState::Rotated(_)) => Err(SessionErrorKind::TokenRotated),
            #[cfg(feature = "dbsc")]
            (None, InitialState::Unbound(_)) => Err(SessionErrorKind::DeviceUnproven),
            (None, _) => Err(SessionErrorKind::NotLoggedIn),
        };
        Ok(accepted?)
    }

    /// When the user logged in, or `None` for a visitor. Later requests do not move this time.
    #[must_use]
    pub fn logged_in_at(&self) -> Option<Timestamp> {
        self.read().login().map(Login::at)
    }

    /// How and when the user proved who they are, or `None` for a visitor. Where somebody acts as
    /// another user, it says how the one who acts has proved it.
    ///
    /// ```
    /// # use cloakroom::Session;
    /// # fn show(session: &Session) -> Option<String> {
    /// let how = session.authentication()?;
    /// Some(format!("logged in at {} with {}", how.time()?, how.methods().join(" and ")))
    /// # }
    /// ```
    #[must_use]
    pub fn authentication(&self) -> Option<Authentication> {
        self.read().login().map(Login::authentication)
    }

    /// Asks for a login that is at most `max_age` old. It is for what matters: a new password, a
    /// payment.
    ///
    /// What counts is when the user proved who they are. After a single sign-on, that can be long
    /// before the login: see [`log_in_with`](Self::log_in_with).
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::LoginTooOld`] if the login is older. The error as a response is a 401,
    /// whose challenge has the `max_age` in seconds (RFC 9470). A login whose time is more than a
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
        let accepted = self.require_login(|login| {
            match Lifetimes::is_login_too_old(login.proved_at(), max_age, now) {
                true => Err(SessionErrorKind::LoginTooOld),
                false => Ok(()),
            }
        });
        accepted.map_err(|error| match error.kind() {
            SessionErrorKind::LoginTooOld => error.with_step_up(StepUp::max_age(max_age)),
            _ => error,
        })
    }

    /// Asks for a login of one of these levels, as [`log_in_with`](Self::log_in_with) has recorded
    /// it. Name every level that is good enough: levels are texts, and the layer does not know
    /// which one is higher.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::LevelTooLow`] if the login has another level, or none. The error as a
    /// response is a 401, whose challenge has the levels (RFC 9470). Others as
    /// [`require_user`](Self::require_user).
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn pay(session: &Session) -> Result<(), SessionError> {
    /// session.require_level(&["aal2", "aal3"])?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("acr", "step_up", "mfa", "two_factor"))]
    pub fn require_level(&self, accepted: &[&str]) -> Result<(), SessionError> {
        let reached = self.require_login(|login| match login.level() {
            Some(level) if accepted.contains(&level) => Ok(()),
            _ => Err(SessionErrorKind::LevelTooLow),
        });
        reached.map_err(|error| {
            let step_up = match error.kind() {
                SessionErrorKind::LevelTooLow => StepUp::levels(accepted),
                _ => None,
            };
            match step_up {
                Some(step_up) => error.with_step_up(step_up),
                None => error,
            }
        })
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

/// What the room `login` does with it.
#[cfg(feature = "login")]
impl Session {
    /// The login is worth nothing any more, because the user has a new password. The session ends
    /// in a minute, and this request does not keep it alive.
    ///
    /// It does not end at once. The request that changes the password may not have written its new
    /// login yet, and that login is made in this session.
    pub(crate) fn retire(&self) {
        let at = self.0.context.now() + RETIRES_AFTER;
        self.state().retire(at);
    }
}

/// More than a request takes that changes a password.
#[cfg(feature = "login")]
const RETIRES_AFTER: Duration = Duration::from_secs(60);
