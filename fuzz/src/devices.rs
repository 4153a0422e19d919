//! The fuzz targets of sessions that are bound to devices.

use cloakroom::{
    DeviceBinding, MemoryStore, RecordId, Session, SessionError, SessionLayer, SessionStore,
    SigningKey, WithDevices,
};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderName, HeaderValue, Request, Response};
use p256::ecdsa::signature::Signer as _;
use tower::{Layer, ServiceExt, service_fn};

use crate::run;

const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
const SESSION_ID: HeaderName = HeaderName::from_static("sec-secure-session-id");

/// Sends the input as `Secure-Session-Response` to both paths.
///
/// A fuzzer cannot guess a proof. So the byte 0 becomes the good proof, without its quotes, and the
/// byte 1 becomes the good proof with one letter changed.
pub fn secure_session_response(input: &[u8]) {
    run(async {
        for path in [Path::Registration, Path::Refresh] {
            let mut site = Site::new(path).await;
            let good = site.good_proof();
            let mut changed = good.clone();
            changed.replace_range(10..11, if &good[10..11] == "A" { "B" } else { "A" });
            let value = header(written(input, &[&good, &changed]));
            let is_good = is_string(&value, &good);
            let response = site.send(&[(RESPONSE, &value)], path).await;
            site.check(&response, is_good).await;
        }
    });
}

/// Sends the input as `Sec-Secure-Session-Id`, with a good proof. The byte 0 becomes the session's
/// id.
pub fn secure_session_id(input: &[u8]) {
    run(async {
        let mut site = Site::new(Path::Refresh).await;
        let id = site.id.to_string();
        let value = header(written(input, &[&id]));
        let proof = format!("\"{}\"", site.good_proof());
        let headers = [(SESSION_ID, &*value), (RESPONSE, proof.as_bytes())];
        let response = site.send(&headers, Path::Registration).await;
        // Of another id, the answer is that its session is over.
        if response.status() == 200 && !is_string(&value, &id) {
            assert!(response.body().contains("\"continue\":false"));
            assert_eq!(response.headers().get(SET_COOKIE), None);
            site.check_unchanged().await;
        } else {
            site.check(&response, is_string(&value, &id)).await;
        }
    });
}

/// Signs the input with the key of a device: the header and the payload of a JWT, each on one line.
/// The byte 0 becomes the challenge, the byte 1 the public key, and the byte 2 another key.
pub fn device_proof(input: &[u8]) {
    run(async {
        for path in [Path::Registration, Path::Refresh] {
            let mut site = Site::new(path).await;
            let other = jwk(&key(2));
            let input = written(input, &[&site.challenge, &jwk(&key(1)), &other]);
            let mut lines = input.splitn(2, |&byte| byte == b'\n');
            let [header, payload] = [lines.next(), lines.next()].map(Option::unwrap_or_default);
            let proof = format!("\"{}\"", signed(&key(1), header, payload));
            let response = site.send(&[(RESPONSE, proof.as_bytes())], path).await;
            // A reader that takes the last of two equal names sees a good proof as well.
            let header = serde_json::from_slice::<serde_json::Value>(header).ok();
            let payload = serde_json::from_slice::<serde_json::Value>(payload).ok();
            let is_good = response.status() == 200;
            if let (true, Some(header), Some(payload)) = (is_good, &header, &payload) {
                assert_eq!(header["typ"], "dbsc+jwt");
                assert_eq!(header["alg"], "ES256");
                assert_eq!(payload["jti"], *site.challenge);
                assert_eq!(header.get("jwk").is_some(), path == Path::Registration);
                assert!(!header.to_string().contains(&other));
            }
            assert!(!is_good || header.is_some() && payload.is_some());
            site.check(&response, is_good).await;
        }
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Path {
    Registration,
    Refresh,
}

/// A site with one user, whose browser is about to register its key or to renew its cookie.
struct Site {
    store: MemoryStore,
    layer: SessionLayer<MemoryStore, WithDevices>,
    cookie: String,
    id: RecordId,
    challenge: String,
    path: Path,
    before: Vec<u8>,
}

async fn handler(request: Request<()>) -> Result<Response<String>, SessionError> {
    let session = Session::from_extensions(request.extensions())?;
    if request.uri().path() == "/log_in" {
        session.log_in("ada")?;
    }
    Ok(Response::new(String::new()))
}

impl Site {
    async fn new(path: Path) -> Self {
        let store = MemoryStore::new();
        let layer = SessionLayer::builder(store.clone(), SigningKey::generate().unwrap())
            .bind_to_device(DeviceBinding::default())
            .build()
            .unwrap();
        let mut site = Self {
            store,
            layer,
            cookie: String::new(),
            id: RecordId::from_bytes([0; 16]),
            challenge: String::new(),
            path: Path::Registration,
            before: Vec::new(),
        };
        let login = site.answer(Request::get("/log_in").body(()).unwrap()).await;
        let cookie = login.headers()[SET_COOKIE].to_str().unwrap();
        site.cookie = cookie.split(';').next().unwrap().to_owned();
        let sessions = site.layer.sessions().list_for("ada").await.unwrap();
        site.id = sessions[0].id();
        site.challenge = challenge(&login, "secure-session-registration", "challenge=\"");
        if path == Path::Refresh {
            let proof = format!("\"{}\"", site.good_proof());
            let bound = site.send(&[(RESPONSE, proof.as_bytes())], path).await;
            assert_eq!(bound.status(), 200);
            site.path = Path::Refresh;
            let asked = site.send(&[], path).await;
            site.challenge = challenge(&asked, "secure-session-challenge", "\"");
        }
        site.before = site.record().await;
        site
    }

    fn good_proof(&self) -> String {
        let header = match self.path {
            Path::Registration => {
                format!(
                    r#"{{"typ":"dbsc+jwt","alg":"ES256","jwk":{}}}"#,
                    jwk(&key(1))
                )
            }
            Path::Refresh => r#"{"typ":"dbsc+jwt","alg":"ES256"}"#.to_owned(),
        };
        let payload = format!(r#"{{"jti":"{}"}}"#, self.challenge);
        signed(&key(1), header.as_bytes(), payload.as_bytes())
    }

    async fn answer(&self, request: Request<()>) -> Response<String> {
        let service = self.layer.layer(service_fn(handler));
        service.oneshot(request).await.unwrap()
    }

    /// Sends these headers to the path. `named` says whether the session's id comes with them.
    async fn send(&self, headers: &[(HeaderName, &[u8])], named: Path) -> Response<String> {
        let path = match self.path {
            Path::Registration => "/session/bind",
            Path::Refresh => "/session/refresh",
        };
        let mut request = Request::post(path).header(COOKIE, &self.cookie);
        if named == Path::Refresh {
            request = request.header(SESSION_ID, format!("\"{}\"", self.id));
        }
        let mut request = request.body(()).unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        self.answer(request).await
    }

    async fn record(&self) -> Vec<u8> {
        let record = self.store.load(self.id).await.unwrap();
        record.unwrap().encode().unwrap()
    }

    async fn check_unchanged(&mut self) {
        assert!(
            self.record().await == self.before,
            "a refused request wrote something"
        );
    }

    /// Checks that only a good proof gets a cookie and writes something.
    async fn check(&mut self, response: &Response<String>, is_good: bool) {
        let status = if is_good { 200 } else { 403 };
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key(SET_COOKIE), is_good);
        match is_good {
            true => assert!(self.record().await != self.before),
            false => self.check_unchanged().await,
        }
    }
}

fn challenge(response: &Response<String>, header: &str, before: &str) -> String {
    let value = response.headers()[header].to_str().unwrap();
    let (_, rest) = value.split_once(before).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// The input with these texts in the place of the first bytes. No header has the other control
/// characters.
pub(crate) fn written(input: &[u8], texts: &[&str]) -> Vec<u8> {
    let mut written = Vec::new();
    for &byte in input {
        match texts.get(usize::from(byte)) {
            Some(text) => written.extend(text.as_bytes()),
            None if byte == b'\n' || byte >= b' ' && byte != 0x7f => written.push(byte),
            None => written.push(b'\t'),
        }
    }
    written
}

/// The bytes as the value of one header. HTTP drops the white space around it.
fn header(bytes: Vec<u8>) -> Vec<u8> {
    let tab = |byte| if byte == b'\n' { b'\t' } else { byte };
    bytes.into_iter().map(tab).collect()
}

/// Whether a header is this text, as a string or without quotes. This code does not read strings as
/// the crate does: the text has nothing to escape. Parameters may follow it.
fn is_string(value: &[u8], text: &str) -> bool {
    let value: String = value.iter().copied().map(char::from).collect();
    let value = value.trim_matches([' ', '\t']);
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_prefix(text))
        .and_then(|rest| rest.strip_prefix('"'));
    let rest = quoted.or(value.strip_prefix(text));
    rest.is_some_and(|rest| rest.is_empty() || are_parameters(rest))
}

/// Whether this is a list of parameters (RFC 9651, section 4.2.3.2). Their values may be anything
/// that looks like a value.
fn are_parameters(mut rest: &str) -> bool {
    while let Some(after) = rest.strip_prefix(';') {
        let after = after.trim_start_matches(' ');
        if !after.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
            return false;
        }
        let is_of_key =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c);
        let after = after.trim_start_matches(is_of_key);
        rest = match after.strip_prefix('=') {
            None => after,
            Some(value) => match value.strip_prefix('"') {
                Some(string) => {
                    let mut escaped = false;
                    let mut end = None;
                    for (at, c) in string.char_indices() {
                        match (escaped, c) {
                            (true, '"' | '\\') => escaped = false,
                            (true, _) => return false,
                            (false, '\\') => escaped = true,
                            (false, '"') => {
                                end = Some(at + 1);
                                break;
                            }
                            (false, ' '..='~') => {}
                            (false, _) => return false,
                        }
                    }
                    match end {
                        Some(end) => &string[end..],
                        None => return false,
                    }
                }
                None => {
                    let is_of_value = |c: char| c.is_ascii_graphic() && !";,\"".contains(c);
                    let rest = value.trim_start_matches(is_of_value);
                    if rest.len() == value.len() {
                        return false;
                    }
                    rest
                }
            },
        };
    }
    rest.is_empty()
}

pub(crate) fn key(number: u8) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap()
}

pub(crate) fn jwk(key: &p256::ecdsa::SigningKey) -> String {
    let point = key.verifying_key().to_sec1_point(false);
    let (x, y) = point.as_bytes()[1..].split_at(32);
    let (x, y) = (base64(x), base64(y));
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#)
}

pub(crate) fn signed(key: &p256::ecdsa::SigningKey, header: &[u8], payload: &[u8]) -> String {
    let signed = format!("{}.{}", base64(header), base64(payload));
    let signature: p256::ecdsa::Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", base64(&signature.to_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0))
        });
        for letter in 0..=chunk.len() {
            let index = bits >> (18 - 6 * letter) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}
