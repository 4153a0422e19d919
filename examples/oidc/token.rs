//! The ID token, which the provider signs, and the page where a site gets it for a code.

use std::time::{Duration, SystemTime};

use axum::BoxError;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Result;
use axum::{Form, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::Authentication;
use openidconnect::core::{
    CoreEdDsaPrivateSigningKey, CoreGenderClaim, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AccessToken, AdditionalClaims, Audience, AuthenticationContextClass,
    AuthenticationMethodReference, CsrfToken, EndUserName, IssuerUrl, JsonWebTokenError,
    LocalizedClaim, Nonce, PkceCodeChallenge, PkceCodeVerifier, PrivateSigningKey, StandardClaims,
    SubjectIdentifier,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::provider::{CLIENT_ID, CLIENT_SECRET, Provider, USERS};

/// The claim that OpenID Connect Core does not have: the id of the user's session at the provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionClaim {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<String>,
}

impl AdditionalClaims for SessionClaim {}

type IdToken = openidconnect::IdToken<
    SessionClaim,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
pub(crate) type Claims = openidconnect::IdTokenClaims<SessionClaim, CoreGenderClaim>;

/// How long a code is good.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// How long an ID token is good. A site looks at it at once.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// What a code stands for: a login at the provider.
pub(crate) struct Grant {
    pub(crate) made_at: SystemTime,
    /// The site must show the text that this is the hash of (RFC 7636).
    pub(crate) challenge: String,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) user: String,
    pub(crate) how: Authentication,
    pub(crate) sid: Option<String>,
}

impl Grant {
    fn id_token(
        self,
        issuer: &IssuerUrl,
        key: &CoreEdDsaPrivateSigningKey,
        access_token: &AccessToken,
    ) -> std::result::Result<IdToken, JsonWebTokenError> {
        let name = USERS.iter().find(|(id, _)| *id == self.user);
        let name = name.map(|(_, name)| LocalizedClaim::from(EndUserName::new((*name).to_owned())));
        let user = StandardClaims::new(SubjectIdentifier::new(self.user)).set_name(name);
        let audience = Audience::new(CLIENT_ID.to_owned());
        let (now, how) = (SystemTime::now(), self.how);
        let methods = how.methods().iter();
        let methods = methods.map(|method| AuthenticationMethodReference::new(method.to_string()));
        let level = how.level().map(str::to_owned);
        let claims = Claims::new(
            issuer.clone(),
            vec![audience],
            (now + LIFETIME).into(),
            now.into(),
            user,
            SessionClaim { sid: self.sid },
        )
        .set_nonce(self.nonce)
        .set_auth_time(how.time().map(|time| SystemTime::from(time).into()))
        .set_auth_method_refs(Some(methods.collect()))
        .set_auth_context_ref(level.map(AuthenticationContextClass::new));
        let algorithm = CoreJwsSigningAlgorithm::EdDsa;
        IdToken::new(claims, key, algorithm, Some(access_token), None)
    }
}

/// The text by which the provider tells a site that a user has logged out (OpenID Connect
/// Back-Channel Logout 1.0, section 2.4).
pub(crate) fn logout_token(
    provider: &Provider,
    user: &str,
    sid: &str,
) -> std::result::Result<String, BoxError> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let header = json!({ "alg": "EdDSA", "typ": "logout+jwt", "kid": "1" });
    let claims = json!({
        "iss": provider.issuer,
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + 120,
        "jti": CsrfToken::new_random().into_secret(),
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        "sub": user,
        "sid": sid,
    });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encode(&header), encode(&claims));
    let signature = provider
        .key
        .sign(&CoreJwsSigningAlgorithm::EdDsa, text.as_bytes())?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[derive(Deserialize)]
pub(crate) struct Redemption {
    grant_type: String,
    code: String,
    redirect_uri: String,
    client_id: String,
    client_secret: String,
    code_verifier: String,
}

/// `POST /token`
pub(crate) async fn redeem(
    State(provider): State<Provider>,
    Form(asked): Form<Redemption>,
) -> Result<Json<Value>> {
    let refused = |error| (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
    if asked.client_id != CLIENT_ID || asked.client_secret != CLIENT_SECRET {
        return Err(refused("invalid_client").into());
    }
    // A code is good only once.
    let grant = provider.grants().remove(&asked.code);
    let grant = grant
        .filter(|grant| {
            let age = grant.made_at.elapsed().unwrap_or_default();
            asked.grant_type == "authorization_code"
                && asked.redirect_uri == provider.redirect_uri.as_str()
                && age < CODE_LIFETIME
                && (43..=128).contains(&asked.code_verifier.len())
                && challenge_of(asked.code_verifier) == grant.challenge
        })
        .ok_or_else(|| refused("invalid_grant"))?;
    let access_token = AccessToken::new(CsrfToken::new_random().into_secret());
    let id_token = grant.id_token(&provider.issuer, &provider.key, &access_token);
    let id_token = id_token.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(json!({
        "access_token": access_token,
        "token_type": "bearer",
        "id_token": id_token,
    })))
}

fn challenge_of(verifier: String) -> String {
    let verifier = PkceCodeVerifier::new(verifier);
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
    challenge.as_str().to_owned()
}
