//! Explores every order of the events of token rotation for a small bound, with the real store
//! calls, commits and clock, and checks what rotation promises:
//!
//! - *alone*: an owner without a thief is never refused and raises no alarm, whatever answers are
//!   lost or late, by less than the interval.
//! - *login*: a token of before a login is never accepted after the login, and raises no alarm.
//! - *caught*: if a thief has copied the owner's token and both send a request in each tick, the
//!   alarm comes within two intervals and two grace periods.
//!
//! Time is in ticks of a grace period. The same explorer then runs with a store that forgets one of
//! the things that a record keeps for rotation, and has to see a broken promise each time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::SessionLayer;
use crate::binding::presented::PresentedProof;
use crate::binding::rotation::Chance;
use crate::clock::{Clock, Timestamp};
use crate::commit::lookup::{InitialState, find};
use crate::commit::{CommitOutcome, commit};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::generations::Serial;
use crate::record::{Record, Version};
use crate::session::{ClientFacts, Session};
use crate::store::{Replaced, SessionStore};
use crate::token::keys::SigningKey;
use crate::token::{SessionToken, VerifiedTokens};

const GRACE: u64 = 1;
const EVERY: u64 = 3;
/// A grace period, and so little less that a request which is under way for a tick is in time.
const TICK: Duration = Duration::from_millis(TICK_MILLIS);
const TICK_MILLIS: u64 = 59_999;

/// What a store forgets of each record that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    Parents,
    Siblings,
    /// Whether a new token was used.
    Seen,
    /// That a new token was not used yet.
    Unseen,
    /// Which token was the first of the login.
    Login,
}

/// A clock that the explorer sets, also back.
#[derive(Clone, Debug, Default)]
struct SetClock(Arc<AtomicU64>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A store of one record, which the explorer takes out and puts back.
#[derive(Debug)]
struct OneRecord {
    record: Mutex<Option<(RecordId, Record)>>,
    mistake: Mistake,
}

impl OneRecord {
    fn write(&self, id: RecordId, record: &Record) {
        let mut fields = record.fields().clone();
        if let Some(known) = fields.generations() {
            let mut known = known.clone();
            match self.mistake {
                Mistake::None => {}
                Mistake::Parents => known.parents.clear(),
                Mistake::Siblings => known.siblings.clear(),
                Mistake::Seen => known.seen_at = None,
                Mistake::Unseen => known.seen_at = Some(known.made_at),
                Mistake::Login => known.first = Serial::FIRST,
            }
            fields.set_generations(known);
        }
        *self.record.lock().unwrap() = Some((id, Record::new(fields)));
    }
}

#[async_trait]
impl SessionStore for OneRecord {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let record = self.record.lock().unwrap().clone();
        Ok(record
            .filter(|(own, _)| *own == id)
            .map(|(_, record)| record))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.write(id, record);
        Ok(true)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        match self.load(id).await? {
            None => Ok(Replaced::Missing),
            Some(own) if own.version() != expected => Ok(Replaced::Conflict),
            Some(_) => {
                self.write(id, record);
                Ok(Replaced::Done)
            }
        }
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let is_same = self
            .load(id)
            .await?
            .is_some_and(|own| own.version() == record.version());
        if is_same {
            self.write(id, record);
        }
        Ok(is_same)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        Ok(self
            .record
            .lock()
            .unwrap()
            .take_if(|(own, _)| *own == id)
            .is_some())
    }

    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// The layer, whose clock and store the explorer sets before each event.
struct World {
    layer: SessionLayer<Arc<OneRecord>>,
    store: Arc<OneRecord>,
    clock: SetClock,
    start: Timestamp,
}

/// What the record holds. `None` after an alarm.
type Stored = Option<(RecordId, Record)>;

/// How the layer answers a request.
struct Answer {
    stored: Stored,
    is_accepted: bool,
    given: Option<SessionToken>,
}

impl World {
    fn new(mistake: Mistake) -> Self {
        let start = Timestamp::from_millis(1_000_000_000_000);
        let clock = SetClock::default();
        clock.0.store(start.as_millis(), Ordering::Relaxed);
        let store = Arc::new(OneRecord {
            record: Mutex::new(None),
            mistake,
        });
        let day = Duration::from_secs(24 * 60 * 60);
        let layer = SessionLayer::builder(store.clone(), SigningKey::generate().unwrap())
            .rotate_every(TICK * 3)
            .idle_timeout(day)
            .absolute_timeout(day)
            .clock(clock.clone())
            .build()
            .unwrap();
        Self {
            layer,
            store,
            clock,
            start,
        }
    }

    /// Sends a request with this token, or a visitor's, at this tick.
    async fn send(
        &self,
        stored: &Stored,
        token: Option<SessionToken>,
        now: u64,
        logs_in: bool,
    ) -> Answer {
        let now = self.start.plus_millis(TICK_MILLIS * now);
        self.clock.0.store(now.as_millis(), Ordering::Relaxed);
        self.store.record.lock().unwrap().clone_from(stored);
        let context = self.layer.contexts.first().clone();
        let base = match token {
            None => InitialState::Visitor,
            Some(token) => {
                let (tokens, proof) = (VerifiedTokens::One(token), PresentedProof::default());
                find(&context, &tokens, &proof).await.unwrap()
            }
        };
        let is_accepted = base.session().is_some();
        let client = ClientFacts {
            presents_token: token.is_some(),
            chance: Chance::Now,
            ..ClientFacts::default()
        };
        let session = Session::new(context.clone(), None, client, base);
        if logs_in {
            session.log_in("owner").unwrap();
        }
        let mut given = None;
        if let Some(mut request) = session.seal().request
            && let CommitOutcome::Issued { session, .. } =
                commit(&context, &mut request).await.unwrap()
        {
            given = Some(session.token);
        }
        Answer {
            stored: self.store.record.lock().unwrap().clone(),
            is_accepted,
            given,
        }
    }

    /// A session of which the owner has the only token.
    async fn begin(&self) -> (Stored, SessionToken) {
        let answer = self.send(&None, None, 0, true).await;
        (answer.stored, answer.given.unwrap())
    }

    /// What a state has in common with all that go on in the same way.
    fn key(&self, stored: &Stored) -> Option<Vec<u64>> {
        let (_, record) = stored.as_ref()?;
        let fields = record.fields();
        let known = fields.generations().unwrap();
        let tick = |at: Timestamp| 1 + at.since(self.start).as_millis() as u64;
        let serials = |tokens: &[crate::record::generations::KnownToken]| {
            let count = [tokens.len() as u64];
            let serials = tokens.iter().map(|token| u64::from(token.serial.as_u32()));
            count.into_iter().chain(serials).collect::<Vec<_>>()
        };
        let ends = [known.first, known.newest].map(|serial| u64::from(serial.as_u32()));
        let times = [known.seen_at.map_or(0, tick), tick(known.made_at)];
        let of_tokens = [serials(&known.siblings), serials(&known.parents)].concat();
        Some([&ends[..], &times, &of_tokens].concat())
    }
}

fn serial(token: &SessionToken) -> u32 {
    token.serial().as_u32()
}

/// Tokens on their way, and when they began it.
type OnTheWay = Vec<(SessionToken, u64)>;

fn keys(tokens: &OnTheWay) -> BTreeSet<(u32, u64)> {
    tokens
        .iter()
        .map(|(token, at)| (serial(token), *at))
        .collect()
}

fn with(tokens: &OnTheWay, token: SessionToken, at: u64) -> OnTheWay {
    let mut all = tokens.clone();
    if !keys(tokens).contains(&(serial(&token), at)) {
        all.push((token, at));
    }
    all
}

fn without(tokens: &OnTheWay, index: usize) -> OnTheWay {
    let mut rest = tokens.clone();
    rest.remove(index);
    rest
}

#[derive(Clone)]
struct State {
    stored: Stored,
    jar: SessionToken,
    /// Requests that have not reached the server yet.
    sent: OnTheWay,
    /// Answers that have not reached the owner yet.
    late: OnTheWay,
    now: u64,
    has_logged_in: bool,
}

/// The owner's requests reach the server a grace period later at most, and are answered at once,
/// late or never.
async fn alone(mistake: Mistake, ticks: u64, with_login: bool) -> Result<usize, &'static str> {
    let world = World::new(mistake);
    let (stored, jar) = world.begin().await;
    let mut known = HashSet::new();
    let mut queue = VecDeque::from([State {
        stored,
        jar,
        sent: Vec::new(),
        late: Vec::new(),
        now: 0,
        has_logged_in: false,
    }]);
    while let Some(state) = queue.pop_front() {
        let key = (
            world.key(&state.stored),
            serial(&state.jar),
            keys(&state.sent),
            keys(&state.late),
            state.now,
            state.has_logged_in,
        );
        if !known.insert(key) {
            continue;
        }
        let now = state.now;
        if now < ticks && state.sent.iter().all(|(_, at)| now - at < GRACE) {
            let mut next = state.clone();
            next.now += 1;
            next.late.retain(|(_, at)| now + 1 - at < EVERY - GRACE);
            queue.push_back(next);
        }
        if state.sent.len() < 2 {
            let sent = with(&state.sent, state.jar, now);
            queue.push_back(State {
                sent,
                ..state.clone()
            });
        }
        let first = state.stored.as_ref().map_or(Serial::NONE, |(_, record)| {
            record.fields().generations().unwrap().first
        });
        for (index, (token, _)) in state.late.iter().enumerate() {
            // An answer of before a login would take the login away. That limit is known, and the
            // reason why rotations ride on navigations.
            if token.serial() >= first {
                queue.push_back(State {
                    jar: *token,
                    late: without(&state.late, index),
                    ..state.clone()
                });
            }
        }
        for (index, (token, _)) in state.sent.iter().enumerate() {
            let answer = world.send(&state.stored, Some(*token), now, false).await;
            let is_of_before = token.serial() < first;
            if is_of_before && (answer.is_accepted || answer.stored.is_none()) {
                return Err("login");
            }
            if !is_of_before && (!answer.is_accepted || answer.stored.is_none()) {
                return Err("alone");
            }
            let next = State {
                stored: answer.stored,
                sent: without(&state.sent, index),
                ..state.clone()
            };
            queue.push_back(next.clone());
            if let Some(given) = answer.given {
                queue.push_back(State {
                    jar: given,
                    ..next.clone()
                });
                if next.late.len() < 2 {
                    let late = with(&next.late, given, now);
                    queue.push_back(State { late, ..next });
                }
            }
        }
        if with_login && !state.has_logged_in {
            let answer = world.send(&state.stored, Some(state.jar), now, true).await;
            let stored = answer.stored;
            // Whatever was good before is refused in silence.
            let others = state
                .sent
                .iter()
                .chain(&state.late)
                .map(|(token, _)| *token);
            for old in others.chain([state.jar]) {
                for later in [now, now + 2 * GRACE] {
                    let refused = world.send(&stored, Some(old), later, false).await;
                    if refused.is_accepted || refused.stored.is_none() {
                        return Err("login");
                    }
                }
            }
            queue.push_back(State {
                stored,
                jar: answer.given.ok_or("login")?,
                has_logged_in: true,
                ..state
            });
        }
    }
    Ok(known.len())
}

/// Owner and thief have the same token. In each tick each sends one request, in either order, and
/// no answer is lost. Returns after how many ticks the alarm comes at the latest.
async fn caught(mistake: Mistake) -> Result<u64, &'static str> {
    let world = World::new(mistake);
    let limit = 2 * EVERY + 2 * GRACE;
    let mut worst = 0;
    for age in 0..=EVERY {
        let (stored, token) = world.begin().await;
        let mut states = vec![(stored, token, token)];
        for tick in 0..=limit {
            let mut next = Vec::new();
            let mut known = HashSet::new();
            for (stored, owner, thief) in states {
                for owner_first in [true, false] {
                    let mut stored = stored.clone();
                    let mut tokens = [owner, thief];
                    for who in if owner_first { [0, 1] } else { [1, 0] } {
                        let token = tokens[who];
                        let answer = world.send(&stored, Some(token), age + tick, false).await;
                        stored = answer.stored;
                        tokens[who] = answer.given.unwrap_or(token);
                    }
                    if stored.is_none() {
                        worst = worst.max(tick);
                    } else if known.insert((world.key(&stored), tokens.map(|it| serial(&it)))) {
                        next.push((stored, tokens[0], tokens[1]));
                    }
                }
            }
            states = next;
        }
        if !states.is_empty() {
            return Err("caught");
        }
    }
    Ok(worst)
}

#[tokio::test]
async fn in_every_order_of_events_an_owner_alone_is_never_refused_and_raises_no_alarm() {
    let states = alone(Mistake::None, 14, false).await.unwrap();
    assert!(states > 10_000, "{states} states");
}

#[tokio::test]
async fn in_every_order_of_events_a_token_of_before_a_login_is_refused_in_silence() {
    let states = alone(Mistake::None, 9, true).await.unwrap();
    assert!(states > 5_000, "{states} states");
}

#[tokio::test]
async fn owner_and_thief_who_both_go_on_raise_the_alarm_within_two_intervals() {
    let worst = caught(Mistake::None).await.unwrap();
    assert!(worst <= 2 * EVERY + 2 * GRACE, "{worst} ticks");
}

#[tokio::test]
async fn a_record_that_forgets_anything_of_the_rule_breaks_a_promise_and_the_explorer_sees_it() {
    for (mistake, broken) in [
        (Mistake::Parents, "alone"),
        (Mistake::Siblings, "alone"),
        (Mistake::Seen, "caught"),
        (Mistake::Unseen, "alone"),
        (Mistake::Login, "login"),
    ] {
        let mut found = alone(mistake, 9, false).await.map(|_| ());
        if found.is_ok() {
            found = alone(mistake, 5, true).await.map(|_| ());
        }
        if found.is_ok() {
            found = caught(mistake).await.map(|_| ());
        }
        assert_eq!(found, Err(broken), "{mistake:?}");
    }
}
