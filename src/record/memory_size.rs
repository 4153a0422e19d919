//! About how much memory a record takes, for a cache that is bounded in bytes.

use super::client::Client;
use super::generations::Generations;
#[cfg(feature = "encryption")]
use super::sealed::Sealed;
use super::{Record, RecordFields};

impl Record {
    /// About how many bytes of memory the record takes.
    pub(crate) fn memory_size(&self) -> usize {
        let fields = &*self.0;
        let client = fields.client.as_deref();
        let texts = [
            fields.login.as_ref().map(|login| login.user().as_str()),
            client.and_then(Client::user_agent),
            client.and_then(Client::address),
            self.external_id(),
        ];
        let texts = texts.into_iter().flatten().map(str::len).sum::<usize>();
        let key = fields
            .device
            .as_ref()
            .map_or(0, |device| device.key.bytes.len());
        let generations = fields.generations().map_or(0, Generations::memory_size);
        #[cfg(feature = "encryption")]
        let sealed = self.sealed().map_or(0, Sealed::memory_size);
        #[cfg(not(feature = "encryption"))]
        let sealed = 0;
        // The piece of memory that the data is in may be the bytes of the whole record.
        size_of::<RecordFields>()
            + Self::HEADER_SIZE
            + fields.data.size()
            + 2 * texts
            + key
            + generations
            + sealed
    }

    /// The bytes of a record before its texts and its data, and what the memory allocator needs.
    const HEADER_SIZE: usize = 160;
}
