//! [`Loads`]: reads that wait at the same time go to their server together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_memcached::{Error, MetaProtocol, MetaValue, Status};
use bytes::Bytes;

use super::failed;
use super::server::{Failure, Server};
use crate::id::RecordId;
use crate::store::batch::{BatchError, BatchRunner};
use crate::store::pool::ABANDONED_TIMEOUT;

/// Reads from one server.
pub(super) struct Loads {
    pub(super) server: Arc<Server>,
    pub(super) prefix: Arc<str>,
}

/// A value, and its CAS number.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) cas: u64,
}

impl Stored {
    fn new(value: MetaValue) -> Option<Self> {
        Some(Self {
            cas: value.cas?,
            bytes: value.data.unwrap_or_default().into(),
        })
    }
}

impl BatchRunner for Loads {
    type Call = RecordId;
    type Answer = Option<Stored>;

    fn abandoned_timeout(&self) -> Option<Duration> {
        Some(ABANDONED_TIMEOUT)
    }

    fn can_share_batch(&self, _: &RecordId, _: &RecordId) -> bool {
        true
    }

    async fn run(&self, ids: &[RecordId]) -> Result<Vec<Option<Self::Answer>>, BatchError> {
        let keys: Vec<_> = ids.iter().map(|id| key(&self.prefix, *id)).collect();
        let result = match self.read(&keys).await {
            // The server closed the connection while it was idle. A read can be made again.
            Err(ReadError::Broken(_)) => self.read(&keys).await,
            result => result,
        };
        match result {
            Ok(found) => Ok(found.into_iter().map(Some).collect()),
            Err(error) => Err(BatchError {
                error: failed("read a session")(error.into()),
                is_refused: false,
            }),
        }
    }
}

enum ReadError {
    /// The connection broke.
    Broken(Error),
    Other(Failure),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Broken(error) => error.into(),
            ReadError::Other(failure) => failure,
        }
    }
}

impl Loads {
    /// The values of these keys, in one round trip.
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, ReadError> {
        let connection = self.server.connection().await;
        let mut connection = connection.map_err(ReadError::Other)?;
        let flags = Some(&["v", "c"][..]);
        let values = match keys {
            [key] => {
                let value = connection.meta_get(key, false, None, flags).await;
                value.map(|value| vec![value.and_then(Stored::new)])
            }
            _ => {
                let values = connection.meta_get_multi(keys, flags).await;
                values.map(|values| in_order(keys, values))
            }
        };
        match values {
            Ok(values) => Ok(values),
            Err(Error::Protocol(Status::NotFound)) => Ok(vec![None; keys.len()]),
            Err(error) if self.server.is_broken(&error) => Err(ReadError::Broken(error)),
            Err(error) => Err(ReadError::Other(error.into())),
        }
    }
}

/// The server sends the values with their keys, and leaves out what is missing.
fn in_order(keys: &[String], values: Vec<MetaValue>) -> Vec<Option<Stored>> {
    let mut found = HashMap::with_capacity(values.len());
    for mut value in values {
        if let Some(key) = value.key.take() {
            found.insert(key, value);
        }
    }
    let stored = |key: &String| found.remove(key.as_bytes()).and_then(Stored::new);
    keys.iter().map(stored).collect()
}

pub(super) fn key(prefix: &str, id: RecordId) -> String {
    format!("{prefix}{id}")
}
