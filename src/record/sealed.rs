//! [`Sealed`]: a record that is encrypted, inside of the record that stands for it in a store.

use std::sync::Arc;

use bytes::Bytes;

use super::data::Data;
use super::login::Login;
use super::secret_hash::SecretHash;
use super::user::UserId;
use super::{Record, RecordFields};
use crate::clock::Timestamp;
use crate::id::RecordId;

/// A whole record as ciphertext.
///
/// The record around the ciphertext has the version, the expiry, and the user and the external id,
/// or hashes of them, because a store works with these. Its other fields say nothing.
pub(crate) struct Sealed {
    /// The record's id, for the log.
    pub(crate) id: RecordId,
    pub(crate) header: SealedHeader,
    /// The ciphertext, and its tag.
    pub(crate) text: Bytes,
}

/// What is needed to decrypt a record, except the key.
#[derive(Clone, Copy)]
pub(crate) struct SealedHeader {
    pub(crate) key: KeyId,
    pub(crate) nonce: [u8; Self::NONCE_LEN],
}

/// Says which key a record needs. Two keys may have the same id.
pub(crate) type KeyId = [u8; 4];

impl SealedHeader {
    pub(crate) const NONCE_LEN: usize = 12;
    const LEN: usize = size_of::<KeyId>() + Self::NONCE_LEN;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (key, nonce) = bytes.split_at_mut(self.key.len());
        key.copy_from_slice(&self.key);
        nonce.copy_from_slice(&self.nonce);
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let (mut key, mut nonce) = (KeyId::default(), [0; Self::NONCE_LEN]);
        let (left, right) = bytes.split_at(key.len());
        key.copy_from_slice(left);
        nonce.copy_from_slice(right);
        Self { key, nonce }
    }
}

impl Sealed {
    #[cfg(feature = "near-cache")]
    pub(super) fn memory_size(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

impl Record {
    /// The ciphertext, if this record is encrypted.
    pub(crate) fn sealed(&self) -> Option<&Sealed> {
        self.0.sealed.as_deref()
    }

    /// The record that stands for this one in a store. It is filed under `user` and `external_id`.
    pub(crate) fn sealed_as(
        &self,
        user: Option<UserId>,
        external_id: Option<Arc<str>>,
        sealed: Sealed,
    ) -> Self {
        let fields = &*self.0;
        let login = |user| {
            let login = Login::stored(user, Timestamp::from_millis(0), None);
            match external_id {
                Some(external_id) => login.with_external_id(external_id),
                None => login,
            }
        };
        // A store may look at when a new record was made. The last use tells no more than the
        // expiry does.
        let used_at = fields.expires_at.minus_millis(fields.idle_timeout);
        Self::new(RecordFields {
            version: fields.version,
            login: user.map(login),
            expires_at: fields.expires_at,
            keeps_later_expiry: fields.keeps_later_expiry,
            #[cfg(feature = "memcached")]
            loaded_cas: fields.loaded_cas,
            #[cfg(feature = "dynamodb")]
            filed: fields.filed,
            sealed: Some(sealed.into()),
            ..RecordFields::new(SecretHash::from_bytes([0; 16]), used_at, Data::default())
        })
    }

    /// This decrypted record, with what only `stored` knows: the record that stood for this one.
    pub(crate) fn opened_from(self, stored: &Self) -> Self {
        let stored = &*stored.0;
        self.with(|fields| {
            fields.expires_at = stored.expires_at;
            #[cfg(feature = "memcached")]
            {
                fields.loaded_cas = stored.loaded_cas;
            }
            #[cfg(feature = "dynamodb")]
            {
                fields.filed = stored.filed;
            }
            fields.filed_under = stored.login.clone();
        })
    }

    /// The same record, which was not encrypted when it was loaded. Its user is in the store by
    /// name.
    pub(crate) fn found_plain(self) -> Self {
        self.with(|fields| fields.filed_under = fields.login.clone())
    }

    /// The user and the external id under which a store had the record when it was loaded.
    pub(crate) fn filed_under(&self) -> Option<(UserId, Option<Arc<str>>)> {
        let login = self.0.filed_under.as_ref()?;
        Some((login.user().clone(), login.external_id().cloned()))
    }
}
