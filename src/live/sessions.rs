//! [`LiveSessions`]: the sessions that somebody waits for, and what is known of them.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Ended;
use super::task::Running;
use crate::clock::{Clock, Timestamp};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::id::maps::IdMap;
use crate::record::generations::Generations;
use crate::record::lifetime::Lifetimes;
use crate::record::secret_hash::SecretHash;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::SessionStore;

/// The sessions of a layer that somebody waits for. While nobody waits, the end of a session costs
/// one look at a number more.
pub(crate) struct LiveSessions {
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lifetimes: Lifetimes,
    /// How often the task asks the store, if the store has no feed.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Reports that the time of a session is over.
    report_expired: ReportExpired,
    /// How many sessions there are, so that a logout need not take the lock.
    count: AtomicUsize,
    state: Mutex<State>,
    /// Wakes the task when there is something to ask.
    pub(super) wake: Notify,
}

/// Gets a session whose time is over.
pub(crate) type ReportExpired = Box<dyn Fn(RecordId, &Record) + Send + Sync>;

#[derive(Default)]
struct State {
    sessions: IdMap<Watched>,
    /// What to ask the store for.
    to_ask: Vec<RecordId>,
    is_running: bool,
}

struct Watched {
    waiting: usize,
    known: watch::Sender<Known>,
    is_asked: bool,
    ending: Option<Ending>,
}

/// This process ends a session, for this reason.
#[derive(Clone, Copy)]
enum Ending {
    /// The store may not have answered yet.
    Begun(EndCause),
    /// The store has answered, or nobody waits for it.
    Over(EndCause),
    /// And the store was asked since. If the session is live, it has not ended.
    Asked(EndCause),
}

impl Ending {
    fn cause(self) -> EndCause {
        match self {
            Self::Begun(cause) | Self::Over(cause) | Self::Asked(cause) => cause,
        }
    }
}

/// This process is about to end these sessions.
pub(crate) struct EndingHere<'a> {
    live: &'a LiveSessions,
    /// Those that are watched.
    ids: Vec<RecordId>,
}

impl Drop for EndingHere<'_> {
    fn drop(&mut self) {
        self.live.set_ending(&self.ids, |ending| {
            if let Some(begun) = *ending {
                *ending = Some(Ending::Over(begun.cause()));
            }
        });
        self.live.changed(self.ids.drain(..));
    }
}

/// What is known of a session.
#[derive(Clone)]
enum Known {
    /// Nobody has asked the store yet.
    Nothing,
    Live(Facts),
    Ended(Ended),
}

/// What a wait needs of a record. The data is not kept: many sockets may wait.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) secret_hash: SecretHash,
    pub(crate) generations: Option<Arc<Generations>>,
    pub(crate) user: Option<UserId>,
    version: Version,
    /// When the session ends if nobody uses it any more.
    ends_at: Timestamp,
}

impl LiveSessions {
    pub(crate) fn new(
        store: Arc<dyn SessionStore>,
        clock: Arc<dyn Clock>,
        lifetimes: Lifetimes,
        interval: Duration,
        timeout: Duration,
        report_expired: ReportExpired,
    ) -> Self {
        Self {
            store,
            clock,
            lifetimes,
            interval,
            timeout,
            report_expired,
            count: AtomicUsize::new(0),
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Begins to watch a session.
    pub(crate) fn watch(self: &Arc<Self>, id: RecordId) -> Watch {
        let known = {
            let mut state = self.state();
            let state = &mut *state;
            let watched = state.sessions.entry(id).or_insert_with(|| Watched {
                waiting: 0,
                known: watch::Sender::new(Known::Nothing),
                is_asked: false,
                ending: None,
            });
            watched.waiting += 1;
            // It may have ended before somebody watched it.
            watched.ask(id, &mut state.to_ask);
            let known = watched.known.subscribe();
            self.count.store(state.sessions.len(), SeqCst);
            known
        };
        self.wake.notify_one();
        Watch {
            live: Arc::clone(self),
            id,
            known,
        }
    }

    /// Starts the task, if it does not run. Its runtime may have ended, and another one has begun.
    fn ensure_task(self: &Arc<Self>) {
        let was_running = std::mem::replace(&mut self.state().is_running, true);
        if !was_running {
            let running = Running::new(Arc::clone(self));
            // Its drop takes the lock, so no lock is held here.
            tokio::spawn(async move { running.run().await });
            self.all_may_have_changed();
            self.wake.notify_one();
        }
    }

    /// This process is about to end a session. Only with this can the watchers know the reason: the
    /// feed may tell of the end before the store answers. When the answer is dropped, the store is
    /// asked what became of the session.
    pub(crate) fn ending(&self, id: RecordId, cause: EndCause) -> EndingHere<'_> {
        let ids = match self.is_watched() {
            true => vec![id],
            false => Vec::new(),
        };
        self.begin_ending(ids, cause)
    }

    /// This process has ended a session.
    pub(crate) fn ended(&self, id: RecordId, cause: EndCause) {
        if self.is_watched() {
            self.know(id, Known::Ended(Ended::here(cause)));
        }
    }

    /// As [`ending`](Self::ending), for the sessions of a user, except one.
    pub(crate) fn ending_all(
        &self,
        user: &UserId,
        except: Option<RecordId>,
        cause: EndCause,
    ) -> EndingHere<'_> {
        let is_theirs = |watched: &Watched| match &*watched.known.borrow() {
            Known::Live(facts) => facts.user.as_ref() == Some(user),
            // Nobody knows yet whose it is. A wrong guess is set right by the answer.
            Known::Nothing => true,
            Known::Ended(_) => false,
        };
        let ids = match self.is_watched() {
            true => {
                let state = self.state();
                let theirs = state.sessions.iter();
                let theirs =
                    theirs.filter(|(id, watched)| Some(**id) != except && is_theirs(watched));
                theirs.map(|(id, _)| *id).collect()
            }
            false => Vec::new(),
        };
        self.begin_ending(ids, cause)
    }

    fn begin_ending(&self, ids: Vec<RecordId>, cause: EndCause) -> EndingHere<'_> {
        self.set_ending(&ids, |ending| *ending = Some(Ending::Begun(cause)));
        EndingHere { live: self, ids }
    }

    fn set_ending(&self, ids: &[RecordId], change: impl Fn(&mut Option<Ending>)) {
        if ids.is_empty() {
            return;
        }
        let mut state = self.state();
        for id in ids {
            if let Some(watched) = state.sessions.get_mut(id) {
                change(&mut watched.ending);
            }
        }
    }

    fn is_watched(&self) -> bool {
        self.count.load(SeqCst) > 0
    }

    /// Something happened to these sessions: asks for those that are watched.
    pub(super) fn changed(&self, ids: impl IntoIterator<Item = RecordId>) {
        let mut state = self.state();
        let State {
            sessions, to_ask, ..
        } = &mut *state;
        for id in ids {
            if let Some(watched) = sessions.get_mut(&id) {
                watched.ask(id, to_ask);
            }
        }
        if !to_ask.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Asks for all watched sessions.
    pub(super) fn all_may_have_changed(&self) {
        let mut state = self.state();
        let State {
            sessions, to_ask, ..
        } = &mut *state;
        for (id, watched) in sessions {
            watched.ask(*id, to_ask);
        }
    }

    /// Takes out what there is to ask, at most so many.
    pub(super) fn take_questions(&self, max: usize) -> Vec<RecordId> {
        let mut state = self.state();
        let State {
            sessions, to_ask, ..
        } = &mut *state;
        let rest = to_ask.len().saturating_sub(max);
        let taken = to_ask.split_off(rest);
        for id in &taken {
            if let Some(watched) = sessions.get_mut(id) {
                // A change that comes while the store answers is asked for once more.
                watched.is_asked = false;
                if let Some(Ending::Over(cause)) = watched.ending {
                    watched.ending = Some(Ending::Asked(cause));
                }
            }
        }
        taken
    }

    /// Takes in what the store has under this id.
    pub(super) fn answered(&self, id: RecordId, record: Option<Record>) {
        let now = self.clock.now();
        let known = match record {
            Some(record) if self.lifetimes.is_over(&record, now) => {
                (self.report_expired)(id, &record);
                Known::Ended(Ended::Expired)
            }
            Some(record) => Known::Live(Facts {
                secret_hash: record.fields().secret_hash(),
                generations: record.fields().shared_generations(),
                user: record.user().cloned(),
                version: record.version(),
                ends_at: self.lifetimes.expires_at(&record),
            }),
            None => {
                let mut state = self.state();
                let Some(watched) = state.sessions.get_mut(&id) else {
                    return;
                };
                let was_over = match &*watched.known.borrow() {
                    Known::Live(facts) => now >= facts.ends_at,
                    Known::Nothing | Known::Ended(_) => false,
                };
                Known::Ended(match watched.ending {
                    Some(ending) => Ended::here(ending.cause()),
                    // The store removes expired records by itself.
                    None if was_over => Ended::Expired,
                    None => Ended::Elsewhere,
                })
            }
        };
        self.know(id, known);
    }

    fn know(&self, id: RecordId, known: Known) {
        let mut state = self.state();
        if let Some(watched) = state.sessions.get_mut(&id) {
            if let (Known::Live(_), Some(Ending::Asked(_))) = (&known, watched.ending) {
                watched.ending = None;
            }
            watched.known.send_if_modified(|old| {
                // A session that has ended stays so. The first reason is the best one.
                let is_news = !matches!(old, Known::Ended(_));
                if is_news {
                    *old = known;
                }
                is_news
            });
        }
    }

    /// Whether the task may end, because nobody waits any more.
    pub(super) fn may_stop(&self) -> bool {
        let mut state = self.state();
        let may_stop = state.sessions.is_empty();
        if may_stop {
            state.is_running = false;
        }
        may_stop
    }

    /// The task was dropped with its runtime. Whoever waits starts another one.
    pub(super) fn stopped(&self) {
        let mut state = self.state();
        state.is_running = false;
        for watched in state.sessions.values() {
            watched.known.send_modify(|_| {});
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn ask(&mut self, id: RecordId, to_ask: &mut Vec<RecordId>) {
        if !self.is_asked {
            self.is_asked = true;
            to_ask.push(id);
        }
    }
}

impl fmt::Debug for LiveSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSessions")
            .field("watched", &self.count)
            .finish_non_exhaustive()
    }
}

/// Somebody waits for the end of a session. When the last one is dropped, the session is forgotten.
pub(crate) struct Watch {
    live: Arc<LiveSessions>,
    id: RecordId,
    known: watch::Receiver<Known>,
}

impl Watch {
    /// Waits until the session has ended, or until its record is not that of the caller's token
    /// any more. If the caller has seen a version, this also returns when there is a newer one.
    /// What is known from before `least` is out of date, and does not count.
    ///
    /// When the future is dropped, a later call goes on waiting.
    pub(crate) async fn next(
        &mut self,
        is_same: impl Fn(&Facts) -> bool,
        least: Version,
        seen: Option<Version>,
    ) -> Result<(), Ended> {
        let mut is_asked_again = false;
        loop {
            self.live.ensure_task();
            let known = self.known.borrow_and_update().clone();
            let facts = match known {
                Known::Ended(ended) => return Err(ended),
                Known::Live(facts) if facts.version >= least => facts,
                // The question is on its way.
                Known::Live(_) | Known::Nothing => {
                    self.changed().await;
                    continue;
                }
            };
            if !is_same(&facts) {
                // The answer may be to a question from before this wait.
                if is_asked_again {
                    return Err(Ended::Superseded);
                }
                is_asked_again = true;
                self.live.changed([self.id]);
                self.changed().await;
                continue;
            }
            if seen.is_some_and(|seen| facts.version > seen) {
                return Ok(());
            }
            // A use of the session, on any node, moves its end. A node that is not told of the use
            // finds it out here.
            if self.is_due(facts.ends_at).await {
                self.live.changed([self.id]);
                self.changed().await;
            }
        }
    }

    /// Waits for this time, or for news. Returns whether the time came first.
    async fn is_due(&mut self, time: Timestamp) -> bool {
        let clock = Arc::clone(&self.live.clock);
        let mut timer = clock.sleep_until(time);
        let mut changed = pin!(self.changed());
        poll_fn(|cx| match changed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| true),
        })
        .await
    }

    async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            // The sender lives as long as this watch.
            pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.live.state();
        if let Some(watched) = state.sessions.get_mut(&self.id) {
            watched.waiting -= 1;
            if watched.waiting == 0 {
                state.sessions.remove(&self.id);
                self.live.count.store(state.sessions.len(), SeqCst);
            }
        }
    }
}
