//! Explores every order of the events of a near cache, and checks what the cache promises.
//!
//! The store has one record, whose version grows with each write by anybody. The feed brings
//! notices of the writes, in order, at any time later or, if it is cut, never. The explorer walks
//! through all states of a small model, and replays the way to each state with the real [`Cache`].
//!
//! - *bound*: what the cache answers was current at some time that is not more than [`MAX`] ticks
//!   ago, whatever is late or lost.
//! - *settled*: when all notices have come, what is cached is current.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::collections::{HashMap, VecDeque};
use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cache::Cache;
use super::moment::Moment;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::data::Data;
use crate::record::secret_hash::SecretHash;
use crate::record::{Record, RecordFields};
use crate::store::feed::Notice;

/// How many ticks old an answer may be.
const MAX: u8 = 2;

/// How many ticks and how many writes a way has at most.
const TICKS: u8 = 5;
const WRITES: u8 = 2;

const TICK: Duration = Duration::from_secs(1);

const ID: RecordId = RecordId::from_bytes([7; 16]);

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Tick,
    /// Somebody writes the record, and a notice is on its way.
    Write,
    /// A read begins that is not answered by the cache.
    Ask,
    /// The store answers the read. The answer is on its way.
    Answer,
    /// The answer arrives.
    Arrive,
    /// The caller of the read goes away.
    GoAway,
    Ping,
    /// The oldest notice or ping on the feed arrives.
    Deliver,
    /// From now on the feed brings nothing.
    Cut,
}

/// What is on its way over the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    Changed,
    /// The answer to a ping that was sent at this tick.
    Pong(u8),
}

/// All that the future of the model depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    now: u8,
    /// When each version was replaced by the next one. Its length is the present version.
    replaced_at: Vec<u8>,
    /// The read that is under way: whether its placeholder is still there, and what it has read.
    read: Option<(bool, Option<u8>)>,
    cached: Option<u8>,
    feed: VecDeque<Message>,
    /// When the last answered ping was sent.
    proven: Option<u8>,
    is_cut: bool,
}

/// How the test drives the cache wrongly, to see that it would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// An answer is kept although a notice overtook it.
    NoPlaceholder,
    /// An answered ping counts from its answer, and not from when it was sent.
    PongCounts,
    /// A notice does not take the record away.
    DeafToNotices,
    /// The cache answers, however old the last ping is.
    NeverStale,
}

impl Model {
    fn new() -> Self {
        Self {
            now: 0,
            replaced_at: Vec::new(),
            read: None,
            cached: None,
            feed: VecDeque::new(),
            // The first ping was answered.
            proven: Some(0),
            is_cut: false,
        }
    }

    fn version(&self) -> u8 {
        u8::try_from(self.replaced_at.len()).unwrap()
    }

    fn may_answer(&self) -> bool {
        self.proven.is_some_and(|sent| self.now - sent <= MAX)
    }

    fn can(&self, step: Step) -> bool {
        let has_ping = || {
            self.feed
                .iter()
                .any(|message| matches!(message, Message::Pong(_)))
        };
        match step {
            Step::Tick => self.now < TICKS,
            Step::Write => self.version() < WRITES,
            // If the cache may not answer, a read does not touch it.
            Step::Ask => self.read.is_none() && self.cached.is_none() && self.may_answer(),
            Step::Answer => matches!(self.read, Some((_, None))),
            Step::Arrive => matches!(self.read, Some((_, Some(_)))),
            Step::GoAway => self.read.is_some(),
            Step::Ping => !has_ping(),
            Step::Deliver => !self.is_cut && !self.feed.is_empty(),
            Step::Cut => !self.is_cut,
        }
    }

    fn after(&self, step: Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Tick => next.now += 1,
            Step::Write => {
                next.replaced_at.push(self.now);
                next.feed.push_back(Message::Changed);
            }
            Step::Ask => next.read = Some((true, None)),
            Step::Answer => next.read = self.read.map(|(kept, _)| (kept, Some(self.version()))),
            Step::Arrive => {
                if let Some((true, read)) = next.read.take() {
                    next.cached = read;
                }
            }
            Step::GoAway => next.read = None,
            Step::Ping => next.feed.push_back(Message::Pong(self.now)),
            Step::Deliver => match next.feed.pop_front() {
                Some(Message::Changed) => {
                    next.cached = None;
                    next.read = next.read.map(|(_, read)| (false, read));
                }
                Some(Message::Pong(sent)) => next.proven = Some(sent),
                None => {}
            },
            Step::Cut => next.is_cut = true,
        }
        next
    }
}

type Read = Pin<Box<dyn Future<Output = Result<Option<Record>, StoreError>>>>;

/// The real cache, and the world around it as the test plays it.
struct World {
    cache: Arc<Cache>,
    mistake: Mistake,
    start: Moment,
    model: Model,
    read: Option<(Read, oneshot::Sender<Option<Record>>)>,
    answer: Option<u8>,
    last_ping: u64,
    /// The numbers of the pings on the feed.
    pings: VecDeque<u64>,
}

impl World {
    fn new(mistake: Mistake, start: Moment) -> Self {
        let max_stale = match mistake {
            Mistake::NeverStale => TICK * 1000,
            _ => TICK * u32::from(MAX),
        };
        let mut world = Self {
            cache: Arc::new(Cache::new(start.steady, 1 << 20, max_stale)),
            mistake,
            start,
            model: Model::new(),
            read: None,
            answer: None,
            last_ping: 0,
            pings: VecDeque::new(),
        };
        world.ping();
        let first = world.pings.pop_front().unwrap();
        world.cache.notice(Notice::Pong(first));
        world
    }

    fn now(&self) -> Moment {
        let passed = TICK * u32::from(self.model.now);
        Moment {
            steady: self.start.steady + passed,
            wall: self.start.wall + passed,
        }
    }

    fn ping(&mut self) {
        self.last_ping += 1;
        let (number, now) = (self.last_ping, self.now());
        self.pings.push_back(number);
        if self.mistake != Mistake::PongCounts {
            self.cache.ping(|| now, || number);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask => {
                let (sender, receiver) = oneshot::channel();
                let (cache, now) = (Arc::clone(&self.cache), self.now());
                let mut read: Read = Box::pin(async move {
                    let answer = async { Ok(receiver.await.unwrap()) };
                    cache.load(ID, now, answer).await
                });
                assert!(poll(&mut read).is_pending(), "a miss asks the store");
                self.read = Some((read, sender));
            }
            Step::Answer => self.answer = Some(self.model.version()),
            Step::Arrive => {
                let (mut read, sender) = self.read.take().unwrap();
                let answer = self.answer.take().unwrap();
                sender.send(Some(record(answer))).unwrap();
                assert!(poll(&mut read).is_ready());
                drop(read);
                if self.mistake == Mistake::NoPlaceholder {
                    self.put(answer);
                }
            }
            Step::GoAway => (self.read, self.answer) = (None, None),
            Step::Ping => self.ping(),
            Step::Deliver => match self.model.feed.front() {
                Some(Message::Changed) if self.mistake == Mistake::DeafToNotices => {}
                Some(Message::Changed) => self.cache.notice(Notice::Changed(ID)),
                Some(Message::Pong(_)) => {
                    let number = self.pings.pop_front().unwrap();
                    if self.mistake == Mistake::PongCounts {
                        let now = self.now();
                        self.cache.ping(|| now, || number);
                    }
                    self.cache.notice(Notice::Pong(number));
                }
                None => {}
            },
            Step::Tick | Step::Write | Step::Cut => {}
        }
        self.model = self.model.after(step);
    }

    /// Puts a version into the cache, whatever notices have come.
    fn put(&self, version: u8) {
        self.cache.forget(ID);
        let start = self.start;
        let read = async move { Ok(Some(record(version))) };
        let mut put: Read = Box::pin({
            let cache = Arc::clone(&self.cache);
            async move { cache.load(ID, start, read).await }
        });
        assert!(poll(&mut put).is_ready());
    }

    /// What the cache answers now, without the store.
    fn answer_at(&self, now: Moment) -> Option<u8> {
        let cache = Arc::clone(&self.cache);
        let mut read: Read = Box::pin(async move { cache.load(ID, now, pending()).await });
        match poll(&mut read) {
            Poll::Ready(answer) => answer.unwrap().as_ref().map(version_of),
            Poll::Pending => None,
        }
    }

    /// What is wrong in this state, if anything is.
    fn broken_promise(&self) -> Option<&'static str> {
        // While a read is under way, a look would wait for it.
        if self.read.is_some() {
            return None;
        }
        if let Some(answer) = self.answer_at(self.now()) {
            let replaced_at = self.model.replaced_at.get(usize::from(answer));
            if replaced_at.is_some_and(|&at| self.model.now - at > MAX) {
                return Some("bound");
            }
        }
        let is_settled = self.model.feed.is_empty();
        // At this moment the cache believes that its last ping was answered just now.
        let just_now = self.model.proven.map(|sent| Moment {
            steady: self.start.steady + TICK * u32::from(sent),
            wall: self.start.wall + TICK * u32::from(sent),
        });
        if is_settled
            && let Some(cached) = just_now.and_then(|moment| self.answer_at(moment))
            && cached != self.model.version()
        {
            return Some("settled");
        }
        None
    }
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Poll<T> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// The version is in the record's time.
fn record(version: u8) -> Record {
    let created_at = Timestamp::from_millis(u64::from(version));
    Record::new(RecordFields::new(
        SecretHash::from_bytes([0; 16]),
        created_at,
        Data::default(),
    ))
}

fn version_of(record: &Record) -> u8 {
    u8::try_from(record.fields().created_at().as_millis()).unwrap()
}

/// Takes each step from every state of the model, and looks at the real cache after the step.
/// Returns how many states there are, or the broken promise and the steps that led to it.
fn explore(mistake: Mistake) -> Result<usize, (&'static str, Vec<Step>)> {
    const STEPS: [Step; 9] = [
        Step::Tick,
        Step::Write,
        Step::Ask,
        Step::Answer,
        Step::Arrive,
        Step::GoAway,
        Step::Ping,
        Step::Deliver,
        Step::Cut,
    ];
    let start = Moment {
        steady: Instant::now(),
        wall: SystemTime::now(),
    };
    let first = Model::new();
    // For each state, the step that led to it, and the state before.
    let mut known: HashMap<Model, Option<(Step, Model)>> = HashMap::from([(first.clone(), None)]);
    let mut queue = VecDeque::from([first]);
    while let Some(state) = queue.pop_front() {
        let mut way = Vec::new();
        let mut at = &state;
        while let Some((step, before)) = &known[at] {
            way.push(*step);
            at = before;
        }
        way.reverse();
        for step in STEPS.into_iter().filter(|step| state.can(*step)) {
            // Two ways may lead to one state of the model. A cache with a mistake may differ there,
            // so each step is looked at.
            let mut world = World::new(mistake, start);
            way.push(step);
            for step in &way {
                world.step(*step);
            }
            if let Some(broken) = world.broken_promise() {
                return Err((broken, way));
            }
            way.pop();
            let next = state.after(step);
            if !known.contains_key(&next) {
                known.insert(next.clone(), Some((step, state.clone())));
                queue.push_back(next);
            }
        }
    }
    Ok(known.len())
}

#[test]
fn in_every_order_of_events_an_answer_is_never_older_than_the_bound() {
    let states = explore(Mistake::None).unwrap();
    assert!(states > 10_000, "{states} states");
}

#[test]
fn without_any_of_its_rules_the_cache_breaks_a_promise_and_the_explorer_sees_it() {
    for (mistake, broken) in [
        (Mistake::NoPlaceholder, "settled"),
        (Mistake::PongCounts, "bound"),
        (Mistake::DeafToNotices, "settled"),
        (Mistake::NeverStale, "bound"),
    ] {
        let found = explore(mistake).map_err(|(promise, _)| promise);
        assert_eq!(found, Err(broken), "{mistake:?}");
    }
}

#[test]
fn a_gap_takes_away_what_was_read_before_it_and_what_is_read_at_the_time() {
    let start = Moment::now();
    let mut world = World::new(Mistake::None, start);
    world.step(Step::Ask);
    world.cache.notice(Notice::Gap);
    world.step(Step::Answer);
    world.step(Step::Arrive);
    // No ping since the gap is answered.
    assert_eq!(world.answer_at(start), None);
    world.step(Step::Ping);
    world.step(Step::Deliver);
    assert_eq!(world.answer_at(start), None, "the answer was not kept");
    let mut read: Read = Box::pin({
        let cache = Arc::clone(&world.cache);
        async move { cache.load(ID, start, ready(Ok(Some(record(0))))).await }
    });
    assert!(poll(&mut read).is_ready());
    assert_eq!(world.answer_at(start), Some(0));
}

#[test]
fn a_ping_from_before_a_loss_proves_nothing_after_it() {
    let start = Moment::now();
    let mut world = World::new(Mistake::None, start);
    world.step(Step::Ping);
    world.cache.wait_for_feed();
    world.step(Step::Deliver);
    assert!(!world.cache.may_answer(start));
    world.step(Step::Ping);
    world.step(Step::Deliver);
    assert!(world.cache.may_answer(start));
}

#[test]
fn a_wall_clock_that_went_on_while_the_machine_slept_makes_answers_old() {
    let world = World::new(Mistake::None, Moment::now());
    let mut later = world.start;
    assert!(world.cache.may_answer(later));
    later.wall += TICK * 60;
    assert!(!world.cache.may_answer(later));
    // A wall clock that was set back does not make answers young.
    let mut later = world.start;
    later.wall -= TICK * 60;
    later.steady += TICK * 60;
    assert!(!world.cache.may_answer(later));
}
