//! OpenID Connect Back-Channel Logout 1.0: the provider tells the site that a user has logged out
//! there, or that somebody has ended the user's session. No browser takes part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::BoxError;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{StatusCode, header::CACHE_CONTROL};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::{MemoryStore, SessionFilter, Sessions, Timestamp, UserId};
use openidconnect::core::CoreJwsSigningAlgorithm;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::endings::Endings;

/// How long a logout token is good after the provider has made it, whatever its `exp` says.
const MAX_AGE: Duration = Duration::from_secs(2 * 60);

/// How far apart the clocks of the provider and the site may be.
const LEEWAY: Duration = Duration::from_secs(30);

/// No logout token is longer. Anybody can send a text here, without a login.
const MAX_LEN: usize = 8 * 1024;

#[derive(Clone)]
pub(crate) struct BackChannel {
    pub(crate) client: Arc<Client>,
    pub(crate) sessions: Sessions<MemoryStore>,
    endings: Endings,
    /// The names of the tokens of the last minutes, and when each token is too old anyway. Several
    /// nodes would keep the names in a database.
    used: Arc<Mutex<HashMap<String, Timestamp>>>,
}

#[derive(Deserialize)]
pub(crate) struct Logout {
    logout_token: String,
}

/// The first part of a token. A member that comes twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: CoreJwsSigningAlgorithm,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    iat: u64,
    exp: u64,
    nbf: Option<u64>,
    jti: String,
    #[serde(rename = "events")]
    _events: Events,
    sub: Option<String>,
    sid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    nonce: Option<Value>,
}

/// Says that somebody has logged out. Other events may stand beside it.
#[derive(Deserialize)]
struct Events {
    #[serde(rename = "http://schemas.openid.net/event/backchannel-logout")]
    _logout: Map<String, Value>,
}

/// A member that is `null` counts as there.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, client: &str) -> bool {
        match self {
            Self::One(one) => one == client,
            Self::Several(all) => all.iter().any(|one| one == client),
        }
    }
}

/// `POST /backchannel_logout`
pub(crate) async fn log_out(
    State(channel): State<BackChannel>,
    form: Result<Form<Logout>, FormRejection>,
) -> Response {
    let ended = match form {
        // A provider that hangs up does not stop it half-way.
        Ok(Form(form)) => {
            let carry_out = async move { channel.carry_out(&form.logout_token).await };
            let done = tokio::spawn(carry_out).await;
            done.unwrap_or_else(|error| Err(error.into()))
        }
        Err(error) => Err(error.into()),
    };
    let answer = match ended {
        Ok(ended) => {
            eprintln!("the provider has ended {ended} sessions");
            StatusCode::OK.into_response()
        }
        Err(error) => {
            eprintln!("a logout of the provider was refused: {error}");
            let body = json!({ "error": "invalid_request" });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    };
    ([(CACHE_CONTROL, "no-store")], answer).into_response()
}

impl BackChannel {
    pub(crate) fn new(
        client: Arc<Client>,
        sessions: Sessions<MemoryStore>,
        endings: Endings,
    ) -> Self {
        Self {
            client,
            sessions: sessions.by("the OpenID provider"),
            endings,
            used: Arc::default(),
        }
    }

    /// Ends the sessions that a logout token names, and returns how many.
    async fn carry_out(&self, token: &str) -> Result<u64, BoxError> {
        let claims = self.verify(token).await?;
        let made_at = Timestamp::from_millis(claims.iat.saturating_mul(1000));
        self.endings
            .add(claims.sid.clone(), claims.sub.clone(), made_at);
        let mut filter = SessionFilter::new();
        if let Some(sid) = claims.sid {
            filter = filter.external_id(sid);
        }
        // Without a `sid`, it means all sessions of the user.
        if let Some(sub) = claims.sub {
            filter = filter.user(UserId::new(sub)?);
        }
        let ended = self.sessions.end(&filter).await;
        if ended.is_err() {
            // The store has failed, and the provider may send the token again.
            self.used().remove(&claims.jti);
        }
        Ok(ended?)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claims of a token that the provider has made for this site, a moment ago (section 2.6).
    async fn verify(&self, token: &str) -> Result<Claims, BoxError> {
        if token.len() > MAX_LEN {
            return Err("the token is too long".into());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it is no token")?;
        let (header, claims) = signed.split_once('.').ok_or("it is no token")?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        let is_logout = |typ: &String| {
            typ.eq_ignore_ascii_case("logout+jwt") || typ.eq_ignore_ascii_case("JWT")
        };
        if !header.typ.as_ref().is_none_or(is_logout) {
            return Err("it is a token of another type".into());
        }
        if header.crit.is_some() {
            return Err("it has an extension that must be understood".into());
        }
        let signature = URL_SAFE_NO_PAD.decode(signature)?;
        self.client
            .verify(
                &header.alg,
                header.kid.as_deref(),
                signed.as_bytes(),
                &signature,
            )
            .await?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        self.check(&claims)?;
        Ok(claims)
    }

    fn check(&self, claims: &Claims) -> Result<(), &'static str> {
        let now = Timestamp::from(SystemTime::now());
        let time = |seconds: u64| Timestamp::from_millis(seconds.saturating_mul(1000));
        if claims.iss != self.client.issuer() {
            return Err("another provider has made it");
        }
        if !claims.aud.has(self.client.id()) {
            return Err("it is for another site");
        }
        if time(claims.iat) > now + LEEWAY {
            return Err("it was made in the future");
        }
        if claims.nbf.is_some_and(|nbf| time(nbf) > now + LEEWAY) {
            return Err("it is not good yet");
        }
        if time(claims.iat) + MAX_AGE + LEEWAY < now || time(claims.exp) + LEEWAY < now {
            return Err("it is too old");
        }
        // An ID token has one. Without this check, an ID token could be used to log a user out.
        if claims.nonce.is_some() {
            return Err("it has a nonce");
        }
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        if is_empty(&claims.sid) && is_empty(&claims.sub) {
            return Err("it names neither a session nor a user");
        }
        if claims.jti.is_empty() {
            return Err("it has no name");
        }
        let mut used = self.used();
        used.retain(|_, too_old_at| *too_old_at > now);
        // Of two at once, one is the first.
        match used.insert(claims.jti.clone(), now + MAX_AGE + LEEWAY * 2) {
            Some(_) => Err("it was used before"),
            None => Ok(()),
        }
    }
}
