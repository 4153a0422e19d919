//! The feed of a [`RedisStore`]: a task that listens at the servers, and connects again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use self::cluster::{Cluster, Seeds};
use self::server::{Server, reconnected};
use self::tracking::{Listener, failed};
use super::RedisStore;
use super::connection::Connection;
use super::link::{ATTEMPT_TIMEOUT, Link, Observer, Pace};
use super::servers::{Servers, Source};
use crate::error::StoreError;
use crate::events;
use crate::store::feed::{Feed, FeedSender, SessionFeed};

mod cluster;
mod server;
mod tracking;

/// After this time without a ping, the feed asks the server itself. So the feed notices a dead
/// connection.
const IDLE: Duration = Duration::from_secs(5);

const STORE: &str = "redis";

#[async_trait]
impl SessionFeed for RedisStore {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        let Connection::Own(link) = &self.connection else {
            return Err(StoreError::new(
                "a store on the application's own connection to Redis has no feed: make the store \
                 with `RedisStore::connect`",
            ));
        };
        let (sender, feed) = Feed::channel();
        let listener = Listener::new(self.session_keys().into(), sender.clone());
        let mut place = Place::of(link)?;
        let subscription = place.subscribe(listener).await?;
        let keeper = Keeper {
            place,
            pings: Pings::new(sender),
        };
        tokio::spawn(keeper.keep(subscription));
        Ok(feed)
    }
}

/// Where to subscribe.
struct Place {
    store: Observer,
    kind: PlaceKind,
}

enum PlaceKind {
    Server(Source),
    Cluster(Seeds),
}

impl Place {
    fn of(link: &Link) -> Result<Self, StoreError> {
        Ok(Self {
            store: link.observe(),
            kind: match link.servers() {
                Servers::Cluster(nodes) => PlaceKind::Cluster(Seeds::new(nodes)),
                servers => PlaceKind::Server(servers.source().map_err(failed)?),
            },
        })
    }

    async fn subscribe(&mut self, listener: Listener) -> Result<Subscription, StoreError> {
        let attempt = async {
            let at = match &mut self.kind {
                PlaceKind::Server(source) => {
                    At::Server(Server::open(source, &self.store, &listener).await?)
                }
                PlaceKind::Cluster(seeds) => At::Cluster(Cluster::open(seeds, &listener).await?),
            };
            Ok(Subscription {
                at,
                listener: listener.clone(),
            })
        };
        let late = |_| Err(StoreError::timeout(ATTEMPT_TIMEOUT));
        timeout(ATTEMPT_TIMEOUT, attempt).await.unwrap_or_else(late)
    }
}

/// A subscription that works, as far as is known.
struct Subscription {
    at: At,
    listener: Listener,
}

enum At {
    Server(Server),
    Cluster(Cluster),
}

impl Subscription {
    /// Fails if changes may be lost. Otherwise, all that was answered before the call has been
    /// told.
    async fn prove(&self, store: &Observer) -> Result<(), StoreError> {
        match &self.at {
            At::Server(server) => server.prove(store).await,
            At::Cluster(cluster) => cluster.prove().await,
        }
    }

    /// Waits until the subscription does not work any more.
    async fn lost(&self, store: &mut Observer) -> StoreError {
        let mut closed = pin!(self.listener.closed());
        let mut left = pin!(async {
            match &self.at {
                At::Server(server) => store.replaced(server.number).await,
                At::Cluster(_) => store.gone().await,
            }
        });
        poll_fn(|cx| {
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(StoreError::new("the server closed the feed's connection"));
            }
            left.as_mut().poll(cx).map(|()| reconnected())
        })
        .await
    }
}

/// The task of a feed.
struct Keeper {
    place: Place,
    pings: Pings,
}

impl Keeper {
    async fn keep(mut self, mut subscription: Subscription) {
        let mut pace = Pace::new();
        while let Some(error) = self.serve(&subscription).await {
            if self.place.store.is_gone() {
                return;
            }
            events::feed::lost(STORE, &error);
            let listener = subscription.listener.renewed();
            // Its connections end here.
            drop(subscription);
            let Some(again) = self.connect_again(&listener, &mut pace).await else {
                return;
            };
            subscription = again;
            self.pings.sender.gap();
            events::feed::restored(STORE);
        }
    }

    /// Answers pings until the subscription is lost. `None` if the feed was dropped.
    async fn serve(&mut self, subscription: &Subscription) -> Option<StoreError> {
        loop {
            if let Some(asked) = self.pings.unanswered() {
                let proof = subscription.prove(&self.place.store);
                match self.pings.wait(proof).await? {
                    Ok(()) => self.pings.answer(asked),
                    Err(error) => return Some(error),
                }
                continue;
            }
            let next = {
                let lost = timeout(IDLE, subscription.lost(&mut self.place.store));
                self.pings.next(pin!(lost)).await
            };
            match next {
                Next::Ready(Ok(error)) => return Some(error),
                Next::Ready(Err(_)) => {
                    let proof = subscription.prove(&self.place.store);
                    if let Err(error) = self.pings.wait(proof).await? {
                        return Some(error);
                    }
                }
                Next::Pinged => {}
                Next::Dropped => return None,
            }
        }
    }

    /// Connects until it succeeds. `None` if the feed was dropped, or the store is gone.
    async fn connect_again(
        &mut self,
        listener: &Listener,
        pace: &mut Pace,
    ) -> Option<Subscription> {
        loop {
            self.pings.wait(pace.wait()).await?;
            let attempt = self.place.subscribe(listener.renewed());
            if let Ok(subscription) = self.pings.wait(attempt).await? {
                return Some(subscription);
            }
            if self.place.store.is_gone() {
                return None;
            }
        }
    }
}

/// The pings of a feed, and the other side of it.
struct Pings {
    sender: FeedSender,
    asked: u64,
    answered: u64,
}

enum Next<T> {
    Ready(T),
    Pinged,
    Dropped,
}

impl Pings {
    fn new(sender: FeedSender) -> Self {
        Self {
            sender,
            asked: 0,
            answered: 0,
        }
    }

    fn unanswered(&self) -> Option<u64> {
        (self.asked > self.answered).then_some(self.asked)
    }

    fn answer(&mut self, ping: u64) {
        self.answered = ping;
        self.sender.pong(ping);
    }

    /// Waits for this future, for a ping, or for the end of the feed.
    async fn next<F: Future>(&mut self, mut future: Pin<&mut F>) -> Next<F::Output> {
        let ping = {
            let mut pinged = pin!(self.sender.pinged());
            let next = poll_fn(|cx| match pinged.as_mut().poll(cx) {
                Poll::Ready(ping) => Poll::Ready(Err(ping)),
                Poll::Pending => future.as_mut().poll(cx).map(Ok),
            });
            match next.await {
                Ok(output) => return Next::Ready(output),
                Err(ping) => ping,
            }
        };
        match ping {
            Some(ping) => {
                self.asked = ping;
                Next::Pinged
            }
            None => Next::Dropped,
        }
    }

    /// Waits for this future. `None` if the feed was dropped.
    async fn wait<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            match self.next(future.as_mut()).await {
                Next::Ready(output) => return Some(output),
                Next::Pinged => {}
                Next::Dropped => return None,
            }
        }
    }
}
