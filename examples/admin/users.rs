//! The users, how they log in, and who is an administrator.

use std::net::SocketAddr;

use axum::Form;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use axum::response::{Redirect, Response};
use cloakroom::{Client, Flash, Session, SessionErrorKind, Sessions, UserId};
use serde::Deserialize;

use crate::App;
use crate::pages::{self, Failure, page};

struct User {
    name: &'static str,
    is_admin: bool,
}

/// The table of users. It says who is an administrator. The session does not say it, so that a
/// demotion holds at once.
const USERS: [User; 3] = [
    User {
        name: "ada",
        is_admin: true,
    },
    User {
        name: "grace",
        is_admin: false,
    },
    User {
        name: "linus",
        is_admin: false,
    },
];

/// The password of all users. The example `login` shows how to keep and check passwords.
const PASSWORD: &str = "cloakroom";

fn find(name: &str) -> Option<&'static User> {
    USERS.iter().find(|user| user.name == name)
}

/// An administrator with a fresh login. All handlers below `/admin` begin with this extractor.
pub(crate) struct Admin {
    user: UserId,
    pub(crate) flash: Flash,
    pub(crate) session: Session,
}

impl Admin {
    /// These sessions, in the name of the administrator.
    pub(crate) fn acts_on<St: cloakroom::SessionStore>(
        &self,
        sessions: &Sessions<St>,
    ) -> Sessions<St> {
        sessions.by(format_args!("admin:{}", self.user))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let session = Session::from_request_parts(parts, app).await?;
        let user = session.user().ok_or(Failure::Elsewhere("/"))?;
        if !find(user.as_str()).is_some_and(|user| user.is_admin) {
            // Other users do not learn that this page exists.
            return Err(Failure::NotFound);
        }
        // A browser that was left open is not enough. The administrator must have given the
        // password a short while ago, or must give it again.
        match session.require_recent_login(app.fresh_for) {
            Err(error) if error.kind() == SessionErrorKind::LoginTooOld => {
                Err(Failure::Elsewhere("/confirm"))
            }
            other => {
                other?;
                Ok(Self {
                    user,
                    flash: Flash::new(&session),
                    session,
                })
            }
        }
    }
}

/// The client of a request. The layer records the client with a login, for the list of sessions.
/// Behind a proxy, the address would be that of the proxy: take it from the header that the proxy
/// sets.
pub(crate) fn client_of(headers: &HeaderMap, extensions: &Extensions) -> Client {
    let mut client = Client::new();
    if let Some(ConnectInfo(peer)) = extensions.get::<ConnectInfo<SocketAddr>>() {
        client = client.with_address(&peer.ip().to_string());
    }
    let agent = headers.get(header::USER_AGENT);
    match agent.and_then(|agent| agent.to_str().ok()) {
        Some(agent) => client.with_user_agent(agent),
        None => client,
    }
}

/// `GET /`
pub(crate) async fn home(session: Session, flash: Flash) -> Result<Response, Failure> {
    let user = session.user();
    let user = user.as_ref().and_then(|user| find(user.as_str()));
    page(&pages::Home {
        name: user.map(|user| user.name),
        is_admin: user.is_some_and(|user| user.is_admin),
        messages: flash.take()?,
    })
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    name: String,
    password: String,
}

/// `POST /login`
pub(crate) async fn log_in(
    session: Session,
    Form(form): Form<Credentials>,
) -> Result<Redirect, Failure> {
    let user = find(&form.name).filter(|_| form.password == PASSWORD);
    let user = user.ok_or(Failure::WrongPassword)?;
    session.log_in(user.name)?;
    Ok(Redirect::to("/"))
}

/// `GET /confirm`
pub(crate) async fn confirm_form() -> Result<Response, Failure> {
    page(&pages::Confirm)
}

#[derive(Deserialize)]
pub(crate) struct Confirmation {
    password: String,
}

/// `POST /confirm`
pub(crate) async fn confirm(
    session: Session,
    Form(form): Form<Confirmation>,
) -> Result<Redirect, Failure> {
    let user = session.user().ok_or(Failure::Elsewhere("/"))?;
    if form.password != PASSWORD {
        return Err(Failure::WrongPassword);
    }
    // The same user logs in again. The login is fresh from now on, and the session has a new token.
    session.log_in(user)?;
    Ok(Redirect::to("/admin"))
}

/// `POST /logout`
pub(crate) async fn log_out(session: Session) -> Result<Redirect, Failure> {
    session.log_out()?;
    // The message is in a new session, which is a visitor's.
    Flash::new(&session).success("You are logged out.")?;
    Ok(Redirect::to("/"))
}
