//! A small OpenID provider. In a real application it is Google, Keycloak, or your company's
//! provider. This one has two users, and believes anybody who claims to be one of them.
//!
//! Its own sessions are sessions of cloakroom too. They know when and how a user logged in. So a
//! user who is logged in here is not asked again, unless the site wants that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::routing::{get, post};
use axum::{BoxError, Form, Json, Router};
use cloakroom::{
    Authentication, Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey,
};
use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJsonWebKeySet};
use openidconnect::{CsrfToken, IssuerUrl, JsonWebKeyId, Nonce, PrivateSigningKey};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use url::Url;

use crate::client::{self, HttpClient};
use crate::token::{self, Grant};

/// A site gets these two when it registers.
pub(crate) const CLIENT_ID: &str = "shop";
pub(crate) const CLIENT_SECRET: &str = "the secret of the shop";

pub(crate) const USERS: [(&str, &str); 2] = [("1815", "Ada"), ("1906", "Grace")];

/// The id of a session of this provider. ID tokens have it as `sid`.
const SID: Key<String> = Key::new("sid");

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) issuer: IssuerUrl,
    /// The only site that may use this provider.
    site: Url,
    /// Where codes go.
    pub(crate) redirect_uri: Url,
    pub(crate) key: Arc<CoreEdDsaPrivateSigningKey>,
    http: HttpClient,
    /// What the codes stand for.
    grants: Arc<Mutex<HashMap<String, Grant>>>,
}

/// Starts the provider on a free port. Returns its issuer, which is its address.
///
/// The browser finds it on `localhost`, which is another site than 127.0.0.1. So its redirects
/// count as cross-site, like those of a real provider.
pub(crate) async fn start(site: &str) -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://localhost:{}", listener.local_addr()?.port());
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?.serialize_pem();
    let key_id = JsonWebKeyId::new("1".to_owned());
    let provider = Provider {
        issuer: IssuerUrl::new(issuer.clone())?,
        site: Url::parse(site)?,
        redirect_uri: Url::parse(site)?.join("/callback")?,
        key: Arc::new(CoreEdDsaPrivateSigningKey::from_ed25519_pem(
            &pem,
            Some(key_id),
        )?),
        http: client::http_client(),
        grants: Arc::default(),
    };
    let sessions = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .cookie_name("provider")
        .secure(false)
        .build()?;
    let app = Router::new()
        .route("/authorize", get(ask).post(log_in))
        .route("/", get(home))
        .route("/log_out", post(log_out))
        .route("/end_session", get(end_session))
        .layer(sessions)
        .layer(CsrfLayer::new())
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/keys", get(keys))
        .route("/token", post(token::redeem))
        .with_state(provider);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(issuer)
}

async fn discovery(State(provider): State<Provider>) -> Json<Value> {
    let issuer = provider.issuer.as_str();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "end_session_endpoint": format!("{issuer}/end_session"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "acr_values_supported": ["aal1", "aal2"],
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
    }))
}

async fn keys(State(provider): State<Provider>) -> Json<CoreJsonWebKeySet> {
    Json(CoreJsonWebKeySet::new(vec![
        provider.key.as_verification_key(),
    ]))
}

/// What a site asks for. It is in the URL, with the form as well.
#[derive(Deserialize)]
struct Authorization {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    nonce: Option<Nonce>,
    code_challenge: String,
    code_challenge_method: String,
    /// How many seconds ago the user may have logged in here.
    max_age: Option<u64>,
    /// The levels that are good enough.
    acr_values: Option<String>,
}

impl Authorization {
    /// The provider compares the redirect URI byte for byte (RFC 9700, section 2.1).
    fn check(&self, provider: &Provider) -> Result<(), StatusCode> {
        let is_good = self.response_type == "code"
            && self.client_id == CLIENT_ID
            && self.redirect_uri == provider.redirect_uri.as_str()
            && self.code_challenge_method == "S256";
        is_good.then_some(()).ok_or(StatusCode::BAD_REQUEST)
    }

    /// Whether the user's login here is recent enough, and of a good level.
    fn is_met_by(&self, session: &Session) -> bool {
        let is_recent = |seconds| session.require_recent_login(Duration::from_secs(seconds));
        let has_level = |levels: &String| session.require_level(&Vec::from_iter(levels.split(' ')));
        session.user().is_some()
            && self
                .max_age
                .map(is_recent)
                .is_none_or(|recent| recent.is_ok())
            && self
                .acr_values
                .as_ref()
                .map(has_level)
                .is_none_or(|level| level.is_ok())
    }
}

// Without an `action`, a browser sends the form to the address of the page, with all that the site
// asks for.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html><title>Provider</title>
<p>The shop asks who you are.</p>
<form method="post">
<p><label><input type="checkbox" name="otp" value="yes"> with a code from my phone</label></p>
{% for (id, name) in users %}<button name="user" value="{{ id }}">I am {{ name }}</button>
{% endfor %}<button name="user" value="">I do not say</button>
</form>"#
)]
struct Ask {
    users: [(&'static str, &'static str); 2],
}

async fn ask(
    State(provider): State<Provider>,
    session: Session,
    Query(asked): Query<Authorization>,
) -> Result<Response> {
    asked.check(&provider)?;
    if asked.is_met_by(&session) {
        return Ok(provider.send_back(&asked, Some(&session))?.into_response());
    }
    let page = Ask { users: USERS }.render();
    let page = page.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Html(page).into_response())
}

#[derive(Deserialize)]
struct LoginForm {
    /// It is empty if the user refuses.
    user: String,
    otp: Option<String>,
}

async fn log_in(
    State(provider): State<Provider>,
    session: Session,
    Query(asked): Query<Authorization>,
    Form(form): Form<LoginForm>,
) -> Result<Redirect> {
    asked.check(&provider)?;
    if form.user.is_empty() {
        return Ok(provider.send_back(&asked, None)?);
    }
    if !USERS.iter().any(|(id, _)| *id == form.user) {
        return Err(StatusCode::BAD_REQUEST.into());
    }
    let how = match form.otp {
        Some(_) => Authentication::now()
            .with_methods(["pwd", "otp"])
            .with_level("aal2"),
        None => Authentication::now()
            .with_methods(["pwd"])
            .with_level("aal1"),
    };
    session.log_in_with(form.user, how)?;
    if session.get(SID)?.is_none() {
        session.insert(SID, CsrfToken::new_random().into_secret())?;
    }
    Ok(provider.send_back(&asked, Some(&session))?)
}

impl Provider {
    pub(crate) fn grants(&self) -> MutexGuard<'_, HashMap<String, Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the user back to the site: with a code if the user is logged in, with an error
    /// otherwise.
    fn send_back(
        &self,
        asked: &Authorization,
        session: Option<&Session>,
    ) -> Result<Redirect, SessionError> {
        let (name, value) = match session {
            None => ("error", "access_denied".to_owned()),
            Some(session) => {
                let code = CsrfToken::new_random().into_secret();
                let grant = Grant {
                    made_at: SystemTime::now(),
                    challenge: asked.code_challenge.clone(),
                    nonce: asked.nonce.clone(),
                    user: session.require_user()?.to_string(),
                    how: session.authentication().unwrap_or_default(),
                    sid: session.get(SID)?,
                };
                self.grants().insert(code.clone(), grant);
                ("code", code)
            }
        };
        let mut url = self.redirect_uri.clone();
        url.query_pairs_mut()
            .append_pair("state", &asked.state)
            .append_pair(name, &value);
        Ok(Redirect::to(url.as_str()))
    }
}

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html><title>Provider</title>
{% if is_known %}<p>You are logged in here.</p>
<form method="post" action="/log_out"><button>Log out everywhere</button></form>
{% else %}<p>You are not logged in here.</p>{% endif %}"#
)]
struct Home {
    is_known: bool,
}

async fn home(session: Session) -> Result<Html<String>> {
    let is_known = session.user().is_some();
    let page = Home { is_known }.render();
    Ok(Html(page.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?))
}

async fn log_out(State(provider): State<Provider>, session: Session) -> Result<Redirect> {
    provider.log_out(&session).await?;
    Ok(Redirect::to("/"))
}

impl Provider {
    /// Logs the user out here, and tells the site. If the site does not answer, the user is still
    /// logged out here.
    async fn log_out(&self, session: &Session) -> Result<(), SessionError> {
        let (user, sid) = (session.user(), session.get(SID)?);
        session.log_out()?;
        // A code that nobody has redeemed yet would make a session after all.
        self.grants()
            .retain(|_, grant| sid.is_none() || grant.sid != sid);
        if let (Some(user), Some(sid)) = (user, sid)
            && let Err(error) = self.tell_site(user.as_str(), &sid).await
        {
            eprintln!("the site does not know of a logout: {error}");
        }
        Ok(())
    }

    async fn tell_site(&self, user: &str, sid: &str) -> Result<(), BoxError> {
        let token = token::logout_token(self, user, sid)?;
        let request = axum::http::Request::post(self.site.join("/backchannel_logout")?.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("logout_token={token}").into_bytes())?;
        let answer = client::send(self.http.clone(), request).await?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            status => Err(format!("it answers {status}").into()),
        }
    }
}

#[derive(Deserialize)]
struct EndSession {
    logout_hint: Option<String>,
    post_logout_redirect_uri: String,
}

/// The user has logged out of the site. Anybody can make a link to this page, but only the site
/// knows the `sid`.
async fn end_session(
    State(provider): State<Provider>,
    session: Session,
    Query(asked): Query<EndSession>,
) -> Result<Redirect> {
    if asked.post_logout_redirect_uri != provider.site.as_str() {
        return Err(StatusCode::BAD_REQUEST.into());
    }
    if asked.logout_hint.is_some() && asked.logout_hint == session.get(SID)? {
        provider.log_out(&session).await?;
    }
    Ok(Redirect::to(&asked.post_logout_redirect_uri))
}
