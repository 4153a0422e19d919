//! [`Listeners`]: the feeds of a store that tells of its own writes.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use crate::id::RecordId;
use crate::store::feed::{Feed, FeedSender};

/// The feeds of a store. A store that nobody listens to pays for one look at a number.
#[derive(Default)]
pub(super) struct Listeners {
    count: AtomicUsize,
    senders: RwLock<Vec<FeedSender>>,
}

impl Listeners {
    /// A new feed. A task answers its pings until the feed is dropped.
    pub(super) fn subscribe(self: &Arc<Self>) -> Feed {
        let (sender, feed) = Feed::channel();
        let mut pinged = sender.clone();
        self.change(|senders| senders.push(sender));
        let listeners = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(ping) = pinged.pinged().await {
                pinged.pong(ping);
            }
            if let Some(listeners) = listeners.upgrade() {
                listeners.change(|senders| senders.retain(|sender| !sender.is_closed()));
            }
        });
        feed
    }

    /// Tells all feeds that something happened to this record.
    pub(super) fn changed(&self, id: RecordId) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
        for sender in &*senders {
            sender.changed(id);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<FeedSender>)) {
        let mut senders = self.senders.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut senders);
        self.count.store(senders.len(), SeqCst);
    }
}
