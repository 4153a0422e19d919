//! What the requests of one layer share: its settings, and its store behind a timeout.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::clock::{Clock, Timestamp};
use crate::error::{SessionError, StoreError};
use crate::lifetime::Lifetimes;
use crate::record::{Record, UserId, Version};
use crate::report;
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::{Presented, Random, RecordId, Signer, Verified};
use crate::transport::Carrier;

/// More than the cores of a large machine, so that two busy sessions seldom share one.
const QUEUES: usize = 64;

/// How long a replaced token may be that of a request which was under way at the time. Afterwards it is that of a client that
/// never received the new one, which must not be locked out.
const OVERTAKEN: Duration = Duration::from_secs(60);

/// The settings of a layer.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) carrier: Carrier,
    pub(crate) signer: Signer,
    pub(crate) random: Random,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) store_timeout: Duration,
    pub(crate) commit_timeout: Duration,
    pub(crate) data_limit: usize,
    pub(crate) loading: Loading,
    pub(crate) clear_site_data: bool,
    pub(crate) user_limit: Option<UserLimit>,
    pub(crate) queues: Queues,
}

/// When a session is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loading {
    /// In the layer, before the handler.
    #[default]
    Eager,
    /// By the first extractor.
    Lazy,
}

/// How many sessions a user may have.
#[derive(Clone, Debug)]
pub(crate) struct UserLimit {
    pub(crate) index: Arc<dyn UserIndex>,
    pub(crate) max: usize,
    pub(crate) when_full: WhenFull,
}

/// What a login does that would exceed the number of sessions a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It ends the user's oldest session.
    EndOldest,
    /// It is refused: the response becomes a 403, and the session is as it was before.
    Refuse,
}

/// Where commits of one session wait for each other, once they have met.
#[derive(Debug)]
pub(crate) struct Queues([Mutex<()>; QUEUES]);

impl Queues {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    pub(crate) fn of(&self, id: RecordId) -> &Mutex<()> {
        &self.0[usize::from(id.as_bytes()[0]) % QUEUES]
    }
}

/// A session as the store has it, and the token that it was loaded with.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) token: Verified,
    pub(crate) record: Record,
}

/// What a request starts from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Found {
    /// It is a visitor's.
    #[default]
    Nothing,
    Session(Base),
    /// A parallel request replaced its token just before it could load this session.
    Overtaken(RecordId),
}

impl Found {
    pub(crate) fn base(&self) -> Option<&Base> {
        match self {
            Self::Session(base) => Some(base),
            Self::Nothing | Self::Overtaken(_) => None,
        }
    }
}

/// What was written is what the next step starts from.
impl From<Option<Base>> for Found {
    fn from(base: Option<Base>) -> Self {
        base.map_or(Self::Nothing, Self::Session)
    }
}

/// What a token leads to.
pub(crate) enum Loaded {
    Live(Record),
    /// The session is there, and has another token now: since so short a time that the request may have crossed the one that
    /// replaced it.
    Overtaken,
    /// It has had another token for longer.
    Superseded,
    /// There is no such session, or it is over.
    Gone,
}

impl Engine {
    /// The store itself: an `Arc` of it is a store as well, which would box each call once more.
    fn store(&self) -> &dyn SessionStore {
        &*self.store
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The good token among those presented, if there is one.
    pub(crate) fn verify(&self, presented: &Presented) -> Option<Verified> {
        let verified = self.signer.verify(presented);
        verified.map_err(report::rejected).ok()
    }

    /// What a request finds that came with this token.
    pub(crate) async fn find(&self, token: Verified) -> Result<Found, SessionError> {
        Ok(match self.load(&token).await? {
            Loaded::Live(record) => Found::Session(Base { token, record }),
            Loaded::Overtaken => Found::Overtaken(token.id),
            Loaded::Superseded | Loaded::Gone => Found::Nothing,
        })
    }

    pub(crate) async fn load(&self, token: &Verified) -> Result<Loaded, SessionError> {
        let Some(record) = self.bounded("load", self.store().load(token.id)).await? else {
            report::rejected_for(token.id, "no such session");
            return Ok(Loaded::Gone);
        };
        let now = self.now();
        if self.lifetimes.is_over(&record, now) {
            report::expired(token.id);
            return Ok(Loaded::Gone);
        }
        if !record.content().secret_hash.matches(&token.secret_hash) {
            report::rejected_for(token.id, "the token was replaced");
            return Ok(match record.content().token_replaced_at {
                Some(at) if now.since(at) < OVERTAKEN => Loaded::Overtaken,
                _ => Loaded::Superseded,
            });
        }
        report::loaded(token.id);
        Ok(Loaded::Live(record))
    }

    pub(crate) async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, SessionError> {
        self.bounded("insert", self.store().insert(id, record))
            .await
    }

    pub(crate) async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, SessionError> {
        self.bounded("replace", self.store().replace(id, expected, record))
            .await
    }

    pub(crate) async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, SessionError> {
        self.bounded("touch", self.store().touch(id, record)).await
    }

    pub(crate) async fn remove(&self, id: RecordId) -> Result<bool, SessionError> {
        let removed = self.bounded("remove", self.store().remove(id)).await?;
        if removed {
            report::destroyed(id);
        }
        Ok(removed)
    }

    pub(crate) async fn purge_expired(&self) -> Result<u64, SessionError> {
        // The removal of many records is not an answer that a request waits for, and may take longer than one.
        let stopwatch = report::Stopwatch::start();
        let answer = self.store().purge_expired(self.now()).await;
        told("purge_expired", stopwatch, answer)
    }

    /// The user's sessions that are not over.
    pub(crate) async fn sessions_of(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
    ) -> Result<Vec<(RecordId, Record)>, SessionError> {
        let mut sessions = self.bounded("sessions_of", index.sessions_of(user)).await?;
        let now = self.now();
        sessions.retain(|(_, record)| !self.lifetimes.is_over(record, now));
        Ok(sessions)
    }

    pub(crate) async fn remove_all_of(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, SessionError> {
        let removed = self
            .bounded("remove_all_of", index.remove_all_of(user, except))
            .await?;
        if removed > 0 {
            report::destroyed_all(removed);
        }
        Ok(removed)
    }

    /// A store's answer, or an error after the store timeout.
    async fn bounded<T>(
        &self,
        operation: &'static str,
        mut call: Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + '_>>,
    ) -> Result<T, SessionError> {
        let stopwatch = report::Stopwatch::start();
        // A store in this process has answered by now, and needs no timer. Others wait for long enough that a box, which
        // keeps the future of a request small, is nothing beside.
        let answer = match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Ready(answer) => answer,
            Poll::Pending => Box::pin(timeout(self.store_timeout, call))
                .await
                .unwrap_or_else(|_| Err(StoreError::timeout(self.store_timeout))),
        };
        told(operation, stopwatch, answer)
    }
}

/// A store's answer, timed, and logged where it is an error.
fn told<T>(
    operation: &'static str,
    stopwatch: report::Stopwatch,
    answer: Result<T, StoreError>,
) -> Result<T, SessionError> {
    stopwatch.stop(operation);
    answer.map_err(|error| {
        report::store_error(operation, &error);
        error.into()
    })
}
