//! What each fuzz target does with its input. `tests/it/fuzz.rs` also calls these functions, with
//! the seeds in `fuzz/corpus`.

mod assertions;
mod devices;

use std::error::Error as _;
use std::sync::Once;

use cloakroom::{
    AnyStore, MemoryStore, Record, RecordId, Session, SessionError, SessionLayer, SessionStore,
    SigningKey, Transport,
};
use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderName, HeaderValue, Request, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tower::{Layer, ServiceExt, service_fn};

pub use assertions::assertion;
pub use devices::{device_proof, secure_session_id, secure_session_response};

/// Sends the input as Cookie headers, and as the session cookie's value. [`Site::written`]
/// describes how tokens get into the input.
pub fn cookie(input: &[u8]) {
    run(Site::is_safe_from(Transport::Cookie, input));
}

/// Does the same with the `Authorization` header.
pub fn bearer(input: &[u8]) {
    run(Site::is_safe_from(Transport::Bearer, input));
}

/// Sends both kinds of headers. The byte 6 ends the cookies, and the rest are bearer tokens.
pub fn transports(input: &[u8]) {
    run(Site::is_safe_from(Transport::CookieOrBearer, input));
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future);
}

/// An application with three users. The first and the second are logged in. The session of the
/// third has ended.
struct Site {
    store: MemoryStore,
    layer: SessionLayer<MemoryStore>,
    first: Vec<u8>,
    second: Vec<u8>,
    ended: Vec<u8>,
}

const NOBODY: &str = "nobody";

/// Answers with the owner in the session's data, and counts the visit. A path is the name of
/// somebody who logs in.
async fn handler(request: Request<()>) -> Result<Response<String>, SessionError> {
    let session = Session::from_extensions(request.extensions())?;
    let owner = session.get::<String>("owner")?;
    session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    let user = request.uri().path().trim_start_matches('/');
    if !user.is_empty() {
        session.log_in(user)?;
        session.insert("owner", user)?;
    }
    Ok(Response::new(owner.unwrap_or_else(|| NOBODY.to_owned())))
}

impl Site {
    async fn is_safe_from(transport: Transport, input: &[u8]) {
        let store = MemoryStore::new();
        // Each input has its own key. The fuzzer learns from comparisons, so it finds tokens of
        // earlier inputs. With one key, those tokens would have good signatures.
        let key = SigningKey::generate().unwrap();
        let layer = SessionLayer::builder(store.clone(), key)
            .transport(transport)
            .build()
            .unwrap();
        let mut site = Self {
            store,
            layer,
            first: Vec::new(),
            second: Vec::new(),
            ended: Vec::new(),
        };
        site.first = site.logged_in("first").await;
        site.second = site.logged_in("second").await;
        site.ended = site.logged_in("third").await;
        let removed = site.layer.sessions().revoke_user("third").await;
        assert_eq!(removed.unwrap(), 1);

        let (cookies, bearers) = match transport {
            Transport::Cookie => (Some(input), None),
            Transport::Bearer => (None, Some(input)),
            _ => {
                let mut parts = input.splitn(2, |&byte| byte == 6);
                (parts.next(), parts.next())
            }
        };
        for cookies in site.headers(b"__Host-session=", cookies) {
            for bearers in site.headers(b"Bearer ", bearers) {
                site.check(&cookies, &bearers).await;
            }
        }
    }

    /// The two ways to send an input: as headers, and as the value of one.
    fn headers(&self, before: &[u8], input: Option<&[u8]>) -> Vec<Vec<Vec<u8>>> {
        let Some(input) = input else {
            return vec![Vec::new()];
        };
        let written = self.written(input);
        let lines = written.split(|&byte| byte == b'\n');
        let value = [before, &written].concat();
        vec![lines.map(<[u8]>::to_vec).collect(), vec![value]]
    }

    async fn logged_in(&self, user: &str) -> Vec<u8> {
        let request = Request::get(format!("/{user}")).body(()).unwrap();
        self.token(&self.answer(request).await).unwrap()
    }

    async fn answer(&self, request: Request<()>) -> Response<String> {
        let service = self.layer.layer(service_fn(handler));
        service.oneshot(request).await.unwrap()
    }

    /// The token that a response gives to the client. The client never gets two.
    fn token(&self, response: &Response<String>) -> Option<Vec<u8>> {
        let [cookie, header] = [SET_COOKIE, Transport::TOKEN_HEADER].map(|header| {
            let value = response.headers().get(header)?.as_bytes();
            let value = value.strip_prefix(b"__Host-session=").unwrap_or(value);
            // An empty value removes the token that the client sent.
            let token = value.split(|&byte| byte == b';').next()?;
            (!token.is_empty()).then(|| token.to_vec())
        });
        assert!(cookie.is_none() || header.is_none());
        cookie.or(header)
    }

    /// The input, with tokens in it, because a fuzzer cannot guess a token. Each of these bytes,
    /// which no header may contain, becomes a token:
    ///
    /// 0: the first user's token. 1: the second user's token. 2: the first token with one byte
    /// changed. 3: the first token, cut short. 4: the beginning of the first token and the rest of
    /// the second. 5: the token of the ended session.
    fn written(&self, input: &[u8]) -> Vec<u8> {
        let (first, second) = (&*self.first, &*self.second);
        let mut input = input.iter().copied();
        let mut written = Vec::new();
        while let Some(byte) = input.next() {
            let mut next = || input.next().unwrap_or_default();
            let index = |byte| usize::from(byte) % first.len();
            match byte {
                0 => written.extend(first),
                1 => written.extend(second),
                2 => {
                    let mut changed = first.to_vec();
                    let index = index(next());
                    changed[index] = next();
                    written.extend(changed);
                }
                3 => written.extend(&first[..index(next())]),
                4 => {
                    let (beginning, _) = first.split_at(index(next()));
                    written.extend(beginning);
                    written.extend(&second[beginning.len()..]);
                }
                5 => written.extend(&self.ended),
                _ => written.push(byte),
            }
        }
        written
    }

    /// Sends these headers. Checks that nobody reaches a session without its token.
    async fn check(&self, cookies: &[Vec<u8>], bearers: &[Vec<u8>]) {
        let mut request = Request::new(());
        let mut add = |name: HeaderName, header: &[u8]| {
            // HTTP itself refuses these bytes, so they never reach the layer.
            let allow = |&byte: &u8| {
                if byte < b' ' || byte == 0x7f {
                    b'\t'
                } else {
                    byte
                }
            };
            let header: Vec<u8> = header.iter().map(allow).collect();
            let value = HeaderValue::from_bytes(&header).unwrap();
            request.headers_mut().append(name, value);
            header
        };
        let mut in_cookies = Vec::new();
        for header in cookies {
            in_cookies.extend(tokens_in_cookie(&add(COOKIE, header)));
        }
        let mut in_bearers = Vec::new();
        for header in bearers {
            in_bearers.extend(token_in_authorization(&add(AUTHORIZATION, header)));
        }
        // Two tokens of live sessions leave it open which session is meant, so the layer takes
        // neither. The token of an ended session does not count. A bearer token that is not good
        // leads nowhere, also beside a good cookie.
        let signed = [&self.first, &self.second, &self.ended];
        let users = |presented: &[Vec<u8>]| {
            let [first, second, _] = signed.map(|token| presented.contains(token));
            [first, second]
        };
        let all = users(&[&*in_cookies, &*in_bearers].concat());
        let meant = match in_bearers.is_empty() {
            true => all,
            false => users(&in_bearers),
        };
        let owner = match (all, meant) {
            ([true, false], [true, _]) => "first",
            ([false, true], [_, true]) => "second",
            _ => NOBODY,
        };

        let before = [self.record("first").await, self.record("second").await];
        let response = self.answer(request).await;
        let after = [self.record("first").await, self.record("second").await];

        assert_eq!(
            (response.status().as_u16(), &**response.body()),
            (200, owner)
        );
        let is_written = ["first", "second"].map(|user| user == owner);
        assert_eq!([0, 1].map(|user| before[user] != after[user]), is_written);
        let token = self.token(&response);
        assert_eq!(token.is_some(), owner == NOBODY, "who is new gets a token");
        assert!(token.is_none_or(|token| !signed.contains(&&token)));
    }

    /// What is stored for a user.
    async fn record(&self, user: &str) -> Vec<u8> {
        let sessions = self.layer.sessions().list_for(user).await.unwrap();
        let [session] = &*sessions else {
            unreachable!("a user has one session")
        };
        let record = self.store.load(session.id()).await.unwrap();
        record.unwrap().encode().unwrap()
    }
}

// This code reads headers in another way than the crate does. Each byte becomes one character, so
// that no byte is lost.

/// The tokens in a Cookie header.
fn tokens_in_cookie(header: &[u8]) -> Vec<Vec<u8>> {
    let header: String = header.iter().copied().map(char::from).collect();
    let token = |value: &str| {
        let value = value.trim_matches([' ', '\t']);
        // The syntax of a cookie allows one pair of quotes.
        let inner = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        inner.unwrap_or(value).chars().map(|c| c as u8).collect()
    };
    header
        .split(';')
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
        .filter(|(name, _)| *name == "__Host-session")
        .map(|(_, value)| token(value))
        .collect()
}

/// The token in an Authorization header. It is empty if only the scheme is there.
fn token_in_authorization(header: &[u8]) -> Option<Vec<u8>> {
    let header: String = header.iter().copied().map(char::from).collect();
    let (scheme, value) = header.split_once(' ').unwrap_or((&header, ""));
    let value = value.trim_matches([' ', '\t']);
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| value.chars().map(|c| c as u8).collect())
}

/// Decodes the input as a record. Also decodes it with a good format, length and checksums, because
/// a fuzzer cannot guess a checksum.
pub fn record(input: &[u8]) {
    let id = RecordId::from_bytes([7; 16]);
    for bytes in [input.to_vec(), sealed(input)] {
        if let Some(record) = Record::decode(id, bytes) {
            let encoded = record.encode().unwrap();
            let decoded = Record::decode(id, encoded.clone()).unwrap();
            assert_eq!(decoded.encode().unwrap(), encoded);
            assert_eq!(decoded.version(), record.version());
            assert_eq!(decoded.expires_at(), record.expires_at());
            assert_eq!(decoded.user(), record.user());
            assert_eq!(decoded.to_json(), record.to_json());
        }
    }
}

/// The bytes as a record, with the format, the length and the checksums that they should have.
pub fn sealed(input: &[u8]) -> Vec<u8> {
    const FORMAT: u8 = 2;
    const CHECKSUMS_END: usize = 29;
    let mut bytes = input.to_vec();
    bytes.resize(input.len().max(CHECKSUMS_END), 0);
    bytes[0] = FORMAT;
    let expiry = crc32fast::hash(&bytes[9..17]).to_be_bytes();
    bytes[17..21].copy_from_slice(&expiry);
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    bytes[21..25].copy_from_slice(&length);
    let parts = [&bytes[..9], &bytes[21..25], &bytes[CHECKSUMS_END..]];
    let checksum = crc32fast::hash(&parts.concat()).to_be_bytes();
    bytes[25..29].copy_from_slice(&checksum);
    bytes
}

const PASSWORD: &str = "correct-horse";

/// Opens a store with the input as its URL. Then puts a password into the URL, which no error may
/// show.
///
/// The call goes through all of [`AnyStore::connect`], up to the first socket or file: see
/// [`open`].
pub fn store_url(input: &[u8]) {
    let url = String::from_utf8_lossy(input);
    // In this URL the password may be in another place, such as the host's name. An error may show
    // it there.
    if url.contains(PASSWORD) {
        return;
    }
    open(&url);
    let Some((scheme, rest)) = url.split_once(':') else {
        return;
    };
    let (before, options) = url.split_once('?').unwrap_or((&url, ""));
    let password = format!("pass={PASSWORD}&password={PASSWORD}");
    let mut urls = vec![format!("{before}?{password}&{options}")];
    // In these two schemes a path follows, so the URL has no login.
    if !matches!(scheme, "sqlite" | "redis+unix") {
        // The number of slashes stays as it is. A wrong number is one more mistake to test.
        let place = rest.trim_start_matches('/');
        let slashes = "/".repeat(rest.len() - place.len());
        urls.push(format!("{scheme}:{slashes}ada:{PASSWORD}@{place}"));
    }
    for url in urls {
        if let Some(error) = open(&url) {
            assert!(!error.contains(PASSWORD), "{error}");
        }
    }
}

/// Opens a store while the process cannot open another file descriptor. So no URL can open a socket
/// or a file: the operating system refuses that. The test does not cover what a store reads from a
/// server or a file.
///
/// Returns the error with all its causes.
fn open(url: &str) -> Option<String> {
    // The runtime needs descriptors too, so it is built first.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let descriptors = NoDescriptors::now();
    let opened = runtime.block_on(AnyStore::connect(url));
    let error = opened.err().map(|error| {
        let mut text = format!("{error}, {error:?}");
        let mut source = error.source();
        while let Some(cause) = source {
            text += &format!(", caused by {cause}");
            source = cause.source();
        }
        text
    });
    // This waits for the runtime's threads. One of them may be looking up a host.
    drop(runtime);
    drop(descriptors);
    error
}

/// While this value lives, the process cannot open anything.
struct NoDescriptors(Rlimit);

impl NoDescriptors {
    fn now() -> Self {
        let usual = getrlimit(Resource::Nofile);
        // At a panic the fuzzer ends the process. Before that it must be able to write a file.
        static AT_A_PANIC: Once = Once::new();
        AT_A_PANIC.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                drop(Self(usual));
                hook(panic);
            }));
        });
        let none = Rlimit {
            current: Some(0),
            ..usual
        };
        setrlimit(Resource::Nofile, none).unwrap();
        Self(usual)
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}
