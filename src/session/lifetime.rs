//! What a handler says of how long its session lasts.

use super::Session;
use crate::clock::Timestamp;
use crate::error::{SessionError, SessionErrorKind};
use crate::record::lifetime::class::LifetimeClass;

/// # Lifetimes
impl Session {
    /// Whether the session outlives the browser. `true` gives it a persistent cookie and the
    /// layer's `remember` timeouts.
    ///
    /// It is the short way to [`set_lifetime`](Self::set_lifetime) with `"remembered"` or
    /// `"browser"`.
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
        let lifetime = LifetimeClass::remembered(remembered);
        self.write()?.set_lifetime(lifetime);
        Ok(())
    }

    /// Gives the session another lifetime of the layer: one that the builder's
    /// [`lifetime`](crate::SessionLayerBuilder::lifetime) has named, or `"browser"`,
    /// `"remembered"` or `"visitor"`. Call it at a login, for a role or a tenant with timeouts of
    /// its own.
    ///
    /// If this changes a session, the session gets a new token, as with
    /// [`regenerate`](Self::regenerate). With the other timeouts, the session may be older than its
    /// absolute timeout. In that case the session ends, and the response removes its cookie. A
    /// login in the same request prevents that, because it starts the absolute timeout again.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::UnknownLifetime`] if the layer has no lifetime of this name.
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session, is_terminal: bool) -> Result<(), SessionError> {
    /// session.log_in(42)?;
    /// if is_terminal {
    ///     session.set_lifetime("kiosk")?;
    /// }
    /// # Ok(()) }
    /// ```
    #[doc(alias("set_expiry", "set_timeout", "setMaxInactiveInterval"))]
    pub fn set_lifetime(&self, name: &str) -> Result<(), SessionError> {
        let lifetime = self.0.context.lifetimes().class(name);
        let lifetime = lifetime.ok_or(SessionErrorKind::UnknownLifetime)?;
        self.write()?.set_lifetime(lifetime);
        Ok(())
    }

    /// The session ends at this time at the latest, even if somebody uses it. Its timeouts can end
    /// it earlier, and a later login takes the time back. A time in the past ends the session with
    /// this request, and a session that is new is not stored.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError, Timestamp};
    /// # fn show(session: &Session, end_of_the_shift: Timestamp) -> Result<(), SessionError> {
    /// session.log_in(42)?;
    /// session.ends_by(end_of_the_shift)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("set_expiry_date", "expires", "set_expiry"))]
    pub fn ends_by(&self, at: Timestamp) -> Result<(), SessionError> {
        self.write()?.set_ends_by(at);
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
}
