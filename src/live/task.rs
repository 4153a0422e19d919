//! The task that finds out what became of the watched sessions.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::sessions::LiveSessions;
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;
use crate::record::Record;
use crate::store::feed::{Feed, Notice};

/// How many questions are under way at the same time. The SQL stores make one statement of them.
const ASKED_AT_ONCE: usize = 64;

/// What woke the task.
enum Woken {
    Notice(Option<Notice>),
    ByWatcher,
    ByInterval,
}

/// The feed of the store, and whether it still answers.
struct Following {
    feed: Feed,
    /// The last ping, while it has no answer.
    unanswered: Option<u64>,
}

/// The task. It notes when it ends, also if its runtime drops it before its first step.
pub(super) struct Running {
    live: Arc<LiveSessions>,
    /// It has ended by itself, and another task may have begun.
    has_stopped: bool,
}

impl Running {
    pub(super) fn new(live: Arc<LiveSessions>) -> Self {
        Self {
            live,
            has_stopped: false,
        }
    }

    pub(super) async fn run(mut self) {
        let live = Arc::clone(&self.live);
        live.run().await;
        self.has_stopped = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_stopped {
            self.live.stopped();
        }
    }
}

impl LiveSessions {
    /// Follows the feed and asks the store, until nobody waits any more.
    async fn run(self: Arc<Self>) {
        let mut following = self.subscribe().await;
        let mut beats = interval(self.interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        beats.tick().await;
        let mut failed = Vec::new();
        loop {
            self.ask_all(&mut failed).await;
            let mut woken = pin!(self.wake.notified());
            let next = poll_fn(|cx| {
                if let Some(following) = &mut following
                    && let Poll::Ready(notice) = following.feed.poll_notice(cx)
                {
                    return Poll::Ready(Woken::Notice(notice));
                }
                if woken.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Woken::ByWatcher);
                }
                beats.poll_tick(cx).map(|_| Woken::ByInterval)
            });
            match next.await {
                Woken::Notice(Some(Notice::Changed(id))) => self.changed([id]),
                Woken::Notice(Some(Notice::Gap)) => self.all_may_have_changed(),
                Woken::Notice(Some(Notice::Pong(number))) => {
                    if let Some(following) = &mut following
                        && following.unanswered.is_some_and(|ping| ping <= number)
                    {
                        following.unanswered = None;
                    }
                }
                Woken::Notice(None) => following = None,
                Woken::ByWatcher => {}
                Woken::ByInterval => {
                    if self.may_stop() {
                        return;
                    }
                    self.changed(failed.drain(..));
                    self.beat(&mut following).await;
                }
            }
        }
    }

    async fn subscribe(&self) -> Option<Following> {
        self.store.session_feed()?;
        let (store, limit) = (Arc::clone(&self.store), self.timeout);
        // In a task of its own: a store that panics there still answers questions.
        let subscription = tokio::spawn(async move {
            let feed = store.session_feed()?.subscribe();
            let feed = timeout(limit, feed).await;
            Some(feed.unwrap_or_else(|_| Err(StoreError::timeout(limit))))
        });
        let feed = subscription.await.ok().flatten()?;
        // The feed does not report what happened before the subscription.
        self.all_may_have_changed();
        match feed {
            Ok(feed) => Some(Following {
                feed,
                unanswered: None,
            }),
            Err(error) => {
                events::store_error("subscribe", &error);
                None
            }
        }
    }

    /// At each interval: pings the feed, or asks for all sessions if no feed answers.
    async fn beat(&self, following: &mut Option<Following>) {
        match following {
            Some(following) => {
                if following.unanswered.is_some() {
                    self.all_may_have_changed();
                }
                following.unanswered = Some(following.feed.ping());
            }
            None => {
                *following = self.subscribe().await;
                self.all_may_have_changed();
            }
        }
    }

    /// Asks the store for all that there is to ask, in parallel.
    /// `failed` gets those that the store did not answer.
    async fn ask_all(self: &Arc<Self>, failed: &mut Vec<RecordId>) {
        loop {
            let ids = self.take_questions(ASKED_AT_ONCE);
            if ids.is_empty() {
                return;
            }
            let mut questions = JoinSet::new();
            for &id in &ids {
                let live = Arc::clone(self);
                questions.spawn(async move {
                    let answer = timeout(live.timeout, live.store.reload(id)).await;
                    let answer = answer.unwrap_or_else(|_| Err(StoreError::timeout(live.timeout)));
                    (id, answer)
                });
            }
            let mut unanswered = ids;
            while let Some(answer) = questions.join_next().await {
                match answer {
                    Ok((id, Ok(record))) => {
                        unanswered.retain(|other| *other != id);
                        self.answered(id, record.filter(Record::is_open));
                    }
                    Ok((_, Err(error))) => events::store_error("load", &error),
                    // The store panicked.
                    Err(_) => {}
                }
            }
            // An outage is not an end. The sessions stay, and the next beat asks again.
            failed.append(&mut unanswered);
        }
    }
}
