//! What a handler of a gateway tells a service behind.

use std::time::Duration;

use super::Session;
use crate::assertion::{Subject, invalid};
use crate::error::{SessionError, SessionErrorKind};
use crate::events::{self, Who};

/// # Assertions
impl Session {
    /// A short-lived JWT that says to one service who the user is: see
    /// [`assertion`](crate::assertion). The gateway sends it with a request to that service, as
    /// `Authorization: Bearer`.
    ///
    /// The `audience` is the name of the service, and no other service accepts the assertion. It is
    /// good for the time `ttl`, and not beyond the session's own expiry. The `ttl` is from one
    /// second to the layer's [`max_ttl`](crate::assertion::Assertions::max_ttl). Nobody can take an
    /// assertion back: if the session ends, the assertion is good until its `ttl` is over. So ask
    /// for a minute or less, and make a new assertion for each request. It costs a signature and no
    /// store call.
    ///
    /// The assertion says what the store has of the session. So a request that logs in, or begins
    /// to act as another user, cannot make one: the layer writes that only after the handler. The
    /// next request can.
    ///
    /// Do not give an assertion to the browser. The browser has the session's token, and a logout
    /// ends that at once.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::NoAssertions`] if the layer has no
    /// [`assertions`](crate::SessionLayerBuilder::assertions).
    /// [`SessionErrorKind::InvalidAssertion`] if the audience is empty, if the `ttl` is too short
    /// or too long, if this request has made the login or has outlasted the session, or if the texts
    /// of the login are too long for a header. [`SessionErrorKind::Sealed`] after the response: a
    /// socket that goes on for its user asks in a new request. [`SessionErrorKind::Random`] if the
    /// random generator fails. Others as
    /// [`require_user`](Self::require_user).
    ///
    /// ```
    /// use std::time::Duration;
    /// use cloakroom::{Session, SessionError};
    ///
    /// fn authorization(session: &Session) -> Result<String, SessionError> {
    ///     let assertion = session.assertion("orders", Duration::from_secs(60))?;
    ///     Ok(format!("Bearer {assertion}"))
    /// }
    /// ```
    #[doc(alias("jwt", "token_exchange", "bearer"))]
    pub fn assertion(&self, audience: &str, ttl: Duration) -> Result<String, SessionError> {
        let context = &self.0.context;
        let assertions = context.assertions().ok_or(SessionErrorKind::NoAssertions)?;
        self.require_login(|_| Ok(()))?;
        // The clock may be code of the application. So no lock is held while it runs.
        let now = context.now();
        let (login, session, ends) = {
            let state = self.read();
            if state.is_sealed() {
                return Err(SessionErrorKind::Sealed.into());
            }
            match (state.session(), state.login()) {
                (Some(session), _)
                    if context.lifetimes().is_over_for_request(
                        &session.record,
                        session.was_nearly_over,
                        now,
                    ) =>
                {
                    return Err(invalid(
                        "the session may be over by now; ask in a new request",
                    ));
                }
                (Some(session), Some(login)) if state.changes().login().is_none() => (
                    login.clone(),
                    session.id(),
                    context.lifetimes().expires_at(&session.record),
                ),
                _ => {
                    return Err(invalid(
                        "this request has made the login, and has not stored it yet; ask in the next one",
                    ));
                }
            }
        };
        let subject = Subject {
            login: &login,
            session,
            ends,
        };
        let assertion = assertions.issue(&subject, audience, ttl, now, context.random())?;
        let who = Who {
            user: Some(login.user().name()),
            actor: login.actor().map(|actor| actor.user.name()),
            asked_by: None,
        };
        events::assertion::asserted(session, who, audience);
        Ok(assertion)
    }
}
