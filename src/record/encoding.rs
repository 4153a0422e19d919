//! The bytes of a record: a format number, a checksum, and JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::data::Data;
use super::lifetime::class::LifetimeClass;
use super::login::{Login, StoredLogin};
use super::secret_hash::SecretHash;
use super::{Record, RecordFields, Version};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;

const FORMAT: u8 = 1;
const CHECKSUM_LEN: usize = 4;

/// The JSON of a record.
///
/// It is generic so that encoding can borrow its parts and decoding can own them. It is private
/// because JSON without the checksum would be a mistake, and so would JSON that shows others the
/// secret's hash.
#[derive(Serialize, Deserialize)]
struct Encoded<L, T, D> {
    version: u64,
    secret_hash: SecretHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<L>,
    created_at: u64,
    expires_at: u64,
    #[serde(default)]
    idle_timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_rotated_at: Option<u64>,
    #[serde(default, skip_serializing_if = "LifetimeClass::is_default")]
    lifetime: LifetimeClass,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_by: Option<u64>,
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

impl Record {
    /// The record as bytes.
    ///
    /// # Errors
    ///
    /// None is expected, because what a record holds is JSON already.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let fields = self.fields();
        let client = fields.client.as_deref().map(|client| EncodedClient {
            user_agent: client.user_agent(),
            address: client.address(),
        });
        let encoded = Encoded {
            version: fields.version.as_u64(),
            secret_hash: fields.secret_hash,
            login: fields.login.as_ref().map(Login::stored),
            created_at: fields.created_at.as_millis(),
            expires_at: fields.expires_at.as_millis(),
            idle_timeout: fields.idle_timeout,
            token_rotated_at: fields.token_rotated_at.map(Timestamp::as_millis),
            lifetime: fields.lifetime.clone(),
            ends_by: fields.ends_by.map(Timestamp::as_millis),
            client,
            data: &fields.data,
        };
        // Room for most records.
        const ALL_BUT_DATA: usize = 256;
        let mut bytes = Vec::with_capacity(ALL_BUT_DATA + fields.data.encoded_size());
        bytes.resize(1 + CHECKSUM_LEN, 0);
        serde_json::to_writer(&mut bytes, &encoded).map_err(|error| {
            StoreError::new("could not encode a session record").with_source(error)
        })?;
        if let Some((format, rest)) = bytes.split_first_mut()
            && let Some((checksum, json)) = rest.split_first_chunk_mut()
        {
            *format = FORMAT;
            *checksum = checksum_of(json);
        }
        Ok(bytes)
    }

    /// The record of these bytes, as [`encode`](Self::encode) made them.
    ///
    /// It is `None` if the bytes are not a record. A store answers that as it answers a missing
    /// record, and leaves the bytes alone. The answer is not a `Result`, so that no store can
    /// forget to report it: this function logs a `corrupt_record` event.
    #[must_use]
    pub fn decode(id: RecordId, bytes: &[u8]) -> Option<Self> {
        match try_decode(bytes) {
            Ok(record) => Some(record),
            Err(reason) => {
                events::corrupt_record(id, &reason);
                None
            }
        }
    }
}

fn try_decode(bytes: &[u8]) -> Result<Record, String> {
    let Some((&format, rest)) = bytes.split_first() else {
        return Err("it is empty".into());
    };
    if format != FORMAT {
        return Err(format!(
            "it has format {format}, and this version knows {FORMAT}"
        ));
    }
    let Some((checksum, json)) = rest.split_first_chunk() else {
        return Err("it is cut short".into());
    };
    if checksum_of(json) != *checksum {
        return Err("its checksum is wrong".into());
    }
    let json = str::from_utf8(json).map_err(|_| "it is not text")?;
    // The reason gives the error's position and not its text, because the text may quote the data.
    let encoded: Encoded<StoredLogin<Box<str>>, Box<str>, Data> = serde_json::from_str(json)
        .map_err(|error| format!("its JSON is wrong at column {}", error.column()))?;
    let client = encoded
        .client
        .map(|client| Arc::new(Client::stored(client.user_agent, client.address)));
    Ok(Record::new(RecordFields {
        version: Version::from_u64(encoded.version),
        login: encoded.login.map(Login::from),
        expires_at: Timestamp::from_millis(encoded.expires_at),
        idle_timeout: encoded.idle_timeout,
        token_rotated_at: encoded.token_rotated_at.map(Timestamp::from_millis),
        lifetime: encoded.lifetime,
        ends_by: encoded.ends_by.map(Timestamp::from_millis),
        client,
        ..RecordFields::new(
            encoded.secret_hash,
            Timestamp::from_millis(encoded.created_at),
            encoded.data,
        )
    }))
}

/// The checksum finds bit rot and half-written values. It is not for an adversary.
fn checksum_of(json: &[u8]) -> [u8; CHECKSUM_LEN] {
    crc32fast::hash(json).to_be_bytes()
}
