//! Writes of sessions, and their names.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::{Cmd, RedisResult};
use smallvec::SmallVec;

use super::layout::IndexedBy;
use super::scripts::{CONFLICT, DONE};
use super::{CALL_OVERHEAD, LONGEST_TTL, RedisStore, call_of};
use crate::clock::{Clock, SystemClock};
use crate::id::RecordId;
use crate::record::encoding::{encode_expiry, encode_version};
use crate::record::{Record, Version};

/// What a script writes.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    /// These bytes, if there is no session under the id.
    Insert(&'a [u8]),
    /// These bytes, if the stored record has this version.
    Replace(&'a [u8], Version),
    /// The expiry, if the stored record has the same version.
    Touch,
}

impl RedisStore {
    /// Runs a script that writes a record or its expiry, and puts the session into its
    /// indexes. The answer is that of the script.
    pub(super) async fn write(
        &self,
        write: Write<'_>,
        id: RecordId,
        record: &Record,
    ) -> RedisResult<i64> {
        let scripts = &self.scripts;
        let expiry = encode_expiry(record.expires_at());
        let (script, bytes) = match write {
            Write::Insert(bytes) => (&scripts.insert, bytes),
            Write::Replace(bytes, _) => (&scripts.replace, bytes),
            Write::Touch => (&scripts.touch, &expiry[..]),
        };
        let now = SystemClock.now().as_millis();
        let expires_at = record.expires_at().as_millis();
        let ttl = expires_at.saturating_sub(now).min(LONGEST_TTL);
        let is_cluster = self.connection.is_cluster();
        if let Write::Insert(bytes) = write
            && record.user().is_none()
            && !is_cluster
            && ttl > 0
        {
            return self.insert_plainly(id, bytes, ttl).await;
        }
        let indexes: SmallVec<[_; 2]> = IndexedBy::all_of(record).collect();
        if is_cluster && ttl > 0 {
            // This comes before the session is written. If the caller goes away in between, there
            // must not be a session that is in no index.
            for by in &indexes {
                self.index(by, id, ttl).await?;
            }
        }
        let in_script = match is_cluster {
            true => &[][..],
            false => &indexes,
        };
        // Each script names its arguments in its first line.
        let mut call = call_of(script, 1 + in_script.len(), bytes.len());
        call.arg(self.session_key(id));
        for by in in_script {
            call.arg(self.index_key(by));
        }
        call.arg(bytes).arg(ttl);
        match write {
            Write::Insert(_) => {}
            Write::Replace(_, expected) => {
                let keeps_later_expiry = record.keeps_later_expiry();
                call.arg(&encode_version(expected))
                    .arg(if keeps_later_expiry { "1" } else { "" });
            }
            Write::Touch => {
                call.arg(&encode_version(record.version()));
            }
        }
        if is_cluster && !matches!(write, Write::Touch) {
            call.arg(self.writes.name());
        }
        let answer: i64 = self.run(script, &call).await?;

        if is_cluster && answer > DONE {
            // The session kept a later expiry than the one that the indexes got.
            for by in &indexes {
                self.index(by, id, answer.unsigned_abs()).await?;
            }
        }
        Ok(answer)
    }

    /// Writes a new record that needs no place in an index, and no name. It is one command of the
    /// server, and needs no script.
    async fn insert_plainly(&self, id: RecordId, bytes: &[u8], ttl: u64) -> RedisResult<i64> {
        let mut set = Cmd::with_capacity(6, bytes.len() + CALL_OVERHEAD);
        set.arg("SET")
            .arg(self.session_key(id))
            .arg(bytes)
            .arg("NX")
            .arg("PX")
            .arg(ttl);
        let answer: Option<()> = self.connection.ask(&set).await?;
        Ok(if answer.is_some() { DONE } else { CONFLICT })
    }
}

/// Names each write to a cluster. If an answer was lost, the client library sends the write again,
/// and the name shows that it is the same write.
#[derive(Debug)]
pub(super) struct Writes {
    store: u64,
    next: AtomicU64,
}

impl Writes {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Self {
            store: RandomState::new().build_hasher().finish(),
            next: AtomicU64::new(0),
        }
    }

    fn name(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x} ", self.store)
    }
}
