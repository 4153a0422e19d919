//! [`Record`]: what the store keeps of a session, and its encoding.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::data::Data;
use crate::error::{ConfigError, ErrorKind, SessionError};
use crate::report;
use crate::token::{RecordId, SecretHash};

/// Counts the writes of a record: 1 when it is made, one more with each change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(u64);

impl Version {
    pub(crate) const FIRST: Self = Self(1);

    /// The version of this number, as a store kept it.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number that a store keeps. Up to `i64::MAX`, for databases without unsigned numbers.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        // A client would need millions of years to overflow it.
        Self(self.0.wrapping_add(1) & i64::MAX as u64)
    }
}

/// Who a session belongs to: the application's own id of a user, as text of 1 to 255 bytes, none of them NUL.
///
/// A store gets it with the realm of the layer before it, as `realm:user`. To the store it is one text of
/// at most [`STORED_LEN`](Self::STORED_LEN) bytes.
///
/// ```
/// use cloakroom::UserId;
///
/// assert_eq!(UserId::from(42_i64), UserId::from("42"));
/// ```
#[derive(Clone)]
pub struct UserId {
    text: Arc<str>,
    /// Where the id begins: a clone without its realm shares the text with the one that has it.
    start: usize,
}

impl UserId {
    const MAX_LEN: usize = 255;

    /// The most bytes that a store has to keep of one: those of the realm, of a colon, and of the id.
    pub const STORED_LEN: usize = Realm::MAX_LEN + 1 + Self::MAX_LEN;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn check(&self) -> Result<(), SessionError> {
        // PostgreSQL has no NUL in a text.
        match self.as_str().len() {
            1..=Self::MAX_LEN if !self.as_str().contains('\0') => Ok(()),
            _ => Err(ErrorKind::InvalidUserId.into()),
        }
    }

    /// The id that the application knows.
    pub(crate) fn without_realm(&self) -> Self {
        let realm = self.as_str().find(':').map_or(0, |colon| colon + 1);
        Self {
            text: self.text.clone(),
            start: self.start + realm,
        }
    }
}

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for UserId {}

impl PartialOrd for UserId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UserId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?))
    }
}

/// Whose users a layer's users are: two layers of one realm have the same users.
#[derive(Clone, Debug)]
pub(crate) struct Realm(Arc<str>);

impl Realm {
    const MAX_LEN: usize = 64;

    /// The realm that the application named.
    pub(crate) fn named(name: &str) -> Result<Self, ConfigError> {
        let is_good =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
        match name.len() {
            1..=Self::MAX_LEN if name.bytes().all(is_good) => Ok(Self(name.into())),
            _ => Err(ConfigError::new(
                "realm",
                "it must be 1 to 64 ASCII letters, digits or signs such as - and _, without a colon",
            )),
        }
    }

    /// The realm of a layer that names none, by its cookie's name.
    pub(crate) fn of_cookie(name: &str) -> Self {
        match name.len() {
            0..=Self::MAX_LEN => Self(name.into()),
            // Another long name has another hash.
            _ => {
                let hash = Sha256::digest(name);
                Self(
                    hash.iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect::<String>()
                        .into(),
                )
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// A user of this realm, as a store gets it.
    pub(crate) fn qualify(&self, user: &UserId) -> UserId {
        UserId::from(format!("{}:{user}", self.0))
    }

    /// Whether a user, as a store has it, is of this realm.
    pub(crate) fn has(&self, user: &UserId) -> bool {
        let rest = user.as_str().strip_prefix(&*self.0);
        rest.is_some_and(|rest| rest.starts_with(':'))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({:?})", self.as_str())
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

macro_rules! user_id_from {
    ($($text:ty),*; $($number:ty),*) => {
        $(impl From<$text> for UserId {
            fn from(id: $text) -> Self {
                Self {
                    text: id.into(),
                    start: 0,
                }
            }
        })*
        $(impl From<$number> for UserId {
            fn from(id: $number) -> Self {
                Self::from(id.to_string())
            }
        }
        impl From<&$number> for UserId {
            fn from(id: &$number) -> Self {
                Self::from(*id)
            }
        })*
    };
}
user_id_from!(&str, String, Arc<str>; i32, i64, i128, u32, u64, u128);

impl From<&String> for UserId {
    fn from(id: &String) -> Self {
        Self::from(id.as_str())
    }
}

impl From<&UserId> for UserId {
    fn from(id: &UserId) -> Self {
        id.clone()
    }
}

/// Where a session is used from, as the application saw it: for a "your devices" page.
///
/// Nothing is recorded unless the application does so with [`Session::set_client`](crate::Session::set_client).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    user_agent: Option<Box<str>>,
    address: Option<Box<str>>,
}

impl Client {
    const MAX_USER_AGENT: usize = 512;
    const MAX_ADDRESS: usize = 64;

    /// A client of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same client with this user agent, cut to 512 bytes.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = Some(cut(user_agent, Self::MAX_USER_AGENT).into());
        self
    }

    /// The same client with this network address, cut to 64 bytes. Where it comes from is the application's choice: behind
    /// a proxy, only a header that the proxy itself sets can be believed.
    #[must_use]
    pub fn with_address(mut self, address: &str) -> Self {
        self.address = Some(cut(address, Self::MAX_ADDRESS).into());
        self
    }

    /// The user agent, if one was recorded.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// The network address, if one was recorded.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Who is logged in, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) user: UserId,
    pub(crate) at: Timestamp,
}

/// What the store keeps of a session.
///
/// A store treats it as one value, which it writes whole and reads back whole; what it has to know (version, expiry, user)
/// has a method here. A clone copies no data.
///
/// [`encode`](Self::encode) and [`decode`](Self::decode) are the only way to its bytes and back:
///
/// ```
/// use cloakroom::{Record, RecordId};
///
/// fn read(id: RecordId, bytes: &[u8]) -> Option<Record> {
///     Record::decode(id, bytes) // None, and a warning in the log, where the bytes are no record
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn leak(record: &impl serde::Serialize) {}
/// fn records_are_not_serialized(record: &cloakroom::Record) {
///     leak(record);
/// }
/// ```
#[derive(Clone)]
pub struct Record(Arc<Content>);

/// What a record holds. It is shared by the store, if that is in this process, and by the requests that have loaded it.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) version: Version,
    pub(crate) secret_hash: SecretHash,
    pub(crate) login: Option<Login>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// The idle timeout, in milliseconds, of the layer that wrote the record. With the expiry it tells when
    /// the session was last used, by the clock of the node where it was.
    pub(crate) idle_timeout: u64,
    /// When the token was last replaced by another.
    pub(crate) token_replaced_at: Option<Timestamp>,
    pub(crate) remember: bool,
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) data: Data,
    /// See [`Record::keeps_later_expiry`]. It belongs to a write, and is not stored.
    pub(crate) keeps_later_expiry: bool,
    /// What Memcached calls the version that was loaded, and its expiry. It spares a write the
    /// question.
    #[cfg(feature = "memcached")]
    pub(crate) loaded_cas: Option<(Version, u64, Timestamp)>,
}

/// A record's JSON. It is written from borrowed parts and read into owned ones, and nobody else can do either: the checksum
/// would be missing, and the hash of a secret is not for others.
#[derive(Serialize, Deserialize)]
struct Encoded<L, T, D> {
    version: Version,
    secret_hash: SecretHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<L>,
    created_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default)]
    idle_timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_replaced_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    remember: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<EncodedClient<T>>,
    data: D,
}

#[derive(Serialize, Deserialize)]
struct EncodedClient<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<T>,
}

impl Content {
    /// Whether the session was last used after `now`, by another node's clock.
    pub(crate) fn was_used_after(&self, now: Timestamp) -> bool {
        let idle_timeout = Duration::from_millis(self.idle_timeout);
        self.expires_at.before(idle_timeout) > now
    }
}

impl Record {
    const FORMAT: u8 = 1;
    const CHECKSUM_LEN: usize = 4;

    pub(crate) fn new(content: Content) -> Self {
        Self(Arc::new(content))
    }

    pub(crate) fn content(&self) -> &Content {
        &self.0
    }

    /// Changes the content of this handle, which is copied first where others share it.
    #[cfg(any(feature = "conformance", feature = "memcached"))]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Content)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The version, which [`replace`](crate::SessionStore::replace) compares.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// When nobody can use the session any more and a store may collect it. It is the end of the idle timeout; the absolute
    /// timeout is the layer's affair.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }

    /// Sets the expiry, for a store that keeps it beside the record's bytes because
    /// [`touch`](crate::SessionStore::touch) moves it alone. Other clones of the record keep theirs.
    #[must_use]
    pub fn with_expires_at(mut self, expires_at: Timestamp) -> Self {
        self.set_expires_at(expires_at);
        self
    }

    pub(crate) fn set_expires_at(&mut self, expires_at: Timestamp) {
        let content = Arc::make_mut(&mut self.0);
        content.expires_at = expires_at;
        content.keeps_later_expiry = false;
    }

    /// Whether a [`replace`](crate::SessionStore::replace) with this record leaves a stored expiry as it is
    /// that is later than this record's. The request that writes it is no use of the session. A click may
    /// have moved the expiry since the request has read it, and that must not be undone.
    #[must_use]
    pub fn keeps_later_expiry(&self) -> bool {
        self.0.keeps_later_expiry
    }

    /// The user that the session is filed under, once one has logged in: with the layer's realm, as
    /// `realm:user`.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.0.login.as_ref().map(|login| &login.user)
    }

    /// The record as bytes: a format number, a checksum, and JSON.
    ///
    /// # Errors
    ///
    /// None is expected: what a record holds is JSON already.
    pub fn encode(&self) -> Result<Vec<u8>, crate::StoreError> {
        let content = self.content();
        let client = content.client.as_deref().map(|client| EncodedClient {
            user_agent: client.user_agent(),
            address: client.address(),
        });
        let encoded = Encoded {
            version: content.version,
            secret_hash: content.secret_hash,
            login: content.login.as_ref(),
            created_at: content.created_at,
            expires_at: content.expires_at,
            idle_timeout: content.idle_timeout,
            token_replaced_at: content.token_replaced_at,
            remember: content.remember,
            client,
            data: &content.data,
        };
        // Room for most records.
        const ALL_BUT_DATA: usize = 256;
        let mut bytes = Vec::with_capacity(ALL_BUT_DATA + content.data.encoded_size());
        bytes.resize(1 + Self::CHECKSUM_LEN, 0);
        serde_json::to_writer(&mut bytes, &encoded)
            .map_err(|error| crate::StoreError::new("could not encode a session record", error))?;
        if let Some((format, rest)) = bytes.split_first_mut()
            && let Some((checksum, json)) = rest.split_first_chunk_mut()
        {
            *format = Self::FORMAT;
            *checksum = Self::checksum(json);
        }
        Ok(bytes)
    }

    /// The record of these bytes, as [`encode`](Self::encode) made them. `None` where they are no record, which is
    /// reported here: a store answers with it as with a missing record, and leaves the bytes alone.
    #[must_use]
    pub fn decode(id: RecordId, bytes: &[u8]) -> Option<Self> {
        match Self::try_decode(bytes) {
            Ok(record) => Some(record),
            Err(reason) => {
                report::corrupt_record(id, &reason);
                None
            }
        }
    }

    fn try_decode(bytes: &[u8]) -> Result<Self, String> {
        let Some((&format, rest)) = bytes.split_first() else {
            return Err("it is empty".into());
        };
        if format != Self::FORMAT {
            return Err(format!(
                "it has format {format}, and this version knows {}",
                Self::FORMAT
            ));
        }
        let Some((checksum, json)) = rest.split_first_chunk() else {
            return Err("it is cut short".into());
        };
        if Self::checksum(json) != *checksum {
            return Err("its checksum is wrong".into());
        }
        let json = str::from_utf8(json).map_err(|_| "it is no text")?;
        // The error's position is told, not its text: that may quote the data.
        let encoded: Encoded<Login, Box<str>, Data> = serde_json::from_str(json)
            .map_err(|error| format!("its JSON is wrong at column {}", error.column()))?;
        Ok(Self::new(Content {
            version: encoded.version,
            secret_hash: encoded.secret_hash,
            login: encoded.login,
            created_at: encoded.created_at,
            expires_at: encoded.expires_at,
            idle_timeout: encoded.idle_timeout,
            token_replaced_at: encoded.token_replaced_at,
            remember: encoded.remember,
            client: encoded.client.map(|client| {
                Arc::new(Client {
                    user_agent: client.user_agent,
                    address: client.address,
                })
            }),
            data: encoded.data,
            keeps_later_expiry: false,
            #[cfg(feature = "memcached")]
            loaded_cas: None,
        }))
    }

    /// Against bit rot and half-written values, not against an adversary.
    fn checksum(json: &[u8]) -> [u8; Self::CHECKSUM_LEN] {
        crc32fast::hash(json).to_be_bytes()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version())
            .field("user", &self.user())
            .field("created_at", &self.0.created_at)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 22];
        let _ = BASE64.encode_slice(self.as_bytes(), &mut text);
        serializer.serialize_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        match BASE64.decode_slice(&*text, &mut bytes) {
            Ok(16) => Ok(Self::from_bytes(bytes)),
            _ => Err(D::Error::custom("not a hash")),
        }
    }
}
