//! An owner and a thief, in any order: requests that arrive late, answers that are lost or late,
//! two nodes whose clocks differ, and a store that loses an answer.
//!
//! `PROPTEST_CASES=20000 cargo nextest run --test it rotation::orders` tries more cases.

use std::time::Duration;

use cloakroom::RecordId;
use cloakroom::testing::{Fault, StoreCall};
use proptest::prelude::*;
use proptest::sample::select;
use support::id_of;

use crate::concurrency::model::{config, run};

use super::{GRACE, Holder, OWNER, Site, THIEF, Way, given};

/// How long a request can be under way.
const UNDER_WAY: u64 = 30;

/// How often each of the two loads a page, once both go on.
const PAUSE: u64 = 20;

/// Which of the two.
const OF_OWNER: usize = 0;
const OF_THIEF: usize = 1;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A request reaches the server at once.
    Request(Ask),
    /// A request is sent, and reaches the server later.
    Sends(Ask),
    /// The oldest request under way reaches the server.
    Reaches,
    /// The newest one does.
    Overtakes,
    /// An answer that is late comes to its client.
    Comes(usize),
    /// This many seconds pass.
    Tick(u64),
    /// The owner logs in again, or calls `regenerate`.
    LogIn(usize, &'static str),
}

/// One request of the owner, or of the thief if there is one.
#[derive(Clone, Copy, Debug)]
struct Ask {
    of_thief: bool,
    node: usize,
    path: &'static str,
    mode: Option<&'static str>,
    answer: Answer,
    /// The store loses the answer to a write. The request only reads.
    store_loses: bool,
}

/// What becomes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Comes,
    ComesLate,
    IsLost,
}

fn ask() -> impl Strategy<Value = Ask> {
    let path = select(vec![
        "/user",
        "/user",
        "/update/visits",
        "/update/visits",
        "/",
        "/passive",
        "/fail/insert",
    ]);
    let mode = select(vec![None, None, Some("navigate"), Some("cors")]);
    let answer = prop_oneof![
        5 => Just(Answer::Comes),
        1 => Just(Answer::ComesLate),
        2 => Just(Answer::IsLost),
    ];
    let store_loses = prop::bool::weighted(0.1);
    (any::<bool>(), 0..2_usize, path, mode, answer, store_loses).prop_map(
        |(of_thief, node, path, mode, answer, store_loses)| Ask {
            of_thief,
            node,
            path,
            mode,
            answer,
            store_loses: store_loses && !path.starts_with("/update"),
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => ask().prop_map(Event::Request),
        4 => ask().prop_map(Event::Sends),
        2 => Just(Event::Reaches),
        1 => Just(Event::Overtakes),
        1 => (0..3_usize).prop_map(Event::Comes),
        8 => select(vec![1, 7, 10, 20, 29, 40, 59, 60, 61, 90, 120, 300]).prop_map(Event::Tick),
    ]
}

fn event_or_login() -> impl Strategy<Value = Event> {
    let login = (0..2_usize, select(vec!["/log_in/ada", "/regenerate"]));
    prop_oneof![
        14 => event(),
        1 => login.prop_map(|(node, path)| Event::LogIn(node, path)),
    ]
}

/// A request that is under way, with the token that its client had.
struct Sent {
    ask: Ask,
    token: String,
    /// How many logins there were.
    login: usize,
    at: u64,
}

/// The token of an answer that is late.
struct Late {
    of: usize,
    token: String,
    at: u64,
}

/// Two nodes over one store, and who holds tokens.
struct World {
    nodes: [Site; 2],
    every: u64,
    now: u64,
    /// What the owner and the thief send. Without a thief, there is one.
    jars: Vec<String>,
    sent: Vec<Sent>,
    late: Vec<Late>,
    id: RecordId,
    /// All tokens of the session that the server gave to anybody.
    given: Vec<String>,
    /// How often the owner has logged in, and whether the thief's copy is of the last time.
    logins: usize,
    thief_login: usize,
    visits: u64,
}

impl World {
    async fn new(every: u64, apart: u64) -> Self {
        let set = |builder: super::Builder<super::Store>| {
            let day = Duration::from_secs(24 * 60 * 60);
            builder
                .rotate_every(Duration::from_secs(every))
                .idle_timeout(100 * day)
                .absolute_timeout(200 * day)
        };
        let here = Site::with(set);
        let there = here.ahead(Duration::from_secs(apart), set);
        let owner = here.logged_in().await;
        Self {
            nodes: [here, there],
            every,
            now: 0,
            id: id_of(&owner.token),
            given: vec![owner.token.clone()],
            jars: vec![owner.token],
            sent: Vec::new(),
            late: Vec::new(),
            logins: 0,
            thief_login: 0,
            visits: 0,
        }
    }

    /// Somebody copies what the owner has now.
    fn is_robbed(&mut self) {
        self.jars.push(self.jars[OF_OWNER].clone());
        self.thief_login = self.logins;
    }

    fn has_thief(&self) -> bool {
        self.jars.len() > 1
    }

    fn alarms(&self) -> usize {
        self.nodes.iter().map(|node| node.heard.alarms()).sum()
    }

    /// How late an answer can be: less than the interval, by every clock.
    fn latest(&self) -> u64 {
        (self.every - 21).min(150)
    }

    async fn happens(&mut self, event: &Event) {
        match *event {
            Event::Request(ask) => {
                let sent = self.sends(ask);
                self.reaches(sent).await;
            }
            Event::Sends(ask) => {
                let sent = self.sends(ask);
                self.sent.push(sent);
            }
            Event::Reaches if !self.sent.is_empty() => {
                let sent = self.sent.remove(0);
                self.reaches(sent).await;
            }
            Event::Overtakes => {
                if let Some(sent) = self.sent.pop() {
                    self.reaches(sent).await;
                }
            }
            Event::Comes(which) if which < self.late.len() => {
                let late = self.late.remove(which);
                self.jars[late.of] = late.token;
            }
            Event::Reaches | Event::Comes(_) => {}
            Event::Tick(seconds) => self.passes(seconds).await,
            Event::LogIn(node, path) => self.log_in(node, path).await,
        }
    }

    fn sends(&self, ask: Ask) -> Sent {
        Sent {
            token: self.jars[self.of(ask)].clone(),
            login: match self.of(ask) {
                OF_OWNER => self.logins,
                _ => self.thief_login,
            },
            at: self.now,
            ask,
        }
    }

    fn of(&self, ask: Ask) -> usize {
        match ask.of_thief && self.has_thief() {
            true => OF_THIEF,
            false => OF_OWNER,
        }
    }

    async fn passes(&mut self, seconds: u64) {
        // No request is under way for too long.
        for _ in 0..seconds {
            while self
                .sent
                .first()
                .is_some_and(|sent| self.now - sent.at >= UNDER_WAY)
            {
                let sent = self.sent.remove(0);
                self.reaches(sent).await;
            }
            self.now += 1;
            for node in &self.nodes {
                node.clock.advance(Duration::from_secs(1));
            }
        }
        let oldest = self.now.saturating_sub(self.latest());
        self.late.retain(|late| late.at > oldest);
    }

    /// A request reaches the server. Checks its answer, and gives it to the client.
    async fn reaches(&mut self, sent: Sent) {
        let Sent {
            ask, token, login, ..
        } = sent;
        let of = self.of(ask);
        let holder = Holder {
            app: self.nodes[ask.node].app.clone(),
            token,
            address: if of == OF_OWNER { OWNER } else { THIEF },
            way: Way::Cookie,
        };
        let store = &self.nodes[0].store;
        if ask.store_loses {
            store.fail_once(StoreCall::Replace, Fault::AnswerLost);
        }
        let mode = ask.mode.map(|mode| ("sec-fetch-mode", mode));
        let request = holder.request(ask.path, mode.as_slice());
        let reply = support::send_unwatched(&holder.app, request).await;
        store.recover();

        // The session has ended, or the token is of before the last login, and dead in silence.
        if self.alarms() > 0 || login < self.logins {
            if ask.path == "/user" {
                assert!(matches!(reply.status.as_u16(), 401 | 409), "{reply:?}");
            }
            // A visitor's write begins a session of its own.
            if let Some(token) = given(&reply, Way::Cookie) {
                assert_ne!(id_of(&token), self.id, "nothing revives");
            }
            return;
        }
        // Nobody with a token of this login is refused without the alarm.
        match ask.path {
            "/user" => reply.assert(200, "ada"),
            "/update/visits" => {
                self.visits += 1;
                reply.assert(200, &self.visits.to_string());
            }
            "/fail/insert" => {
                reply.assert(500, "failed");
                reply.assert_no_cookie();
            }
            _ => assert_eq!(reply.status, 200),
        }
        if let Some(token) = given(&reply, Way::Cookie) {
            assert!(!self.given.contains(&token), "no token is given twice");
            self.given.push(token.clone());
            let at = self.now;
            match ask.answer {
                Answer::Comes => self.jars[of] = token,
                Answer::ComesLate => self.late.push(Late { of, token, at }),
                Answer::IsLost => {}
            }
        }
    }

    async fn log_in(&mut self, node: usize, path: &str) {
        let mut owner = Holder {
            app: self.nodes[node].app.clone(),
            token: self.jars[OF_OWNER].clone(),
            address: OWNER,
            way: Way::Cookie,
        };
        let reply = owner.get(path).await;
        if self.alarms() > 0 {
            return;
        }
        reply.assert(200, "done");
        self.jars[OF_OWNER] = owner.token.clone();
        self.given.push(owner.token);
        self.logins += 1;
        // Such an answer would take the login away. Browsers have most of them with a navigation,
        // and a login is one too.
        self.late.retain(|late| late.of != OF_OWNER);
    }

    /// Whoever brings any token is a visitor.
    async fn is_over_for_all(&mut self) {
        let alarms = self.alarms();
        for token in self.given.clone() {
            for node in &self.nodes {
                let mut holder = node.visitor();
                holder.token = token.clone();
                let request = holder.request("/user", &[]);
                let reply = support::send_unwatched(&holder.app, request).await;
                reply.assert(401, "");
                reply.assert_no_cookie();
            }
        }
        assert_eq!(self.alarms(), alarms, "there is one alarm");
    }
}

fn intervals() -> impl Strategy<Value = u64> {
    select(vec![60, 75, 180, 600])
}

/// By how many seconds the clock of the second node is ahead.
fn apart() -> impl Strategy<Value = u64> {
    select(vec![0, 5, 20])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_owner_who_is_alone_is_never_logged_out_and_raises_no_alarm(
        every in intervals(),
        apart in apart(),
        events in prop::collection::vec(event_or_login(), 1..150),
    ) {
        run(async {
            let mut world = World::new(every, apart).await;
            for event in &events {
                world.happens(event).await;
                assert_eq!(world.alarms(), 0, "{event:?}");
            }
            let last = Ask {
                of_thief: false,
                node: 1,
                path: "/user",
                mode: None,
                answer: Answer::Comes,
                store_loses: false,
            };
            world.happens(&Event::Request(last)).await;
            assert_eq!(world.alarms(), 0);
        });
    }

    /// Before that, anything may happen. Once both load a page at least every 20 seconds and get
    /// the answers, the alarm comes within two intervals, a minute, and two such pauses.
    #[test]
    fn an_owner_and_a_thief_who_both_go_on_are_found_in_time(
        every in intervals(),
        apart in apart(),
        before in prop::collection::vec(event_or_login(), 0..40),
        after in prop::collection::vec(event(), 0..40),
        turns in prop::collection::vec((any::<bool>(), 0..2_usize, 0..2_usize), 1..20),
    ) {
        run(async {
            let mut world = World::new(every, apart).await;
            for event in &before {
                world.happens(event).await;
            }
            assert_eq!(world.alarms(), 0);
            world.is_robbed();
            for event in &after {
                world.happens(event).await;
            }
            // What was under way comes.
            world.passes(UNDER_WAY + 1).await;
            world.late.clear();

            let start = world.now;
            let limit = 2 * every + GRACE.as_secs() + 2 * PAUSE;
            for (is_thief_first, of_owner, of_thief) in turns.iter().cycle() {
                if world.alarms() > 0 {
                    break;
                }
                let passed = world.now - start;
                assert!(passed <= limit, "no alarm after {passed} s");
                for of_thief_now in [*is_thief_first, !is_thief_first] {
                    let page = Ask {
                        of_thief: of_thief_now,
                        node: if of_thief_now { *of_thief } else { *of_owner },
                        path: "/user",
                        mode: Some("navigate"),
                        answer: Answer::Comes,
                        store_loses: false,
                    };
                    world.happens(&Event::Request(page)).await;
                }
                if world.alarms() == 0 {
                    world.passes(PAUSE).await;
                }
            }
            assert_eq!(world.alarms(), 1);
            world.is_over_for_all().await;
            for event in &after {
                world.happens(event).await;
            }
            world.is_over_for_all().await;
        });
    }

    #[test]
    fn a_login_of_the_owner_ends_what_a_thief_has(
        every in intervals(),
        apart in apart(),
        before in prop::collection::vec(event(), 0..30),
        node in 0..2_usize,
        after in prop::collection::vec(event(), 1..100),
    ) {
        run(async {
            let mut world = World::new(every, apart).await;
            for event in &before {
                world.happens(event).await;
            }
            world.is_robbed();
            world.happens(&Event::LogIn(node, "/log_in/ada")).await;
            for event in &after {
                // `reaches` checks that the thief gets nothing.
                world.happens(event).await;
                assert_eq!(world.alarms(), 0, "{event:?}");
            }
        });
    }
}
