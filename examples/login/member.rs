//! The logged-in user, and the way to the login page and back.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Method, header};
use cloakroom::{Client, Key, Session, SessionError, SessionErrorKind};

use crate::app::App;
use crate::error::Error;
use crate::users::User;

/// The page to go to after the login. The session keeps it, so that a link cannot say where a login
/// leads.
const RETURN_TO: Key<String> = Key::new("return_to");

/// The version of the password that the login was checked against.
///
/// A login may check the old password during a change of the password. The login may then write its
/// session after all other sessions were ended. That session would be a session of the old
/// password. With the version, this site can refuse it.
const PASSWORD_VERSION: Key<i64> = Key::new("password_version");

/// A logged-in user, as an extractor. It sends everybody else to the login page.
///
/// The crate's `CurrentUser` is enough if a handler needs only the id. This extractor also reads
/// the account, and refuses a session of an old password.
pub(crate) struct Member(pub(crate) User);

impl FromRequestParts<App> for Member {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let session = Session::from_request_parts(parts, app).await?;
        if let Some(user) = current(app, &session).await? {
            return Ok(Self(user));
        }
        // A redirect loses a form that was sent, so the answer is 401.
        if parts.method != Method::GET {
            return Err(SessionError::from(SessionErrorKind::NotLoggedIn).into());
        }
        return_to(&session, parts.uri.path())?;
        Err(Error::Elsewhere("/login"))
    }
}

/// Returns the logged-in user, or `None`.
///
/// Nobody is logged in with a session of an old password. This function does not end such a
/// session. During a change of the password, the user's current session has the old version for a
/// moment, and another tab may send a request in that moment.
pub(crate) async fn current(app: &App, session: &Session) -> Result<Option<User>, Error> {
    let Some(id) = session.user() else {
        return Ok(None);
    };
    let version = session.get(PASSWORD_VERSION)?;
    let user = app.users.find(&id).await?;
    Ok(user.filter(|user| version == Some(user.password_version)))
}

/// Logs in a user whose password was checked.
pub(crate) fn log_in(session: &Session, checked: &User) -> Result<(), SessionError> {
    // The session gets a new token. An attacker may have planted the old token before the login,
    // and the old token is worth nothing now.
    session.log_in(checked.id)?;
    // This comes after `log_in`, since the login of another user starts an empty session.
    session.insert(PASSWORD_VERSION, checked.password_version)
}

/// Keeps the session of a user who has a new password.
pub(crate) fn keep(session: &Session, user: &User) -> Result<(), SessionError> {
    // Somebody may have a copy of the session's token. After the rotation, the copy is worth
    // nothing.
    session.regenerate()?;
    session.insert(PASSWORD_VERSION, user.password_version)
}

/// Asks for the password again if the login is not recent. The user comes back to `path`
/// afterwards.
pub(crate) fn require_recent_login(app: &App, session: &Session, path: &str) -> Result<(), Error> {
    match session.require_recent_login(app.fresh_for) {
        Err(error) if error.kind() == SessionErrorKind::LoginTooOld => {
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

/// Takes the page to go to after a login out of the session.
pub(crate) fn take_return_path(session: &Session) -> Result<String, SessionError> {
    Ok(session.remove(RETURN_TO)?.unwrap_or_else(|| "/".to_owned()))
}

/// Returns whether a path leads to a page of this site.
///
/// Browsers read `//host` and `/\host` as another site. They drop tabs and line breaks before that.
pub(crate) fn is_local(path: &str) -> bool {
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The client that sent the request, for the list of sessions.
pub(crate) struct ThisClient(pub(crate) Client);

impl<S: Send + Sync> FromRequestParts<S> for ThisClient {
    type Rejection = <ConnectInfo<SocketAddr> as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        // This is the address of the connection. The client can write anything into
        // X-Forwarded-For, unless your proxy sets that header.
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
