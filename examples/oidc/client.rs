//! The side of the site that talks to the provider. The crate `openidconnect` does the protocol.

use std::io;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AuthType, AuthenticationContextClass, AuthorizationCode, ClaimsVerificationError, ClientId,
    ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    HttpRequest, HttpResponse, IdTokenFields, IssuerUrl, JsonWebKey, JwsSigningAlgorithm,
    LogoutHint, LogoutRequest, Nonce, PkceCodeChallenge, PkceCodeVerifier, PostLogoutRedirectUrl,
    ProviderMetadataWithLogout, RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse,
    TokenResponse,
};
use url::Url;

use crate::login::Needs;
use crate::token::{Claims, SessionClaim};

// The types of `openidconnect::core`, with a `sid` in the ID token.
type Fields = IdTokenFields<
    SessionClaim,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Protocol = openidconnect::Client<
    SessionClaim,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;
pub(crate) type HttpClient = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

/// What a site and a provider know about each other.
pub(crate) struct Registration {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// The address of the site.
    pub(crate) site: String,
}

/// A client of one provider.
pub(crate) struct Client {
    registration: Registration,
    http: HttpClient,
    /// What the provider says about itself, with its keys.
    provider: RwLock<ProviderMetadataWithLogout>,
    /// When a signature last made the site ask for the provider's keys.
    asked_at: Mutex<Option<Instant>>,
}

/// Anybody can send a bad signature. So the site asks for keys only once in this time.
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// A login that is about to begin, and the address to send the user to.
pub(crate) struct NewLogin {
    pub(crate) url: Url,
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
}

impl Client {
    /// Asks the provider for its addresses and its keys.
    pub(crate) async fn discover(registration: Registration) -> Result<Self, BoxError> {
        let http = http_client();
        let provider = RwLock::new(ask_provider(&registration, &http).await?);
        Ok(Self {
            registration,
            http,
            provider,
            asked_at: Mutex::default(),
        })
    }

    fn provider(&self) -> ProviderMetadataWithLogout {
        let provider = self.provider.read();
        provider.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn protocol(&self) -> Result<Protocol, url::ParseError> {
        let redirect_uri = format!("{}/callback", self.registration.site);
        Ok(Protocol::from_provider_metadata(
            self.provider(),
            ClientId::new(self.registration.client_id.clone()),
            Some(ClientSecret::new(self.registration.client_secret.clone())),
        )
        .set_auth_type(AuthType::RequestBody)
        .set_redirect_uri(RedirectUrl::new(redirect_uri)?))
    }

    /// Makes the state, the nonce and the verifier of a new login.
    pub(crate) fn new_login(&self, needs: &Needs) -> Result<NewLogin, BoxError> {
        let protocol = self.protocol()?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = protocol
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .add_scope(Scope::new("profile".to_owned()))
            .set_pkce_challenge(challenge);
        // With a `max_age`, the provider must say when the user logged in. It asks the user again
        // if that is too long ago. Some providers do not know `max_age`. They need `prompt=login`.
        if let Some(max_age) = needs.max_age {
            request = request.set_max_age(max_age);
        }
        if let Some(level) = &needs.level {
            request =
                request.add_auth_context_value(AuthenticationContextClass::new(level.clone()));
        }
        let (url, state, nonce) = request.url();
        Ok(NewLogin {
            url,
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        })
    }

    /// Redeems the code, and verifies the ID token: its signature, its issuer, its audience, its
    /// nonce, and that it has not expired.
    pub(crate) async fn redeem(
        &self,
        code: String,
        verifier: String,
        nonce: String,
    ) -> Result<Claims, BoxError> {
        let http = |request| send(self.http.clone(), request);
        let protocol = self.protocol()?;
        // The site does not need the access token. If the session kept it, anybody who reads the
        // store could read it.
        let tokens = protocol
            .exchange_code(AuthorizationCode::new(code))?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&http)
            .await?;
        let id_token = tokens.id_token().ok_or("there is no ID token")?;
        let nonce = Nonce::new(nonce);
        match id_token.claims(&protocol.id_token_verifier(), &nonce) {
            // Providers replace their keys now and then.
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                self.renew().await?;
                let protocol = self.protocol()?;
                Ok(id_token
                    .claims(&protocol.id_token_verifier(), &nonce)?
                    .clone())
            }
            claims => Ok(claims?.clone()),
        }
    }

    /// Asks the provider for its addresses and its keys once more.
    async fn renew(&self) -> Result<(), BoxError> {
        let provider = ask_provider(&self.registration, &self.http).await?;
        *self
            .provider
            .write()
            .unwrap_or_else(PoisonError::into_inner) = provider;
        Ok(())
    }

    pub(crate) fn id(&self) -> &str {
        &self.registration.client_id
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.registration.issuer
    }

    /// Makes sure that the provider has signed a message, with one of its public keys.
    pub(crate) async fn verify(
        &self,
        algorithm: &CoreJwsSigningAlgorithm,
        key_id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BoxError> {
        // With `none`, nobody has signed. With HMAC, the key is the site's own secret.
        if algorithm.uses_shared_secret() || *algorithm == CoreJwsSigningAlgorithm::None {
            return Err("the signature is not one of a public key".into());
        }
        let is_signed = || {
            let provider = self.provider();
            let is_meant = |key: &&CoreJsonWebKey| {
                key_id.is_none_or(|id| key.key_id().is_some_and(|own| own.as_str() == id))
            };
            let mut keys = provider.jwks().keys().iter().filter(is_meant);
            keys.any(|key| key.verify_signature(algorithm, message, signature).is_ok())
        };
        if is_signed() {
            return Ok(());
        }
        // Providers replace their keys now and then. If the site has the key that the token names,
        // the signature is wrong.
        let provider = self.provider();
        let is_known = |id: &str| {
            let mut keys = provider.jwks().keys().iter();
            keys.any(|key| key.key_id().is_some_and(|own| own.as_str() == id))
        };
        if !key_id.is_some_and(is_known) && self.may_ask() {
            self.renew().await?;
            if is_signed() {
                return Ok(());
            }
        }
        Err("the signature is wrong".into())
    }

    fn may_ask(&self) -> bool {
        let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = asked_at.is_none_or(|at| at.elapsed() >= ASKED_EVERY);
        if may {
            *asked_at = Some(Instant::now());
        }
        may
    }

    /// The address that logs the user out at the provider as well, and leads back to the site. Not
    /// every provider has one.
    pub(crate) fn logout_url(&self, sid: String) -> Result<Option<Url>, url::ParseError> {
        let endpoint = self
            .provider()
            .additional_metadata()
            .end_session_endpoint
            .clone();
        let back = PostLogoutRedirectUrl::new(format!("{}/", self.registration.site))?;
        Ok(endpoint.map(|endpoint| {
            LogoutRequest::from(endpoint)
                .set_client_id(ClientId::new(self.registration.client_id.clone()))
                .set_logout_hint(LogoutHint::new(sid))
                .set_post_logout_redirect_uri(back)
                .http_get_url()
        }))
    }
}

pub(crate) fn http_client() -> HttpClient {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

async fn ask_provider(
    registration: &Registration,
    http: &HttpClient,
) -> Result<ProviderMetadataWithLogout, BoxError> {
    let issuer = IssuerUrl::new(registration.issuer.clone())?;
    let http = |request| send(http.clone(), request);
    Ok(ProviderMetadataWithLogout::discover_async(issuer, &http).await?)
}

/// Sends a request. It does not follow redirects, because `openidconnect` asks that of a client.
pub(crate) async fn send(http: HttpClient, request: HttpRequest) -> io::Result<HttpResponse> {
    let exchange = async {
        let response = http.request(request.map(Full::from)).await;
        let (parts, body) = response.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, 64 * 1024).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes().to_vec();
        Ok(HttpResponse::from_parts(parts, body))
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}
