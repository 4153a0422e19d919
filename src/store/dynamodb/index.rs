//! The indexes: a user's sessions, and those of an external id. Each index is a partition of its own,
//! with an item for each of its sessions.
//!
//! An entry is written before its session, so a session is never without its entries. The other way
//! round, an entry may be without its session: for a moment, because the session is about to be
//! written, or for longer, because the session has ended or changed. So an entry counts only if its
//! session is there and says that the index finds it.

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
use super::layout::{Item, attribute, indexes_in, is_found_by, number, number_in, seconds};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::UserId;
use crate::store::indexed_by::IndexedBy;

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

/// The entries of a session, as the session remembers them. All of them are written together.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// When they were written, in milliseconds. It is also their name.
    pub(super) at: u64,
    /// When DynamoDB may remove the first of them, in seconds.
    pub(super) until: u64,
}

/// A session's entry in an index, and its name.
struct Filing {
    by: IndexedBy,
    id: RecordId,
    at: u64,
}

impl Filing {
    /// The entries that the item of a session names.
    fn all_of(id: RecordId, item: &Item) -> impl Iterator<Item = Self> {
        let at = number_in(item, attribute::ENTRY_AT);
        indexes_in(item).filter_map(move |by| Some(Self { by, id, at: at? }))
    }
}

impl DynamoDbStore {
    /// Puts a session into each index that should find it, or makes its entries last longer. `None`
    /// if no index should find it.
    pub(super) async fn file(
        &self,
        id: RecordId,
        record: &Record,
        expires_at: Timestamp,
    ) -> Result<Option<Entry>, Failure> {
        let mut indexes = IndexedBy::all_of(record);
        let Some(first) = indexes.next() else {
            return Ok(None);
        };
        let now = SystemClock.now();
        let margin = expires_at.since(now).max(ENTRY_MARGIN);
        let mut entry = Entry {
            at: self.next_entry_at(now),
            until: seconds(expires_at + margin),
        };
        // Most sessions have one entry. Further ones are written at the same time. If the caller
        // goes away, the tasks end with this set.
        let mut others = JoinSet::new();
        for by in indexes {
            let store = self.clone();
            others.spawn(async move { store.write_entry(&by, id, entry).await });
        }
        entry.until = self.write_entry(&first, id, entry).await?;
        while let Some(other) = others.join_next().await {
            let until = other.map_err(|error| Failure::new(error.to_string()))??;
            entry.until = entry.until.min(until);
        }
        Ok(Some(entry))
    }

    /// Writes an entry. The answer is when DynamoDB may remove it: never earlier than before, because
    /// another write may rely on it.
    async fn write_entry(
        &self,
        by: &IndexedBy,
        id: RecordId,
        Entry { at, mut until }: Entry,
    ) -> Result<u64, Failure> {
        let mut attempts = Attempts::of(self);
        loop {
            let mut item = self.names.entry_key(by, id);
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
                Ok(_) => return Ok(until),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
                Err(Unwritten::Refused(item)) => {
                    attempts.count_refusal()?;
                    let item = match item.filter(|item| !item.is_empty()) {
                        Some(item) => Some(item),
                        None => self.read_key(self.names.entry_key(by, id)).await?,
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

    /// Removes a session. With a user, it is removed only if it is this user's. The answer is its
    /// item, if it was removed.
    pub(super) async fn take(
        &self,
        id: RecordId,
        of: Option<&UserId>,
    ) -> Result<Option<Item>, Failure> {
        let mut attempts = Attempts::of(self);
        loop {
            let mut delete = self
                .writer
                .delete_item()
                .table_name(&self.names.table)
                .set_key(Some(self.names.session_key(id)))
                .return_values(ReturnValue::AllOld);
            if let Some(user) = of {
                delete = delete
                    .condition_expression("#user = :user")
                    .expression_attribute_names("#user", attribute::USER)
                    .expression_attribute_values(":user", AttributeValue::S(user.as_str().into()));
            }
            match delete.send().await.map_err(Unwritten::from) {
                Ok(deleted) => return Ok(deleted.attributes),
                Err(Unwritten::Refused(_)) => return Ok(None),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
            }
        }
    }

    /// Takes out the entries of a session that was removed.
    pub(super) fn unfile(&self, id: RecordId, removed: &Item) {
        self.drop_entries(Filing::all_of(id, removed).collect());
    }

    /// Takes entries out of their indexes in a task, each of them only if it has not been written
    /// again since. If that fails, the next reader does it.
    fn drop_entries(&self, entries: Vec<Filing>) {
        if entries.is_empty() {
            return;
        }
        let store = self.clone();
        in_the_background(async move {
            for Filing { by, id, at } in entries {
                let delete = store
                    .writer
                    .delete_item()
                    .table_name(&store.names.table)
                    .set_key(Some(store.names.entry_key(&by, id)))
                    .condition_expression("#at = :at")
                    .expression_attribute_names("#at", attribute::ENTRY_AT)
                    .expression_attribute_values(":at", number(at));
                // Whatever the answer is, the next reader sees what is left.
                let _ = delete.send().await;
            }
        });
    }

    /// Takes entries without a session out of an index, except those of the last hour.
    fn drop_old_entries(&self, mut entries: Vec<Filing>) {
        let now = SystemClock.now().as_millis();
        entries.retain(|entry| entry.at.saturating_add(ENTRY_GRACE) < now);
        self.drop_entries(entries);
    }

    /// A part of an index, and where the next one begins.
    async fn entries(
        &self,
        by: &IndexedBy,
        start: Option<Item>,
    ) -> Result<(Vec<Filing>, Option<Item>), Failure> {
        let query = self
            .reader
            .query()
            .table_name(&self.names.table)
            .consistent_read(true)
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", &self.names.partition_key)
            .expression_attribute_values(":key", AttributeValue::S(self.names.entries_of(by)))
            .set_exclusive_start_key(start);
        let page = query.send().await.map_err(Failure::of)?;
        let filing = |item: &Item| {
            Some(Filing {
                by: by.clone(),
                id: self.names.id_in_entry_key(item)?,
                at: number_in(item, attribute::ENTRY_AT)?,
            })
        };
        let entries = page.items().iter().filter_map(filing).collect();
        Ok((
            entries,
            page.last_evaluated_key.filter(|key| !key.is_empty()),
        ))
    }

    /// The sessions of an index.
    pub(super) async fn list(&self, by: &IndexedBy) -> Result<Vec<(RecordId, Record)>, Failure> {
        let now = SystemClock.now();
        let mut sessions = Vec::new();
        let mut start = None;
        loop {
            let entries;
            (entries, start) = self.entries(by, start).await?;
            let mut items = HashMap::new();
            for some in entries.chunks(READ_AT_ONCE) {
                items.extend(self.read_all(some).await?);
            }
            let mut ended = Vec::new();
            for entry in entries {
                let item = items.remove(&entry.id);
                match item.filter(|item| is_found_by(item, by)) {
                    Some(item) => {
                        let record = self.record_in(entry.id, item, now);
                        sessions.extend(record.map(|record| (entry.id, record)));
                    }
                    None => ended.push(entry),
                }
            }
            self.drop_old_entries(ended);
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
        let mut attempts = Attempts::of(self);
        while !keys.is_empty() {
            let asked = keys.len();
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
            let items = answer.responses.into_iter().flatten();
            for item in items.flat_map(|(_, items)| items) {
                found.extend(self.names.id_in_session_key(&item).map(|id| (id, item)));
            }
            // These are too many bytes for one answer, or too many units for a moment.
            let unread = answer.unprocessed_keys.into_iter().flatten();
            keys = unread.flat_map(|(_, unread)| unread.keys).collect();
            match keys.len() {
                0 => {}
                // There is an end, since each such answer leaves fewer keys.
                left if left < asked => {
                    attempts = Attempts::of(self);
                    sleep(UNREAD_PAUSE).await;
                }
                _ => attempts.wait(unread_keys()).await?,
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
        let by = IndexedBy::User(user.clone());
        let mut removed = 0;
        let mut start = None;
        loop {
            let entries;
            (entries, start) = self.entries(&by, start).await?;
            let mut entries = entries.into_iter().filter(|entry| Some(entry.id) != except);
            // The name of a removed session's entries is the one that the session knew. If an entry
            // has another name by now, somebody is about to write the session once more.
            let (mut gone, mut not_found) = (Vec::new(), Vec::new());
            // If the caller goes away, the tasks end with this set.
            let mut removals = JoinSet::new();
            loop {
                while removals.len() < REMOVED_AT_ONCE
                    && let Some(entry) = entries.next()
                {
                    let (store, user) = (self.clone(), user.clone());
                    removals.spawn(async move {
                        let taken = store.take(entry.id, Some(&user)).await;
                        taken.map(|taken| (entry, taken))
                    });
                }
                match removals.join_next().await {
                    None => break,
                    Some(Err(error)) => return Err(Failure::new(error.to_string())),
                    Some(Ok(answer)) => match answer? {
                        (entry, Some(item)) => {
                            removed += 1;
                            gone.extend(Filing::all_of(entry.id, &item));
                        }
                        (entry, None) => not_found.push(entry),
                    },
                }
            }
            self.drop_entries(gone);
            self.drop_old_entries(not_found);
            if start.is_none() {
                return Ok(removed);
            }
        }
    }
}

/// DynamoDB has answered without some items, again and again.
fn unread_keys() -> Failure {
    Failure::not_yet(
        "DynamoDB leaves some sessions of the index unread: the table or the account has reached \
         its limit; bill the table on demand, or raise its capacity",
    )
}

/// Does some work in a task, for which no caller waits.
fn in_the_background(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        let _ = timeout(TASK_TIMEOUT, work).await;
    });
}
