//! [`FaultyStore`]: a store that fails on demand.

use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
use crate::store::feed::{Feed, SessionFeed};
use crate::store::{Replaced, SessionStore, UserIndex};

/// How long a call with [`Fault::Conflict`] takes.
const CONFLICT_DELAY: Duration = Duration::from_millis(1);

/// A store around another store. It notes its calls, and fails when a test says so. Clones are the
/// same store.
///
/// ```
/// use cloakroom::testing::{Browser, Fault, FaultyStore, StoreCall};
/// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = axum::Router::<()>::new();
/// let store = FaultyStore::new(MemoryStore::new());
/// let layer = SessionLayer::new(store.clone(), SigningKey::generate()?);
/// let mut browser = Browser::new(app);
/// browser.with_session(&layer, |session| session.insert("cart", 1)).await?;
/// assert_eq!(store.take_calls(), [StoreCall::Insert]);
///
/// store.fail_at(StoreCall::Replace, Fault::Refused);
/// let update = browser.with_session(&layer, |session| session.insert("cart", 2)).await;
/// assert!(update.is_err());
///
/// store.recover();
/// let cart = browser.with_session(&layer, |session| session.get("cart")).await?;
/// assert_eq!(cart, Some(1));
/// # Ok(()) }
/// ```
pub struct FaultyStore<S> {
    store: Arc<S>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<StoreCall>,
    trouble: Option<Trouble>,
    holds: Vec<(StoreCall, Gate)>,
}

/// A call of a [`SessionStore`], a [`UserIndex`] or a [`SessionCatalog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are named as the methods are")]
pub enum StoreCall {
    Load,
    Insert,
    Replace,
    Touch,
    Remove,
    PurgeExpired,
    FindByUser,
    RemoveByUser,
    Scan,
    FindByExternalId,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails, and does nothing.
    Refused,
    /// It does what it should, and then fails: the connection broke before the answer came.
    AnswerLost,
    /// It does nothing, and never answers. The layer's store timeout ends it, and with
    /// `tokio::time::pause` that takes no time. Only
    /// [`Sessions::purge_expired`](crate::Sessions::purge_expired) has no timeout.
    Hangs,
    /// A write of another node came first. After a millisecond, [`replace`](SessionStore::replace)
    /// answers with [`Replaced::Conflict`] and [`touch`](SessionStore::touch) with `false`, and
    /// neither does anything. The other calls work.
    Conflict,
}

/// A fault, and which calls have it.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    All(Fault),
    Each(StoreCall, Fault),
    /// This many of the next calls of these kinds.
    Next(StoreCall, Fault, usize),
}

impl<S> FaultyStore<S> {
    /// A store that works as this one does, until a test asks for a fault.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store: Arc::new(store),
            state: Arc::default(),
        }
    }

    /// The store inside. Its calls are not noted, and do not fail.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.store
    }

    /// The calls since the last time that a test took them. Failed calls are among them.
    #[expect(
        clippy::must_use_candidate,
        reason = "a test may only want to forget them"
    )]
    pub fn take_calls(&self) -> Vec<StoreCall> {
        std::mem::take(&mut self.state().calls)
    }

    /// From now on all calls fail in this way.
    pub fn fail(&self, fault: Fault) {
        self.state().trouble = Some(Trouble::All(fault));
    }

    /// From now on these calls fail in this way, and no others.
    pub fn fail_at(&self, call: StoreCall, fault: Fault) {
        self.state().trouble = Some(Trouble::Each(call, fault));
    }

    /// The next of these calls that reaches the store fails in this way, and no other does.
    pub fn fail_once(&self, call: StoreCall, fault: Fault) {
        self.fail_times(1, call, fault);
    }

    /// This many of the next calls of these kinds fail in this way, and no other calls do.
    ///
    /// ```
    /// use cloakroom::testing::{Browser, Fault, FaultyStore, StoreCall};
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = FaultyStore::new(MemoryStore::new());
    /// let layer = SessionLayer::new(store.clone(), SigningKey::generate()?);
    /// let mut browser = Browser::new(());
    /// browser.with_session(&layer, |session| session.insert("visits", 1)).await?;
    ///
    /// // Other nodes are faster three times. Then the change is there, and is made once.
    /// store.fail_times(3, StoreCall::Replace, Fault::Conflict);
    /// let visit = |visits: Option<u32>| visits.unwrap_or(0) + 1;
    /// browser.with_session(&layer, |session| session.update("visits", visit)).await?;
    /// let visits = browser.with_session(&layer, |session| session.get("visits")).await?;
    /// assert_eq!(visits, Some(2));
    /// # Ok(()) }
    /// ```
    pub fn fail_times(&self, times: usize, call: StoreCall, fault: Fault) {
        self.state().trouble = Some(Trouble::Next(call, fault, times));
    }

    /// From now on, no call fails. A call that hangs already still hangs.
    pub fn recover(&self) {
        self.state().trouble = None;
    }

    /// Holds the next of these calls before it reaches the store inside, so that a test can do
    /// something first. The layer's store timeout goes on.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # use cloakroom::testing::{Browser, FaultyStore, StoreCall};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = FaultyStore::new(MemoryStore::new());
    /// let layer = SessionLayer::new(store.clone(), SigningKey::generate()?);
    /// let mut browser = Browser::new(());
    /// browser.with_session(&layer, |session| session.log_in("ada")).await?;
    ///
    /// let mut hold = store.hold_next(StoreCall::Replace);
    /// let mut window = browser.clone();
    /// let late_write = window.with_session(&layer, |session| session.insert("note", "late"));
    /// let log_out = async {
    ///     hold.arrived().await;
    ///     let log_out = browser.with_session(&layer, |session| session.log_out()).await;
    ///     hold.release();
    ///     log_out
    /// };
    /// tokio::try_join!(late_write, log_out)?;
    /// assert!(store.inner().is_empty(), "the session stays ended");
    /// # Ok(()) }
    /// ```
    #[must_use = "the call goes on as soon as this is dropped"]
    pub fn hold_next(&self, call: StoreCall) -> Hold {
        let (arrived, arrival) = oneshot::channel();
        let (release, released) = oneshot::channel();
        let mut state = self.state();
        // A gate that was released before its call came must not hold that call.
        state.holds.retain(|(_, gate)| !gate.arrived.is_closed());
        state.holds.push((call, Gate { arrived, released }));
        Hold {
            arrival: Some(arrival),
            release,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call, and does it unless it is to fail.
    async fn call<T>(
        &self,
        call: StoreCall,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.call_or(call, None, answer).await
    }

    /// The same of a call that answers with `conflict` if another write came first.
    async fn call_or<T>(
        &self,
        call: StoreCall,
        conflict: Option<T>,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let gate = {
            let mut state = self.state();
            state.calls.push(call);
            let first = state.holds.iter().position(|(held, _)| *held == call);
            first.map(|first| state.holds.remove(first).1)
        };
        if let Some(Gate { arrived, released }) = gate {
            // Either end may be gone: a test may not wait, and it may release by a drop.
            let _ = arrived.send(());
            let _ = released.await;
        }
        let fault = self.state().fault_of(call);
        match fault {
            None => answer.await,
            Some(Fault::Refused) => Err(failed("the test's store is down")),
            Some(Fault::AnswerLost) => {
                answer.await?;
                Err(failed("the answer of the test's store is lost"))
            }
            Some(Fault::Hangs) => pending().await,
            Some(Fault::Conflict) => match conflict {
                Some(conflict) => {
                    // A layer that tries again at once would never reach its timeout.
                    sleep(CONFLICT_DELAY).await;
                    Ok(conflict)
                }
                None => answer.await,
            },
        }
    }
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            state: self.state.clone(),
        }
    }
}

impl State {
    /// What goes wrong with a call that is made now.
    fn fault_of(&mut self, call: StoreCall) -> Option<Fault> {
        match self.trouble? {
            Trouble::All(fault) => Some(fault),
            Trouble::Each(at, fault) => (at == call).then_some(fault),
            Trouble::Next(at, fault, times) if at == call => {
                self.trouble = match times.saturating_sub(1) {
                    0 => None,
                    left => Some(Trouble::Next(at, fault, left)),
                };
                (times > 0).then_some(fault)
            }
            Trouble::Next(..) => None,
        }
    }
}

fn failed(what: &'static str) -> StoreError {
    StoreError::new(what).with_source(io::Error::from(io::ErrorKind::ConnectionRefused))
}

impl<S> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trouble = self.state().trouble;
        f.debug_struct("FaultyStore")
            .field("trouble", &trouble)
            .finish_non_exhaustive()
    }
}

/// A call that waits until a test releases it, or drops this; see [`FaultyStore::hold_next`].
#[derive(Debug)]
pub struct Hold {
    /// There until the call has come.
    arrival: Option<oneshot::Receiver<()>>,
    release: oneshot::Sender<()>,
}

/// The call's ends of the two channels.
#[derive(Debug)]
struct Gate {
    arrived: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

impl Hold {
    /// Waits until the call has come.
    ///
    /// When the future is dropped, the test can wait again.
    pub async fn arrived(&mut self) {
        if let Some(arrival) = &mut self.arrival {
            let _ = arrival.await;
            self.arrival = None;
        }
    }

    /// Lets the call go on, now or when it comes.
    pub fn release(self) {
        let _ = self.release.send(());
    }
}

// Each call has a name of its own, so that these are no plain forwards.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for FaultyStore<S> {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.call(StoreCall::Load, self.store.load(id)).await
    }

    async fn reload(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.call(StoreCall::Load, self.store.reload(id)).await
    }

    fn answers_from_cache(&self) -> bool {
        self.store.answers_from_cache()
    }

    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        self.store.session_feed()
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call(StoreCall::Insert, self.store.insert(id, record))
            .await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let conflict = Some(Replaced::Conflict);
        let answer = self.store.replace(id, expected, record);
        self.call_or(StoreCall::Replace, conflict, answer).await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let answer = self.store.touch(id, record);
        self.call_or(StoreCall::Touch, Some(false), answer).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.call(StoreCall::Remove, self.store.remove(id)).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.call(StoreCall::PurgeExpired, self.store.purge_expired(now))
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: UserIndex> UserIndex for FaultyStore<S> {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        self.call(StoreCall::FindByUser, self.store.find_by_user(user))
            .await
    }

    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        self.call(
            StoreCall::RemoveByUser,
            self.store.remove_by_user(user, except),
        )
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionCatalog> SessionCatalog for FaultyStore<S> {
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError> {
        self.call(StoreCall::Scan, self.store.scan(after, limit, accept))
            .await
    }

    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let answer = self.store.find_by_external_id(external_id);
        self.call(StoreCall::FindByExternalId, answer).await
    }
}

/// The feed has no faults.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionFeed> SessionFeed for FaultyStore<S> {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        self.store.subscribe().await
    }
}
