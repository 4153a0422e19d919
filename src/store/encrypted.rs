//! [`EncryptedStore`]: encrypts what another store keeps.

mod cipher;
pub(crate) mod keys;
mod users;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::cipher::Cipher;
use self::keys::{EncryptionKeys, UserHashKey};
use self::users::UserNames;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;
use crate::id::maps::IdMap;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::secret::watched::Snapshot;
use crate::secret::{KeySource, MadeOfKeys};
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
use crate::store::feed::{Feed, SessionFeed};
use crate::store::{Replaced, SessionStore, UserIndex};

/// A store around another store: it encrypts each record before the other store gets it.
///
/// Then a stolen dump or backup of the other store says little, and a curious operator of the store
/// learns little. The values of a session, the hash of its token's secret, the login, the client
/// and the device are ciphertext. These stay readable, because a store works with them:
///
/// - the record id, which is no credential,
/// - the version, which is how often the session was written,
/// - the expiry, and so about when the session was last used,
/// - the user and the external id, unless [`hash_users`](Self::hash_users) hides them,
/// - about how long the record is.
///
/// Each record is encrypted with AES-256-GCM-SIV and a random nonce. It is bound to its record
/// id, its version, its format, and its user and external id in the store. Somebody who can write
/// to the store, and has no key, cannot change a session, make one, or put the record of one
/// session into the place of another. But they can:
///
/// - remove a session, or take it out of the index of its user or its external id,
/// - move its expiry, up to the absolute timeout, which is encrypted,
/// - put back an older record of a session, together with its older version.
///
/// A record that does not decrypt counts as no session. The event `unopened_record` says why: no
/// key decrypts the record, it was changed, or it is not encrypted at all. The record stays in the
/// store until it expires or somebody removes it. Once the key is back, the session is live again.
/// That can surprise: a browser that came meanwhile may have got a new session, and its user could
/// not log out of the old one. [`Sessions::revoke_user`](crate::Sessions::revoke_user) ends such
/// sessions.
///
/// All abilities of the other store stay. A [`NearCache`](crate::NearCache) around an
/// `EncryptedStore` keeps decrypted records, so that a hit costs no decryption. An
/// `EncryptedStore` around a `NearCache` keeps ciphertext in memory.
///
/// Every node needs the same keys. See
/// [operations](crate::docs::operations#encryption-at-rest) for the rotation of keys, and for the
/// way from a store that is in use to an encrypted one.
///
/// ```
/// use cloakroom::{EncryptedStore, EncryptionKey, MemoryStore, SessionLayer, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A restart loses this key, and with it all sessions: see `EncryptionKeys::from_env`.
/// let store = EncryptedStore::new(MemoryStore::new(), EncryptionKey::generate()?);
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias("encryption at rest", "AEAD"))]
pub struct EncryptedStore<S> {
    store: S,
    ciphers: MadeOfKeys<EncryptionKeys, Cipher>,
    users: UserNames,
    plaintext: Plaintext,
    unopened: Arc<events::Count>,
}

/// What an [`EncryptedStore`] does about records that are not encrypted.
///
/// Unless it is [`Refuse`](Self::Refuse), whoever can write to the store can plant a record, as
/// without encryption.
///
/// See [`EncryptedStore::plaintext`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// Such a record is no session. This is the default.
    #[default]
    Refuse,
    /// Such a record is a session. Its next write encrypts it.
    Accept,
    /// Such a record is a session, and so is an encrypted one. The store writes plain records: it
    /// encrypts nothing, and hashes no user. Only a touch may leave an encrypted record as it is. It
    /// is for a deployment in which some nodes have no `EncryptedStore`, and so can read only plain
    /// records.
    Write,
}

impl<S: SessionStore> EncryptedStore<S> {
    /// A store that encrypts what `store` keeps. Users stay readable in it.
    #[must_use]
    pub fn new(store: S, keys: impl Into<KeySource<EncryptionKeys>>) -> Self {
        let source = keys.into();
        let Snapshot { number, keys } = source.snapshot();
        let first = Arc::new(Cipher::new(&keys));
        Self {
            store,
            ciphers: MadeOfKeys::new(source, number, first, Cipher::new),
            users: UserNames::default(),
            plaintext: Plaintext::Refuse,
            unopened: Arc::default(),
        }
    }

    /// The same store, which files sessions under a keyed hash of their user and of their external
    /// id (HMAC-SHA256). Whoever reads the other store learns which sessions are of one user, and
    /// not which user that is.
    ///
    /// The key is not one of the [`EncryptionKeys`]: if it changes, the sessions that are filed
    /// under the old key are found only with [`also_find_users_by`](Self::also_find_users_by).
    ///
    /// ```
    /// # use cloakroom::{EncryptedStore, EncryptionKey, MemoryStore, UserHashKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = EncryptionKey::generate()?;
    /// let store = EncryptedStore::new(MemoryStore::new(), key)
    ///     .hash_users(UserHashKey::generate()?);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn hash_users(mut self, key: UserHashKey) -> Self {
        self.users.hash_by(&key);
        self
    }

    /// The same store, which also finds the sessions that are filed under the hash of this key. It
    /// files no session there: a session moves to the key of [`hash_users`](Self::hash_users) with
    /// its next write. With each such key, finding the sessions of a user takes two more calls.
    ///
    /// ```
    /// # use cloakroom::{EncryptedStore, EncryptionKey, MemoryStore, UserHashKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = EncryptionKey::generate()?;
    /// # let (old, new) = (UserHashKey::generate()?, UserHashKey::generate()?);
    /// let store = EncryptedStore::new(MemoryStore::new(), key)
    ///     .hash_users(new)
    ///     .also_find_users_by(old);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn also_find_users_by(mut self, key: UserHashKey) -> Self {
        self.users.also_find_by(&key);
        self
    }

    /// Whether the store also finds the sessions that are filed under the user themselves, as they
    /// are without [`hash_users`](Self::hash_users). It is for a deployment that begins to hash
    /// users. `false` by default. A store that accepts [`plaintext`](Self::plaintext) finds these
    /// sessions anyway.
    ///
    /// ```
    /// # use cloakroom::{EncryptedStore, EncryptionKey, MemoryStore, UserHashKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = EncryptionKey::generate()?;
    /// let store = EncryptedStore::new(MemoryStore::new(), key)
    ///     .hash_users(UserHashKey::generate()?)
    ///     .also_find_plain_users(true);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn also_find_plain_users(mut self, find: bool) -> Self {
        self.users.also_find_plain(find);
        self
    }

    /// What to do about records that are not encrypted. If this is not called, the store refuses
    /// them.
    ///
    /// It is for a deployment whose sessions shall go on while encryption comes or goes. The page
    /// on [operations](crate::docs::operations#encryption-at-rest) has the steps, both to
    /// encryption and back.
    ///
    /// ```
    /// # use cloakroom::{EncryptedStore, EncryptionKey, MemoryStore, Plaintext};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = EncryptionKey::generate()?;
    /// let store = EncryptedStore::new(MemoryStore::new(), key).plaintext(Plaintext::Accept);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn plaintext(mut self, plaintext: Plaintext) -> Self {
        self.plaintext = plaintext;
        self
    }
}

impl<S> EncryptedStore<S> {
    /// The store whose records are encrypted.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn accepts_plaintext(&self) -> bool {
        self.plaintext != Plaintext::Refuse
    }

    /// The record to write in place of this one. It is filed as new records are.
    fn seal(&self, id: RecordId, record: &Record) -> Result<Record, StoreError> {
        if self.plaintext == Plaintext::Write {
            return Ok(record.clone());
        }
        let user = record.user().map(|user| self.users.name_of(user));
        let external_id = record.fields().external_id();
        let external_id = external_id.map(|id| self.users.name_of_external(id));
        self.ciphers.now().seal(id, record, user, external_id)
    }

    /// Whether a touch can hand in the plain record, although the store may have an encrypted one.
    /// It can, if both are filed under the same names.
    fn leaves_plain(&self, record: &Record, filed_under: &UserId) -> bool {
        self.plaintext == Plaintext::Write && record.user() == Some(filed_under)
    }

    fn open(&self, id: RecordId, stored: Record) -> Option<Record> {
        let reason = match stored.sealed() {
            Some(sealed) => match self.ciphers.now().open(id, &stored, sealed) {
                Ok(record) => return record,
                Err(reason) => reason.as_str(),
            },
            None if self.accepts_plaintext() => return Some(stored.found_plain()),
            None => "it is not encrypted",
        };
        events::unopened_record(id, reason, self.unopened.next());
        None
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for EncryptedStore<S> {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let stored = self.store.load(id).await?;
        Ok(stored.and_then(|stored| self.open(id, stored)))
    }

    async fn reload(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let stored = self.store.reload(id).await?;
        Ok(stored.and_then(|stored| self.open(id, stored)))
    }

    fn answers_from_cache(&self) -> bool {
        self.store.answers_from_cache()
    }

    /// The feed of the other store. A feed names records, and shows none.
    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        self.store.session_feed()
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let sealed = self.seal(id, record)?;
        self.store.insert(id, &sealed).await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let sealed = self.seal(id, record)?;
        self.store.replace(id, expected, &sealed).await
    }

    /// Hands in a whole record, because Memcached can only write a whole one. It is filed as the
    /// stored record is, because the other stores move nothing but the expiry.
    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let sealed = match record.filed_under() {
            Some((user, external_id)) if !self.leaves_plain(record, &user) => {
                let ciphers = self.ciphers.now();
                ciphers.seal(id, record, Some(user), external_id)?
            }
            _ => self.seal(id, record)?,
        };
        self.store.touch(id, &sealed).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.store.remove(id).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.store.purge_expired(now).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserIndex> UserIndex for EncryptedStore<S> {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let mut found = Vec::<(RecordId, Record)>::new();
        for name in self.users.names_of(user, self.accepts_plaintext()) {
            let sessions = self.store.find_by_user(&name).await?;
            // A session may have moved to its next name since the last call.
            found.retain(|(id, _)| sessions.iter().all(|(other, _)| id != other));
            found.extend(sessions.into_iter().filter_map(|(id, stored)| {
                let record = self.open(id, stored)?;
                (record.user() == Some(user)).then_some((id, record))
            }));
        }
        Ok(found)
    }

    /// Removes the user's records by their names in the other store, also those that do not
    /// decrypt.
    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        for name in self.users.names_of(user, self.accepts_plaintext()) {
            removed += self.store.remove_by_user(&name, except).await?;
        }
        Ok(removed)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionCatalog> SessionCatalog for EncryptedStore<S> {
    /// Decrypts each record that the walk looks at.
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError> {
        let opened = Mutex::new(IdMap::default());
        let accept_opened = |id: RecordId, stored: &Record| {
            let record = self.open(id, stored.clone());
            let Some(record) = record.filter(|record| accept(id, record)) else {
                return false;
            };
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.insert(id, record);
            true
        };
        let Some(scan) = self.store.scan(after, limit, &accept_opened).await? else {
            return Ok(None);
        };
        let mut opened = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
        let records = scan.records.into_iter();
        let record = |(id, _)| Some((id, opened.remove(&id)?));
        Ok(Some(Scan {
            records: records.filter_map(record).collect(),
            next: scan.next,
        }))
    }

    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let mut found = Vec::<(RecordId, Record)>::new();
        for name in self
            .users
            .names_of_external(external_id, self.accepts_plaintext())
        {
            let sessions = self.store.find_by_external_id(&name).await?;
            // As for a user, a session may have moved.
            found.retain(|(id, _)| sessions.iter().all(|(other, _)| id != other));
            found.extend(sessions.into_iter().filter_map(|(id, stored)| {
                let record = self.open(id, stored)?;
                (record.external_id() == Some(external_id)).then_some((id, record))
            }));
        }
        Ok(found)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionFeed> SessionFeed for EncryptedStore<S> {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        self.store.subscribe().await
    }
}

impl<S: fmt::Debug> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("store", &self.store)
            .field("hashes_users", &self.users.are_hashed())
            .field("plaintext", &self.plaintext)
            .finish_non_exhaustive()
    }
}
