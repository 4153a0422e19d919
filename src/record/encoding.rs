//! The bytes of a record: fixed fields first, then a few others, then the values.
//!
//! All numbers are big-endian.
//!
//! | at | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | the format, [`FORMAT`] |
//! | 1 | 8 | the version |
//! | 9 | 8 | the expiry, in milliseconds |
//! | 17 | 4 | the checksum of the expiry |
//! | 21 | 4 | the length of the record |
//! | 25 | 4 | the checksum of everything except the expiry and the two checksums |
//! | 29 | 16 | the hash of the token's secret |
//! | 45 | 8 | when the record was created |
//! | 53 | 8 | the idle timeout, in milliseconds |
//! | 61 | 2 | the length of the user; 0 if nobody has logged in |
//! | 63 | | the user |
//! | | | the fields that a record may have: see [`fields`] |
//! | | | the values: see [`Data`]; in an encrypted record, the whole record as ciphertext |
//!
//! The expiry has a checksum of its own, because a store may move the expiry where it is. Redis
//! does so, and its scripts find the version, the expiry and the user at these places.

mod fields;

#[cfg(feature = "encryption")]
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use crc32fast::Hasher;

use self::fields::{Damage, Fields, TooLong};
use super::data::Data;
#[cfg(feature = "encryption")]
use super::sealed::Sealed;
use super::secret_hash::SecretHash;
use super::user::UserId;
use super::{Record, RecordFields, Version};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;

/// The first byte of each record. A record of another format begins with another byte.
pub(crate) const FORMAT: u8 = 2;

/// The format and the version: where the expiry begins.
pub(crate) const EXPIRY_AT: usize = 1 + size_of::<u64>();

/// The expiry and its checksum.
pub(crate) const EXPIRY_LEN: usize = size_of::<u64>() + CHECKSUM_LEN;

/// Where the length of the record is.
pub(crate) const LENGTH_AT: usize = EXPIRY_AT + EXPIRY_LEN;

/// Where the length of the user is. The user follows.
pub(crate) const USER_AT: usize = FIXED_AT + SecretHash::LEN + 2 * size_of::<u64>();

const CHECKSUM_LEN: usize = size_of::<u32>();
const CHECKSUM_AT: usize = LENGTH_AT + size_of::<u32>();
const FIXED_AT: usize = CHECKSUM_AT + CHECKSUM_LEN;

impl Record {
    /// The record as bytes.
    ///
    /// # Errors
    ///
    /// The record, or a field of it, is too long. No layer lets a record become so long.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let too_long = || StoreError::new("a session record, or a field of it, is too long");
        self.try_encode().map_err(|TooLong| too_long())
    }

    fn try_encode(&self) -> Result<Vec<u8>, TooLong> {
        /// Room for the other fields of most records.
        const OTHER_FIELDS: usize = 192;
        let fields = self.fields();
        let user = self.user().map_or("", UserId::as_str);
        let data = fields.data.as_bytes();
        #[cfg(feature = "encryption")]
        let data = self.sealed().map_or(data, |sealed| &*sealed.text);
        let size = USER_AT + user.len() + data.len() + OTHER_FIELDS;
        let mut bytes = Vec::with_capacity(size);
        bytes.put_slice(&encode_version(fields.version));
        bytes.put_slice(&encode_expiry(fields.expires_at));
        // The length and the checksum are known at the end.
        bytes.put_u64(0);
        bytes.put_slice(fields.secret_hash.as_bytes());
        bytes.put_u64(fields.created_at.as_millis());
        bytes.put_u64(fields.idle_timeout);
        bytes.put_u16(u16::try_from(user.len()).map_err(|_| TooLong)?);
        bytes.put_slice(user.as_bytes());
        fields::write(fields, &mut bytes)?;
        bytes.put_slice(data);

        let length = u32::try_from(bytes.len()).map_err(|_| TooLong)?;
        put_at(&mut bytes, LENGTH_AT, length);
        let checksum = checksum_of(&bytes);
        put_at(&mut bytes, CHECKSUM_AT, checksum);
        Ok(bytes)
    }

    /// The record of these bytes, as [`encode`](Self::encode) made them. The record keeps the bytes
    /// and copies no value. So hand in a `Vec` or [`Bytes`], and `slice.to_vec()` for a slice.
    ///
    /// The answer is `None` if the bytes are not a record. A store answers that as it answers a
    /// missing record, and leaves the bytes alone. The answer is not a `Result`, so that no store
    /// can forget to report it: this function logs a `corrupt_record` event.
    #[must_use]
    pub fn decode(id: RecordId, bytes: impl Into<Bytes>) -> Option<Self> {
        match try_decode(id, bytes.into()) {
            Ok(record) => Some(record),
            Err(Damage(reason)) => {
                events::corrupt_record(id, &reason);
                None
            }
        }
    }
}

/// The format and the version: what a record of this version begins with.
pub(crate) fn encode_version(version: Version) -> [u8; EXPIRY_AT] {
    let mut bytes = [FORMAT; EXPIRY_AT];
    if let Some(place) = bytes.last_chunk_mut() {
        *place = version.as_u64().to_be_bytes();
    }
    bytes
}

/// The expiry with its checksum, as it stands in a record.
pub(crate) fn encode_expiry(expires_at: Timestamp) -> [u8; EXPIRY_LEN] {
    let mut bytes = [0; EXPIRY_LEN];
    let time = expires_at.as_millis().to_be_bytes();
    let checksum = crc32fast::hash(&time).to_be_bytes();
    let (first, rest) = bytes.split_at_mut(time.len());
    first.copy_from_slice(&time);
    rest.copy_from_slice(&checksum);
    bytes
}

/// The length that a record says it has. More bytes may follow in a store.
#[cfg(feature = "redis")]
pub(crate) fn stored_length(bytes: &[u8]) -> Option<usize> {
    let mut length = bytes.get(LENGTH_AT..)?;
    usize::try_from(length.try_get_u32().ok()?).ok()
}

/// The user of a record, as the store files it. It is empty for a visitor's record, and `None` if
/// the bytes cannot be a record.
#[cfg(feature = "redis")]
pub(crate) fn stored_user(bytes: &[u8]) -> Option<&[u8]> {
    let mut user = bytes.get(USER_AT..)?;
    let length = user.try_get_u16().ok()?;
    user.get(..usize::from(length))
        .filter(|_| bytes.first() == Some(&FORMAT))
}

#[cfg_attr(not(feature = "encryption"), expect(unused_variables))]
fn try_decode(id: RecordId, bytes: Bytes) -> Result<Record, Damage> {
    match bytes.first() {
        None => return Err("it is empty".into()),
        Some(&FORMAT) => {}
        Some(format) => {
            return Err(Damage(
                format!("it has format {format}, and this version knows {FORMAT}").into(),
            ));
        }
    }
    let mut rest = bytes.get(1..).unwrap_or_default();
    let version = Version::from_u64(rest.try_get_u64()?);
    let expires_at = Timestamp::from_millis(rest.try_get_u64()?);
    let expiry = bytes.get(EXPIRY_AT..EXPIRY_AT + EXPIRY_LEN);
    // That is compared below.
    rest.try_get_u32()?;
    let length = rest.try_get_u32()?;
    if usize::try_from(length).is_ok_and(|length| length > bytes.len()) {
        return Err("it is cut short".into());
    }
    if rest.try_get_u32()? != checksum_of(&bytes)
        || expiry != Some(&encode_expiry(expires_at))
        || usize::try_from(length) != Ok(bytes.len())
    {
        return Err("its checksum is wrong".into());
    }
    let mut secret_hash = [0; SecretHash::LEN];
    rest.try_copy_to_slice(&mut secret_hash)?;
    let created_at = Timestamp::from_millis(rest.try_get_u64()?);
    let idle_timeout = rest.try_get_u64()?;
    let user_len = usize::from(rest.try_get_u16()?);
    let user = rest.split_off(..user_len).ok_or("its user is cut short")?;
    let Fields {
        login,
        token_rotated_at,
        lifetime,
        ends_by,
        client,
        generations,
        device,
        #[cfg(feature = "encryption")]
        sealed,
    } = fields::read(user, &mut rest)?;
    let data_at = bytes.len() - rest.len();
    #[cfg(feature = "encryption")]
    let (sealed, bytes, data_at) = match sealed {
        None => (None, bytes, data_at),
        Some(header) => {
            let text = bytes.slice(data_at..);
            (Some(Arc::new(Sealed { id, header, text })), Bytes::new(), 0)
        }
    };
    let data = Data::of_record(bytes, data_at).ok_or("its values are not where they should be")?;
    Ok(Record::new(RecordFields {
        version,
        login,
        expires_at,
        idle_timeout,
        token_rotated_at,
        lifetime,
        ends_by,
        client,
        generations,
        device,
        #[cfg(feature = "encryption")]
        sealed,
        ..RecordFields::new(SecretHash::from_bytes(secret_hash), created_at, data)
    }))
}

/// Writes a number over the bytes at a place.
fn put_at(bytes: &mut [u8], at: usize, number: u32) {
    let place = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    if let Some(place) = place {
        *place = number.to_be_bytes();
    }
}

/// The checksum finds bit rot and half-written values. It is not for an adversary.
fn checksum_of(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    for part in [0..EXPIRY_AT, LENGTH_AT..CHECKSUM_AT, FIXED_AT..bytes.len()] {
        hasher.update(bytes.get(part).unwrap_or_default());
    }
    hasher.finalize()
}
