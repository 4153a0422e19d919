//! The feed of a [`SqliteStore`]: triggers write a log of changes beside the table, and a task
//! reads it.

mod log;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::timeout;

use self::log::{Log, News};
use super::SqliteStore;
use crate::error::StoreError;
use crate::events;
use crate::store::feed::backoff::Backoff;
use crate::store::feed::{Feed, SessionFeed};
use crate::store::sql::feed::{Reader, Turn};

/// How often a task looks for changes of other processes. SQLite does not report commits, so the
/// task has to look. A look takes about ten microseconds, so 20 looks a second cost next to
/// nothing. A person does not notice the delay. `PRAGMA data_version` would say whether there was a
/// commit, but asking for it takes half as long as the look itself.
const INTERVAL: Duration = Duration::from_millis(50);

/// Wakes the tasks of the feeds after each write of this process. Clones of a store share it.
#[derive(Clone, Default)]
pub(super) struct Wake(watch::Sender<()>);

impl Wake {
    pub(super) fn of<'a>(&self, store: &'a SqliteStore) -> Option<&'a dyn SessionFeed> {
        Some(store)
    }

    pub(super) fn wrote(&self) {
        // A store without feeds pays for one look at a number.
        if self.0.receiver_count() > 0 {
            self.0.send_replace(());
        }
    }
}

#[async_trait]
impl SessionFeed for SqliteStore {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        let wake = self.feed.0.subscribe();
        let log = Log::open(self).await?;
        let (sender, feed) = Feed::channel();
        let reader = Reader::new(sender);
        tokio::spawn(Follower { log, reader, wake }.run());
        Ok(feed)
    }
}

/// The task of a feed.
struct Follower {
    log: Log,
    reader: Reader,
    wake: watch::Receiver<()>,
}

impl Follower {
    /// Follows the log until the feed is dropped.
    async fn run(mut self) {
        while let Err(error) = self.follow().await {
            events::feed::lost("sqlite", &error);
            let log = &mut self.log;
            let attempts = async {
                let mut backoff = Backoff::new();
                while log.open_again().await.is_err() {
                    backoff.pause().await;
                }
            };
            if self.reader.finish(attempts).await.is_none() {
                return;
            }
            events::feed::restored("sqlite");
            self.reader.sender.gap();
        }
    }

    /// Tells what is new in the log. The answer is an error if the log cannot be read. It is `Ok`
    /// if the feed was dropped.
    async fn follow(&mut self) -> Result<(), StoreError> {
        loop {
            let ping = self.reader.ping;
            // A write that was answered has been committed. This read begins after that, and a read
            // sees all commits before it (SQLite's manual, "Isolation In SQLite").
            let Some(news) = self.reader.finish(self.log.read()).await else {
                return Ok(());
            };
            match news? {
                News::Changed(ids) => ids.iter().for_each(|id| self.reader.sender.changed(*id)),
                News::Gap => {
                    let Some(opened) = self.reader.finish(self.log.open_again()).await else {
                        return Ok(());
                    };
                    opened?;
                    self.reader.sender.gap();
                }
            }
            self.reader.answer(ping);
            let wake = &mut self.wake;
            let next_look = async {
                // The store is never gone: the log keeps its connections.
                let _ = timeout(INTERVAL, wake.changed()).await;
            };
            if let Turn::Dropped = self.reader.turn(next_look).await {
                return Ok(());
            }
        }
    }
}
