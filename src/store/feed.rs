//! [`SessionFeed`]: a store that reports what happens to its records, on whichever node.

#[cfg(any(feature = "near-cache", feature = "postgres", feature = "sqlite"))]
pub(crate) mod backoff;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;

use crate::error::StoreError;
use crate::id::RecordId;
use crate::store::SessionStore;

/// How many notices wait for a reader at most. If there are more, the reader gets a [`Notice::Gap`]
/// in their place.
const MAX_WAITING: usize = 16 * 1024;

/// A store that reports what happens to its records, on whichever node.
///
/// A [`NearCache`](crate::NearCache) needs this trait. With it, [`DetachedSession::ended`] hears of
/// an end at once. `MemoryStore`, `SqliteStore`, `RedisStore` and, once you turn its feed on,
/// `PostgresStore` implement it. See [operations](crate::docs::operations#feeds) for the costs.
///
/// # Contract
///
/// - After [`subscribe`](Self::subscribe) returns, the feed sends a [`Notice::Changed`] for each
///   insert, replace, touch, removal and expiry of a record, whichever node or process made it. For
///   an expiry, the feed may wait until the store removes the record.
/// - The feed sends one notice for each change.
/// - If the feed may have lost changes, for example because it lost a connection, it connects again
///   by itself. When it works again, it sends a [`Notice::Gap`].
/// - Before the feed answers a ping with a [`Notice::Pong`], it sends the notices of all writes
///   whose callers had their answer when the reader sent the ping.
///
/// The feature `conformance` has the contract as tests: add `with feed` to
/// [`conformance_tests!`](crate::conformance_tests). These tests also need a
/// [`UserIndex`](crate::UserIndex). For an example, see [`Feed`] and [`FeedSender`].
///
/// [`DetachedSession::ended`]: crate::DetachedSession::ended
#[diagnostic::on_unimplemented(
    message = "the store `{Self}` does not report what happens to its records",
    label = "this store has no feed",
    note = "use a store that implements `SessionFeed`: memory, SQLite, PostgreSQL or Redis"
)]
#[async_trait]
pub trait SessionFeed: SessionStore {
    /// Subscribes to what happens to all records from now on. The subscription ends when the feed
    /// is dropped.
    ///
    /// When the future is dropped, nothing of the subscription is left.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or its server cannot report changes.
    ///
    /// # Panics
    ///
    /// The stores of this crate start a task, so they panic outside of a Tokio runtime.
    async fn subscribe(&self) -> Result<Feed, StoreError>;
}

/// What a [`Feed`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something happened to this record: a write, a touch, a removal or an expiry. If you need to
    /// know what, ask the store.
    Changed(RecordId),
    /// Notices may be missing here. What you have read before this notice may be out of date.
    Gap,
    /// The answer to the [ping](Feed::ping) of this number, and to all pings before it. The feed
    /// has reported all that happened before that ping.
    Pong(u64),
}

/// What happens to the records of a store, as a stream of [`Notice`]s. See
/// [`SessionFeed::subscribe`].
///
/// The feed ends only if the store is gone. It keeps up to 16,384 notices for its reader. A reader
/// that is slower loses all waiting notices, and gets one [`Notice::Gap`] in their place.
///
/// ```
/// use cloakroom::{MemoryStore, Notice, SessionFeed, SessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let mut feed = store.subscribe().await?;
/// let ping = feed.ping();
/// assert_eq!(feed.next().await, Some(Notice::Pong(ping)));
/// # Ok(()) }
/// ```
pub struct Feed {
    notices: mpsc::Receiver<Notice>,
    is_lossy: Arc<AtomicBool>,
    pings: watch::Sender<u64>,
}

/// The store's side of a [`Feed`]. The feed ends when the last clone of the sender is dropped.
///
/// ```
/// use cloakroom::{Feed, FeedSender, RecordId};
///
/// /// What a store of your own returns from `subscribe`.
/// fn subscribe() -> Feed {
///     let (sender, feed) = Feed::channel();
///     tokio::spawn(answer_pings(sender));
///     feed
/// }
///
/// async fn answer_pings(mut sender: FeedSender) {
///     while let Some(ping) = sender.pinged().await {
///         // … `sender.changed(id)` for all that happened until now …
///         sender.pong(ping);
///     }
/// }
/// ```
#[derive(Clone)]
pub struct FeedSender {
    notices: mpsc::Sender<Notice>,
    is_lossy: Arc<AtomicBool>,
    pings: watch::Receiver<u64>,
}

impl Feed {
    /// Makes the two sides of a feed: the store's, and the reader's. For authors of stores.
    #[must_use]
    pub fn channel() -> (FeedSender, Self) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let is_lossy = Arc::new(AtomicBool::new(false));
        let (ping_sender, ping_receiver) = watch::channel(0);
        let feed = Self {
            notices: receiver,
            is_lossy: Arc::clone(&is_lossy),
            pings: ping_sender,
        };
        let sender = FeedSender {
            notices: sender,
            is_lossy,
            pings: ping_receiver,
        };
        (sender, feed)
    }

    /// The next notice, or `None` if the store is gone.
    ///
    /// When the future is dropped, no notice is lost.
    pub async fn next(&mut self) -> Option<Notice> {
        std::future::poll_fn(|cx| self.poll_notice(cx)).await
    }

    /// Asks for a [`Notice::Pong`] with the number that this returns, or with a higher one. The
    /// pong proves that the feed has reported all that happened before the ping. A later ping
    /// replaces a ping that has no answer yet.
    #[expect(clippy::must_use_candidate, reason = "a pong of any number may do")]
    pub fn ping(&self) -> u64 {
        let mut number = 0;
        self.pings.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        number
    }

    pub(crate) fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        let notice = self.notices.poll_recv(cx);
        // The order matters: whoever drops a notice says so before the next notice or pong.
        if let Poll::Ready(Some(_)) = notice
            && self.is_lossy.swap(false, SeqCst)
        {
            while self.notices.try_recv().is_ok() {}
            return Poll::Ready(Some(Notice::Gap));
        }
        notice
    }
}

impl Stream for Feed {
    type Item = Notice;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        self.get_mut().poll_notice(cx)
    }
}

impl FeedSender {
    /// Reports that something happened to this record.
    pub fn changed(&self, id: RecordId) {
        self.send(Notice::Changed(id));
    }

    /// Reports that notices may be missing. Call this when the feed works again.
    pub fn gap(&self) {
        self.send(Notice::Gap);
    }

    /// Answers a ping, and all pings before it.
    pub fn pong(&self, ping: u64) {
        self.send(Notice::Pong(ping));
    }

    /// Waits for a ping, and returns the number of the newest one. `None` if the feed was dropped.
    ///
    /// When the future is dropped, no ping is lost.
    pub async fn pinged(&mut self) -> Option<u64> {
        self.pings.changed().await.ok()?;
        Some(*self.pings.borrow_and_update())
    }

    /// Whether the reader dropped the feed, so that nobody reads the notices.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.notices.is_closed()
    }

    fn send(&self, notice: Notice) {
        if let Err(TrySendError::Full(_)) = self.notices.try_send(notice) {
            self.is_lossy.store(true, SeqCst);
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("waiting", &self.notices.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FeedSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedSender")
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
