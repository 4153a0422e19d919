//! The feeds of PostgreSQL and SQLite: who is told of what, and what happens if the feed is lost.
//!
//! `conformance.rs` has the contract.

mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom::{Feed, Notice, RecordId};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::timeout;

/// The time that the tests wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many records a large purge removes. The log of SQLite and the queue of a feed have room for
/// fewer.
const MANY: usize = 20_000;

fn id(number: u128) -> RecordId {
    RecordId::from_bytes(number.to_be_bytes())
}

/// The id as a literal of both databases is made of these digits.
fn hex(id: RecordId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id.as_bytes()))
}

async fn next(feed: &mut Feed) -> Notice {
    let notice = timeout(PATIENCE, feed.next()).await;
    notice
        .expect("the feed tells nothing")
        .expect("the feed has ended")
}

/// What is told until the answer to a ping of now.
async fn told(feed: &mut Feed) -> Vec<Notice> {
    let ping = feed.ping();
    let mut told = Vec::new();
    loop {
        match next(feed).await {
            Notice::Pong(number) if number >= ping => return told,
            Notice::Pong(_) => {}
            notice => told.push(notice),
        }
    }
}

/// The ids that are told until the answer to a ping of now, in their order.
async fn ids(feed: &mut Feed) -> Vec<RecordId> {
    let mut ids: Vec<_> = told(feed)
        .await
        .into_iter()
        .map(|notice| match notice {
            Notice::Changed(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.sort();
    ids
}

/// The feed was lost, or will be. Nothing is answered before the gap, and what comes after it is
/// told.
async fn assert_gap(feed: &mut Feed) {
    let ping = feed.ping();
    loop {
        match next(feed).await {
            Notice::Gap => break,
            notice => assert!(matches!(notice, Notice::Changed(_)), "{notice:?}"),
        }
    }
    // The ping keeps its turn.
    while next(feed).await != Notice::Pong(ping) {}
}

/// A large purge: all are told, or there is a gap.
async fn assert_many_are_told(feed: &mut Feed) {
    let told = told(feed).await;
    assert!(
        told.contains(&Notice::Gap) || told.len() == MANY,
        "{} of {MANY} were told",
        told.len()
    );
}

/// Runs a test, and counts events of the feed. Only this thread's events count.
fn events(test: impl Future<Output = ()>) -> BTreeMap<String, u64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test));
    let mut events = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let mut event = key.key().labels().map(|label| label.value().to_owned());
        if let (Some(event), DebugValue::Counter(count)) = (event.next_back(), value) {
            events.insert(event, count);
        }
    }
    events.retain(|event, _| event.starts_with("feed_"));
    events
}
