//! The login, and the data that the session keeps between its two redirects.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::header::{ACCEPT, AUTHORIZATION};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use cloakroom::{Key, Session, SessionError, UserId};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    TokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};

use crate::provider::{self, Addresses};

/// The name of the logged-in user. It comes from the provider.
pub(crate) const NAME: Key<String> = Key::new("name");

const PENDING: Key<Vec<PendingLogin>> = Key::new("pending_logins");

/// How many logins one browser may have under way. One more login pushes out the oldest, so that
/// the logins do not fill the session.
const MAX_PENDING: usize = 5;

/// A login that has gone to the provider and has not come back yet. Each tab can have one.
#[derive(Clone, Serialize, Deserialize)]
struct PendingLogin {
    /// The callback must bring this state. An attacker's link to `/callback` does not have a state
    /// of this session. So the link cannot log a user in to the attacker's account (RFC 6749,
    /// section 10.12).
    state: String,
    /// The verifier proves to the provider that the client that redeems the code is the client that
    /// asked for the code (RFC 7636). The verifier must not travel through the browser. The session
    /// keeps it on the server.
    verifier: String,
    /// The page to go to afterwards. In the URL, anybody could change the page, and the login would
    /// be an open redirector (RFC 9700, section 4.11).
    return_to: String,
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// The client that talks to the provider.
#[derive(Clone)]
pub(crate) struct Login {
    oauth: BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>,
    http: HttpClient,
    user_info: Arc<str>,
}

impl Login {
    pub(crate) fn new(
        provider: &Addresses,
        redirect_uri: String,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self {
            oauth: BasicClient::new(ClientId::new(provider::CLIENT_ID.to_owned()))
                .set_client_secret(ClientSecret::new(provider::CLIENT_SECRET.to_owned()))
                .set_auth_type(AuthType::RequestBody)
                .set_auth_uri(AuthUrl::new(provider.authorize.clone())?)
                .set_token_uri(TokenUrl::new(provider.token.clone())?)
                .set_redirect_uri(RedirectUrl::new(redirect_uri)?),
            http: Client::builder(TokioExecutor::new()).build_http(),
            user_info: provider.user_info.as_str().into(),
        })
    }

    /// Keeps a new login in the session, and redirects to the provider.
    fn begin(&self, session: &Session, return_to: &str) -> Result<Redirect, SessionError> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state) = self
            .oauth
            .authorize_url(CsrfToken::new_random)
            .set_pkce_challenge(challenge)
            .url();
        let login = PendingLogin {
            state: state.into_secret(),
            verifier: verifier.into_secret(),
            return_to: return_to.to_owned(),
        };
        // Two tabs may begin a login at once. `update` keeps both logins.
        session.update(PENDING, move |pending| {
            let mut pending = pending.unwrap_or_default();
            pending.push(login.clone());
            let surplus = pending.len().saturating_sub(MAX_PENDING);
            pending.split_off(surplus)
        })?;
        Ok(Redirect::to(url.as_str()))
    }

    /// Redeems the code, and asks the provider which user the code belongs to.
    async fn identify(&self, code: String, verifier: String) -> Result<User, Failure> {
        let http = self.http.clone();
        let client = move |request| send(http.clone(), request);
        let token = self
            .oauth
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&client)
            .await
            .map_err(|error| Failure::provider(&error))?;
        // The application needs the access token only once. If the session kept it, anybody who
        // reads the store could read it.
        let request = Request::get(&*self.user_info)
            .header(ACCEPT, "application/json")
            .header(
                AUTHORIZATION,
                format!("Bearer {}", token.access_token().secret()),
            )
            .body(Vec::new())
            .map_err(|error| Failure::provider(&error))?;
        let response = client(request).await;
        let response = response.map_err(|error| Failure::provider(&error))?;
        if !response.status().is_success() {
            return Err(Failure::provider(&io::Error::other(
                "it says nothing of the user",
            )));
        }
        serde_json::from_slice(response.body()).map_err(|error| Failure::provider(&error))
    }
}

/// Sends a request. It does not follow redirects, because `oauth2` asks that of a client.
async fn send(http: HttpClient, request: HttpRequest) -> io::Result<HttpResponse> {
    let exchange = async {
        let response = http.request(request.map(Full::from)).await;
        let (parts, body) = response.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, 64 * 1024).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes().to_vec();
        Ok(HttpResponse::from_parts(parts, body))
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}

/// What the provider says about a user.
#[derive(Deserialize)]
struct User {
    /// The provider's id of the user. The provider never gives an id to another user. Names and
    /// mail addresses can pass to other people.
    sub: String,
    name: String,
}

/// `GET /login`
pub(crate) async fn start(
    State(login): State<Login>,
    session: Session,
) -> Result<Redirect, Failure> {
    Ok(login.begin(&session, "/")?)
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
    let Some(code) = answer.code else {
        return Err(Failure::Refused);
    };
    let user = login.identify(code, this.verifier).await?;
    // The session gets a new token. An attacker may have planted the old token in this browser, and
    // the old token is worth nothing now. If another user was logged in, the session is a new one.
    // So insert the user's data after `log_in`.
    session.log_in(user.sub)?;
    session.insert(NAME, user.name)?;
    Ok(Redirect::to(&this.return_to))
}

/// A logged-in user, as an extractor. It sends everybody else to the provider, and they come back
/// to the same page.
pub(crate) struct Member(pub(crate) UserId);

impl FromRequestParts<Login> for Member {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, login: &Login) -> Result<Self, Failure> {
        let session = Session::from_request_parts(parts, login).await?;
        if let Some(user) = session.user() {
            return Ok(Self(user));
        }
        // The path belongs to a route of this site, so it cannot lead to another site.
        let path = parts.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        Err(Failure::NotLoggedIn(login.begin(&session, path)?))
    }
}

/// The reason why a request gets neither its page nor its login.
pub(crate) enum Failure {
    /// The redirect to the provider's login.
    NotLoggedIn(Redirect),
    /// This session does not have a login with this state. The state was forged, used or pushed
    /// out, or the session has ended.
    Unknown,
    /// The user or the provider refused.
    Refused,
    /// The provider did not confirm the login, or the application cannot reach the provider.
    Unconfirmed,
    Session(SessionError),
    Page(askama::Error),
}

impl Failure {
    fn provider(error: &dyn std::error::Error) -> Self {
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
            Self::NotLoggedIn(to_provider) => return to_provider.into_response(),
            Self::Session(error) => return error.into_response(),
            Self::Page(error) => {
                eprintln!("cannot make a page: {error}");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        // The page does not repeat anything from the request. It does not link to another site,
        // since a Referer could carry the code there.
        let page = format!("<p>{reason} <a href=\"/login\">Try again</a></p>");
        (StatusCode::BAD_REQUEST, Html(page)).into_response()
    }
}
