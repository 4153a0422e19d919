//! The contract of [`SessionFeed`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{insert, new_record, new_record_of, next, now, user_id};
use crate::id::RecordId;
use crate::record::data::Data;
use crate::store::feed::{Feed, Notice, SessionFeed};
use crate::store::{Replaced, UserIndex};

/// How long a notice may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(10);

async fn next_notice(feed: &mut Feed) -> Notice {
    let notice = timeout(PATIENCE, feed.next()).await;
    let notice = notice.unwrap_or_else(|_| panic!("the feed told nothing within {PATIENCE:?}"));
    notice.expect("the feed has ended")
}

/// Pings the feed, and returns the ids that the feed names before the pong.
async fn told(feed: &mut Feed) -> Vec<RecordId> {
    let ping = feed.ping();
    let mut told = Vec::new();
    loop {
        match next_notice(feed).await {
            Notice::Changed(id) => told.push(id),
            Notice::Gap => panic!("a gap, although nothing was lost"),
            Notice::Pong(number) if number >= ping => return told,
            Notice::Pong(_) => {}
        }
    }
}

/// The feed names an insert, a replace, a touch and a removal, each of them once.
pub async fn a_feed_tells_each_change_of_a_record_once<S: SessionFeed>(store: Arc<S>) {
    let mut feed = store.subscribe().await.unwrap();
    let record = new_record();
    let id = insert(&*store, &record).await;
    assert_eq!(told(&mut feed).await, [id], "an insert");
    let newer = next(&record, Data::default());
    let replaced = store.replace(id, record.version(), &newer).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(told(&mut feed).await, [id], "a replace");
    let touched = newer.with_expires_at(now() + 2 * super::HOUR);
    assert!(store.touch(id, &touched).await.unwrap());
    assert_eq!(told(&mut feed).await, [id], "a touch");
    assert!(store.remove(id).await.unwrap());
    assert_eq!(told(&mut feed).await, [id], "a removal");
    // The feed says nothing of a call that changes nothing.
    assert!(!store.remove(id).await.unwrap());
    assert!(!store.touch(id, &touched).await.unwrap());
    let replaced = store.replace(id, record.version(), &touched).await.unwrap();
    assert_eq!(replaced, Replaced::Missing);
    assert_eq!(told(&mut feed).await, []);
}

/// Feeds do not take notices away from each other.
pub async fn a_feed_tells_what_another_subscriber_is_told<S: SessionFeed>(store: Arc<S>) {
    let mut first = store.subscribe().await.unwrap();
    let mut second = store.subscribe().await.unwrap();
    let id = insert(&*store, &new_record()).await;
    assert_eq!(told(&mut first).await, [id]);
    assert_eq!(told(&mut second).await, [id]);
    drop(first);
    assert!(store.remove(id).await.unwrap());
    assert_eq!(told(&mut second).await, [id]);
}

/// A feed reports nothing from before the subscription.
pub async fn a_feed_tells_of_nothing_from_before_it_began<S: SessionFeed>(store: Arc<S>) {
    // The store tells somebody else of these.
    let mut earlier = store.subscribe().await.unwrap();
    let id = insert(&*store, &new_record()).await;
    assert_eq!(told(&mut earlier).await, [id]);
    let mut feed = store.subscribe().await.unwrap();
    assert_eq!(told(&mut feed).await, []);
    let other = insert(&*store, &new_record()).await;
    assert_eq!(told(&mut feed).await, [other]);
}

/// If the store removes the sessions of a user, the feed reports each of them.
pub async fn a_feed_tells_each_session_that_a_user_loses<S>(store: Arc<S>)
where
    S: SessionFeed + UserIndex,
{
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(insert(&*store, &new_record_of("r:ada")).await);
    }
    let mut feed = store.subscribe().await.unwrap();
    store
        .remove_by_user(&user_id("r:ada"), Some(ids[0]))
        .await
        .unwrap();
    let mut told = told(&mut feed).await;
    told.sort();
    let mut ended = ids.split_off(1);
    ended.sort();
    assert_eq!(told, ended);
}

/// When the pong comes, the feed has reported all earlier changes.
pub async fn a_pong_comes_after_all_changes_before_its_ping<S: SessionFeed>(store: Arc<S>) {
    let mut feed = store.subscribe().await.unwrap();
    for _ in 0..20 {
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(insert(&*store, &new_record()).await);
        }
        let mut told = told(&mut feed).await;
        told.sort();
        ids.sort();
        assert_eq!(told, ids);
    }
}
