//! [`Record`]: what the store keeps of a session.

pub(crate) mod client;
pub(crate) mod data;
pub(crate) mod device;
pub(crate) mod encoding;
pub(crate) mod generations;
mod json;
pub(crate) mod lifetime;
pub(crate) mod login;
#[cfg(feature = "near-cache")]
mod memory_size;
pub(crate) mod realm;
#[cfg(feature = "encryption")]
pub(crate) mod sealed;
pub(crate) mod secret_hash;
pub(crate) mod user;

use std::fmt;
use std::sync::Arc;

use self::client::Client;
use self::data::Data;
use self::device::BoundDevice;
use self::generations::{Generations, Serial};
use self::lifetime::class::LifetimeClass;
use self::login::{Actor, Login};
#[cfg(feature = "encryption")]
use self::sealed::Sealed;
use self::secret_hash::SecretHash;
use self::user::UserId;
use crate::clock::Timestamp;

/// Counts the writes of a record: 1 for a new record, and one more with each change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    pub(crate) const FIRST: Self = Self(1);

    /// The version of no record.
    pub(crate) const NONE: Self = Self(0);

    /// The version of this number, as a store kept it.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number that a store keeps. It is at most `i64::MAX`, for databases without unsigned
    /// numbers.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        // A client would need millions of years to overflow it.
        Self(self.0.wrapping_add(1) & i64::MAX as u64)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the store keeps of a session.
///
/// A store treats a record as one value. It writes the record whole and reads it back whole. What a
/// store must know of a record has a method here: version, expiry and user. A clone copies no data.
///
/// [`encode`](Self::encode) and [`decode`](Self::decode) are the only way to the bytes of a record
/// and back:
///
/// ```
/// use cloakroom::{Record, RecordId};
///
/// fn read(id: RecordId, bytes: Vec<u8>) -> Option<Record> {
///     Record::decode(id, bytes) // None, and a warning in the log, if the bytes are not a record
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
pub struct Record(Arc<RecordFields>);

/// What a record holds. Requests that have loaded the record share it, and so does a store that is
/// in this process.
#[derive(Clone)]
pub(crate) struct RecordFields {
    version: Version,
    secret_hash: SecretHash,
    login: Option<Login>,
    created_at: Timestamp,
    expires_at: Timestamp,
    /// The idle timeout, in milliseconds, of the layer that wrote the record. `expires_at` minus
    /// this is the time of the last use, by the clock of the node that was used.
    idle_timeout: u64,
    /// When the token was last rotated, so that the old one died at once.
    token_rotated_at: Option<Timestamp>,
    /// Which tokens are known, where the layer rotates tokens.
    generations: Option<Arc<Generations>>,
    lifetime: LifetimeClass,
    /// When the session ends at the latest, whatever its lifetime says.
    ends_by: Option<Timestamp>,
    client: Option<Arc<Client>>,
    device: Option<Arc<BoundDevice>>,
    data: Data,
    /// See [`Record::keeps_later_expiry`]. It belongs to one write, and no store keeps it.
    keeps_later_expiry: bool,
    /// What the store knows of the version that it has loaded. No store keeps it.
    #[cfg(feature = "memcached")]
    loaded_cas: Option<LoadedCas>,
    /// The whole record, encrypted, if this one stands for it in a store.
    #[cfg(feature = "encryption")]
    sealed: Option<Arc<Sealed>>,
    /// The user and the external id, or hashes of them, under which the store inside of an
    /// `EncryptedStore` has the record that was loaded. No store keeps it.
    #[cfg(feature = "encryption")]
    filed_under: Option<Login>,
    /// What DynamoDB's indexes have. No store keeps it.
    #[cfg(feature = "dynamodb")]
    filed: Filed,
}

/// Whether DynamoDB's indexes have the session, under the user and the external id of the record. A
/// write that knows this need not try first. The answer may be out of date.
#[cfg(feature = "dynamodb")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Filed {
    /// The record did not come from this store.
    #[default]
    Unknown,
    /// Somebody has just logged in or set an external id, or there is no user.
    No,
    /// The indexes keep the session until this time, in seconds.
    Until(u64),
}

/// What Memcached calls the version that was loaded. With it, a write need not ask first.
#[cfg(feature = "memcached")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadedCas {
    pub(crate) version: Version,
    pub(crate) cas: u64,
    pub(crate) expires_at: Timestamp,
}

impl RecordFields {
    /// A record that nobody has written yet.
    pub(crate) fn new(secret_hash: SecretHash, now: Timestamp, data: Data) -> Self {
        Self {
            version: Version::FIRST,
            secret_hash,
            login: None,
            created_at: now,
            expires_at: now,
            idle_timeout: 0,
            token_rotated_at: None,
            generations: None,
            lifetime: LifetimeClass::default(),
            ends_by: None,
            client: None,
            device: None,
            data,
            keeps_later_expiry: false,
            #[cfg(feature = "memcached")]
            loaded_cas: None,
            #[cfg(feature = "encryption")]
            sealed: None,
            #[cfg(feature = "encryption")]
            filed_under: None,
            #[cfg(feature = "dynamodb")]
            filed: Filed::Unknown,
        }
    }

    /// The fields of the next write, with other data.
    pub(crate) fn next(&self, data: Data) -> Self {
        Self {
            version: self.version.next(),
            data,
            login: self.login.clone(),
            lifetime: self.lifetime.clone(),
            client: self.client.clone(),
            generations: self.generations.clone(),
            device: self.device.clone(),
            #[cfg(feature = "encryption")]
            sealed: None,
            #[cfg(feature = "encryption")]
            filed_under: None,
            ..*self
        }
    }

    pub(crate) fn secret_hash(&self) -> SecretHash {
        self.secret_hash
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The user who acts in this session as another, if somebody does.
    pub(crate) fn actor(&self) -> Option<&Actor> {
        self.login.as_ref()?.actor()
    }

    pub(crate) fn created_at(&self) -> Timestamp {
        self.created_at
    }

    pub(crate) fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    pub(crate) fn token_rotated_at(&self) -> Option<Timestamp> {
        self.token_rotated_at
    }

    pub(crate) fn generations(&self) -> Option<&Generations> {
        self.generations.as_deref()
    }

    pub(crate) fn shared_generations(&self) -> Option<Arc<Generations>> {
        self.generations.clone()
    }

    pub(crate) fn newest_serial(&self) -> Serial {
        let newest = self.generations.as_ref().map(|known| known.newest);
        newest.unwrap_or(Serial::NONE)
    }

    pub(crate) fn lifetime(&self) -> &LifetimeClass {
        &self.lifetime
    }

    pub(crate) fn ends_by(&self) -> Option<Timestamp> {
        self.ends_by
    }

    pub(crate) fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    /// What somebody else calls the login of this session.
    pub(crate) fn external_id(&self) -> Option<&Arc<str>> {
        self.login.as_ref()?.external_id()
    }

    /// The device that the session is bound to.
    pub(crate) fn device(&self) -> Option<&BoundDevice> {
        self.device.as_deref()
    }

    pub(crate) fn data(&self) -> &Data {
        &self.data
    }

    /// A login makes the session young again: its absolute timeout starts with it, and an end that
    /// was set before is no longer true. The browser may bind the session to its device once more.
    pub(crate) fn log_in(&mut self, login: Login) {
        self.created_at = login.at();
        self.ends_by = None;
        self.device = None;
        self.login = Some(login);
        #[cfg(feature = "dynamodb")]
        self.set_filed(Filed::No);
    }

    #[cfg(feature = "conformance")]
    pub(crate) fn set_data(&mut self, data: Data) {
        self.data = data;
    }

    pub(crate) fn set_lifetime(&mut self, lifetime: LifetimeClass) {
        self.lifetime = lifetime;
    }

    pub(crate) fn set_ends_by(&mut self, ends_by: Option<Timestamp>) {
        self.ends_by = ends_by;
    }

    pub(crate) fn set_client(&mut self, client: Option<Arc<Client>>) {
        self.client = client;
    }

    /// Sets what somebody else calls the login. A visitor has none.
    pub(crate) fn set_external_id(&mut self, external_id: Arc<str>) {
        if self.external_id() == Some(&external_id) {
            return;
        }
        #[cfg(feature = "dynamodb")]
        self.set_filed(Filed::No);
        let login = self.login.take();
        self.login = login.map(|login| login.with_external_id(external_id));
    }

    #[cfg(feature = "dbsc")]
    pub(crate) fn bind_to(&mut self, device: BoundDevice) {
        self.device = Some(Arc::new(device));
    }

    /// Gives the session another token. All earlier ones are dead.
    pub(crate) fn rotate_token(&mut self, serial: Serial, secret_hash: SecretHash, now: Timestamp) {
        self.begin_with_token(serial, secret_hash, now);
        self.token_rotated_at = Some(now);
    }

    /// Gives the session its only token.
    pub(crate) fn begin_with_token(
        &mut self,
        serial: Serial,
        secret_hash: SecretHash,
        now: Timestamp,
    ) {
        self.secret_hash = secret_hash;
        self.generations = match serial {
            Serial::NONE => None,
            _ => Some(Arc::new(Generations::beginning_with(serial, now))),
        };
    }

    /// Sets which tokens are known.
    pub(crate) fn set_generations(&mut self, generations: Generations) {
        self.generations = Some(Arc::new(generations));
    }

    /// Makes this the hash of the newest token.
    pub(crate) fn set_secret_hash(&mut self, secret_hash: SecretHash) {
        self.secret_hash = secret_hash;
    }

    /// The session was used, so that it expires at `expires_at`, after an idle timeout of
    /// `idle_timeout` milliseconds.
    pub(crate) fn use_until(&mut self, expires_at: Timestamp, idle_timeout: u64) {
        self.expires_at = expires_at;
        self.idle_timeout = idle_timeout;
        self.keeps_later_expiry = false;
    }

    /// The write is not a use of the session. See [`Record::keeps_later_expiry`].
    pub(crate) fn keep_later_expiry(&mut self) {
        self.keeps_later_expiry = true;
    }

    /// The idle timeout of the last use that wrote the record, in milliseconds.
    pub(crate) fn idle_timeout(&self) -> u64 {
        self.idle_timeout
    }

    /// Whether the session was last used after `now`, by another node's clock.
    pub(crate) fn was_used_after(&self, now: Timestamp) -> bool {
        self.expires_at.minus_millis(self.idle_timeout) > now
    }

    /// What Memcached calls the version that was loaded. The record may have a newer version by
    /// now.
    #[cfg(feature = "memcached")]
    pub(crate) fn loaded_cas(&self) -> Option<LoadedCas> {
        self.loaded_cas
    }

    #[cfg(feature = "dynamodb")]
    pub(crate) fn filed(&self) -> Filed {
        self.filed
    }

    #[cfg(feature = "dynamodb")]
    pub(crate) fn set_filed(&mut self, filed: Filed) {
        self.filed = filed;
    }

    /// Records what Memcached calls the version that was just loaded.
    #[cfg(feature = "memcached")]
    pub(crate) fn set_loaded_cas(&mut self, cas: u64) {
        self.loaded_cas = Some(LoadedCas {
            version: self.version,
            cas,
            expires_at: self.expires_at,
        });
    }
}

impl Record {
    pub(crate) fn new(fields: RecordFields) -> Self {
        Self(Arc::new(fields))
    }

    pub(crate) fn fields(&self) -> &RecordFields {
        &self.0
    }

    /// Changes the fields of this handle. If other handles share them, they are copied first.
    #[cfg(any(
        feature = "conformance",
        feature = "dynamodb",
        feature = "encryption",
        feature = "memcached"
    ))]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut RecordFields)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Whether it is a record to read, and not one that is encrypted.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        #[cfg(feature = "encryption")]
        return self.0.sealed.is_none();
        #[cfg(not(feature = "encryption"))]
        true
    }

    /// The version, which [`replace`](crate::SessionStore::replace) compares.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// When the idle timeout ends. From then on nobody can use the session, and a store may remove
    /// the record. The layer itself looks after the absolute timeout.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }

    /// The same record with another expiry. It is for a store that keeps the expiry beside the
    /// bytes of the record, because [`touch`](crate::SessionStore::touch) moves the expiry alone.
    /// Other clones of the record keep theirs.
    #[must_use]
    pub fn with_expires_at(mut self, expires_at: Timestamp) -> Self {
        self.set_expires_at(expires_at);
        self
    }

    pub(crate) fn set_expires_at(&mut self, expires_at: Timestamp) {
        let fields = Arc::make_mut(&mut self.0);
        fields.expires_at = expires_at;
        fields.keeps_later_expiry = false;
    }

    /// Whether a [`replace`](crate::SessionStore::replace) with this record must keep the stored
    /// expiry if the stored one is later.
    ///
    /// It must if the request that writes the record is not a use of the session. After that
    /// request has read the record, another request may have moved the expiry. The write must not
    /// undo that.
    #[must_use]
    pub fn keeps_later_expiry(&self) -> bool {
        self.0.keeps_later_expiry
    }

    /// The user under whom a store files the session, once a user has logged in. The text is
    /// `realm:user`, with the layer's realm.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.0.login.as_ref().map(Login::user)
    }

    /// The external id under which a store files the session, if the application has set one: see
    /// [`Session::set_external_id`](crate::Session::set_external_id). It has at most
    /// [`EXTERNAL_ID_LEN`](Self::EXTERNAL_ID_LEN) bytes, and no NUL.
    #[must_use]
    pub fn external_id(&self) -> Option<&str> {
        self.0.external_id().map(|id| &**id)
    }

    /// The most bytes of an [`external_id`](Self::external_id).
    pub const EXTERNAL_ID_LEN: usize = 255;
}

/// Whether a text can be an external id. PostgreSQL has no NUL in a text.
pub(crate) fn is_external_id(id: &str) -> bool {
    matches!(id.len(), 1..=Record::EXTERNAL_ID_LEN) && !id.contains('\0')
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
