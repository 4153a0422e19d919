//! The feed of a [`PostgresStore`]: triggers notify, and a connection of its own listens.

mod listener;
mod triggers;

use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;
use tokio::time::{error::Elapsed, timeout};

use self::listener::{Listener, Message};
use self::triggers::trial_query;
use super::{DIALECT, PostgresStore};
use crate::error::StoreError;
use crate::events;
use crate::store::feed::backoff::Backoff;
use crate::store::feed::{Feed, FeedSender, SessionFeed};
use crate::store::sql::check_login;
use crate::store::sql::feed::{Reader, Turn};
use crate::store::sql::implement::run;
use crate::store::sql::statements::Statements;

/// How long the server may take to answer a ping. After that time, the connection counts as lost.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a feed without notices and pings trusts its connection.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the store may take to send the trial message of a new feed, and how long the message
/// may take then.
const TRIAL_SENT: Duration = Duration::from_secs(10);
const TRIAL: Duration = Duration::from_secs(2);

/// The settings of the feed.
#[derive(Clone, Default)]
pub(super) struct FeedSettings {
    is_on: bool,
    /// Where the feed connects to, if it is not where the store does.
    options: Option<PgConnectOptions>,
}

impl FeedSettings {
    pub(super) fn of<'a>(&self, store: &'a PostgresStore) -> Option<&'a dyn SessionFeed> {
        self.is_on.then_some(store)
    }

    /// The triggers tell of it.
    pub(super) fn wrote(&self) {}
}

impl PostgresStore {
    /// Turns the [feed](#feed) on, for this handle and its clones. Without the triggers of
    /// [`migrate_feed`](Self::migrate_feed), [`subscribe`](SessionFeed::subscribe) is an error.
    ///
    /// ```no_run
    /// use cloakroom::PostgresStore;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::connect("postgres://app:secret@db.example/app").await?;
    /// store.migrate().await?;
    /// store.migrate_feed().await?;
    /// let store = store.with_feed();
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_feed(mut self) -> Self {
        self.feed.is_on = true;
        self
    }

    /// Turns the [feed](#feed) on, and has it listen over another URL than the store's. It must
    /// lead to the same database.
    ///
    /// You need this behind PgBouncer in transaction mode: notices do not pass it. Give the URL of
    /// PostgreSQL itself, or that of PgBouncer in session mode.
    ///
    /// # Errors
    ///
    /// The URL is wrong. This does not connect: if no server answers there,
    /// [`subscribe`](SessionFeed::subscribe) is an error.
    ///
    /// ```no_run
    /// use cloakroom::PostgresStore;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::connect("postgres://app:secret@pooler.example:6432/app").await?;
    /// let store = store.with_feed_url("postgres://app:secret@db.example/app")?;
    /// # Ok(()) }
    /// ```
    pub fn with_feed_url(mut self, url: &str) -> Result<Self, StoreError> {
        check_login(url, &DIALECT)?;
        let options = PgConnectOptions::from_str(url).map_err(|error| {
            StoreError::new("the PostgreSQL URL of the feed is wrong").with_source(error)
        })?;
        self.feed.options = Some(options);
        Ok(self.with_feed())
    }

    fn source(&self) -> Source {
        let own = || self.reader.options();
        Source {
            options: self.feed.options.clone().unwrap_or_else(own),
            statements: self.statements.clone(),
        }
    }

    /// Sends a message over the store's own connection. It must come over the listening one.
    ///
    /// It does not come if that connection leads to another database, or finds a table of another
    /// schema under the name. It does not come through
    /// PgBouncer in transaction mode either: between two statements of a client, PgBouncer drops
    /// what the server sends. So nothing else may be asked over that connection here.
    async fn try_out(
        &self,
        listener: &mut Listener,
        sender: &FeedSender,
    ) -> Result<(), StoreError> {
        let mark = self.send_trial(TRIAL_SENT).await?;
        receive_trial(listener, &mark, sender).await
    }

    /// Sends a message, and returns what it says.
    async fn send_trial(&self, limit: Duration) -> Result<String, StoreError> {
        let mark = format!("{:016x}", RandomState::new().hash_one(0));
        let send = async {
            run!(
                self,
                "send a message of the feed",
                writer.execute(
                    sqlx::query(AssertSqlSafe(trial_query(&self.statements.table)))
                        .bind(Message::trial(&mark))
                )
            );
            Ok(())
        };
        let sent: Result<(), StoreError> = timeout(limit, send)
            .await
            .unwrap_or_else(|_| Err(StoreError::timeout(limit)));
        sent.map(|()| mark)
    }
}

/// Waits for the message that the store has sent. What comes before it is passed on.
async fn receive_trial(
    listener: &mut Listener,
    mark: &str,
    sender: &FeedSender,
) -> Result<(), StoreError> {
    let arrives = async {
        loop {
            match listener.message().await? {
                Message::Trial(found) if found == mark => return Ok(()),
                message => tell(&message, sender),
            }
        }
    };
    match timeout(TRIAL, arrives).await {
        Ok(arrived) => arrived,
        Err(elapsed) => Err(StoreError::new(
            "could not follow the changes in PostgreSQL: a message that the store sent did not \
             arrive; if the feed connects through PgBouncer in transaction mode, give \
             `PostgresStore::with_feed_url` the URL of PostgreSQL itself; if it has a URL of its \
             own, check that it leads to the store's database and finds the same schema",
        )
        .with_source(elapsed)),
    }
}

#[async_trait]
impl SessionFeed for PostgresStore {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        let source = self.source();
        let mut listener = source.listen().await?;
        let (sender, feed) = Feed::channel();
        let reader = Reader::new(sender);
        self.try_out(&mut listener, &reader.sender).await?;
        let store = self.clone();
        let follower = Follower {
            store,
            source,
            reader,
        };
        tokio::spawn(follower.run(listener));
        Ok(feed)
    }
}

/// Where a feed listens, and to what.
struct Source {
    options: PgConnectOptions,
    statements: Arc<Statements>,
}

impl Source {
    async fn listen(&self) -> Result<Listener, StoreError> {
        Listener::open(&self.options, &self.statements).await
    }
}

/// The task of a feed.
struct Follower {
    store: PostgresStore,
    source: Source,
    reader: Reader,
}

impl Follower {
    /// Follows the database until the feed is dropped.
    async fn run(mut self, mut listener: Listener) {
        while let Err(error) = self.follow(&mut listener).await {
            drop(listener);
            events::feed::lost("postgres", &error);
            let Some(next) = self.listen_again().await else {
                return;
            };
            listener = next;
            events::feed::restored("postgres");
            // The new connection listens already, so that nothing is lost after this.
            self.reader.sender.gap();
        }
    }

    /// Passes notices on. The answer is an error if some may be lost. It is `Ok` if the feed was
    /// dropped.
    async fn follow(&mut self, listener: &mut Listener) -> Result<(), StoreError> {
        loop {
            // A message is read as a whole or not at all, also if this future is dropped.
            match self.reader.turn(timeout(SILENCE, listener.message())).await {
                Turn::Dropped => return Ok(()),
                Turn::Done(Ok(message)) => tell(&message?, &self.reader.sender),
                Turn::Pinged | Turn::Done(Err(Elapsed { .. })) => {
                    let ping = self.reader.ping;
                    let check = timeout(PING_TIMEOUT, listener.check());
                    let Some(checked) = self.reader.finish(check).await else {
                        return Ok(());
                    };
                    checked.unwrap_or_else(|_| Err(StoreError::timeout(PING_TIMEOUT)))?;
                    while let Some(message) = listener.next_that_came() {
                        tell(&message, &self.reader.sender);
                    }
                    self.reader.answer(ping);
                }
            }
        }
    }

    /// Listens over a new connection. `None` if the feed was dropped.
    async fn listen_again(&mut self) -> Option<Listener> {
        let Self {
            store,
            source,
            reader,
        } = self;
        // What the trials report comes before the gap, and so it does no harm.
        let sender = reader.sender.clone();
        let attempts = async {
            let mut backoff = Backoff::new();
            loop {
                if let Ok(mut listener) = source.listen().await {
                    // The store's connections may lead to another server by now. If they are all
                    // busy, the feed does not wait for them.
                    let arrived = match store.send_trial(TRIAL).await {
                        Ok(mark) => receive_trial(&mut listener, &mark, &sender).await,
                        Err(_) => Ok(()),
                    };
                    if arrived.is_ok() {
                        return listener;
                    }
                }
                backoff.pause().await;
            }
        };
        reader.finish(attempts).await
    }
}

/// Passes a message on.
fn tell(message: &Message, sender: &FeedSender) {
    match message {
        Message::Changed(ids) => ids.iter().for_each(|id| sender.changed(*id)),
        Message::Truncated => sender.gap(),
        Message::Trial(_) => {}
        Message::Foreign => {
            events::feed::ignored("postgres", 1);
        }
    }
}
