//! What the feeds of the SQL stores have in common: a task that follows the database, and its
//! reader.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::store::feed::FeedSender;

/// The side of a feed that a task has: whom it tells, and who pings.
pub(super) struct Reader {
    pub(super) sender: FeedSender,
    /// The newest ping without an answer. It stays if the feed is lost before the answer, and gets
    /// its answer after the gap.
    pub(super) ping: Option<u64>,
}

/// What a task does next.
pub(super) enum Turn<T> {
    /// What it waited for is there.
    Done(T),
    /// The reader waits for the answer to a ping.
    Pinged,
    /// Nobody reads the feed any more.
    Dropped,
}

impl Reader {
    pub(super) fn new(sender: FeedSender) -> Self {
        Self { sender, ping: None }
    }

    /// Waits for something, for a ping, or for the end of the feed. The `work` is dropped if it is
    /// not the first of them.
    pub(super) async fn turn<T>(&mut self, work: impl Future<Output = T>) -> Turn<T> {
        if self.ping.is_some() {
            return Turn::Pinged;
        }
        // Pings come first: notices without end must not keep a ping waiting.
        match race(self.sender.pinged(), work).await {
            First::One(Some(ping)) => {
                self.ping = Some(ping);
                Turn::Pinged
            }
            First::One(None) => Turn::Dropped,
            First::Other(done) => Turn::Done(done),
        }
    }

    /// Answers this ping. A newer one stays.
    pub(super) fn answer(&mut self, ping: Option<u64>) {
        if let Some(ping) = ping {
            self.sender.pong(ping);
            self.ping.take_if(|newest| *newest == ping);
        }
    }

    /// Does something to its end, and notes pings. `None` if the feed was dropped.
    pub(super) async fn finish<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            match race(self.sender.pinged(), work.as_mut()).await {
                First::One(Some(ping)) => self.ping = Some(ping),
                First::One(None) => return None,
                First::Other(done) => return Some(done),
            }
        }
    }
}

enum First<A, B> {
    One(A),
    Other(B),
}

/// The one that is ready first. If both are, it is `one`.
async fn race<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> First<A, B> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| {
        if let Poll::Ready(answer) = one.as_mut().poll(context) {
            return Poll::Ready(First::One(answer));
        }
        other.as_mut().poll(context).map(First::Other)
    })
    .await
}
