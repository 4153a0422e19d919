//! [`Listener`]: a connection that listens to the channel of a table.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Error, Executor as _, Row as _};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::triggers::{CHANNEL, TRIGGERS, TRUNCATED, missing, state_query};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::store::sql::statements::Statements;
use crate::store::tls;

/// How long the server may take to accept the connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to answer why it accepted no connection.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// What a message of the channel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Changed(Vec<RecordId>),
    /// The table was emptied.
    Truncated,
    /// The message that a new feed sends to itself.
    Trial(String),
    Foreign,
}

const TRIAL: &str = "trial ";

impl Message {
    pub(super) fn trial(mark: &str) -> String {
        format!("{TRIAL}{mark}")
    }

    fn parse(payload: &str) -> Self {
        if payload == TRUNCATED {
            return Self::Truncated;
        }
        if let Some(mark) = payload.strip_prefix(TRIAL) {
            return Self::Trial(mark.to_owned());
        }
        let ids = from_hex(payload).filter(|ids| !ids.is_empty());
        ids.map_or(Self::Foreign, Self::Changed)
    }
}

/// The record ids that a text names, each by 32 digits.
fn from_hex(text: &str) -> Option<Vec<RecordId>> {
    let (ids, rest) = text.as_bytes().as_chunks::<32>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let id = |digits: &[u8; 32]| {
        let mut bytes = [0; 16];
        for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
            *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        }
        Some(RecordId::from_bytes(bytes))
    };
    rest.is_empty().then(|| ids.iter().map(id).collect())?
}

/// A connection that listens.
pub(super) struct Listener {
    // There until this is dropped.
    inner: Option<PgListener>,
    statements: Arc<Statements>,
    state: State,
}

/// What must stay as it is, so that no notice is lost.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    /// The server's process of this connection. It changes if a pooler on the way gives the
    /// connection to another client.
    process: i32,
    /// The table's number. The channel is named after it.
    table: i64,
    /// The triggers, and the transactions that made or changed them.
    triggers: String,
}

impl Listener {
    pub(super) async fn open(
        options: &PgConnectOptions,
        statements: &Arc<Statements>,
    ) -> Result<Self, StoreError> {
        let mut listener = Self {
            inner: Some(connect(options).await?),
            statements: statements.clone(),
            state: State::default(),
        };
        listener.state = listener.read_state().await?;
        let channel = listener.channel();
        let listens = listener.inner()?.listen(&channel).await;
        listens.map_err(|error| listener.failed(error))?;
        Ok(listener)
    }

    pub(super) fn channel(&self) -> String {
        format!("{CHANNEL}{}", self.state.table)
    }

    fn inner(&mut self) -> Result<&mut PgListener, StoreError> {
        let gone = || StoreError::new("the connection that listens to PostgreSQL is gone");
        self.inner.as_mut().ok_or_else(gone)
    }

    /// The next message. When the future is dropped, no message is lost.
    pub(super) async fn message(&mut self) -> Result<Message, StoreError> {
        match self.inner()?.try_recv().await {
            Ok(Some(notification)) => Ok(parse(&notification)),
            Ok(None) => Err(self.failed(Error::from(std::io::Error::from(ErrorKind::BrokenPipe)))),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The next message that came while [`check`](Self::check) ran.
    pub(super) fn next_that_came(&mut self) -> Option<Message> {
        let next = self.inner.as_mut()?.next_buffered()?;
        Some(parse(&next))
    }

    /// Asks the server over this connection whether all is as it was. When it has answered, the
    /// messages of all changes that were answered before have come.
    ///
    /// One question is enough. This follows from the order in PostgreSQL (`async.c`, `postgres.c`
    /// and `procsignal.c` of versions 13 to 18):
    ///
    /// 1. A transaction puts its notifications into the queue before it commits
    ///    (`PreCommit_Notify`). It keeps a lock until it has ended, so that the queue has the order
    ///    of the commits, and nothing unfinished is before a commit that was answered.
    /// 2. It signals the listening processes (`SignalBackends`, called by `AtCommit_Notify`; by
    ///    `ProcessCompletedNotifies` before 15) before its client gets the answer.
    /// 3. A process that reads a query handles signals of before, at the latest when the read
    ///    returns (`ProcessClientReadInterrupt`). It does so once more before it says that it is
    ///    ready for the next query (`PostgresMain`: "notifies … will be seen by the client before
    ///    ReadyForQuery is"). Then it sends all of the queue (`asyncQueueReadAllNotifications`).
    ///
    /// sqlx reads up to `ReadyForQuery`, and keeps the notifications that it reads on the way.
    /// PostgreSQL's manual says the same in short: notifications come "in the order" of commits,
    /// and between transactions (NOTIFY).
    pub(super) async fn check(&mut self) -> Result<(), StoreError> {
        let state = self.read_state().await?;
        if state.process != self.state.process {
            return Err(StoreError::new(
                "a pooler gave the connection that listens to PostgreSQL to another client: give \
                 `PostgresStore::with_feed_url` the URL of PostgreSQL itself",
            ));
        }
        if state != self.state {
            return Err(StoreError::new(
                "somebody changed the session table or its triggers, so that the feed may have \
                 missed changes",
            ));
        }
        Ok(())
    }

    /// Reads the state over this connection. It is an error if a trigger is missing.
    async fn read_state(&mut self) -> Result<State, StoreError> {
        // A plain query, without a prepared statement: some poolers do not follow those.
        let query = sqlx::raw_sql(AssertSqlSafe(state_query(&self.statements.table)));
        let row = self.inner()?.fetch_one(query).await;
        let state = row.and_then(|row| to_state(&row));
        let (state, triggers) = state.map_err(|error| self.failed(error))?;
        if usize::try_from(triggers) != Ok(TRIGGERS.len()) {
            return Err(missing(&self.statements));
        }
        Ok(state)
    }

    fn failed(&self, error: Error) -> StoreError {
        self.statements.failed("follow the changes", error)
    }
}

fn parse(notification: &PgNotification) -> Message {
    Message::parse(notification.payload())
}

/// A connection of its own, outside of the store's pool: a full pool does not stop it.
async fn connect(options: &PgConnectOptions) -> Result<PgListener, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECTION_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone());
    let connected = timeout(CONNECTION_TIMEOUT, PgListener::connect_with(&pool)).await;
    let error = match connected.unwrap_or(Err(Error::PoolTimedOut)) {
        Ok(mut listener) => {
            // The feed itself connects again: it must know of each loss.
            listener.eager_reconnect(false);
            listener.ignore_pool_close_event(true);
            return Ok(listener);
        }
        // The pool has tried several times, and does not say what failed.
        Err(Error::PoolTimedOut) => match timeout(REASON_TIMEOUT, options.connect()).await {
            Ok(Err(error)) => error,
            _ => Error::PoolTimedOut,
        },
        Err(error) => error,
    };
    let what = format!(
        "could not connect to PostgreSQL at {}:{} for the feed{}",
        options.get_host(),
        options.get_port(),
        tls::advice(&error, "in the URL, with sslrootcert=/path/to/ca.pem"),
    );
    Err(StoreError::new(what).with_source(error))
}

fn to_state(row: &PgRow) -> Result<(State, i64), Error> {
    let state = State {
        process: row.try_get(0)?,
        table: row.try_get(1)?,
        triggers: row.try_get(2)?,
    };
    Ok((state, row.try_get(3)?))
}

impl Drop for Listener {
    /// Closes the connection at once. By itself, a `PgListener` asks the server to listen no more,
    /// in a task, and waits for the answer without a limit. A server behind a broken network would
    /// keep the task and the connection. That task goes to a runtime that never runs it.
    fn drop(&mut self) {
        let Some(listener) = self.inner.take() else {
            return;
        };
        let Ok(runtime) = Builder::new_current_thread().build() else {
            return;
        };
        let context = runtime.enter();
        drop(listener);
        drop(context);
        runtime.shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_ids_or_is_foreign() {
        let one = "000102030405060708090a0b0c0d0e0f";
        let ids = |text: &str| match Message::parse(text) {
            Message::Changed(ids) => ids.iter().map(|id| id.as_bytes()[15]).collect(),
            _ => Vec::new(),
        };
        assert_eq!(ids(one), [15]);
        assert_eq!(ids(&format!("{one}{}", one.replace("0f", "FF"))), [15, 255]);
        assert_eq!(Message::parse("gap"), Message::Truncated);
        assert_eq!(Message::parse("trial x"), Message::Trial("x".into()));
        for foreign in [
            "",
            "0",
            &one[1..],
            &format!("{one}0"),
            &one.replace('f', "g"),
        ] {
            assert_eq!(Message::parse(foreign), Message::Foreign, "{foreign:?}");
        }
    }
}
