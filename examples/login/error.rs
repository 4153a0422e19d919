//! The errors that stop a handler.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloakroom::SessionError;

/// The reason why a handler does not show its page.
#[derive(Debug)]
pub(crate) enum Error {
    NotFound,
    Session(SessionError),
    /// A fault of the server, which the user cannot repair.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// The answer does not have a body: `pages::show_errors` makes a page of it.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Session(error) => {
                if error.status() == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!(%error, "a request failed");
                }
                error.into_response()
            }
            Self::Internal(error) => {
                tracing::error!(%error, "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

macro_rules! internal {
    ($($error:ty),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Internal(error.into())
            }
        })*
    };
}
internal!(
    argon2::password_hash::Error,
    argon2::password_hash::phc::Error,
    askama::Error,
    sqlx::Error,
    tokio::sync::AcquireError,
    tokio::task::JoinError
);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Session(error) => error.fmt(f),
            Self::Internal(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound => None,
            Self::Session(error) => error.source(),
            Self::Internal(error) => error.source(),
        }
    }
}
