//! [`Jwks`]: public keys as a JSON document (RFC 7517), and the [`JwksRoute`] that publishes them.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use p256::ecdsa::VerifyingKey;
use sha2::{Digest as _, Sha256};

use super::{ALGORITHM, AssertionKeys};
use crate::jose::json::{Json, Object};
use crate::jose::{encode, es256};

/// A public key, and its name.
#[derive(Clone)]
pub(super) struct PublicKey {
    kid: Arc<str>,
    key: VerifyingKey,
}

impl PublicKey {
    /// A key of our own. Its name is its thumbprint.
    pub(super) fn new(key: VerifyingKey) -> Self {
        // The members in the order of the alphabet, without white space (RFC 7638, section 3).
        let kid = encode(Sha256::digest(format!("{{{}}}", members(&key))));
        Self {
            kid: kid.into(),
            key,
        }
    }

    /// The key of a JWK, if it verifies assertions.
    fn from_jwk(jwk: &Object) -> Option<Self> {
        let kid = jwk.text("kid").filter(|kid| !kid.is_empty())?;
        let is_absent_or = |name, value| jwk.get(name).is_none() || jwk.text(name) == Some(value);
        // A private key that anybody can read is no key any more.
        let is_public = jwk.get("d").is_none();
        let is_for_this =
            is_absent_or("use", "sig") && is_absent_or("alg", ALGORITHM) && may_verify(jwk);
        if !is_public || !is_for_this {
            return None;
        }
        Some(Self {
            kid: kid.into(),
            key: es256::from_jwk(jwk).ok()?,
        })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether this key has signed the message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        es256::verifies(&self.key, message, signature)
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

/// The members that a key consists of.
fn members(key: &VerifyingKey) -> String {
    let point = key.to_sec1_point(false);
    // The first byte says that both coordinates follow.
    let coordinates = point.as_bytes().get(1..).unwrap_or_default();
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let (x, y) = (encode(x), encode(y));
    format!(r#""crv":"P-256","kty":"EC","x":"{x}","y":"{y}""#)
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
    /// The text is not a JWKS, has more than 64 KiB, or has a name or a `kid` twice. Or no key is
    /// left.
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
            return Err(InvalidJwks("the JWKS has no key of ES256 with a `kid`"));
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
            let members = members(&key.key);
            write!(
                f,
                r#"{comma}{{{members},"kid":{kid},"alg":"{ALGORITHM}","use":"sig"}}"#
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
        let parts = |key: &PublicKey| (key.kid.clone(), key.key);
        self.0.iter().map(parts).eq(other.0.iter().map(parts))
    }
}

impl Eq for Jwks {}

/// A text that is no [`Jwks`]. It says why.
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
/// It answers with the keys as they are at each request, as `application/jwk-set+json`. Caches may
/// keep the answer for five minutes.
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
    /// Where services look for the keys by convention.
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
