//! Axum's extractors, and the errors as responses.

use std::ops::Deref;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::error::SessionError;
use crate::record::UserId;
use crate::report;
use crate::session::Session;

/// The session, loaded. Fails with a 503 where a lazy layer's store fails, and with a 500 where there is no layer.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionError> {
        let session = Self::from_extensions(&parts.extensions)?;
        session.load().await?;
        Ok(session)
    }
}

/// `None` where there is no layer.
impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, SessionError> {
        let Ok(session) = Self::from_extensions(&parts.extensions) else {
            return Ok(None);
        };
        session.load().await?;
        Ok(Some(session))
    }
}

/// The user who is logged in: an extractor that answers 401 where nobody is. Where a parallel request has
/// just replaced the client's token, it answers 409: see
/// [`Session::require_user`](crate::Session::require_user).
///
/// `Option<CurrentUser>` is `None` in both cases instead.
///
/// ```
/// use cloakroom::CurrentUser;
///
/// async fn me(user: CurrentUser) -> String {
///     format!("You are user {user}.", user = *user)
/// }
///
/// async fn home(user: Option<CurrentUser>) -> &'static str {
///     if user.is_some() { "Welcome back." } else { "Please log in." }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentUser(pub UserId);

impl Deref for CurrentUser {
    type Target = UserId;

    fn deref(&self) -> &UserId {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionError> {
        let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        session.require_user().map(Self)
    }
}

/// `None` where nobody is logged in. A missing layer is an error still.
impl<S: Sync> OptionalFromRequestParts<S> for CurrentUser {
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, SessionError> {
        let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(session.user()?.map(Self))
    }
}

/// What is the server's fault is logged, since the response does not tell.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        report::refused(&self);
        self.to_response()
    }
}
