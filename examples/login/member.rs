//! Who is logged in, and the way to the login page and back.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Method, header};
use cloakroom::{Client, ErrorKind, Key, Session, SessionError};

use crate::app::App;
use crate::error::Error;
use crate::users::User;

/// Where to go after the login. It is kept in the session, so that no link can say where a login leads.
const RETURN_TO: Key<String> = Key::new("return_to");

/// Which password the login was checked against. A login that was checked before a new password, and is written after all
/// other sessions were ended for it, would be a session of the old password: this tells it from the others.
const PASSWORD_VERSION: Key<i64> = Key::new("password_version");

/// A user who is logged in: an extractor that sends everybody else to the login page.
///
/// The crate's `CurrentUser` is enough where an id will do. This one also reads the account, and knows a session of an old
/// password.
pub(crate) struct Member(pub(crate) User);

impl FromRequestParts<App> for Member {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let session = Session::from_request_parts(parts, app).await?;
        if let Some(user) = current(app, &session).await? {
            return Ok(Self(user));
        }
        // A form that was sent cannot be sent again by a redirect.
        if parts.method != Method::GET {
            return Err(SessionError::from(ErrorKind::NotLoggedIn).into());
        }
        return_to(&session, parts.uri.path())?;
        Err(Error::Elsewhere("/login"))
    }
}

/// A user who is logged in, or `None`.
///
/// A session of an old password is nobody's. It is not ended: while a password changes, the user's own session has the old
/// version for a moment, and another tab may ask just then.
pub(crate) async fn current(app: &App, session: &Session) -> Result<Option<User>, Error> {
    let Some(id) = session.user()? else {
        return Ok(None);
    };
    let version = session.get(PASSWORD_VERSION)?;
    let user = app.users.find(&id).await?;
    Ok(user.filter(|user| version == Some(user.password_version)))
}

/// Logs a user in whose password was checked.
pub(crate) fn log_in(session: &Session, checked: &User) -> Result<(), SessionError> {
    // The session gets a new token: one that an attacker planted before the login is worth nothing after it.
    session.log_in(checked.id)?;
    // Afterwards, since the login of another user starts an empty session.
    session.insert(PASSWORD_VERSION, checked.password_version)
}

/// Keeps a session whose user has a new password.
pub(crate) fn keep(session: &Session, user: &User) -> Result<(), SessionError> {
    // Whoever may have a copy of this session's token is out.
    session.regenerate()?;
    session.insert(PASSWORD_VERSION, user.password_version)
}

/// Asks for the password once more where the login is not recent, and comes back to `path` afterwards.
pub(crate) fn require_fresh(app: &App, session: &Session, path: &str) -> Result<(), Error> {
    match session.require_fresh(app.fresh_for) {
        Err(error) if error.kind() == ErrorKind::LoginTooOld => {
            return_to(session, path)?;
            Err(Error::Elsewhere("/confirm"))
        }
        other => Ok(other?),
    }
}

fn return_to(session: &Session, path: &str) -> Result<(), SessionError> {
    match is_local(path) {
        true => session.insert(RETURN_TO, path.to_owned()),
        false => Ok(()),
    }
}

/// Where to go after a login, once.
pub(crate) fn take_return_path(session: &Session) -> Result<String, SessionError> {
    Ok(session.remove(RETURN_TO)?.unwrap_or_else(|| "/".to_owned()))
}

/// Whether a path leads to a page of this site.
///
/// Browsers take `//host` and `/\host` for another site, and drop tabs and line breaks before they look.
pub(crate) fn is_local(path: &str) -> bool {
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The client that sent the request, for the list of devices.
pub(crate) struct ThisClient(pub(crate) Client);

impl<S: Send + Sync> FromRequestParts<S> for ThisClient {
    type Rejection = <ConnectInfo<SocketAddr> as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        // The address of the connection. X-Forwarded-For is whatever the client says, unless a proxy of yours sets it.
        let ConnectInfo(peer) = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await?;
        let client = Client::new().with_address(&peer.ip().to_string());
        let user_agent = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok());
        Ok(Self(match user_agent {
            Some(user_agent) => client.with_user_agent(user_agent),
            None => client,
        }))
    }
}
