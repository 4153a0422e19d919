//! The HTML: the pages, and what a request gets in place of its page.

use std::time::Duration;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use cloakroom::flash::Message;
use cloakroom::{Client, RecordId, SessionError, SessionInfo, Timestamp};

use crate::filter::Fields;
use crate::list::problem_of;

#[derive(Template)]
#[template(path = "home.html", config = "examples/admin/askama.toml")]
pub(crate) struct Home {
    pub(crate) name: Option<&'static str>,
    pub(crate) is_admin: bool,
    pub(crate) messages: Vec<Message>,
}

#[derive(Template)]
#[template(path = "confirm.html", config = "examples/admin/askama.toml")]
pub(crate) struct Confirm;

#[derive(Template)]
#[template(path = "list.html", config = "examples/admin/askama.toml")]
pub(crate) struct List {
    pub(crate) fields: Fields,
    pub(crate) rows: Vec<Row>,
    pub(crate) next: Option<String>,
    pub(crate) count: Option<u64>,
    /// Whether the store tells of changes.
    pub(crate) is_live: bool,
    pub(crate) messages: Vec<Message>,
    /// What is wrong with the filter.
    pub(crate) problem: Option<String>,
    pub(crate) time: String,
    /// The hours, minutes and seconds of the time.
    pub(crate) clock: String,
}

#[derive(Template)]
#[template(path = "end.html", config = "examples/admin/askama.toml")]
pub(crate) struct End {
    pub(crate) fields: Fields,
    pub(crate) rows: Vec<Row>,
    pub(crate) count: u64,
    /// How many sessions the page does not show.
    pub(crate) more: u64,
    /// Whether the administrator's own session is one of them.
    pub(crate) has_own: bool,
}

#[derive(Template)]
#[template(path = "problem.html", config = "examples/admin/askama.toml")]
struct Problem {
    title: &'static str,
    text: String,
    back: &'static str,
}

/// A session, as the pages show it.
pub(crate) struct Row {
    id: RecordId,
    /// `None` for a visitor.
    user: Option<String>,
    actor: Option<String>,
    agent: String,
    address: String,
    external_id: Option<String>,
    is_bound: bool,
    is_own: bool,
    created: Time,
    seen: Time,
    ends: Time,
}

/// A time, for machines and for people.
struct Time {
    exact: String,
    text: String,
}

impl Row {
    pub(crate) fn new(info: &SessionInfo, own: Option<RecordId>, now: Timestamp) -> Self {
        let client = info.client();
        let known = |text: Option<&str>, or: &str| text.unwrap_or(or).to_owned();
        let past = |time: Timestamp| Time {
            exact: time.to_string(),
            text: ago(now.since(time)),
        };
        Self {
            id: info.id(),
            user: info.user().map(ToString::to_string),
            actor: info.actor().map(ToString::to_string),
            agent: known(client.and_then(Client::user_agent), "An unknown browser"),
            address: known(client.and_then(Client::address), "an unknown address"),
            external_id: info.external_id().map(str::to_owned),
            is_bound: info.device_bound_at().is_some(),
            is_own: own == Some(info.id()),
            created: past(info.created_at()),
            seen: past(info.last_seen_at()),
            ends: Time {
                exact: info.expires_at().to_string(),
                text: format!("in {}", how_long(info.expires_at().since(now))),
            },
        }
    }

    /// The user, or an empty text for a visitor.
    fn user_field(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// The address of the list of this user's sessions.
    fn same_user(&self) -> String {
        Fields::of_user(self.user_field()).first_page()
    }

    fn of_whom(&self) -> String {
        match &self.user {
            Some(user) => format!("the session of {user}"),
            None => "the session of a visitor".to_owned(),
        }
    }
}

/// Makes a page that caches must not keep: after a logout, the back button must not show it.
pub(crate) fn page(template: &impl Template) -> Result<Response, Failure> {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Html(template.render()?)).into_response())
}

/// `GET /style.css`
pub(crate) async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", include_str!("style.css"))
}

/// `GET /live.js`
pub(crate) async fn script() -> impl IntoResponse {
    asset("text/javascript; charset=utf-8", include_str!("live.js"))
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
fn how_long(time: Duration) -> String {
    // A request takes some milliseconds. Without this rounding, 30 minutes would show as 29.
    let seconds = (time + Duration::from_millis(500)).as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn ago(time: Duration) -> String {
    match time.as_secs() {
        0..10 => "just now".to_owned(),
        _ => format!("{} ago", how_long(time)),
    }
}

/// The reason why a request does not get its page.
pub(crate) enum Failure {
    /// The user has to do something at this address first.
    Elsewhere(&'static str),
    NotFound,
    WrongPassword,
    /// What the request asks for makes no sense. Nothing has happened.
    Bad(String),
    Session(SessionError),
    Page(askama::Error),
}

impl Failure {
    /// What is wrong with the filter, or the failure if the filter is not at fault.
    pub(crate) fn into_problem(self) -> Result<String, Self> {
        match self {
            Self::Bad(text) => Ok(text),
            Self::Session(error) => problem_of(&error).ok_or(Self::Session(error)),
            other => Err(other),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<FormRejection> for Failure {
    fn from(error: FormRejection) -> Self {
        Self::Bad(error.body_text())
    }
}

impl From<askama::Error> for Failure {
    fn from(error: askama::Error) -> Self {
        Self::Page(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = |status: StatusCode, problem: Problem| match page(&problem) {
            Ok(html) => (status, html).into_response(),
            Err(_) => status.into_response(),
        };
        match self.into_problem() {
            Ok(text) => problem(
                StatusCode::BAD_REQUEST,
                Problem {
                    title: "Nothing has ended",
                    text,
                    back: "/admin",
                },
            ),
            Err(Self::WrongPassword) => problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                Problem {
                    title: "Not that password",
                    text: "The name or the password is wrong.".to_owned(),
                    back: "/",
                },
            ),
            Err(Self::Elsewhere(path)) => Redirect::to(path).into_response(),
            Err(Self::Session(error)) => error.into_response(),
            Err(Self::Page(error)) => {
                eprintln!("cannot make a page: {error}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            Err(_) => StatusCode::NOT_FOUND.into_response(),
        }
    }
}
