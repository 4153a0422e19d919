//! Axum's extractors, and the errors as responses.

use std::fmt;
use std::ops::Deref;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::error::{SessionError, SessionErrorKind};
use crate::events;
use crate::record::user::{IntoUserId, InvalidUserId, UserId};
use crate::session::Session;
use crate::session::lazy::SessionSlot;

/// The session of the request. It fails with a 503 if a lazy layer's store fails, and with a 500 if
/// there is no layer.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionError> {
        SessionSlot::from_extensions(&parts.extensions)?
            .load()
            .await
    }
}

/// `None` if there is no layer.
impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, SessionError> {
        match Self::load_from(&parts.extensions).await {
            Ok(session) => Ok(Some(session)),
            Err(error) if error.kind() == SessionErrorKind::MissingLayer => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The user who is logged in. This extractor answers 401 if nobody is logged in. If a parallel
/// request has just rotated the client's token, it answers 409: see
/// [`Session::require_user`](crate::Session::require_user).
///
/// `Option<CurrentUser>` is `None` in both cases. In an extractor of your own, call
/// [`Session::user`](crate::Session::user).
///
/// ```
/// use cloakroom::CurrentUser;
///
/// async fn me(user: CurrentUser) -> String {
///     format!("You are user {user}.")
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

impl fmt::Display for CurrentUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl IntoUserId for CurrentUser {
    fn into_user_id(self) -> Result<UserId, InvalidUserId> {
        Ok(self.0)
    }
}

impl IntoUserId for &CurrentUser {
    fn into_user_id(self) -> Result<UserId, InvalidUserId> {
        Ok(self.0.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionError> {
        let session = Session::load_from(&parts.extensions).await?;
        session.require_user().map(Self)
    }
}

/// `None` if nobody is logged in. A missing layer is an error.
impl<S: Sync> OptionalFromRequestParts<S> for CurrentUser {
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, SessionError> {
        let session = Session::load_from(&parts.extensions).await?;
        Ok(session.user().map(Self))
    }
}

/// Server errors are logged here, because the body of the response does not describe them.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        events::refused(&self);
        self.to_response()
    }
}
