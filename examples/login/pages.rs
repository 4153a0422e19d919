//! The HTML: the parts that all pages share, the pages, and the pages for errors.

use std::fmt;
use std::time::Duration;

use askama::Template;
use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Response};
use cloakroom::login::{Auth, Next};
use cloakroom::{Key, Session, SessionError};
use serde::{Deserialize, Serialize};

use crate::devices::Device;
use crate::error::Error;
use crate::staff::{ACTING, Acting};
use crate::users::{Db, User};

pub(crate) const THEME: Key<Theme> = Key::new("theme");

/// A notice for the next page.
pub(crate) const FLASH: Key<Flash> = Key::new("flash");

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Theme {
    Light,
    Dark,
}

impl fmt::Display for Theme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Light => "light",
            Self::Dark => "dark",
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flash {
    pub(crate) is_problem: bool,
    pub(crate) text: String,
}

impl Flash {
    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self {
            is_problem: false,
            text: text.into(),
        }
    }

    pub(crate) fn problem(text: impl Into<String>) -> Self {
        Self {
            is_problem: true,
            text: text.into(),
        }
    }
}

/// The parts that all pages share.
pub(crate) struct Frame {
    pub(crate) user: Option<User>,
    session: Session,
    /// `None` follows the theme of the system.
    theme: Option<Theme>,
    acting: Option<Acting>,
    path: String,
    /// The path and the query.
    address: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Frame {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let session: Session = parts.extract().await?;
        let user: Option<Auth<Db>> = parts.extract().await?;
        Ok(Self {
            user: user.map(|Auth(user)| user),
            theme: session.get(THEME)?,
            acting: session.get(ACTING)?,
            session,
            path: parts.uri.path().to_owned(),
            address: parts.uri.to_string(),
        })
    }
}

impl Frame {
    /// Takes the notice out of the session. The template calls this, so only a page that the user
    /// sees takes it.
    fn take_flash(&self) -> Result<Option<Flash>, SessionError> {
        self.session.remove(FLASH)
    }

    fn is_staff(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.is_staff)
    }

    fn is_at(&self, path: &str) -> bool {
        self.path == path
    }

    fn is_theme(&self, theme: &str) -> bool {
        self.theme.is_some_and(|own| own.to_string() == theme)
    }
}

#[derive(Template)]
#[template(path = "home.html", config = "examples/login/askama.toml")]
pub(crate) struct Home {
    pub(crate) frame: Frame,
    pub(crate) visits: u64,
}

#[derive(Template)]
#[template(path = "private.html", config = "examples/login/askama.toml")]
pub(crate) struct Private {
    pub(crate) frame: Frame,
    pub(crate) since: String,
    pub(crate) ends: String,
    pub(crate) id: String,
}

#[derive(Template)]
#[template(path = "register.html", config = "examples/login/askama.toml")]
pub(crate) struct Register {
    pub(crate) frame: Frame,
    pub(crate) next: Next,
    pub(crate) username: String,
    pub(crate) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "login.html", config = "examples/login/askama.toml")]
pub(crate) struct LogIn {
    pub(crate) frame: Frame,
    pub(crate) next: Next,
    pub(crate) username: String,
    pub(crate) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "confirm.html", config = "examples/login/askama.toml")]
pub(crate) struct Confirm {
    pub(crate) frame: Frame,
    pub(crate) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "password.html", config = "examples/login/askama.toml")]
pub(crate) struct Password {
    pub(crate) frame: Frame,
    pub(crate) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "devices.html", config = "examples/login/askama.toml")]
pub(crate) struct Devices {
    pub(crate) frame: Frame,
    pub(crate) devices: Vec<Device>,
}

#[derive(Template)]
#[template(path = "no_devices.html", config = "examples/login/askama.toml")]
pub(crate) struct NoDevices {
    pub(crate) frame: Frame,
}

#[derive(Template)]
#[template(path = "users.html", config = "examples/login/askama.toml")]
pub(crate) struct Users {
    pub(crate) frame: Frame,
    pub(crate) customers: Vec<User>,
}

#[derive(Template)]
#[template(path = "error.html", config = "examples/login/askama.toml")]
struct ErrorPage {
    theme: Option<Theme>,
    acting: Option<Acting>,
    status: u16,
    title: &'static str,
    text: &'static str,
    log_in: bool,
}

/// Makes a page that caches must not keep: after a logout, the back button must not show the user's
/// pages.
pub(crate) fn page(template: &impl Template) -> Result<Response, Error> {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Html(template.render()?)).into_response())
}

/// Makes a page for a form that has a problem. That is not a success, so the status is 422.
/// Browsers show the page of a 422 too.
pub(crate) fn problem_page(template: &impl Template) -> Result<Response, Error> {
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page(template)?).into_response())
}

/// Gives a page to an error that does not have one.
///
/// The router has this layer twice: inside the session layer and around it. Around it, `session` is
/// `None`, and the page follows the theme of the system.
pub(crate) async fn show_errors(
    session: Option<Session>,
    request: Request,
    next: middleware::Next,
) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_page = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if !is_error || is_page {
        return response;
    }
    let acting = session
        .as_ref()
        .and_then(|session| session.get(ACTING).ok()?);
    let (title, text) = match (status, &session, &acting) {
        (StatusCode::FORBIDDEN, Some(_), Some(_)) => (
            "Not as somebody else",
            "You act as another user, and may not come here. Stop acting, and try again.",
        ),
        (StatusCode::FORBIDDEN, Some(_), None) => (
            "Not with this ticket",
            "This page is there for others. Your account may not open it.",
        ),
        _ => explain(status),
    };
    let template = ErrorPage {
        theme: session.and_then(|session| session.get(THEME).ok()?),
        acting,
        status: status.as_u16(),
        title,
        text,
        log_in: status == StatusCode::UNAUTHORIZED,
    };
    let Ok(html) = template.render() else {
        return response;
    };
    // All other headers stay, for example the session's cookie or `Retry-After`.
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    Response::from_parts(parts, html.into())
}

fn explain(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::UNAUTHORIZED => (
            "You are not logged in",
            "Your session has ended. Log in, and try again.",
        ),
        StatusCode::FORBIDDEN => (
            "Not from there",
            "That request came from another site, so it was refused.",
        ),
        StatusCode::NOT_FOUND => ("Nothing hangs here", "There is no page at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("Not like that", "This address is there for something else.")
        }
        StatusCode::CONFLICT => (
            "Two at once",
            "Another request was faster. Please try again.",
        ),
        StatusCode::SERVICE_UNAVAILABLE => (
            "Back in a moment",
            "The cloakroom is closed for a moment. Please try again.",
        ),
        _ if status.is_client_error() => (
            "That did not fit",
            "The form was not filled in as expected.",
        ),
        _ => (
            "Something went wrong",
            "It is our fault, and it has been noted down.",
        ),
    }
}

/// `GET /style.css`
pub(crate) async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", include_str!("style.css"))
}

/// `GET /icon.svg`
pub(crate) async fn icon() -> impl IntoResponse {
    asset("image/svg+xml", include_str!("icon.svg"))
}

fn asset(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, "max-age=600"),
        ],
        content,
    )
}

/// Writes a span of time in words, in its largest unit.
pub(crate) fn how_long(time: Duration) -> String {
    // A request takes some milliseconds. Without this rounding, 30 minutes would show as 29.
    let seconds = (time + Duration::from_millis(500)).as_secs();
    let (count, unit) = match seconds {
        0..60 => return "less than a minute".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

pub(crate) fn ago(time: Duration) -> String {
    match time.as_secs() {
        0..60 => "just now".to_owned(),
        _ => format!("{} ago", how_long(time)),
    }
}
