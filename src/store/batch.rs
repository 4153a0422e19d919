//! [`Batches`]: calls that wait at the same time go to the store together.
//!
//! A call that is alone runs in the task of its caller. Further calls go to the store's few lanes. A
//! lane that becomes free takes all calls that wait, and makes one batch of them. It waits for no
//! further calls. Under load, the calls share a round trip, a transaction, and a sync of the disk.
//!
//! A batch may take long, perhaps because a row is locked or a connection is dead. Then another
//! lane takes the calls that wait.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, Receiver, Sender, error::RecvError};

use self::lane::Lane;
use self::lone::LoneCall;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::id::maps::{IdMap, IdSet};

mod lane;
mod lone;
#[cfg(test)]
mod tests;

/// The most calls in a batch.
pub(super) const MOST_CALLS: usize = 128;

/// How many batches run at once. With more, each has fewer calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    /// Slow batches do not count.
    pub(super) usual: usize,
    /// With the slow batches.
    pub(super) most: usize,
}

/// For reads. The most lanes of reads and writes, and two lone calls, are fewer than the connections
/// of a store.
pub(super) const READ_LANES: Lanes = Lanes { usual: 2, most: 7 };

/// How often a call may come back from a lane that has ended with its runtime. Without a limit, a
/// caller whose own runtime has ended would try for ever.
const MOST_RETURNS: usize = 16;

/// The most bytes of records in a batch. A larger record has a batch of its own.
const MOST_BYTES: usize = 1 << 20;

/// A call that can be part of a batch.
pub(super) trait BatchCall: Clone + Send + Sync + 'static {
    /// Whether calls of one record that wait at the same time get the same answer, as reads do.
    /// Otherwise they run one after the other, in the order of their arrival.
    const IS_READ: bool;

    fn id(&self) -> RecordId;

    /// How many bytes this call adds to the batch.
    fn bytes(&self) -> usize;
}

/// A read of this record.
impl BatchCall for RecordId {
    const IS_READ: bool = true;

    fn id(&self) -> RecordId {
        *self
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// What runs the batches.
pub(super) trait BatchRunner: Send + Sync + 'static {
    type Call: BatchCall;
    type Answer: Clone + Send + Sync + 'static;

    /// How long a batch goes on after all its callers have gone away. `None` means to its end.
    fn abandoned_timeout(&self) -> Option<Duration>;

    /// Whether a batch can have both calls. They are of different records.
    fn can_share_batch(&self, one: &Self::Call, other: &Self::Call) -> bool;

    /// Runs one call, or several calls of different records. The answers have the same order as the
    /// calls. `None` means that nothing has happened yet, and that the call must run alone. A lone
    /// call has an answer.
    fn run(
        &self,
        calls: &[Self::Call],
    ) -> impl Future<Output = Result<Vec<Option<Self::Answer>>, BatchError>> + Send;
}

/// Why a batch failed.
#[derive(Debug)]
pub(super) struct BatchError {
    pub(super) error: StoreError,
    /// Whether the store refused the batch, so that nothing has happened. One of the calls may be
    /// the reason. So each of them runs once more, alone. A lone call is not repeated.
    pub(super) is_refused: bool,
}

/// The calls that wait, and the lanes that take them.
pub(super) struct Batches<R: BatchRunner>(Arc<Shared<R>>);

struct Shared<R: BatchRunner> {
    runner: R,
    queue: Mutex<Queue<R>>,
}

struct Queue<R: BatchRunner> {
    /// In the order of arrival.
    waiting: BTreeMap<u64, Waiting<R>>,
    arrivals: u64,
    /// The records of the writes that run now.
    running: IdSet,
    has_lone_call: bool,
    lanes: Lanes,
    /// How many lanes are at work, without those that are slow.
    quick_lanes: usize,
    slow_lanes: usize,
}

struct Waiting<R: BatchRunner> {
    call: R::Call,
    /// Whether the call shares no batch: one that had it was refused, or has left it out.
    is_alone: bool,
    caller: Caller<R>,
}

type Caller<R> = Sender<Outcome<R>>;

/// What becomes of a call that waits.
enum Outcome<R: BatchRunner> {
    Answered(Result<R::Answer, StoreError>),
    /// A lane has ended with its runtime, and has not run this call.
    Returned(R::Call),
}

/// Calls of different records, and who waits for each.
struct Batch<R: BatchRunner> {
    calls: Vec<R::Call>,
    seats: Vec<Seat<R>>,
}

/// A caller in a batch.
struct Seat<R: BatchRunner> {
    /// Of the call among those that have arrived.
    number: u64,
    /// Of the call in the batch.
    index: usize,
    caller: Caller<R>,
}

impl<R: BatchRunner> Batches<R> {
    pub(super) fn new(runner: R, lanes: Lanes) -> Self {
        Self(Arc::new(Shared {
            runner,
            queue: Mutex::new(Queue {
                waiting: BTreeMap::new(),
                arrivals: 0,
                running: IdSet::default(),
                has_lone_call: false,
                lanes,
                quick_lanes: 0,
                slow_lanes: 0,
            }),
        }))
    }

    /// Runs a call, with others that wait.
    ///
    /// If the future is dropped while the call waits, nothing happens. If the future is dropped
    /// later, the call goes on. Neither changes anything for the other calls of the batch.
    pub(super) async fn run(&self, call: R::Call) -> Result<R::Answer, StoreError> {
        let runtime = Handle::try_current().map_err(|error| {
            StoreError::new("a session store must be called within a Tokio runtime")
                .with_source(error)
        })?;
        match self.enter(call, &runtime) {
            Entry::Lone(call) => LoneCall::new(self.0.clone(), call, runtime).await,
            Entry::Waits(place) => self.answer(place, &runtime).await,
        }
    }

    fn enter(&self, call: R::Call, runtime: &Handle) -> Entry<'_, R> {
        let mut queue = self.0.queue();
        match queue.begin_lone_call(&call) {
            true => Entry::Lone(call),
            false => Entry::Waits(self.enqueue(queue, call, runtime)),
        }
    }

    /// The answer of a lane. A call that comes back from a lane waits for another one.
    async fn answer(
        &self,
        mut place: Place<'_, R>,
        runtime: &Handle,
    ) -> Result<R::Answer, StoreError> {
        let ended = || {
            StoreError::new(
                "the runtime that ran a call of the session store has ended; end it after the last \
                 request",
            )
        };
        let mut returns = 0;
        loop {
            match place.outcome().await {
                Ok(Outcome::Answered(answer)) => return answer,
                Ok(Outcome::Returned(call)) if returns < MOST_RETURNS => {
                    returns += 1;
                    place = self.enqueue(self.0.queue(), call, runtime);
                }
                Ok(Outcome::Returned(_)) => return Err(ended()),
                Err(gone) => return Err(ended().with_source(gone)),
            }
        }
    }

    fn enqueue(
        &self,
        mut queue: MutexGuard<'_, Queue<R>>,
        call: R::Call,
        runtime: &Handle,
    ) -> Place<'_, R> {
        let (caller, receiver) = oneshot::channel();
        let number = queue.arrivals;
        queue.arrivals += 1;
        let waiting = Waiting {
            call,
            is_alone: false,
            caller,
        };
        queue.waiting.insert(number, waiting);
        let begins_lane = queue.begin_lane();
        drop(queue);
        let place = Place {
            shared: &self.0,
            number,
            receiver,
            is_taken: false,
        };
        if begins_lane {
            // The lane is a task of its own: the caller may go away, or may not be polled.
            runtime.spawn(Lane::new(self.0.clone()).work());
        }
        place
    }
}

impl<R: BatchRunner> Clone for Batches<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: BatchRunner> Shared<R> {
    fn queue(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a call goes.
enum Entry<'a, R: BatchRunner> {
    /// It runs in the task of its caller.
    Lone(R::Call),
    /// It waits for a lane.
    Waits(Place<'a, R>),
}

/// The place of a call in the queue. The call leaves the queue when this is dropped.
struct Place<'a, R: BatchRunner> {
    shared: &'a Shared<R>,
    number: u64,
    receiver: Receiver<Outcome<R>>,
    /// Whether the call is known to be out of the queue.
    is_taken: bool,
}

impl<R: BatchRunner> Place<'_, R> {
    async fn outcome(mut self) -> Result<Outcome<R>, RecvError> {
        let outcome = (&mut self.receiver).await;
        self.is_taken = true;
        outcome
    }
}

impl<R: BatchRunner> Drop for Place<'_, R> {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        // Does nothing if a lane has taken the call. A call is dropped after the lock.
        let waiting = self.shared.queue().waiting.remove(&self.number);
        drop(waiting);
    }
}

impl<R: BatchRunner> Queue<R> {
    /// Whether a call is alone, and may run without a lane. Then it runs from now on.
    fn begin_lone_call(&mut self, call: &R::Call) -> bool {
        let has_lanes = self.quick_lanes + self.slow_lanes > 0;
        if has_lanes || self.has_lone_call || !self.waiting.is_empty() {
            return false;
        }
        self.has_lone_call = true;
        if !R::Call::IS_READ {
            self.running.insert(call.id());
        }
        true
    }

    /// Counts one more lane, if it is needed and possible.
    fn begin_lane(&mut self) -> bool {
        let Lanes { usual, most } = self.lanes;
        let begins = self.quick_lanes < usual && self.quick_lanes + self.slow_lanes < most;
        self.quick_lanes += usize::from(begins);
        begins
    }

    /// Does not count a lane any more.
    fn end_lane(&mut self, is_slow: bool) {
        match is_slow {
            true => self.slow_lanes -= 1,
            false => self.quick_lanes -= 1,
        }
    }

    /// Takes the oldest call that can run now, and all that can run with it.
    fn take(&mut self, runner: &R) -> Option<Batch<R>> {
        let mut batch = Batch::<R>::new();
        // The number of each call that the batch takes, and its index in the batch.
        let mut taken = Vec::new();
        let mut bytes = 0;
        // The records of the calls that the batch has, with the calls' indexes, and of those that
        // it has not. A later call of a record must not run before an earlier one.
        let mut indexes = IdMap::default();
        let mut passed_over = IdSet::default();
        let mut first: Option<&R::Call> = None;
        let mut first_is_alone = false;
        for (&number, Waiting { call, is_alone, .. }) in &self.waiting {
            let id = call.id();
            if let Some(&index) = indexes.get(&id) {
                if R::Call::IS_READ {
                    taken.push((number, index));
                }
                continue;
            }
            let is_blocked = self.running.contains(&id) || passed_over.contains(&id);
            let is_apart = first.is_some_and(|first| {
                first_is_alone || *is_alone || !runner.can_share_batch(first, call)
            });
            if is_blocked || is_apart {
                passed_over.insert(id);
                continue;
            }
            bytes += call.bytes();
            if first.is_some() && (bytes > MOST_BYTES || indexes.len() == MOST_CALLS) {
                break;
            }
            if first.is_none() {
                first = Some(call);
                first_is_alone = *is_alone;
            }
            taken.push((number, indexes.len()));
            indexes.insert(id, indexes.len());
        }
        for (number, index) in taken {
            let Some(Waiting { call, caller, .. }) = self.waiting.remove(&number) else {
                continue;
            };
            if index == batch.calls.len() {
                batch.calls.push(call);
            }
            batch.seats.push(Seat {
                number,
                index,
                caller,
            });
        }
        if !R::Call::IS_READ {
            self.running.extend(batch.ids());
        }
        (!batch.calls.is_empty()).then_some(batch)
    }
}

impl<R: BatchRunner> Batch<R> {
    fn new() -> Self {
        Self {
            calls: Vec::new(),
            seats: Vec::new(),
        }
    }

    fn ids(&self) -> impl Iterator<Item = RecordId> {
        self.calls.iter().map(BatchCall::id)
    }
}
