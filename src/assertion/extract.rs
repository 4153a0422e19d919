//! Axum's extractor, and what else Axum can answer with.

use axum_core::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::{Asserted, AssertionError, AssertionErrorKind, AssertionVerifier, JwksRoute};

impl<S> FromRequestParts<S> for Asserted
where
    AssertionVerifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = AssertionError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AssertionError> {
        let verifier = AssertionVerifier::from_ref(state);
        verifier.verify_headers(&parts.headers).await
    }
}

/// `None` if the request has no bearer token. A bad one is an error.
impl<S> OptionalFromRequestParts<S> for Asserted
where
    AssertionVerifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = AssertionError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, AssertionError> {
        let verifier = AssertionVerifier::from_ref(state);
        match verifier.verify_headers(&parts.headers).await {
            Ok(asserted) => Ok(Some(asserted)),
            Err(error) if error.kind() == AssertionErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl IntoResponse for AssertionError {
    fn into_response(self) -> Response {
        self.to_response()
    }
}

impl IntoResponse for JwksRoute {
    fn into_response(self) -> Response {
        self.to_response()
    }
}
