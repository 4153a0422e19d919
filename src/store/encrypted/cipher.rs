//! [`Cipher`]: makes encrypted records, and decrypts them. Only this file knows how.

use std::fmt;
use std::sync::Arc;

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce, Tag};
use bytes::Bytes;
use hmac::Mac as _;
use rand::TryRng;
use zeroize::Zeroizing;

use super::keys::{EncryptionKey, EncryptionKeys};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::sealed::{KeyId, Sealed, SealedHeader};
use crate::record::user::UserId;
use crate::record::{Record, Version};

/// Names the format of encrypted records. Another format gets another text.
const FORMAT: &[u8] = b"cloakroom record 1\0";

const TAG_LEN: usize = 16;

/// The longest additional data: the format, the id, the version, the length of the user, the user
/// and the external id.
const BOUND_LEN: usize = FORMAT.len()
    + RecordId::LEN
    + size_of::<u64>()
    + size_of::<u64>()
    + UserId::STORED_LEN
    + Record::EXTERNAL_ID_LEN;

/// Encrypts with one key, and decrypts with several. It prepares each key once.
pub(super) struct Cipher {
    encrypting: PreparedKey,
    decrypting: Vec<PreparedKey>,
}

struct PreparedKey {
    id: KeyId,
    cipher: Aes256GcmSiv,
}

impl PreparedKey {
    fn new(key: &EncryptionKey) -> Self {
        // A secret of its own for each use.
        let derived = |context: &[u8]| {
            let mac = key.mac().chain_update(context);
            Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()))
        };
        let mut id = KeyId::default();
        let id_bytes = derived(b"cloakroom key id 1");
        let (left, _) = id_bytes.split_at(id.len());
        id.copy_from_slice(left);
        Self {
            id,
            cipher: Aes256GcmSiv::new(&(*derived(FORMAT)).into()),
        }
    }
}

/// Why a record was not decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    NoKey,
    /// Somebody changed it, or it is the ciphertext of another session or another version.
    Changed,
}

impl Unopened {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no key decrypts it",
            Self::Changed => "it is not what was encrypted under this id and version",
        }
    }
}

impl Cipher {
    pub(super) fn new(keys: &EncryptionKeys) -> Self {
        Self {
            encrypting: PreparedKey::new(keys.encrypting()),
            decrypting: keys.decrypting().iter().map(PreparedKey::new).collect(),
        }
    }

    /// The record that stands for this one in a store, and is filed under these names.
    pub(super) fn seal(
        &self,
        id: RecordId,
        record: &Record,
        user: Option<UserId>,
        external_id: Option<Arc<str>>,
    ) -> Result<Record, StoreError> {
        let failed = || StoreError::new("could not encrypt a session");
        // Not from a buffer in this process: if its machine is copied, both copies would use the
        // same nonces.
        let mut nonce = [0; SealedHeader::NONCE_LEN];
        rand::rngs::SysRng
            .try_fill_bytes(&mut nonce)
            .map_err(|error| failed().with_source(error))?;
        let PreparedKey { id: key, cipher } = &self.encrypting;
        let mut text = record.encode()?;
        let bound = Bound::new(id, record.version(), user.as_ref(), external_id.as_deref());
        let bound = bound.ok_or_else(failed)?;
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), bound.as_bytes(), (&mut *text).into())
            .map_err(|_| failed())?;
        text.extend_from_slice(&tag);
        let header = SealedHeader { key: *key, nonce };
        let text = Bytes::from(text);
        Ok(record.sealed_as(user, external_id, Sealed { id, header, text }))
    }

    /// The record that this one stands for in a store. The answer is `Ok(None)` if the plaintext is
    /// no record. `Record::decode` has reported that as an event.
    pub(super) fn open(
        &self,
        id: RecordId,
        stored: &Record,
        sealed: &Sealed,
    ) -> Result<Option<Record>, Unopened> {
        let SealedHeader { key, nonce } = sealed.header;
        let bound = Bound::new(id, stored.version(), stored.user(), stored.external_id());
        let bound = bound.ok_or(Unopened::Changed)?;
        let mut reason = Unopened::NoKey;
        let keys = std::iter::once(&self.encrypting).chain(&self.decrypting);
        for PreparedKey { cipher, .. } in keys.filter(|known| known.id == key) {
            let text_len = sealed.text.len().checked_sub(TAG_LEN);
            let (text, tag) = text_len
                .and_then(|length| sealed.text.split_at_checked(length))
                .ok_or(Unopened::Changed)?;
            let tag = Tag::try_from(tag).map_err(|_| Unopened::Changed)?;
            let mut text = text.to_vec();
            let decrypted = cipher.decrypt_inout_detached(
                &Nonce::from(nonce),
                bound.as_bytes(),
                (&mut *text).into(),
                &tag,
            );
            match decrypted {
                Ok(()) => {
                    let record = Record::decode(id, text);
                    return Ok(record.map(|record| record.opened_from(stored)));
                }
                Err(_) => reason = Unopened::Changed,
            }
        }
        Err(reason)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// What a ciphertext belongs to. It does not decrypt with anything else. The expiry is not a part
/// of this, because a touch moves the expiry alone.
struct Bound {
    bytes: [u8; BOUND_LEN],
    len: usize,
}

impl Bound {
    fn new(
        id: RecordId,
        version: Version,
        user: Option<&UserId>,
        external_id: Option<&str>,
    ) -> Option<Self> {
        let mut bytes = [0; BOUND_LEN];
        let version = version.as_u64().to_be_bytes();
        let user = user.map_or("", UserId::as_str);
        let user_len = u64::try_from(user.len()).ok()?.to_be_bytes();
        let mut len = 0;
        // All except the last have a fixed length, or their length before them.
        for part in [
            FORMAT,
            id.as_bytes(),
            &version,
            &user_len,
            user.as_bytes(),
            external_id.unwrap_or_default().as_bytes(),
        ] {
            let end = len + part.len();
            bytes.get_mut(len..end)?.copy_from_slice(part);
            len = end;
        }
        Some(Self { bytes, len })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
