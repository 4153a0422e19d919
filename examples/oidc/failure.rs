//! What a user sees if there is no page for them.

use axum::BoxError;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use cloakroom::SessionError;

/// The reason why a request gets neither its page nor its login.
pub(crate) enum Failure {
    /// The redirect to the provider's login.
    ToProvider(Redirect),
    /// This session does not have a login with this state. The state was forged, used or pushed
    /// out, the login took too long, or the session has ended.
    Unknown,
    /// The user or the provider refused.
    Refused,
    /// The provider did not confirm the login, or the application cannot reach the provider.
    Unconfirmed,
    /// The user has logged out at the provider since.
    Ended,
    /// The provider let the user in with less than the page needs.
    NotEnough,
    Session(SessionError),
    Page(askama::Error),
}

impl Failure {
    pub(crate) fn provider(error: BoxError) -> Self {
        eprintln!("the provider did not confirm a login: {error}");
        Self::Unconfirmed
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<askama::Error> for Failure {
    fn from(error: askama::Error) -> Self {
        Self::Page(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let reason = match self {
            Self::Unknown => "This login was not begun here, or it is over.",
            Self::Refused => "You were not logged in.",
            Self::Unconfirmed => "The provider did not confirm the login.",
            Self::Ended => "You have logged out at the provider.",
            Self::NotEnough => "The provider did not ask you to log in as this page needs it.",
            Self::ToProvider(redirect) => return redirect.into_response(),
            Self::Session(error) => return error.into_response(),
            Self::Page(error) => {
                eprintln!("cannot make a page: {error}");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        // The page does not repeat anything from the request. It does not link to another site,
        // since a Referer could carry the code there.
        let page = format!("<p>{reason} <a href=\"/\">Try again</a></p>");
        (StatusCode::BAD_REQUEST, Html(page)).into_response()
    }
}
