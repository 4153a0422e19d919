//! How a token travels: in a cookie, or in the `Authorization` header.

mod caches;
mod challenge;
mod client;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SET_COOKIE};

use self::caches::{drop_exceptions_for_caches, vary_by_choice};
pub(crate) use self::client::ClientTransport;
use self::client::{Carrier, bearer_tokens, choice};
use super::cookie::{Attributes, CookieWriter};
use super::presented::{EncodedToken, PresentedTokens};
use crate::error::{ConfigError, SessionHeaders};
use crate::record::realm::Realm;

/// How the session token travels.
///
/// [A page](crate::docs::transports) has more about the choice, and about CSRF, CORS and caches.
///
/// ```
/// use axum::Router;
/// use axum::extract::Path;
/// use axum::routing::{get, post};
/// use cloakroom::testing::Browser;
/// use cloakroom::{
///     CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SigningKey, Transport,
/// };
/// use http::Request;
///
/// // A real application checks a password first.
/// async fn log_in(session: Session, Path(user): Path<String>) -> Result<(), SessionError> {
///     session.log_in(user)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
///     .transport(Transport::CookieOrBearer)
///     .build()?;
/// let app: Router = Router::new()
///     .route("/login/{user}", post(log_in))
///     .route("/me", get(|user: CurrentUser| async move { user.to_string() }))
///     .layer(layer);
///
/// // A page gets a cookie.
/// let mut page = Browser::new(app.clone());
/// let answer = page.post("/login/ada", &[]).await?;
/// assert!(answer.headers().contains_key("set-cookie"));
/// assert_eq!(page.get("/me").await?.body(), "ada");
///
/// // A mobile client asks for a bearer token. It sends the token to the same routes.
/// let mut client = Browser::new(app);
/// let request = Request::post("/login/grace")
///     .header(Transport::CHOICE_HEADER, "bearer")
///     .body("")?;
/// let answer = client.send(request).await?;
/// let token = answer.headers()[Transport::TOKEN_HEADER].to_str()?.to_owned();
/// assert!(!answer.headers().contains_key("set-cookie"));
///
/// let request = Request::get("/me")
///     .header("authorization", format!("Bearer {token}"))
///     .body("")?;
/// assert_eq!(client.send(request).await?.body(), "grace");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// In the session cookie.
    #[default]
    Cookie,
    /// In headers, for clients without a cookie jar. The client sends `Authorization: Bearer
    /// <token>`. It gets a new token in the response header
    /// [`x-session-token`](Self::TOKEN_HEADER). An empty header says that the session has ended.
    Bearer,
    /// In the session cookie or in headers, as each client wants. So pages and mobile clients can
    /// use the same routes.
    ///
    /// - A request with `Authorization: Bearer …` is a bearer request. It gets a new token in
    ///   [`x-session-token`](Self::TOKEN_HEADER). Every other request gets a new token in the
    ///   cookie.
    /// - A login can ask for the other transport with the request header
    ///   [`x-session-transport`](Self::CHOICE_HEADER). The answer then removes the token that the
    ///   login came with.
    /// - A bearer token that is not good never falls back to the cookie: the request is a
    ///   visitor's. So is a request with two different good tokens. A logout ends the sessions of
    ///   all good tokens of its request.
    CookieOrBearer,
}

impl Transport {
    /// The response header that has a new token, with [`Transport::Bearer`] and
    /// [`Transport::CookieOrBearer`].
    pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-session-token");

    /// The request header with which a client chooses how it gets its next token, with
    /// [`Transport::CookieOrBearer`]. The value is `bearer` or `cookie`. Any other value counts as
    /// no choice.
    ///
    /// The choice counts for a login, and for a visitor. A session that is live keeps its transport
    /// until somebody logs in. Otherwise a hostile script in a page could ask for the token of the
    /// cookie, which it cannot read.
    pub const CHOICE_HEADER: HeaderName = HeaderName::from_static("x-session-transport");
}

/// What a browser must forget when a user logs out. Cookies are not part of it. The layer removes
/// the session's own cookie by name, and other cookies belong to the application.
const CLEAR_SITE_DATA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\", \"storage\""),
);

/// The transport of one layer, with everything that is rendered once.
#[derive(Clone, Debug)]
pub(crate) enum TokenTransport {
    Cookie {
        cookie: CookieWriter,
        /// What a 401 asks for.
        challenge: HeaderValue,
    },
    Bearer {
        /// The cookie's name. The token is bound to it, and the layer is known by it.
        name: String,
    },
    CookieOrBearer {
        cookie: CookieWriter,
        /// What a 401 asks for, beside a bearer token.
        challenge: HeaderValue,
    },
}

/// The transport of a layer with the default settings.
impl Default for TokenTransport {
    fn default() -> Self {
        Self::Cookie {
            cookie: CookieWriter::default(),
            challenge: HeaderValue::from_static("Cookie realm=\"__Host-session\""),
        }
    }
}

impl TokenTransport {
    pub(crate) fn new(
        transport: Transport,
        attributes: &Attributes,
        realm: &Realm,
    ) -> Result<Self, ConfigError> {
        // The cookie's settings must be right even if the transport does not use them, because one
        // call changes the transport.
        let cookie = CookieWriter::new(attributes)?;
        let challenge = || {
            HeaderValue::try_from(format!("Cookie realm=\"{}\"", realm.as_str())).map_err(|error| {
                ConfigError::new("realm", "it makes a header that HTTP does not allow")
                    .with_source(error)
            })
        };
        Ok(match transport {
            Transport::Cookie => Self::Cookie {
                cookie,
                challenge: challenge()?,
            },
            Transport::Bearer => Self::Bearer {
                name: attributes.name().to_owned(),
            },
            Transport::CookieOrBearer => Self::CookieOrBearer {
                cookie,
                challenge: challenge()?,
            },
        })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cookie { cookie, .. } | Self::CookieOrBearer { cookie, .. } => cookie.name(),
            Self::Bearer { name } => name,
        }
    }

    /// What the request presents as its token.
    pub(crate) fn presented(&self, headers: &HeaderMap) -> PresentedTokens {
        match self {
            Self::Cookie { cookie, .. } => cookie.presented(headers),
            Self::Bearer { .. } => bearer_tokens(headers),
            Self::CookieOrBearer { cookie, .. } => {
                PresentedTokens::beside(bearer_tokens(headers), cookie.presented(headers))
            }
        }
    }

    /// How the client that sent this request, and presented this, sends its token.
    #[inline]
    pub(crate) fn client(
        &self,
        headers: &HeaderMap,
        presented: &PresentedTokens,
    ) -> ClientTransport {
        match self {
            Self::Cookie { .. } | Self::Bearer { .. } => ClientTransport::default(),
            Self::CookieOrBearer { .. } => ClientTransport::of(headers, presented),
        }
    }

    /// Gives the client this token. If the client has sent another one in the other way, it must
    /// forget that one. Otherwise its next request would come with both.
    pub(crate) fn set_token(
        &self,
        headers: &mut HeaderMap,
        token: &EncodedToken,
        max_age: Option<u64>,
        client: impl FnOnce() -> ClientTransport,
    ) {
        drop_exceptions_for_caches(headers);
        match self {
            Self::Cookie { cookie, .. } => set_token_cookie(cookie, headers, token, max_age),
            Self::Bearer { .. } => give_token_header(headers, token),
            Self::CookieOrBearer { cookie, .. } => {
                let client = client();
                match client.carrier() {
                    Carrier::Cookie => {
                        set_token_cookie(cookie, headers, token, max_age);
                        if client.sends_bearer() {
                            set_token_header(headers, HeaderValue::from_static(""));
                        }
                    }
                    Carrier::Bearer => {
                        give_token_header(headers, token);
                        if client.sends_cookie() {
                            set_session_cookie(cookie, headers, cookie.removal());
                        }
                    }
                }
            }
        }
        self.keep_out_of_caches(headers);
        if let Self::CookieOrBearer { .. } = self {
            vary_by_choice(headers);
        }
    }

    /// Whether this client gets a token in the session cookie.
    #[cfg(feature = "dbsc")]
    pub(crate) fn gives_cookie(&self, client: ClientTransport) -> bool {
        match self {
            Self::Cookie { .. } => true,
            Self::Bearer { .. } => false,
            Self::CookieOrBearer { .. } => client.carrier() == Carrier::Cookie,
        }
    }

    /// Tells the client to forget its token, in each way in which it has sent one.
    pub(crate) fn remove_token(&self, headers: &mut HeaderMap, client: ClientTransport) {
        drop_exceptions_for_caches(headers);
        let (has_cookie, has_header) = self.carriers(client.without_choice());
        if let Self::Cookie { cookie, .. } | Self::CookieOrBearer { cookie, .. } = self
            && has_cookie
        {
            set_session_cookie(cookie, headers, cookie.removal());
        }
        if has_header {
            set_token_header(headers, HeaderValue::from_static(""));
        }
        self.keep_out_of_caches(headers);
    }

    /// Whether the layer sets its cookie, and whether it sets its header, if it gives the client a
    /// token or removes one.
    fn carriers(&self, client: ClientTransport) -> (bool, bool) {
        match self {
            Self::Cookie { .. } => (true, false),
            Self::Bearer { .. } => (false, true),
            Self::CookieOrBearer { .. } => (
                client.sends_cookie() || client.carrier() == Carrier::Cookie,
                client.sends_bearer() || client.carrier() == Carrier::Bearer,
            ),
        }
    }

    /// Tells the browser to forget what it keeps of the site. A header that the handler has set
    /// stays.
    pub(crate) fn clear_site_data(headers: &mut HeaderMap) {
        let (name, value) = CLEAR_SITE_DATA;
        headers.append(name, value);
    }

    /// The headers that this layer has set for its client. `client` is the client that it has given
    /// a token, or told to forget one, if it has done that.
    pub(crate) fn session_headers(
        &self,
        headers: &HeaderMap,
        client: Option<ClientTransport>,
        clears_site_data: bool,
    ) -> SessionHeaders {
        let (has_cookie, has_header) =
            client.map_or((false, false), |client| self.carriers(client));
        let set_cookie = match self {
            Self::Cookie { cookie, .. } | Self::CookieOrBearer { cookie, .. } if has_cookie => {
                headers
                    .get_all(SET_COOKIE)
                    .iter()
                    .find(|value| cookie.is_set_by(value))
            }
            _ => None,
        };
        // An inner layer may have set this header as well. That of this layer comes first.
        let token = headers.get(Transport::TOKEN_HEADER).filter(|_| has_header);
        let own = [(SET_COOKIE, set_cookie), (Transport::TOKEN_HEADER, token)];
        let own = own
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.clone())));
        let cleared = clears_site_data.then_some(CLEAR_SITE_DATA);
        SessionHeaders(own.chain(cleared).collect())
    }

    /// Whether the browser that sent this request will drop the cookie. It will if it came over
    /// plain HTTP from another host than its own.
    #[inline]
    pub(crate) fn is_dropped_at(&self, headers: &HeaderMap) -> bool {
        // Most requests have no Origin.
        let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
        origin.is_some_and(|origin| self.is_dropped_by(origin, headers))
    }

    fn is_dropped_by(&self, origin: &[u8], headers: &HeaderMap) -> bool {
        let cookie = match self {
            Self::Cookie { cookie, .. } => cookie,
            Self::CookieOrBearer { cookie, .. } if choice(headers) != Some(Carrier::Bearer) => {
                cookie
            }
            _ => return false,
        };
        cookie.is_secure() && is_plain_http(origin) && is_own(origin, headers)
    }

    /// Whether two layers read the same cookie or header, so that each gets the other's token.
    pub(crate) fn rivals(&self, other: &Self) -> bool {
        let reads = |transport: &Self| match transport {
            Self::Cookie { .. } => (true, false),
            Self::Bearer { .. } => (false, true),
            Self::CookieOrBearer { .. } => (true, true),
        };
        let ((cookie, header), (other_cookie, other_header)) = (reads(self), reads(other));
        header && other_header || cookie && other_cookie && self.name() == other.name()
    }
}

/// Whether an origin is one of plain HTTP, and is not on the browser's own machine. Browsers trust
/// their own machine (Secure Contexts, section 3.1).
fn is_plain_http(origin: &[u8]) -> bool {
    let Some(host) = origin.strip_prefix(b"http://") else {
        return false;
    };
    let is_local = host.starts_with(b"127.")
        || host.starts_with(b"[::1]")
        || host
            .split(|&byte| byte == b':')
            .next()
            .is_some_and(|name| name == b"localhost" || name.ends_with(b".localhost"));
    !is_local
}

/// Whether an origin is the site itself, as far as the request shows. Another site may have posted
/// to it.
fn is_own(origin: &[u8], headers: &HeaderMap) -> bool {
    let own = headers.get(HOST).map(HeaderValue::as_bytes);
    own.is_none_or(|host| origin.strip_prefix(b"http://") == Some(host))
}

/// Gives the client this token in the header.
fn give_token_header(headers: &mut HeaderMap, token: &EncodedToken) {
    if let Ok(mut value) = HeaderValue::from_bytes(token.as_bytes()) {
        value.set_sensitive(true);
        set_token_header(headers, value);
    }
}

/// Gives the client this token in the session cookie.
fn set_token_cookie(
    cookie: &CookieWriter,
    headers: &mut HeaderMap,
    token: &EncodedToken,
    max_age: Option<u64>,
) {
    if let Some(value) = cookie.set(token, max_age) {
        set_session_cookie(cookie, headers, value);
    }
}

/// Sets the header of the token. If the handler has set one, that comes after it.
fn set_token_header(headers: &mut HeaderMap, value: HeaderValue) {
    if let Some(other) = headers.insert(Transport::TOKEN_HEADER, value) {
        headers.append(Transport::TOKEN_HEADER, other);
    }
}

/// Sets the session cookie. The handler's other cookies stay, except one of the same name, because
/// a response must not set a cookie twice (RFC 6265, section 4.1.1).
fn set_session_cookie(cookie: &CookieWriter, headers: &mut HeaderMap, mut value: HeaderValue) {
    if headers
        .get_all(SET_COOKIE)
        .iter()
        .any(|other| cookie.is_set_by(other))
    {
        let others: Vec<_> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter(|other| !cookie.is_set_by(other))
            .cloned()
            .collect();
        headers.remove(SET_COOKIE);
        for other in others {
            headers.append(SET_COOKIE, other);
        }
    }
    value.set_sensitive(true);
    headers.append(SET_COOKIE, value);
}
