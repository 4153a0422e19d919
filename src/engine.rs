//! What the requests of one layer share: its settings, and its store behind a timeout.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::clock::{Clock, Timestamp};
use crate::error::{SessionError, StoreError};
use crate::lifetime::Lifetimes;
use crate::outcome::CommitRule;
use crate::record::{Realm, Record, UserId, Version};
use crate::report;
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::{GoodTokens, Presented, Random, RecordId, Signer, Verified};
use crate::transport::Carrier;

/// More than the cores of a large machine, so that two busy sessions seldom share one.
const QUEUES: usize = 64;

/// How long a replaced token may be that of a request which was under way at the time. Afterwards it is that of a client that
/// never received the new one, which must not be locked out.
const OVERTAKEN: Duration = Duration::from_secs(60);

/// How much longer than its expiry a record is kept, for nodes whose clocks differ: a node whose
/// clock is ahead must not remove sessions that are live to the others.
const PURGE_MARGIN: Duration = Duration::from_secs(10 * 60);

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
    pub(crate) realm: Realm,
    pub(crate) commit_rule: CommitRule,
    pub(crate) queues: Queues,
    pub(crate) warned: Warned,
}

/// Warnings that a layer gives once, and not at each request.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    pub(crate) insecure_origin: Once,
    pub(crate) rival_layer: Once,
}

/// Something that happens once.
#[derive(Debug, Default)]
pub(crate) struct Once(AtomicBool);

impl Once {
    /// Does it, unless it was done before.
    pub(crate) fn call(&self, action: impl FnOnce()) {
        if !self.0.swap(true, Ordering::Relaxed) {
            action();
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
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
    /// Whether little of the idle timeout was left when the request came. Its use counts from there:
    /// see [`Lifetimes::as_of`].
    pub(crate) was_nearly_over: bool,
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
    /// It came with the tokens of several live sessions. It reads as a visitor, and can end them all.
    Ambiguous(Arc<[RecordId]>),
}

impl Found {
    pub(crate) fn base(&self) -> Option<&Base> {
        match self {
            Self::Session(base) => Some(base),
            Self::Nothing | Self::Overtaken(_) | Self::Ambiguous(_) => None,
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
    /// The session, and the time at which it was found live.
    Live(Record, Timestamp),
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

    /// The good tokens among those presented, if there are any.
    pub(crate) fn verify(&self, presented: &Presented) -> Option<GoodTokens> {
        let verified = self.signer.verify(presented);
        verified.map_err(report::rejected).ok()
    }

    /// What a request finds that came with these tokens.
    pub(crate) async fn find(&self, tokens: GoodTokens) -> Result<Found, SessionError> {
        match tokens {
            GoodTokens::One(token) => self.find_one(token).await,
            GoodTokens::Several(tokens) => Box::pin(self.find_among(tokens)).await,
        }
    }

    async fn find_one(&self, token: Verified) -> Result<Found, SessionError> {
        Ok(match self.load(&token, false).await? {
            Loaded::Live(record, now) => {
                let was_nearly_over = self.lifetimes.is_nearly_over(&record, now);
                Found::Session(Base {
                    token,
                    record,
                    was_nearly_over,
                })
            }
            Loaded::Overtaken => Found::Overtaken(token.id),
            Loaded::Superseded | Loaded::Gone => Found::Nothing,
        })
    }

    /// The one that leads to a live session. Two live ones cannot both be meant: one of them may
    /// have been planted by somebody else.
    async fn find_among(&self, tokens: Vec<Verified>) -> Result<Found, SessionError> {
        let mut found = Found::Nothing;
        let mut live = Vec::new();
        for token in tokens {
            match (self.find_one(token).await?, &found) {
                (Found::Session(base), _) => {
                    live.push(base.token.id);
                    found = Found::Session(base);
                }
                (overtaken @ Found::Overtaken(_), Found::Nothing) => found = overtaken,
                _ => {}
            }
        }
        if live.len() > 1 {
            report::ambiguous(self.carrier.name());
            found = Found::Ambiguous(live.into());
        }
        Ok(found)
    }

    /// What the store has for this token. A request whose session was nearly over when it came is given
    /// some time.
    pub(crate) async fn load(
        &self,
        token: &Verified,
        was_nearly_over: bool,
    ) -> Result<Loaded, SessionError> {
        let Some(record) = self.bounded("load", self.store().load(token.id)).await? else {
            report::rejected_for(token.id, "no such session");
            return Ok(Loaded::Gone);
        };
        let now = self.now();
        let content = record.content();
        let as_of = self.lifetimes.as_of(content.remember, was_nearly_over, now);
        if self.lifetimes.is_over(&record, as_of) {
            report::expired(token.id);
            return Ok(Loaded::Gone);
        }
        if !content.secret_hash.matches(&token.secret_hash) {
            report::rejected_for(token.id, "the token was replaced");
            return Ok(match content.token_replaced_at {
                // A time that lies far ahead was taken from a clock that is wrong.
                Some(at) if now.distance(at) < OVERTAKEN => Loaded::Overtaken,
                _ => Loaded::Superseded,
            });
        }
        if record.user().is_some_and(|user| !self.realm.has(user)) {
            report::rejected_for(token.id, "the session belongs to a user of another realm");
            return Ok(Loaded::Gone);
        }
        report::loaded(token.id);
        Ok(Loaded::Live(record, now))
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
        let expired = self.now().before(PURGE_MARGIN);
        let answer = self.store().purge_expired(expired).await;
        told("purge_expired", stopwatch, answer)
    }

    /// The user's sessions that are not over.
    pub(crate) async fn sessions_of(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
    ) -> Result<Vec<(RecordId, Record)>, SessionError> {
        let mut sessions = self.all_sessions_of(index, user).await?;
        let now = self.now();
        sessions.retain(|(_, record)| !self.lifetimes.is_over(record, now));
        Ok(sessions)
    }

    /// The same, with those that are over to this layer. To another one of the realm, or to a node with
    /// another clock, they may not be.
    pub(crate) async fn all_sessions_of(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
    ) -> Result<Vec<(RecordId, Record)>, SessionError> {
        self.bounded("sessions_of", index.sessions_of(user)).await
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
