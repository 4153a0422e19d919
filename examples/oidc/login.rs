//! The login, and the data that the session keeps for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Query, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Redirect;
use cloakroom::{Authentication, Key, Session, SessionError, SessionErrorKind, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endings::Endings;
use crate::failure::Failure;
use crate::token::Claims;

/// The name of the logged-in user. It comes from the provider.
pub(crate) const NAME: Key<String> = Key::new("name");

const PENDING: Key<Vec<PendingLogin>> = Key::new("pending_logins");

/// How many logins one browser may have under way. One more login pushes out the oldest, so that
/// the logins do not fill the session.
const MAX_PENDING: usize = 5;

/// What a page asks of a login.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Needs {
    /// How long ago the user may have proved who they are.
    pub(crate) max_age: Option<Duration>,
    /// How well the user must have proved it: `acr` of OpenID Connect.
    pub(crate) level: Option<String>,
}

impl Needs {
    pub(crate) fn max_age(max_age: Duration) -> Self {
        Self {
            max_age: Some(max_age),
            level: None,
        }
    }

    pub(crate) fn level(level: &str) -> Self {
        Self {
            max_age: None,
            level: Some(level.to_owned()),
        }
    }

    fn check(&self, session: &Session) -> Result<UserId, SessionError> {
        let user = session.require_user()?;
        if let Some(max_age) = self.max_age {
            session.require_recent_login(max_age)?;
        }
        if let Some(level) = &self.level {
            session.require_level(&[level])?;
        }
        Ok(user)
    }
}

/// A login that has gone to the provider and has not come back yet. Each tab can have one.
#[derive(Clone, Serialize, Deserialize)]
struct PendingLogin {
    begun_at: Timestamp,
    /// The callback must bring this state. An attacker's link to `/callback` does not have a state
    /// of this session. So the link cannot log a user in to the attacker's account (RFC 6749,
    /// section 10.12).
    state: String,
    /// The ID token must have this nonce. So nobody can use the ID token of another login here.
    nonce: String,
    /// The verifier proves to the provider that the client that redeems the code is the client that
    /// asked for the code (RFC 7636). The verifier must not travel through the browser. The session
    /// keeps it on the server.
    verifier: String,
    /// The page to go to afterwards. In the URL, anybody could change the page, and the login would
    /// be an open redirector (RFC 9700, section 4.11).
    return_to: String,
    needs: Needs,
}

/// The state of the application.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) client: Arc<Client>,
    /// How long a user may stay at the provider.
    pub(crate) patience: Duration,
    pub(crate) endings: Endings,
}

impl Login {
    /// Keeps a new login in the session, and redirects to the provider.
    fn begin(&self, session: &Session, return_to: &str, needs: Needs) -> Result<Redirect, Failure> {
        let new = self.client.new_login(&needs).map_err(Failure::provider)?;
        let login = PendingLogin {
            begun_at: SystemTime::now().into(),
            state: new.state,
            nonce: new.nonce,
            verifier: new.verifier,
            return_to: return_to.to_owned(),
            needs,
        };
        // Two tabs may begin a login at once. `update` keeps both logins.
        session.update(PENDING, move |pending| {
            let mut pending = pending.unwrap_or_default();
            pending.push(login.clone());
            let surplus = pending.len().saturating_sub(MAX_PENDING);
            pending.split_off(surplus)
        })?;
        Ok(Redirect::to(new.url.as_str()))
    }

    /// Whether the user has logged out at the provider while this login was on its way.
    fn has_ended(&self, claims: &Claims) -> bool {
        let sid = claims.additional_claims().sid.as_deref();
        let made_at = Timestamp::from(SystemTime::from(claims.issue_time()));
        self.endings.cover(sid, claims.subject().as_str(), made_at)
    }

    fn is_over(&self, login: &PendingLogin) -> bool {
        Timestamp::from(SystemTime::now()).since(login.begun_at) >= self.patience
    }
}

/// `GET /login`
pub(crate) async fn start(
    State(login): State<Login>,
    session: Session,
) -> Result<Redirect, Failure> {
    login.begin(&session, "/", Needs::default())
}

#[derive(Deserialize)]
pub(crate) struct Answer {
    #[serde(default)]
    state: String,
    /// The code is missing if the user or the provider refused. Then there is an `error`.
    code: Option<String>,
}

/// `GET /callback`
pub(crate) async fn callback(
    State(login): State<Login>,
    session: Session,
    Query(answer): Query<Answer>,
) -> Result<Redirect, Failure> {
    let state = answer.state;
    let pending = session.get(PENDING)?.unwrap_or_default();
    let Some(this) = pending.into_iter().find(|login| login.state == state) else {
        return Err(Failure::Unknown);
    };
    // A state is good only once, whatever the result is. From here on, a failed login gets a 4xx. A
    // 5xx would drop the request's changes, and the state would be in the session again. If two
    // callbacks come at once, only one succeeds: the provider takes a code only once.
    session.update(PENDING, move |pending| {
        let mut pending = pending.unwrap_or_default();
        pending.retain(|login| login.state != state);
        pending
    })?;
    if login.is_over(&this) {
        return Err(Failure::Unknown);
    }
    let Some(code) = answer.code else {
        return Err(Failure::Refused);
    };
    let claims = login.client.redeem(code, this.verifier, this.nonce).await;
    let claims = claims.map_err(Failure::provider)?;
    if login.has_ended(&claims) {
        return Err(Failure::Ended);
    }
    log_in(&session, &claims)?;
    // The login counts for what the provider says about it. If that is not what the page needs,
    // the page would send the user to the provider again, and the provider would send them back.
    match this.needs.check(&session) {
        Ok(_) => Ok(Redirect::to(&this.return_to)),
        Err(error) if is_step_up(&error) => Err(Failure::NotEnough),
        Err(error) => Err(error.into()),
    }
}

fn log_in(session: &Session, claims: &Claims) -> Result<(), SessionError> {
    // The user may have given the password to the provider long ago. A provider need not say when,
    // unless the site sent a `max_age`. A login of an unknown time is not a recent one.
    let proved_at = claims
        .auth_time()
        .map_or(Timestamp::from_millis(0), |time| {
            Timestamp::from(SystemTime::from(time))
        });
    let methods = claims.auth_method_refs().into_iter().flatten();
    let mut how = Authentication::at(proved_at).with_methods(methods.map(|method| method.as_str()));
    if let Some(level) = claims.auth_context_ref() {
        how = how.with_level(level.as_str());
    }
    // The session gets a new token. An attacker may have planted the old token in this browser, and
    // the old token is worth nothing now. If another user was logged in, the session is a new one.
    // So insert the user's data after the login.
    //
    // The provider never gives the id `sub` to another user. Names and mail addresses can pass to
    // other people. A site with several providers needs `iss` beside it.
    session.log_in_with(claims.subject().as_str(), how)?;
    let name = claims.name().and_then(|name| name.get(None));
    session.insert(
        NAME,
        name.map_or("somebody", |name| name.as_str()).to_owned(),
    )?;
    match &claims.additional_claims().sid {
        Some(sid) => session.set_external_id(sid),
        None => Ok(()),
    }
}

/// `POST /logout`
pub(crate) async fn log_out(
    State(login): State<Login>,
    session: Session,
) -> Result<Redirect, Failure> {
    // It is the id of the user's session at the provider.
    let sid = session.external_id();
    session.log_out()?;
    // Without this, the next login would need one click and no password.
    let url = sid.map(|sid| login.client.logout_url(sid)).transpose();
    let url = url
        .map_err(|error| Failure::provider(error.into()))?
        .flatten();
    Ok(Redirect::to(url.as_ref().map_or("/", |url| url.as_str())))
}

/// A request for a page of users, as an extractor.
pub(crate) struct Visit {
    session: Session,
    login: Login,
    /// It belongs to a route of this site, so it cannot lead to another site.
    path: String,
    method: Method,
}

impl Visit {
    /// The user, if they are logged in as the page needs it. Otherwise they go to the provider, and
    /// come back to the same page.
    pub(crate) fn user(&self, needs: Needs) -> Result<UserId, Failure> {
        match needs.check(&self.session) {
            Ok(user) => Ok(user),
            // A redirect would lose a form. So all other requests get a 401.
            Err(error)
                if self.method == Method::GET
                    && (is_step_up(&error) || error.kind() == SessionErrorKind::NotLoggedIn) =>
            {
                Err(Failure::ToProvider(self.login.begin(
                    &self.session,
                    &self.path,
                    needs,
                )?))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_step_up(error: &SessionError) -> bool {
    matches!(
        error.kind(),
        SessionErrorKind::LoginTooOld | SessionErrorKind::LevelTooLow
    )
}

impl FromRequestParts<Login> for Visit {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, login: &Login) -> Result<Self, SessionError> {
        let session = Session::from_request_parts(parts, login).await?;
        let path = parts.uri.path_and_query();
        Ok(Self {
            session,
            login: login.clone(),
            path: path.map_or("/", |path| path.as_str()).to_owned(),
            method: parts.method.clone(),
        })
    }
}
