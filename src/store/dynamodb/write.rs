//! Writes of sessions. Each of them is one conditional call, and others before it
//! if the indexes have to be written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::DynamoDbStore;
use super::failure::{Attempts, Failure, Unwritten};
use super::index::Entry;
use super::layout::{Item, Stored, attribute, attribute_of, bytes, number, seconds};
use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::record::{Filed, Record, Version};
use crate::store::Replaced;
use crate::store::indexed_by::IndexedBy;

/// DynamoDB keeps items of up to 400 KB. The rest of an item is smaller than what is left.
const LONGEST_RECORD: usize = 396 * 1024;

/// A conditional change of an item: an update expression and its condition, with their names and
/// values.
struct Update {
    set: Vec<String>,
    remove: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    /// A change of an item of this version.
    fn of_version(version: Version) -> Self {
        let mut update = Self {
            set: Vec::new(),
            remove: Vec::new(),
            conditions: Vec::new(),
            names: HashMap::new(),
            values: HashMap::new(),
        };
        update.only_if(
            attribute::VERSION,
            "=",
            "expected",
            number(version.as_u64()),
        );
        update
    }

    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn set(&mut self, name: &str, value: AttributeValue) {
        let placeholder = self.name(name);
        self.set.push(format!("{placeholder} = :{name}"));
        self.values.insert(format!(":{name}"), value);
    }

    fn remove(&mut self, name: &str) {
        let placeholder = self.name(name);
        self.remove.push(placeholder);
    }

    /// `of` is what the value is called in the expression.
    fn only_if(&mut self, name: &str, operator: &str, of: &str, value: AttributeValue) {
        let placeholder = self.name(name);
        self.conditions
            .push(format!("{placeholder} {operator} :{of}"));
        self.values.insert(format!(":{of}"), value);
    }

    /// The session has these entries, under all that its record is found by.
    fn set_entry(&mut self, record: &Record, entry: Entry) {
        for by in IndexedBy::all_of(record) {
            let (name, text) = attribute_of(&by);
            self.set(name, AttributeValue::S(text.into()));
        }
        self.set(attribute::ENTRY_AT, number(entry.at));
        self.set(attribute::ENTRY_UNTIL, number(entry.until));
    }

    fn expression(&self) -> String {
        let mut text = format!("SET {}", self.set.join(", "));
        if !self.remove.is_empty() {
            text += &format!(" REMOVE {}", self.remove.join(", "));
        }
        text
    }
}

impl DynamoDbStore {
    fn set_expiry(&self, update: &mut Update, expires_at: Timestamp) {
        update.set(attribute::EXPIRES, number(expires_at.as_millis()));
        // The name of this attribute is the application's, and may have any letter.
        update.names.insert("#until".into(), self.names.ttl.clone());
        update.set.push("#until = :until".into());
        let until = number(seconds(expires_at));
        update.values.insert(":until".into(), until);
    }

    /// Writes a new record, if the key is free.
    pub(super) async fn put_new(&self, id: RecordId, record: &Record) -> Result<bool, Failure> {
        let name = self.writes.name();
        let encoded = encode(record)?;
        let mut attempts = Attempts::of(self);
        loop {
            // The entries have another name with each attempt. If somebody ends the session after the
            // first one, they do not take away the entries of the second one.
            let expires_at = record.expires_at();
            let entry = self.file(id, record, expires_at).await?;
            let mut item = self.names.session_key(id);
            item.extend([
                (attribute::RECORD.to_owned(), bytes(&*encoded)),
                (
                    attribute::VERSION.to_owned(),
                    number(record.version().as_u64()),
                ),
                (
                    attribute::EXPIRES.to_owned(),
                    number(expires_at.as_millis()),
                ),
                (attribute::WRITE.to_owned(), bytes(name)),
                (self.names.ttl.clone(), number(seconds(expires_at))),
            ]);
            if let Some(entry) = entry {
                item.extend(IndexedBy::all_of(record).map(|by| {
                    let (name, text) = attribute_of(&by);
                    (name.to_owned(), AttributeValue::S(text.into()))
                }));
                item.extend([
                    (attribute::ENTRY_AT.to_owned(), number(entry.at)),
                    (attribute::ENTRY_UNTIL.to_owned(), number(entry.until)),
                ]);
            }
            let put = self
                .writer
                .put_item()
                .table_name(&self.names.table)
                .set_item(Some(item))
                .condition_expression("attribute_not_exists(#key)")
                .expression_attribute_names("#key", &self.names.partition_key)
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                );
            match put.send().await.map_err(Unwritten::from) {
                Ok(_) => return Ok(true),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
                Err(Unwritten::Refused(item)) => {
                    let item = self.or_read(id, item).await?;
                    let stored = item.as_ref().and_then(Stored::of);
                    let write = stored.and_then(|stored| stored.write);
                    return match write == Some(&name[..]) {
                        true => Ok(true),
                        false if attempts.are_uncertain() => Err(unclear()),
                        false => Ok(false),
                    };
                }
            }
        }
    }

    /// Writes a record over one of the expected version.
    pub(super) async fn put_over(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, Failure> {
        let name = self.writes.name();
        let encoded = encode(record)?;
        let own_expiry = record.expires_at();
        // The stored expiry, if it is later and stays.
        let mut kept_expiry = None;
        let mut filed = record.fields().filed();
        let mut attempts = Attempts::of(self);
        loop {
            let expires_at = kept_expiry.unwrap_or(own_expiry);
            let entry = self.file_if_due(id, record, filed, expires_at).await?;
            let mut update = Update::of_version(expected);
            update.set(attribute::RECORD, bytes(&*encoded));
            update.set(attribute::VERSION, number(record.version().as_u64()));
            update.set(attribute::WRITE, bytes(name));
            match kept_expiry {
                None => {
                    self.set_expiry(&mut update, own_expiry);
                    if record.keeps_later_expiry() {
                        let own = number(own_expiry.as_millis());
                        update.only_if(attribute::EXPIRES, "<=", attribute::EXPIRES, own);
                    }
                }
                Some(kept) => {
                    let own = number(own_expiry.as_millis());
                    update.only_if(attribute::EXPIRES, ">", "own", own);
                    // A touch may have moved it since. The entry is known to last as long as this.
                    update.only_if(attribute::EXPIRES, "<=", "kept", number(kept.as_millis()));
                }
            }
            if record.user().is_none() {
                update.remove(attribute::USER);
                update.remove(attribute::ENTRY_AT);
                update.remove(attribute::ENTRY_UNTIL);
            }
            // The entry of an external id that is no longer the session's counts no more.
            if record.external_id().is_none() {
                update.remove(attribute::EXTERNAL_ID);
            }
            match entry {
                Some(entry) => update.set_entry(record, entry),
                None => only_if_filed(&mut update, record, expires_at),
            }
            match self.send(id, update).await {
                Ok(()) => return Ok(Replaced::Done),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
                Err(Unwritten::Refused(item)) => {
                    let item = self.or_read(id, item).await?;
                    let Some(stored) = item.as_ref().and_then(Stored::of) else {
                        return Ok(Replaced::Missing);
                    };
                    let is_next = stored.version == record.version();
                    if is_next && stored.write == Some(&name[..]) {
                        return Ok(Replaced::Done);
                    }
                    if stored.version != expected {
                        // If this write was done, another one came after it. Nobody can tell.
                        return match attempts.are_uncertain() && !is_next {
                            true => Err(unclear()),
                            false => Ok(Replaced::Conflict),
                        };
                    }
                    attempts.count_refusal()?;
                    filed = stored.filed(record);
                    let stays = record.keeps_later_expiry() && stored.expires_at > own_expiry;
                    kept_expiry = stays.then_some(stored.expires_at);
                }
            }
        }
    }

    /// Moves the expiry of a record that has the same version.
    pub(super) async fn move_expiry(&self, id: RecordId, record: &Record) -> Result<bool, Failure> {
        let mut filed = record.fields().filed();
        let mut attempts = Attempts::of(self);
        loop {
            let entry = self
                .file_if_due(id, record, filed, record.expires_at())
                .await?;
            let mut update = Update::of_version(record.version());
            self.set_expiry(&mut update, record.expires_at());
            match entry {
                Some(entry) => update.set_entry(record, entry),
                None => only_if_filed(&mut update, record, record.expires_at()),
            }
            match self.send(id, update).await {
                Ok(()) => return Ok(true),
                Err(Unwritten::Failed(failure)) => attempts.wait(failure).await?,
                Err(Unwritten::Refused(item)) => {
                    let item = self.or_read(id, item).await?;
                    let stored = item.as_ref().and_then(Stored::of);
                    match stored.filter(|stored| stored.version == record.version()) {
                        None => return Ok(false),
                        Some(stored) => filed = stored.filed(record),
                    }
                    attempts.count_refusal()?;
                }
            }
        }
    }

    /// Puts the session into its indexes, if the entries that are known are not enough. If nothing is
    /// known, the write tries without.
    async fn file_if_due(
        &self,
        id: RecordId,
        record: &Record,
        filed: Filed,
        expires_at: Timestamp,
    ) -> Result<Option<Entry>, Failure> {
        match filed {
            Filed::Unknown => Ok(None),
            Filed::Until(until) if until >= seconds(expires_at) => Ok(None),
            Filed::No | Filed::Until(_) => self.file(id, record, expires_at).await,
        }
    }

    async fn send(&self, id: RecordId, update: Update) -> Result<(), Unwritten> {
        let call = self
            .writer
            .update_item()
            .table_name(&self.names.table)
            .set_key(Some(self.names.session_key(id)))
            .update_expression(update.expression())
            .condition_expression(update.conditions.join(" AND "))
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values(Some(update.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        call.send().await?;
        Ok(())
    }

    /// The item that a refused write found. DynamoDB names it in its answer. Where there is none,
    /// or where an emulator of DynamoDB does not name it, the store reads it.
    async fn or_read(&self, id: RecordId, item: Option<Item>) -> Result<Option<Item>, Failure> {
        match item.filter(|item| !item.is_empty()) {
            Some(item) => Ok(Some(item)),
            None => self.read(id).await,
        }
    }
}

/// The indexes have the session under all that its record is found by, and keep it for as long as it
/// may live.
fn only_if_filed(update: &mut Update, record: &Record, expires_at: Timestamp) {
    let mut is_indexed = false;
    for by in IndexedBy::all_of(record) {
        let (name, text) = attribute_of(&by);
        let text = AttributeValue::S(text.into());
        update.only_if(name, "=", &format!("of_{name}"), text);
        is_indexed = true;
    }
    if is_indexed {
        let needed = number(seconds(expires_at));
        update.only_if(attribute::ENTRY_UNTIL, ">=", "needed", needed);
    }
}

fn encode(record: &Record) -> Result<Vec<u8>, Failure> {
    let encoded = record.encode()?;
    match encoded.len() {
        ..=LONGEST_RECORD => Ok(encoded),
        length => Err(Failure::new(format!(
            "the session has {length} bytes, and an item of DynamoDB holds {LONGEST_RECORD}; lower \
             the layer's data limit, and keep large values in a table of their own"
        ))),
    }
}

/// A write was made more than once, other writes came in between, and the first answer was lost.
fn unclear() -> Failure {
    Failure::new(
        "the answer to a write was lost, and the session has changed since; the write may have \
         been done",
    )
}

/// Names each write. If an answer was lost, the store makes the write again, and the name shows that
/// it is the same write.
#[derive(Debug)]
pub(super) struct Writes {
    store: u64,
    next: AtomicU64,
}

impl Writes {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self {
            store: RandomState::new().hash_one(0),
            next: AtomicU64::new(0),
        }
    }

    fn name(&self) -> [u8; 16] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(self.store) << 64 | u128::from(number);
        number.to_be_bytes()
    }
}
