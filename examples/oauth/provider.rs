//! A small provider. In a real application it is Google, GitHub, or your company's provider. This
//! one has two users, and believes anybody who claims to be one of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use oauth2::{CsrfToken, PkceCodeChallenge, PkceCodeVerifier};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

/// An application gets these two when it registers. A real secret comes from the environment or a
/// file.
pub(crate) const CLIENT_ID: &str = "shop";
pub(crate) const CLIENT_SECRET: &str = "the secret of the shop";

const USERS: [(&str, &str); 2] = [("1815", "Ada"), ("1906", "Grace")];

pub(crate) struct Addresses {
    pub(crate) authorize: String,
    pub(crate) token: String,
    pub(crate) user_info: String,
}

#[derive(Clone)]
struct Provider {
    /// The only redirect URI. The provider compares it byte for byte (RFC 9700, section 2.1).
    redirect_uri: Arc<str>,
    grants: Arc<Mutex<Grants>>,
}

/// The users that codes and access tokens belong to.
#[derive(Default)]
struct Grants {
    codes: HashMap<String, Grant>,
    tokens: HashMap<String, String>,
}

struct Grant {
    user: String,
    challenge: String,
}

impl Provider {
    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the provider on a free port.
///
/// The browser finds it on `localhost`, which is another site than 127.0.0.1. So its redirects
/// count as cross-site, like those of a real provider.
pub(crate) async fn start(redirect_uri: String) -> io::Result<Addresses> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let provider = Provider {
        redirect_uri: redirect_uri.into(),
        grants: Arc::default(),
    };
    let app = Router::new()
        .route("/authorize", get(ask).post(authorize))
        .route("/token", post(token))
        .route("/user", get(user_info))
        .with_state(provider);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(Addresses {
        authorize: format!("http://localhost:{port}/authorize"),
        token: format!("http://127.0.0.1:{port}/token"),
        user_info: format!("http://127.0.0.1:{port}/user"),
    })
}

#[derive(Deserialize)]
struct Authorization {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    code_challenge: String,
    code_challenge_method: String,
    /// The user's answer. It is missing until the provider has asked, and empty if the user
    /// refuses.
    user: Option<String>,
}

impl Authorization {
    fn is_good(&self, provider: &Provider) -> bool {
        self.response_type == "code"
            && self.client_id == CLIENT_ID
            && *self.redirect_uri == *provider.redirect_uri
            && self.code_challenge_method == "S256"
    }
}

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html><title>Provider</title>
<p>The shop asks who you are.</p>
<form method="post">
<input type="hidden" name="response_type" value="{{ asked.response_type }}">
<input type="hidden" name="client_id" value="{{ asked.client_id }}">
<input type="hidden" name="redirect_uri" value="{{ asked.redirect_uri }}">
<input type="hidden" name="state" value="{{ asked.state }}">
<input type="hidden" name="code_challenge" value="{{ asked.code_challenge }}">
<input type="hidden" name="code_challenge_method" value="{{ asked.code_challenge_method }}">
{% for (id, name) in users %}<button name="user" value="{{ id }}">I am {{ name }}</button>
{% endfor %}<button name="user" value="">I do not say</button>
</form>"#
)]
struct Ask {
    asked: Authorization,
    users: [(&'static str, &'static str); 2],
}

async fn ask(
    State(provider): State<Provider>,
    Query(asked): Query<Authorization>,
) -> Result<Html<String>, StatusCode> {
    if !asked.is_good(&provider) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let page = Ask {
        asked,
        users: USERS,
    };
    let page = page.render();
    Ok(Html(page.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?))
}

async fn authorize(
    State(provider): State<Provider>,
    Form(asked): Form<Authorization>,
) -> Result<Redirect, StatusCode> {
    if !asked.is_good(&provider) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut url = Url::parse(&asked.redirect_uri).map_err(|_| StatusCode::BAD_REQUEST)?;
    url.query_pairs_mut().append_pair("state", &asked.state);
    match asked.user.filter(|user| !user.is_empty()) {
        None => url.query_pairs_mut().append_pair("error", "access_denied"),
        Some(user) => {
            let code = CsrfToken::new_random().into_secret();
            url.query_pairs_mut().append_pair("code", &code);
            let challenge = asked.code_challenge;
            let grant = Grant { user, challenge };
            provider.grants().codes.insert(code, grant);
            return Ok(Redirect::to(url.as_str()));
        }
    };
    Ok(Redirect::to(url.as_str()))
}

#[derive(Deserialize)]
struct Redemption {
    grant_type: String,
    code: String,
    redirect_uri: String,
    client_id: String,
    client_secret: String,
    code_verifier: String,
}

async fn token(
    State(provider): State<Provider>,
    Form(asked): Form<Redemption>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let refused = |error| (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
    if asked.client_id != CLIENT_ID || asked.client_secret != CLIENT_SECRET {
        return Err(refused("invalid_client"));
    }
    let mut grants = provider.grants();
    // A code is good only once.
    let grant = grants.codes.remove(&asked.code);
    let user = grant
        .filter(|grant| {
            asked.grant_type == "authorization_code"
                && *asked.redirect_uri == *provider.redirect_uri
                && (43..=128).contains(&asked.code_verifier.len())
                && challenge_of(asked.code_verifier) == grant.challenge
        })
        .map(|grant| grant.user)
        .ok_or_else(|| refused("invalid_grant"))?;
    let token = CsrfToken::new_random().into_secret();
    grants.tokens.insert(token.clone(), user);
    Ok(Json(
        json!({ "access_token": token, "token_type": "bearer" }),
    ))
}

fn challenge_of(verifier: String) -> String {
    let verifier = PkceCodeVerifier::new(verifier);
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
    challenge.as_str().to_owned()
}

async fn user_info(
    State(provider): State<Provider>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let user = token.and_then(|token| provider.grants().tokens.remove(token));
    let known = USERS
        .iter()
        .find(|(id, _)| Some(*id) == user.as_deref())
        .ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!({ "sub": known.0, "name": known.1 })))
}
