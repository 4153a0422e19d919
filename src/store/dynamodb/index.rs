//! The index: a user's sessions, an item for each of them in a partition of the user's own.
//!
//! An entry is written before its session, so a session is never without one. The other way round,
//! an entry may be without its session: for a moment, because the session is about to be written,
//! or for longer, because the session has ended. So an entry counts only if its session is there and
//! is the user's.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::DynamoDbStore;
use super::failure::{Attempts, Failure, Unwritten};
use super::layout::{Item, attribute, number, number_in, seconds, user_in};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::UserId;

/// An entry lasts for a day longer than its session at least, so that the touches of a day need no
/// second write.
const ENTRY_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

/// An entry without a session stays for so long, in milliseconds: the session may be about to be
/// written, by a node whose clock is not quite right.
const ENTRY_GRACE: u64 = 60 * 60 * 1000;

/// DynamoDB reads so many items at once.
const READ_AT_ONCE: usize = 100;

/// How many of a user's sessions the store removes at the same time.
const REMOVED_AT_ONCE: usize = 16;

/// How long a task may take in which no caller waits.
const TASK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the store waits for keys that DynamoDB did not get to.
const UNREAD_PAUSE: Duration = Duration::from_millis(50);

/// An entry, as its session remembers it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// When it was written, in milliseconds. It is also the name of the entry.
    pub(super) at: u64,
    /// When DynamoDB may remove it, in seconds.
    pub(super) until: u64,
}

/// A session's entry, and its name.
struct Filing {
    id: RecordId,
    at: u64,
}

impl Filing {
    /// The entry that an item names: the item of a session, or the entry itself.
    fn of(id: RecordId, item: &Item) -> Option<Self> {
        let at = number_in(item, attribute::ENTRY_AT)?;
        Some(Self { id, at })
    }
}

impl DynamoDbStore {
    /// Puts a session into its user's index, or makes its entry last longer. The entry never lasts
    /// shorter than before: another write may rely on it.
    pub(super) async fn file(
        &self,
        user: &UserId,
        id: RecordId,
        expires_at: Timestamp,
    ) -> Result<Entry, Failure> {
        let now = SystemClock.now();
        let margin = expires_at.since(now).max(ENTRY_MARGIN);
        let at = self.next_entry_at(now);
        let mut until = seconds(expires_at + margin);
        let mut attempts = Attempts::of(self);
        loop {
            let mut item = self.names.entry_key(user, id);
            item.insert(attribute::ENTRY_AT.into(), number(at));
            item.insert(self.names.ttl.clone(), number(until));
            let put = self
                .writer
                .put_item()
                .table_name(&self.names.table)
                .set_item(Some(item))
                .condition_expression("attribute_not_exists(#until) OR #until <= :until")
                .expression_attribute_names("#until", &self.names.ttl)
                .expression_attribute_values(":until", number(until))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                );
            match put.send().await.map_err(Unwritten::from) {
                Ok(_) => return Ok(Entry { at, until }),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
                Err(Unwritten::Refused(item)) => {
                    let item = match item.filter(|item| !item.is_empty()) {
                        Some(item) => Some(item),
                        None => self.read_key(self.names.entry_key(user, id)).await?,
                    };
                    let stored = item.and_then(|item| number_in(&item, &self.names.ttl));
                    until = until.max(stored.unwrap_or_default());
                }
            }
        }
    }

    /// The time now, and later than that of each entry before.
    fn next_entry_at(&self, now: Timestamp) -> u64 {
        let later = |last: u64| Some(now.as_millis().max(last.saturating_add(1)));
        let last = &self.last_entry_at;
        // The closure always answers, so the old value is there.
        match last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later) {
            Ok(last) | Err(last) => now.as_millis().max(last.saturating_add(1)),
        }
    }

    /// Removes a session. The answer is its item, if there was one.
    pub(super) async fn take(&self, id: RecordId) -> Result<Option<Item>, Failure> {
        let mut attempts = Attempts::of(self);
        loop {
            let delete = self
                .writer
                .delete_item()
                .table_name(&self.names.table)
                .set_key(Some(self.names.session_key(id)))
                .return_values(ReturnValue::AllOld);
            match delete.send().await {
                Ok(deleted) => return Ok(deleted.attributes),
                Err(error) => attempts.wait(Failure::of(error)).await?,
            }
        }
    }

    /// Removes a session, if it is this user's. The answer is its item, if it was.
    async fn take_of(&self, user: &UserId, id: RecordId) -> Result<Option<Item>, Failure> {
        let mut attempts = Attempts::of(self);
        loop {
            let delete = self
                .writer
                .delete_item()
                .table_name(&self.names.table)
                .set_key(Some(self.names.session_key(id)))
                .condition_expression("#user = :user")
                .expression_attribute_names("#user", attribute::USER)
                .expression_attribute_values(":user", AttributeValue::S(user.as_str().into()))
                .return_values(ReturnValue::AllOld);
            match delete.send().await.map_err(Unwritten::from) {
                Ok(deleted) => return Ok(deleted.attributes),
                Err(Unwritten::Refused(_)) => return Ok(None),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
            }
        }
    }

    /// Takes out the entry of a session that was removed.
    pub(super) fn unfile(&self, id: RecordId, removed: &Item) {
        if let (Some(user), Some(filing)) = (user_in(removed), Filing::of(id, removed)) {
            self.drop_entries(&user, vec![filing]);
        }
    }

    /// Takes entries out of an index in a task, each of them only if it has not been written again
    /// since. If that fails, the next reader does it.
    fn drop_entries(&self, user: &UserId, entries: Vec<Filing>) {
        if entries.is_empty() {
            return;
        }
        let (store, user) = (self.clone(), user.clone());
        in_the_background(async move {
            for Filing { id, at } in entries {
                let delete = store
                    .writer
                    .delete_item()
                    .table_name(&store.names.table)
                    .set_key(Some(store.names.entry_key(&user, id)))
                    .condition_expression("#at = :at")
                    .expression_attribute_names("#at", attribute::ENTRY_AT)
                    .expression_attribute_values(":at", number(at));
                // Whatever the answer is, the next reader sees what is left.
                let _ = delete.send().await;
            }
        });
    }

    /// Takes entries without a session out of an index, except those of the last hour.
    fn drop_old_entries(&self, user: &UserId, mut entries: Vec<Filing>) {
        let now = SystemClock.now().as_millis();
        entries.retain(|entry| entry.at.saturating_add(ENTRY_GRACE) < now);
        self.drop_entries(user, entries);
    }

    /// A part of a user's index, and where the next one begins.
    async fn entries(
        &self,
        user: &UserId,
        start: Option<Item>,
    ) -> Result<(Vec<Filing>, Option<Item>), Failure> {
        let query = self
            .reader
            .query()
            .table_name(&self.names.table)
            .consistent_read(true)
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", &self.names.partition_key)
            .expression_attribute_values(":key", AttributeValue::S(self.names.entries_of(user)))
            .set_exclusive_start_key(start);
        let page = query.send().await.map_err(Failure::of)?;
        let filing = |item: &Item| Filing::of(self.names.id_in_entry_key(item)?, item);
        let entries = page.items().iter().filter_map(filing).collect();
        Ok((
            entries,
            page.last_evaluated_key.filter(|key| !key.is_empty()),
        ))
    }

    /// The user's sessions.
    pub(super) async fn list(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, Failure> {
        let now = SystemClock.now();
        let mut sessions = Vec::new();
        let mut start = None;
        loop {
            let entries;
            (entries, start) = self.entries(user, start).await?;
            let mut ended = Vec::new();
            for some in entries.chunks(READ_AT_ONCE) {
                let mut items = self.read_all(some).await?;
                for &Filing { id, at } in some {
                    let item = items.remove(&id);
                    match item.filter(|item| user_in(item).as_ref() == Some(user)) {
                        Some(item) => {
                            let record = self.record_in(id, item, now);
                            sessions.extend(record.map(|record| (id, record)));
                        }
                        None => ended.push(Filing { id, at }),
                    }
                }
            }
            self.drop_old_entries(user, ended);
            if start.is_none() {
                return Ok(sessions);
            }
        }
    }

    /// The items of the sessions that these entries name.
    async fn read_all(&self, entries: &[Filing]) -> Result<HashMap<RecordId, Item>, Failure> {
        let keys = entries.iter().map(|entry| self.names.session_key(entry.id));
        let mut keys: Vec<_> = keys.collect();
        let mut found = HashMap::new();
        while !keys.is_empty() {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(std::mem::take(&mut keys)))
                .consistent_read(true)
                .build()
                .map_err(|error| Failure::new(error.to_string()))?;
            let get = self
                .reader
                .batch_get_item()
                .request_items(&self.names.table, wanted);
            let answer = get.send().await.map_err(Failure::of)?;
            for item in answer
                .responses
                .into_iter()
                .flatten()
                .flat_map(|(_, of)| of)
            {
                found.extend(self.names.id_in_session_key(&item).map(|id| (id, item)));
            }
            let unread = answer.unprocessed_keys.into_iter().flatten();
            keys = unread.flat_map(|(_, unread)| unread.keys).collect();
            if !keys.is_empty() {
                sleep(UNREAD_PAUSE).await;
            }
        }
        Ok(found)
    }

    /// Removes the user's sessions, except the one of the id `except`. Answers how many it removed.
    pub(super) async fn take_all(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, Failure> {
        let mut removed = 0;
        let mut start = None;
        loop {
            let entries;
            (entries, start) = self.entries(user, start).await?;
            let mut entries = entries.into_iter().filter(|entry| Some(entry.id) != except);
            // The name of a removed session's entry is the one that the session knew. If the entry has
            // another name by now, somebody is about to write the session once more.
            let (mut gone, mut not_found) = (Vec::new(), Vec::new());
            // If the caller goes away, the tasks end with this set.
            let mut removals = JoinSet::new();
            loop {
                while removals.len() < REMOVED_AT_ONCE
                    && let Some(entry) = entries.next()
                {
                    let (store, user) = (self.clone(), user.clone());
                    removals.spawn(async move {
                        let taken = store.take_of(&user, entry.id).await;
                        taken.map(|taken| (entry, taken))
                    });
                }
                match removals.join_next().await {
                    None => break,
                    Some(Err(error)) => return Err(Failure::new(error.to_string())),
                    Some(Ok(answer)) => match answer? {
                        (entry, Some(item)) => {
                            removed += 1;
                            gone.extend(Filing::of(entry.id, &item));
                        }
                        (entry, None) => not_found.push(entry),
                    },
                }
            }
            self.drop_entries(user, gone);
            self.drop_old_entries(user, not_found);
            if start.is_none() {
                return Ok(removed);
            }
        }
    }
}

/// Does some work in a task, for which no caller waits.
fn in_the_background(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        let _ = timeout(TASK_TIMEOUT, work).await;
    });
}
