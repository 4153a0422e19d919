//! [`Jwks`]: public keys as a JSON document (RFC 7517), and the [`JwksRoute`] that publishes them.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest as _, Sha256};

use super::AssertionKeys;
use super::algorithm::Public;
use crate::jose::encode;
use crate::jose::json::{Json, Object};

/// A public key, and its name.
#[derive(Clone)]
pub(super) struct PublicKey {
    kid: Arc<str>,
    key: Arc<Public>,
}

impl PublicKey {
    /// A key of our own. Its name is its thumbprint (RFC 7638).
    pub(super) fn new(key: Public) -> Self {
        let kid = encode(Sha256::digest(format!("{{{}}}", key.members())));
        Self {
            kid: kid.into(),
            key: Arc::new(key),
        }
    }

    /// The key of a JWK, if it verifies assertions.
    fn from_jwk(jwk: &Object) -> Option<Self> {
        let kid = jwk.text("kid").filter(|kid| !kid.is_empty())?;
        let key = Public::from_jwk(jwk)?;
        let is_absent_or = |name, value| jwk.get(name).is_none() || jwk.text(name) == Some(value);
        // A private key that anybody can read is no key any more.
        let is_public = jwk.get("d").is_none();
        let is_for_this = is_absent_or("use", "sig")
            && is_absent_or("alg", key.algorithm().as_str())
            && may_verify(jwk);
        (is_public && is_for_this).then(|| Self {
            kid: kid.into(),
            key: Arc::new(key),
        })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn key(&self) -> &Public {
        &self.key
    }
}

/// Whether the key may be used to verify, if the JWK says what it may be used for.
fn may_verify(jwk: &Object) -> bool {
    match jwk.get("key_ops") {
        None => true,
        Some(Json::List(operations)) => operations
            .iter()
            .any(|operation| matches!(operation, Json::Text(name) if name == "verify")),
        Some(_) => false,
    }
}

/// The public keys of an issuer: a JSON Web Key Set (RFC 7517).
///
/// ```
/// use cloakroom::assertion::{AssertionKey, AssertionKeys, Jwks};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = AssertionKeys::new(AssertionKey::generate()?);
/// let json = keys.jwks().to_string();
/// assert_eq!(Jwks::parse(&json)?, keys.jwks());
/// assert!(Jwks::parse("{}").is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Jwks(Arc<[PublicKey]>);

impl Jwks {
    /// Longer than what any issuer publishes.
    const MAX_LEN: usize = 64 * 1024;

    pub(super) fn of(key: PublicKey) -> Self {
        Self([key].into())
    }

    /// Adds a key, unless it is there already.
    pub(super) fn add(&mut self, key: PublicKey) {
        if self.get(key.kid()).is_none() {
            let keys = self.0.iter().cloned();
            self.0 = keys.chain([key]).collect();
        }
    }

    pub(super) fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.kid() == kid)
    }

    /// The keys of a JSON document. A key that cannot verify an assertion is left out: one of
    /// another kind or curve, one without a `kid`, one for encryption, or a private one.
    ///
    /// # Errors
    ///
    /// The text is not a JWKS, has more than 64 KiB, or has a name or a `kid` twice. Or none of its
    /// keys can verify an assertion.
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Self, InvalidJwks> {
        let json = json.as_ref();
        if json.len() > Self::MAX_LEN {
            return Err(InvalidJwks("the JWKS has more than 64 KiB"));
        }
        let document = Object::parse(json).ok_or(InvalidJwks(
            "the JWKS is not a JSON object, or names something twice",
        ))?;
        let Some(Json::List(jwks)) = document.get("keys") else {
            return Err(InvalidJwks("the JWKS has no list `keys`"));
        };
        let mut keys: Vec<PublicKey> = Vec::new();
        for jwk in jwks {
            let Json::Object(jwk) = jwk else {
                return Err(InvalidJwks("a key of the JWKS is not a JSON object"));
            };
            let Some(key) = PublicKey::from_jwk(jwk) else {
                continue;
            };
            if keys.iter().any(|other| other.kid() == key.kid()) {
                return Err(InvalidJwks("two keys of the JWKS have the same `kid`"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(InvalidJwks(
                "the JWKS has no key of ES256 or EdDSA with a `kid`",
            ));
        }
        Ok(Self(keys.into()))
    }
}

/// The JSON document.
impl fmt::Display for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"{"keys":["#)?;
        for (at, key) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // The name may be anything that another issuer chose.
            let kid = serde_json::to_string(key.kid()).map_err(|_| fmt::Error)?;
            let (members, algorithm) = (key.key.members(), key.key.algorithm().as_str());
            write!(
                f,
                r#"{comma}{{{members},"kid":{kid},"alg":"{algorithm}","use":"sig"}}"#
            )?;
        }
        f.write_str("]}")
    }
}

/// It shows the names.
impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids = self.0.iter().map(PublicKey::kid);
        f.debug_list().entries(kids).finish()
    }
}

impl PartialEq for Jwks {
    fn eq(&self, other: &Self) -> bool {
        let parts = |key: &PublicKey| (key.kid.clone(), key.key.clone());
        self.0.iter().map(parts).eq(other.0.iter().map(parts))
    }
}

impl Eq for Jwks {}

/// Why a text is no [`Jwks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidJwks(&'static str);

impl fmt::Display for InvalidJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidJwks {}

/// Publishes the keys of a gateway. It is a handler for Axum, and needs no session.
///
/// At each request, it answers with the keys of that moment, as `application/jwk-set+json`. Caches
/// may keep the answer for five minutes.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use cloakroom::assertion::{AssertionKey, AssertionKeys, JwksRoute};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = AssertionKeys::new(AssertionKey::generate()?);
/// let app: Router = Router::new().route(JwksRoute::PATH, get(keys.jwks_route()));
/// # Ok(()) } }
/// ```
#[derive(Clone, Debug)]
pub struct JwksRoute(AssertionKeys);

impl JwksRoute {
    /// The path where services look for the keys by convention.
    pub const PATH: &'static str = "/.well-known/jwks.json";

    pub(super) fn new(keys: AssertionKeys) -> Self {
        Self(keys)
    }

    /// The answer, for services without Axum.
    ///
    /// ```
    /// # use cloakroom::assertion::JwksRoute;
    /// fn answer(route: &JwksRoute) -> http::Response<String> {
    ///     route.to_response()
    /// }
    /// ```
    #[must_use]
    pub fn to_response<B: From<String>>(&self) -> http::Response<B> {
        let mut response = http::Response::new(B::from(self.0.jwks().to_string()));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/jwk-set+json");
        headers.insert(CONTENT_TYPE, kind);
        let caching = HeaderValue::from_static("public, max-age=300");
        headers.insert(CACHE_CONTROL, caching);
        response
    }
}
