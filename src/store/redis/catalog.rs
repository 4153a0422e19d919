//! All sessions: a walk by `SCAN`, at each master in turn.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use async_trait::async_trait;
use redis::{Cmd, RedisError, RedisResult, Value as Answer, from_redis_value};

use super::index::END;
use super::layout::{IndexedBy, Value};
use super::{RedisStore, failed};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::Record;
use crate::store::catalog::bounds::{LONGEST_LOOK, MOST_LOOKED_AT};
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};

/// About how many keys one `SCAN` goes through.
const SCANNED_AT_ONCE: std::ops::RangeInclusive<usize> = 10..=100;

/// How many calls of `SCAN` there may be in one answer. Most keys of the database may be those of
/// others.
const MOST_SCANS: usize = 100;

/// How many records are read at once.
const READ_AT_ONCE: usize = 50;

/// The end of a cluster's slots.
const SLOTS: u16 = 16_384;

/// Where a walk is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// In a cluster, the first slot of the master. Otherwise 0.
    slot: u16,
    at: At,
    /// `SCAN` has named these, and nobody has looked at them yet.
    left: VecDeque<RecordId>,
}

/// Where the walk is among the keys of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Begin,
    Cursor(u64),
    End,
}

impl Place {
    const FIRST: Self = Self {
        slot: 0,
        at: At::Begin,
        left: VecDeque::new(),
    };

    fn read(cursor: &Cursor) -> Option<Self> {
        let mut parts = cursor.as_str().split('.');
        let slot = parts.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
        let at = match parts.next()? {
            "begin" => At::Begin,
            "end" => At::End,
            number => At::Cursor(number.parse().ok().filter(|cursor| *cursor != 0)?),
        };
        let left = parts.map(|id| id.parse().ok()).collect::<Option<_>>()?;
        let place = Self { slot, at, left };
        // Each place has one text.
        (place.text() == cursor.as_str()).then_some(place)
    }

    fn text(&self) -> String {
        let at = match self.at {
            At::Begin => "begin".to_owned(),
            At::Cursor(cursor) => cursor.to_string(),
            At::End => "end".to_owned(),
        };
        let mut text = format!("{}.{at}", self.slot);
        for id in &self.left {
            text.push('.');
            text += &id.to_string();
        }
        text
    }

    /// `None` only if so many ids are left that no cursor could name them.
    fn cursor(&self) -> Option<Cursor> {
        self.text().parse().ok()
    }
}

impl RedisStore {
    async fn scan_from(
        &self,
        mut place: Place,
        limit: usize,
        accept: &Accept<'_>,
    ) -> RedisResult<Scan> {
        let began = Instant::now();
        let limit = limit.max(1);
        // In the order in which they come up, so that a page is the same each time.
        let mut records = Vec::new();
        let mut known = HashSet::new();
        let (mut looked_at, mut scans) = (0, 0);
        loop {
            while !place.left.is_empty() {
                // No more than are missing, so that the cursor names as few as possible.
                let missing = limit.saturating_sub(records.len()).min(READ_AT_ONCE);
                if missing == 0 {
                    break;
                }
                let ids: Vec<_> = place.left.drain(..missing.min(place.left.len())).collect();
                looked_at += ids.len();
                for (id, value) in ids.iter().zip(self.values(&ids).await?) {
                    if let Some(record) = value.decode(*id)
                        && !known.contains(id)
                        && accept(*id, &record)
                    {
                        known.insert(*id);
                        records.push((*id, record));
                    }
                }
            }
            if place.left.is_empty() && place.at == At::End {
                match self.next_master(place.slot).await? {
                    Some(slot) => {
                        place = Place {
                            slot,
                            ..Place::FIRST
                        }
                    }
                    None => {
                        return Ok(Scan {
                            records,
                            next: None,
                        });
                    }
                }
            }
            let is_full = records.len() >= limit || looked_at >= MOST_LOOKED_AT;
            let is_late = scans >= MOST_SCANS || scans > 0 && began.elapsed() >= LONGEST_LOOK;
            if is_full || is_late {
                let next = place.cursor().ok_or_else(too_many_left)?;
                return Ok(Scan {
                    records,
                    next: Some(next),
                });
            }
            scans += 1;
            let missing = limit.saturating_sub(records.len());
            self.scan_keys(&mut place, missing).await?;
        }
    }

    /// Asks a master for some more keys.
    async fn scan_keys(&self, place: &mut Place, missing: usize) -> RedisResult<()> {
        let cursor = match place.at {
            At::End => return Ok(()),
            At::Begin => 0,
            At::Cursor(cursor) => cursor,
        };
        let prefix = self.session_keys();
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{}*", without_wildcards(&prefix)))
            .arg("COUNT")
            .arg(missing.clamp(*SCANNED_AT_ONCE.start(), *SCANNED_AT_ONCE.end()))
            .arg("TYPE")
            .arg("string");
        let answer = self.connection.ask_master(place.slot, &scan).await?;
        let (next, keys): (u64, Vec<Vec<u8>>) = from_redis_value(answer)?;
        place.at = match next {
            0 => At::End,
            next => At::Cursor(next),
        };
        for key in keys {
            let id = key.strip_prefix(prefix.as_bytes());
            let id = id.and_then(|id| str::from_utf8(id).ok()?.parse().ok());
            if let Some(id) = id.filter(|id| !place.left.contains(id)) {
                place.left.push_back(id);
            }
        }
        Ok(())
    }

    /// What is under these ids, in their order.
    async fn values(&self, ids: &[RecordId]) -> RedisResult<Vec<Value>> {
        let mut get = redis::cmd("MGET");
        for id in ids {
            get.arg(self.session_key(*id));
        }
        let values: Vec<Option<Vec<u8>>> = self.connection.ask(&get).await?;
        let value = |bytes: Option<_>| bytes.map_or(Value::Missing, Value::Bytes);
        Ok(values.into_iter().map(value).collect())
    }

    /// The first slot of the next master, in the order of these slots. `None` behind the last one,
    /// and without a cluster.
    async fn next_master(&self, slot: u16) -> RedisResult<Option<u16>> {
        if !self.connection.is_cluster() {
            return Ok(None);
        }
        let answer: Answer = self.connection.ask(&shards()).await?;
        let first_slots = first_slots(&answer)?;
        Ok(first_slots.into_iter().filter(|first| *first > slot).min())
    }

    /// All sessions of an index.
    async fn find_by_index(&self, by: &IndexedBy) -> RedisResult<HashMap<RecordId, Record>> {
        // A scan may answer with an entry twice.
        let mut sessions = HashMap::new();
        let mut cursor = String::from(END);
        loop {
            cursor = self.list_checked(by, &cursor, &mut sessions).await?;
            if cursor == END {
                return Ok(sessions);
            }
        }
    }
}

fn shards() -> Cmd {
    let mut shards = redis::cmd("CLUSTER");
    shards.arg("SLOTS");
    shards
}

/// The first slot of each master. Of a master with several ranges of slots, it is the lowest.
fn first_slots(answer: &Answer) -> RedisResult<Vec<u16>> {
    let ranges: Vec<(u16, u16, Answer)> = ranges_of(answer)?;
    let mut lowest = Vec::<(Answer, u16)>::new();
    for (first, _, master) in ranges {
        match lowest.iter_mut().find(|(known, _)| *known == master) {
            Some((_, slot)) => *slot = first.min(*slot),
            None => lowest.push((master, first)),
        }
    }
    Ok(lowest.into_iter().map(|(_, slot)| slot).collect())
}

/// The ranges of `CLUSTER SLOTS`, each with its master.
fn ranges_of(answer: &Answer) -> RedisResult<Vec<(u16, u16, Answer)>> {
    let Answer::Array(ranges) = answer else {
        return Err(unexpected());
    };
    let range = |range: &Answer| match range {
        Answer::Array(parts) => match &parts[..] {
            [Answer::Int(first), Answer::Int(last), master, ..] => {
                let slot = |number: &i64| u16::try_from(*number).map_err(|_| unexpected());
                Ok((slot(first)?, slot(last)?, master.clone()))
            }
            _ => Err(unexpected()),
        },
        _ => Err(unexpected()),
    };
    ranges.iter().map(range).collect()
}

/// A walk that ended here would leave sessions out.
fn too_many_left() -> RedisError {
    let what = "SCAN has answered with many more keys than it was asked for";
    (redis::ErrorKind::UnexpectedReturnType, what).into()
}

fn unexpected() -> RedisError {
    let what = "the answer to CLUSTER SLOTS is not a list of slots";
    (redis::ErrorKind::UnexpectedReturnType, what).into()
}

/// The text as a pattern of Redis that only this text matches.
fn without_wildcards(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[async_trait]
impl SessionCatalog for RedisStore {
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError> {
        let place = match after {
            None => Place::FIRST,
            Some(cursor) => match Place::read(cursor) {
                Some(place) if place.slot == 0 || self.connection.is_cluster() => place,
                _ => return Ok(None),
            },
        };
        let scan = self.scan_from(place, limit, accept).await;
        scan.map(Some).map_err(failed("list sessions"))
    }

    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let by = IndexedBy::ExternalId(external_id.into());
        let sessions = self.find_by_index(&by).await;
        let sessions = sessions.map_err(failed("find sessions by their external id"))?;
        Ok(sessions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that panics is a test that fails"
    )]

    use super::*;

    #[test]
    fn a_place_comes_back_from_its_cursor_and_nothing_else_is_a_place() {
        let ids = [[1; 16], [255; 16]].map(RecordId::from_bytes);
        for place in [
            Place::FIRST,
            Place {
                slot: 10_923,
                at: At::Cursor(u64::MAX),
                left: ids.into(),
            },
            Place {
                slot: 5,
                at: At::End,
                left: ids.into(),
            },
        ] {
            assert_eq!(Place::read(&place.cursor().unwrap()).unwrap(), place);
        }
        for text in [
            "0",
            "0.0",
            "00.begin",
            "16384.begin",
            "0.begin.",
            "0.begin.no-id",
            "0.18446744073709551616",
            "begin.0",
            "AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(Place::read(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn each_master_is_visited_once_at_its_lowest_slot() {
        let range = |first, last, name: &str| {
            Answer::Array(vec![
                Answer::Int(first),
                Answer::Int(last),
                Answer::BulkString(name.into()),
                Answer::BulkString("a replica".into()),
            ])
        };
        let answer = Answer::Array(vec![
            range(9000, 16_383, "a"),
            range(0, 99, "b"),
            range(100, 8999, "a"),
        ]);
        assert_eq!(first_slots(&answer).unwrap(), [100, 0]);
        assert!(first_slots(&Answer::Nil).is_err());
        assert!(first_slots(&Answer::Array(vec![Answer::Int(1)])).is_err());
    }

    #[test]
    fn a_prefix_is_a_pattern_of_itself_alone() {
        assert_eq!(without_wildcards("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\");
    }
}
