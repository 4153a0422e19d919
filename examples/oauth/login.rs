//! The login, and what it keeps in the session between its two redirects.

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

/// The name of the user who is logged in, as the provider says it.
pub(crate) const NAME: Key<String> = Key::new("name");

const PENDING: Key<Vec<PendingLogin>> = Key::new("pending_logins");

/// How many logins of a browser may be under way. One more pushes out the oldest, so that they do not pile up in the session.
const MAX_PENDING: usize = 5;

/// A login that has been sent to the provider and is not back yet: one for each tab.
#[derive(Clone, Serialize, Deserialize)]
struct PendingLogin {
    /// What the way back must bring along. Somebody else's link to `/callback` has no state of this session, so that nobody is
    /// logged in to a stranger's account (RFC 6749, section 10.12).
    state: String,
    /// Proves to the provider that who redeems the code has also asked for it (RFC 7636). It must not travel through the
    /// browser, and in the session it does not.
    verifier: String,
    /// Where to go afterwards. In the URL it could be changed, and the login would be an open redirector (RFC 9700, section 4.11).
    return_to: String,
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// The client of the provider.
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

    /// Keeps a new login in the session, and leads to the provider.
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
        // Two tabs may begin at once: with `update`, both are kept.
        session.update(PENDING, move |pending| {
            let mut pending = pending.unwrap_or_default();
            pending.push(login.clone());
            let surplus = pending.len().saturating_sub(MAX_PENDING);
            pending.split_off(surplus)
        })?;
        Ok(Redirect::to(url.as_str()))
    }

    /// Redeems the code, and asks the provider whose it is.
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
        // The access token is needed once. One that is kept in the session can be read by who reads the store.
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

/// Sends a request, and follows no redirect, as `oauth2` asks of a client.
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

/// What the provider says of a user.
#[derive(Deserialize)]
struct User {
    /// An id of the provider's that is never given to another. Names and mail addresses change hands.
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
    /// Missing where the user or the provider said no: then there is an `error`.
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
    // A state is good once, whatever comes of it. What fails from here on is answered with a 4xx, since a 5xx drops a request's
    // changes, and the state would be back. Of two callbacks at once only one gets on: the provider takes a code once.
    session.update(PENDING, move |pending| {
        let mut pending = pending.unwrap_or_default();
        pending.retain(|login| login.state != state);
        pending
    })?;
    let Some(code) = answer.code else {
        return Err(Failure::Refused);
    };
    let user = login.identify(code, this.verifier).await?;
    // The session gets a new token: one that somebody planted in this browser before is worth nothing now. Where another user
    // was logged in, it is a new session, so what belongs to the user comes after this.
    session.log_in(user.sub)?;
    session.insert(NAME, user.name)?;
    Ok(Redirect::to(&this.return_to))
}

/// A user who is logged in: an extractor that sends everybody else to the provider, and has them come back to the same page.
pub(crate) struct Member(pub(crate) UserId);

impl FromRequestParts<Login> for Member {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, login: &Login) -> Result<Self, Failure> {
        let session = Session::from_request_parts(parts, login).await?;
        if let Some(user) = session.user()? {
            return Ok(Self(user));
        }
        // The path is that of a route of this site, so it cannot lead to another one.
        let path = parts.uri.path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        Err(Failure::NotLoggedIn(login.begin(&session, path)?))
    }
}

/// Why there is no page, or no login.
pub(crate) enum Failure {
    /// This is the way to the login.
    NotLoggedIn(Redirect),
    /// No login of this session has this state: it was forged, used already, pushed out, or the session has ended.
    Unknown,
    /// The user or the provider said no.
    Refused,
    /// The provider does not confirm the login, or cannot be reached.
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
        // Nothing that came with the request is in it, and it leads to no other site, to which a Referer could carry the code.
        let page = format!("<p>{reason} <a href=\"/login\">Try again</a></p>");
        (StatusCode::BAD_REQUEST, Html(page)).into_response()
    }
}
