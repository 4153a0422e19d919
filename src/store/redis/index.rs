//! The indexes: the sessions of a user, or of an external id, in a sorted set.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use redis::RedisResult;

use super::layout::{IndexedBy, Value};
use super::scripts::ENTRY_GRACE;
use super::{LONGEST_TTL, RedisStore, call_of};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::UserId;

/// Where a scan of an index begins and ends.
pub(super) const END: &str = "0";

/// How much of an index one call goes through: about so many entries.
const READ_AT_ONCE: usize = 250;

/// The same in a cluster, where each session needs a call of its own. A caller must finish one part
/// before its timeout, or a long index would never become shorter.
const READ_AT_ONCE_IN_CLUSTER: usize = 32;

/// How long a task may take in which no caller waits.
const TASK_TIMEOUT: Duration = Duration::from_secs(10);

impl RedisStore {
    /// In a cluster, puts a session into an index, which may be on another node.
    pub(super) async fn index(&self, by: &IndexedBy, id: RecordId, ttl: u64) -> RedisResult<()> {
        let ttl = (ttl + ENTRY_GRACE * 1000).min(LONGEST_TTL);
        let mut call = call_of(&self.scripts.index, 1, 0);
        call.arg(self.index_key(by)).arg(id.to_string()).arg(ttl);
        let old: Vec<String> = self.run(&self.scripts.index, &call).await?;
        let old: Vec<RecordId> = old.iter().filter_map(|id| id.parse().ok()).collect();
        if !old.is_empty() {
            let (store, by) = (self.clone(), by.clone());
            in_the_background(async move { store.check_entries(&by, &old).await });
        }
        Ok(())
    }

    /// In a cluster, asks for the sessions of old entries, and takes out the entries whose sessions
    /// have ended.
    async fn check_entries(&self, by: &IndexedBy, ids: &[RecordId]) -> RedisResult<()> {
        let mut ended = Vec::new();
        let mut call = call_of(&self.scripts.reindex, 1, 0);
        call.arg(self.index_key(by));
        for id in ids {
            match self.value(*id).await?.is_found_by(by, *id) {
                true => drop(call.arg(id.to_string())),
                false => ended.push(*id),
            }
        }
        let () = self.run(&self.scripts.reindex, &call).await?;
        self.unindex(by, &ended, ENTRY_GRACE).await
    }

    /// In a cluster, takes out the entries of these sessions that are at least so many seconds old.
    pub(super) async fn unindex(
        &self,
        by: &IndexedBy,
        ids: &[RecordId],
        age: u64,
    ) -> RedisResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut call = call_of(&self.scripts.unindex, 1, 0);
        call.arg(self.index_key(by)).arg(age);
        for id in ids {
            call.arg(id.to_string());
        }
        self.run(&self.scripts.unindex, &call).await
    }

    /// In a cluster, some entries of an index, and the cursor of the next ones.
    async fn entries(&self, by: &IndexedBy, cursor: &str) -> RedisResult<(String, Vec<RecordId>)> {
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(self.index_key(by))
            .arg(cursor)
            .arg("COUNT")
            .arg(READ_AT_ONCE_IN_CLUSTER);
        let (cursor, entries): (String, Vec<String>) = self.connection.ask(&scan).await?;
        // Each entry is followed by its score.
        let ids = entries.iter().step_by(2).filter_map(|id| id.parse().ok());
        Ok((cursor, ids.collect()))
    }

    /// Adds some of a user's sessions, and answers with the cursor of the next ones. Entries
    /// without a session are taken out at once. So a call that comes to its timeout has made a
    /// start.
    pub(super) async fn list_some(
        &self,
        user: &UserId,
        cursor: &str,
        sessions: &mut HashMap<RecordId, Record>,
    ) -> RedisResult<String> {
        let by = IndexedBy::User(user.clone());
        if self.connection.is_cluster() {
            return self.list_checked(&by, cursor, sessions).await;
        }
        let mut call = call_of(&self.scripts.list, 1, 0);
        call.arg(self.index_key(&by))
            .arg(self.session_keys())
            .arg(user.as_str())
            .arg(cursor)
            .arg(READ_AT_ONCE);
        let answer: Vec<Vec<u8>> = self.run(&self.scripts.list, &call).await?;
        let mut answer = answer.into_iter();
        let cursor = answer.next().and_then(|text| String::from_utf8(text).ok());
        while let (Some(id), Some(bytes)) = (answer.next(), answer.next()) {
            let id = str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
            sessions.extend(id.and_then(|id| Some((id, Value::Bytes(bytes).decode(id)?))));
        }
        Ok(cursor.unwrap_or_else(|| END.into()))
    }

    /// The same by single reads, for a cluster, and for an index that the scripts cannot check. It
    /// takes out old entries that have no session. On one server, an entry stays while there is a
    /// session: the session may have moved back to this index since the read, and a write does not
    /// renew an entry that is there.
    pub(super) async fn list_checked(
        &self,
        by: &IndexedBy,
        cursor: &str,
        sessions: &mut HashMap<RecordId, Record>,
    ) -> RedisResult<String> {
        let (cursor, ids) = self.entries(by, cursor).await?;
        let mut ended = Vec::new();
        for id in ids {
            let value = self.value(id).await?;
            match value.is_found_by(by, id) {
                true => sessions.extend(value.decode(id).map(|record| (id, record))),
                false if matches!(value, Value::Bytes(_)) && !self.connection.is_cluster() => {}
                false => ended.push(id),
            }
        }
        self.unindex(by, &ended, ENTRY_GRACE).await?;
        Ok(cursor)
    }

    /// Removes some of a user's sessions, and answers with the cursor of the next ones, and with
    /// how many it removed.
    pub(super) async fn remove_some(
        &self,
        user: &UserId,
        cursor: &str,
        except: Option<RecordId>,
    ) -> RedisResult<(String, u64)> {
        let by = IndexedBy::User(user.clone());
        if self.connection.is_cluster() {
            let (cursor, ids) = self.entries(&by, cursor).await?;
            let (mut removed, mut gone) = (0, Vec::new());
            for id in ids.into_iter().filter(|id| Some(*id) != except) {
                let mut call = call_of(&self.scripts.remove_owned, 1, 0);
                call.arg(self.session_key(id)).arg(user.as_str());
                if self.run(&self.scripts.remove_owned, &call).await? {
                    removed += 1;
                }
                gone.push(id);
            }
            // A young entry stays. If the answer to the session's insert was lost, the client may
            // send that insert again.
            self.unindex(&by, &gone, ENTRY_GRACE).await?;
            return Ok((cursor, removed));
        }
        let mut call = call_of(&self.scripts.remove_all, 1, 0);
        call.arg(self.index_key(&by))
            .arg(self.session_keys())
            .arg(user.as_str())
            .arg(cursor)
            .arg(READ_AT_ONCE)
            .arg(except.map_or_else(String::new, |id| id.to_string()));
        self.run(&self.scripts.remove_all, &call).await
    }
}

/// Does some work in a task, for which no caller waits. If it fails, the next reader of the index
/// does the work.
pub(super) fn in_the_background(work: impl Future<Output = RedisResult<()>> + Send + 'static) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(TASK_TIMEOUT, work).await;
    });
}
