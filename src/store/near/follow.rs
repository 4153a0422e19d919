//! [`Follower`]: the task that follows the feed for a cache.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::cache::Cache;
use super::moment::Moment;
use crate::error::StoreError;
use crate::events;
use crate::store::feed::backoff::Backoff;
use crate::store::feed::{Feed, Notice, SessionFeed};

/// How long a try to subscribe may take.
const LONGEST_SUBSCRIBE: Duration = Duration::from_secs(30);

pub(super) struct Follower<S> {
    pub(super) store: Arc<S>,
    pub(super) cache: Arc<Cache>,
    pub(super) ping: Arc<Notify>,
    pub(super) heartbeat: Duration,
}

/// What the task does next.
enum Next {
    Notice(Option<Notice>),
    Ping,
}

impl<S: SessionFeed> Follower<S> {
    pub(super) async fn run(self, mut feed: Feed) {
        loop {
            self.follow(&mut feed).await;
            // A feed connects again by itself. It ends only if its store gave up.
            self.cache.lose();
            feed = self.subscribe_again().await;
        }
    }

    /// Takes in what the feed tells, until it ends.
    async fn follow(&self, feed: &mut Feed) {
        let mut beats = interval(self.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut asked = pin!(self.ping.notified());
            let next = poll_fn(|cx| {
                use std::future::Future as _;
                if let Poll::Ready(notice) = feed.poll_notice(cx) {
                    return Poll::Ready(Next::Notice(notice));
                }
                if asked.as_mut().poll(cx).is_ready() || beats.poll_tick(cx).is_ready() {
                    return Poll::Ready(Next::Ping);
                }
                Poll::Pending
            });
            match next.await {
                Next::Notice(Some(notice)) => {
                    self.cache.notice(notice);
                    if notice == Notice::Gap {
                        self.send_ping(feed);
                    }
                }
                Next::Notice(None) => return,
                Next::Ping => self.send_ping(feed),
            }
        }
    }

    fn send_ping(&self, feed: &Feed) {
        self.cache.ping(Moment::now, || feed.ping());
    }

    async fn subscribe_again(&self) -> Feed {
        let mut backoff = Backoff::new();
        loop {
            backoff.pause().await;
            let feed = timeout(LONGEST_SUBSCRIBE, self.store.subscribe()).await;
            match feed.unwrap_or_else(|_| Err(StoreError::timeout(LONGEST_SUBSCRIBE))) {
                Ok(feed) => {
                    // What was read while there was no feed may be out of date.
                    self.cache.lose();
                    return feed;
                }
                Err(error) => events::store_error("subscribe", &error),
            }
        }
    }
}
