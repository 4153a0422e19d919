//! The tests compare the whole layer, over HTTP, with a small model. There are several browsers and
//! users. Keys rotate, time passes, and somebody revokes sessions.
//!
//! `PROPTEST_CASES=20000 cargo nextest run --test it concurrency::model` tries more cases than the
//! usual 256.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::{
    MemoryStore, RecordId, Session, SessionError, SessionLayer, Sessions, SigningKey, SigningKeys,
    SqliteStore, TestClock, UserIndex,
};
use http::header::COOKIE;
use proptest::prelude::*;
use support::{Reply, id_of, routes, send};

const BROWSERS: usize = 3;
const USERS: [&str; 2] = ["ada", "grace"];
const KEYS: [&str; 2] = ["theme", "cart"];
const VALUES: [&str; 3] = ["red", "green", "blue"];
const MINUTE: u64 = 60;

/// The idle timeout and the absolute timeout, without and with `remember`. The two are close
/// together. So either of them often ends a session.
const BROWSER: (u64, u64) = (30 * MINUTE, 60 * MINUTE);
const REMEMBER: (u64, u64) = (120 * MINUTE, 300 * MINUTE);

/// What happens next. Each event can happen at any time.
#[derive(Clone, Debug)]
enum Event {
    Request(usize, Act),
    /// Somebody revokes this browser's session from outside.
    Revoke(usize),
    /// Somebody revokes all other sessions of this browser's user.
    RevokeOthers(usize),
    RevokeAll(usize),
    Purge,
    /// This many seconds pass.
    Tick(u64),
    /// A new key signs. The last key becomes the retiring one.
    RotateKeys,
    /// The layer no longer accepts the retiring key.
    DropKey,
    /// A letter of this browser's cookie changes.
    Corrupt(usize, usize),
    /// The first browser's cookie is copied to the second.
    Steal(usize, usize),
    /// A browser sends the cookie that it had before the current one.
    GoBack(usize),
    /// The user closes the browser and opens it again.
    Restart(usize),
}

/// What one request does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Nothing,
    Read,
    Poll,
    Insert(usize, usize),
    Update,
    Remove(usize),
    Clear,
    Regenerate,
    LogIn(usize),
    Remember(usize),
    LogOut,
    Destroy,
    StartAnew(usize),
    /// The handler does this and answers with the status 500.
    Fail(Failure),
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    Insert,
    Regenerate,
    LogIn,
    Destroy,
}

fn event() -> impl Strategy<Value = Event> {
    let browser = || 0..BROWSERS;
    let user = || 0..USERS.len();
    prop_oneof![
        30 => (browser(), act()).prop_map(|(browser, act)| Event::Request(browser, act)),
        1 => browser().prop_map(Event::Revoke),
        1 => browser().prop_map(Event::RevokeOthers),
        1 => user().prop_map(Event::RevokeAll),
        1 => Just(Event::Purge),
        8 => prop::sample::select(vec![
            1, 59, MINUTE, 3 * MINUTE, 12 * MINUTE, 20 * MINUTE, 30 * MINUTE - 1, 30 * MINUTE,
            60 * MINUTE, 120 * MINUTE - 1, 120 * MINUTE,
        ]).prop_map(Event::Tick),
        1 => Just(Event::RotateKeys),
        1 => Just(Event::DropKey),
        1 => (browser(), 0..64_usize).prop_map(|(browser, letter)| Event::Corrupt(browser, letter)),
        2 => (browser(), browser()).prop_map(|(from, to)| Event::Steal(from, to)),
        2 => browser().prop_map(Event::GoBack),
        1 => browser().prop_map(Event::Restart),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let user = || 0..USERS.len();
    let key = || 0..KEYS.len();
    prop_oneof![
        1 => Just(Act::Nothing),
        4 => Just(Act::Read),
        1 => Just(Act::Poll),
        4 => (key(), 0..VALUES.len()).prop_map(|(key, value)| Act::Insert(key, value)),
        4 => Just(Act::Update),
        2 => key().prop_map(Act::Remove),
        1 => Just(Act::Clear),
        3 => Just(Act::Regenerate),
        4 => user().prop_map(Act::LogIn),
        2 => user().prop_map(Act::Remember),
        2 => Just(Act::LogOut),
        1 => Just(Act::Destroy),
        1 => key().prop_map(Act::StartAnew),
        2 => prop::sample::select(vec![
            Failure::Insert, Failure::Regenerate, Failure::LogIn, Failure::Destroy,
        ]).prop_map(Act::Fail),
    ]
}

// The model.

/// A session, as the documentation describes it.
#[derive(Clone, Debug)]
struct Kept {
    is_ended: bool,
    user: Option<usize>,
    data: BTreeMap<&'static str, String>,
    /// The number of the good token.
    token: usize,
    replaced_at: u64,
    created: u64,
    expires: u64,
    remember: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    session: usize,
    number: usize,
    key: usize,
    is_persistent: bool,
}

/// What a browser sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Jar {
    #[default]
    Empty,
    Holds(Token),
    /// A token that belongs to nobody.
    Spoilt,
}

#[derive(Debug, PartialEq, Eq)]
enum Cookie {
    Kept,
    Set(Token),
    Removed,
}

/// What the model expects of an answer.
#[derive(Debug)]
struct Expected {
    status: u16,
    body: String,
    cookie: Cookie,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    /// The newest key signs. The keys before `first_key` are not accepted any more.
    newest_key: usize,
    first_key: usize,
    sessions: Vec<Kept>,
    jars: [Jar; BROWSERS],
    before: [Jar; BROWSERS],
}

/// What a token leads to.
enum Found {
    Visitor,
    Live(usize),
    /// The token was rotated less than a minute ago.
    Superseded,
}

impl Kept {
    fn timeouts(&self) -> (u64, u64) {
        match self.remember {
            false => BROWSER,
            true => REMEMBER,
        }
    }

    fn idle(&self) -> u64 {
        self.timeouts().0
    }

    fn is_over(&self, now: u64) -> bool {
        let absolute_end = self.created + self.timeouts().1;
        self.is_ended || now >= self.expires.min(absolute_end)
    }

    /// Records the use of the session, if that is due.
    fn touch(&mut self, now: u64) {
        if 10 * (now + self.idle()).abs_diff(self.expires) >= self.idle() {
            self.expires = now + self.idle();
        }
    }

    /// The session as a handler shows it.
    fn shown(&self) -> String {
        let user = self.user.map_or("nobody", |user| USERS[user]);
        let mut shown = user.to_owned();
        for (key, value) in &self.data {
            shown.push_str(&format!(" {key}={value}"));
        }
        shown
    }
}

impl Model {
    fn find(&self, browser: usize) -> Found {
        let Jar::Holds(token) = self.jars[browser] else {
            return Found::Visitor;
        };
        let session = &self.sessions[token.session];
        if token.key < self.first_key || session.is_over(self.now) {
            Found::Visitor
        } else if token.number == session.token {
            Found::Live(token.session)
        } else if self.now - session.replaced_at < MINUTE {
            Found::Superseded
        } else {
            Found::Visitor
        }
    }

    fn make(&mut self, user: Option<usize>, remember: bool) -> usize {
        let mut session = Kept {
            is_ended: false,
            user,
            data: BTreeMap::new(),
            token: 0,
            replaced_at: 0,
            created: self.now,
            expires: 0,
            remember,
        };
        session.expires = self.now + session.idle();
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    /// The good token of a session, signed now.
    fn token(&self, session: usize) -> Token {
        let kept = &self.sessions[session];
        Token {
            session,
            number: kept.token,
            key: self.newest_key,
            is_persistent: kept.remember,
        }
    }

    /// A visitor's new session.
    fn start(&mut self, cookie: &mut Cookie) -> usize {
        let session = self.make(None, false);
        *cookie = Cookie::Set(self.token(session));
        session
    }

    fn replace_token(&mut self, session: usize) {
        let now = self.now;
        let kept = &mut self.sessions[session];
        kept.token += 1;
        kept.replaced_at = now;
    }

    fn request(&mut self, browser: usize, act: Act) -> Expected {
        let found = self.find(browser);
        let is_superseded = matches!(found, Found::Superseded);
        let mut home = match found {
            Found::Live(session) => Some(session),
            Found::Visitor | Found::Superseded => None,
        };
        let now = self.now;
        let mut status = 200;
        let mut cookie = Cookie::Kept;
        let mut body = "done".to_owned();
        // Whether the request has something to write. If its token was just rotated, such a request
        // is refused.
        let mut writes = false;
        match act {
            Act::Nothing => body = "untouched".into(),
            Act::Read | Act::Poll => {
                body = home.map_or("nobody".into(), |home| self.sessions[home].shown());
            }
            Act::Insert(key, value) => {
                writes = true;
                if !is_superseded {
                    let session = home.unwrap_or_else(|| self.start(&mut cookie));
                    let data = &mut self.sessions[session].data;
                    data.insert(KEYS[key], VALUES[value].into());
                }
            }
            Act::Update => {
                writes = true;
                if !is_superseded {
                    let session = home.unwrap_or_else(|| self.start(&mut cookie));
                    let data = &mut self.sessions[session].data;
                    let visits = data.get("visits").map_or(0, |n| n.parse().unwrap()) + 1;
                    data.insert("visits", visits.to_string());
                    body = visits.to_string();
                }
            }
            Act::Remove(key) => {
                let removed = home.and_then(|home| self.sessions[home].data.remove(KEYS[key]));
                body = removed.unwrap_or_else(|| "nothing".into());
            }
            Act::Clear => {
                if let Some(home) = home {
                    self.sessions[home].data.clear();
                }
            }
            Act::Regenerate => {
                if let Some(home) = home {
                    self.replace_token(home);
                    cookie = Cookie::Set(self.token(home));
                }
            }
            Act::LogIn(user) | Act::Remember(user) => {
                let remember = matches!(act, Act::Remember(_));
                if let Some(session) = home
                    && self.sessions[session]
                        .user
                        .is_some_and(|other| other != user)
                {
                    self.sessions[session].is_ended = true;
                    home = None;
                }
                let session = match home {
                    Some(session) => {
                        self.replace_token(session);
                        session
                    }
                    None => self.make(None, false),
                };
                let kept = &mut self.sessions[session];
                kept.user = Some(user);
                kept.remember |= remember;
                kept.created = now;
                kept.expires = now + kept.idle();
                cookie = Cookie::Set(self.token(session));
            }
            Act::LogOut | Act::Destroy => {
                writes = true;
                if let Some(session) = home.take() {
                    self.sessions[session].is_ended = true;
                }
                // The user wants to have no cookie, whatever the old cookie was.
                if self.jars[browser] != Jar::Empty {
                    cookie = Cookie::Removed;
                }
            }
            Act::StartAnew(key) => {
                writes = true;
                if !is_superseded {
                    if let Some(session) = home.take() {
                        self.sessions[session].is_ended = true;
                    }
                    let session = self.start(&mut cookie);
                    self.sessions[session].data.insert(KEYS[key], "new".into());
                }
            }
            Act::Fail(failure) => {
                status = 500;
                body = "failed".into();
                if let (Failure::Destroy, Some(session)) = (failure, home) {
                    self.sessions[session].is_ended = true;
                    cookie = Cookie::Removed;
                }
                // A failed request does not count as a use of the session.
                home = None;
            }
        }
        if is_superseded && writes {
            return Expected {
                status: 409,
                body: String::new(),
                cookie: Cookie::Kept,
            };
        }
        if let Some(home) = home
            && !matches!(act, Act::Poll)
        {
            self.sessions[home].touch(now);
        }
        Expected {
            status,
            body,
            cookie,
        }
    }

    /// What a browser does with an answer.
    fn keep(&mut self, browser: usize, cookie: &Cookie) {
        let jar = match cookie {
            Cookie::Kept => return,
            Cookie::Set(token) => Jar::Holds(*token),
            Cookie::Removed => Jar::Empty,
        };
        self.before[browser] = self.jars[browser];
        self.jars[browser] = jar;
    }

    /// The session and the user of a browser, if somebody is logged in there.
    fn logged_in(&self, browser: usize) -> Option<(usize, usize)> {
        match self.find(browser) {
            Found::Live(session) => Some((session, self.sessions[session].user?)),
            Found::Visitor | Found::Superseded => None,
        }
    }

    fn end_all_of(&mut self, user: usize, but: Option<usize>) {
        for (number, session) in self.sessions.iter_mut().enumerate() {
            if session.user == Some(user) && Some(number) != but {
                session.is_ended = true;
            }
        }
    }
}

// The system.

struct System<S> {
    store: S,
    clock: TestClock,
    newest_key: usize,
    first_key: usize,
    app: Router,
    sessions: Sessions<S>,
    /// What each browser sends as its cookie, and what it sent before that.
    jars: [Option<String>; BROWSERS],
    before: [Option<String>; BROWSERS],
    /// The record ids, by the number that the session has in the model.
    ids: BTreeMap<usize, RecordId>,
}

async fn shown(session: Session) -> Result<String, SessionError> {
    let user = session.user();
    let mut shown = user.map_or_else(|| "nobody".to_owned(), |user| user.to_string());
    for key in session.keys() {
        let value: serde_json::Value = session.get(&key)?.unwrap();
        let value = match value {
            serde_json::Value::String(text) => text,
            value => value.to_string(),
        };
        shown.push_str(&format!(" {key}={value}"));
    }
    Ok(shown)
}

async fn polled(session: Session) -> Result<String, SessionError> {
    session.skip_touch()?;
    shown(session).await
}

async fn start_anew(
    session: Session,
    Path(key): Path<String>,
) -> Result<&'static str, SessionError> {
    session.destroy()?;
    session.insert(key, "new")?;
    Ok("done")
}

impl<S: UserIndex + Clone> System<S> {
    fn new(store: S, clock: TestClock) -> Self {
        let layer = Self::layer(&store, &clock, 0, 0);
        Self {
            app: Self::app(&layer),
            sessions: layer.sessions(),
            store,
            clock,
            newest_key: 0,
            first_key: 0,
            jars: Default::default(),
            before: Default::default(),
            ids: BTreeMap::new(),
        }
    }

    fn layer(store: &S, clock: &TestClock, newest: usize, first: usize) -> SessionLayer<S> {
        let key = |number: usize| SigningKey::from_bytes(&[number as u8; 64]).unwrap();
        let keys = (first..newest).fold(SigningKeys::new(key(newest)), |keys, old| {
            keys.also_verify(key(old))
        });
        SessionLayer::builder(store.clone(), keys)
            .clock(clock.clone())
            .idle_timeout(Duration::from_secs(BROWSER.0))
            .absolute_timeout(Duration::from_secs(BROWSER.1))
            .remember_idle_timeout(Duration::from_secs(REMEMBER.0))
            .remember_absolute_timeout(Duration::from_secs(REMEMBER.1))
            .build()
            .unwrap()
    }

    fn app(layer: &SessionLayer<S>) -> Router {
        routes()
            .route("/shown", get(shown))
            .route("/polled", get(polled))
            .route("/start_anew/{key}", get(start_anew))
            .layer(layer.clone())
    }

    /// Starts the application again, with other keys.
    fn restart(&mut self) {
        let layer = Self::layer(&self.store, &self.clock, self.newest_key, self.first_key);
        self.app = Self::app(&layer);
        self.sessions = layer.sessions();
    }

    async fn request(&mut self, browser: usize, act: Act) -> Reply {
        let path = match act {
            Act::Nothing => "/".into(),
            Act::Read => "/shown".into(),
            Act::Poll => "/polled".into(),
            Act::Insert(key, value) => format!("/insert/{}/{}", KEYS[key], VALUES[value]),
            Act::Update => "/update/visits".into(),
            Act::Remove(key) => format!("/remove/{}", KEYS[key]),
            Act::Clear => "/clear".into(),
            Act::Regenerate => "/regenerate".into(),
            Act::LogIn(user) => format!("/log_in/{}", USERS[user]),
            Act::Remember(user) => format!("/remember/{}", USERS[user]),
            Act::LogOut => "/log_out".into(),
            Act::Destroy => "/destroy".into(),
            Act::StartAnew(key) => format!("/start_anew/{}", KEYS[key]),
            Act::Fail(Failure::Insert) => "/fail/insert".into(),
            Act::Fail(Failure::Regenerate) => "/fail/regenerate".into(),
            Act::Fail(Failure::LogIn) => "/fail/log_in".into(),
            Act::Fail(Failure::Destroy) => "/fail/destroy".into(),
        };
        let mut request = support::request(&path);
        if let Some(token) = &self.jars[browser] {
            let cookie = format!("__Host-session={token}").parse().unwrap();
            request.headers_mut().insert(COOKIE, cookie);
        }
        send(&self.app, request).await
    }

    fn keep(&mut self, browser: usize, token: Option<String>) {
        self.before[browser] = self.jars[browser].take();
        self.jars[browser] = token;
    }

    async fn listed(&self, user: usize) -> BTreeSet<RecordId> {
        let listed = self.sessions.list_for(USERS[user]).await.unwrap();
        listed.iter().map(|session| session.id()).collect()
    }
}

/// Whether the response's cookie stays after the browser is closed.
fn is_persistent(reply: &Reply) -> bool {
    reply.cookies()[0].contains("; Max-Age=")
}

async fn happens<S: UserIndex + Clone>(event: &Event, model: &mut Model, system: &mut System<S>) {
    match *event {
        Event::Request(browser, act) => {
            let expected = model.request(browser, act);
            let reply = system.request(browser, act).await;
            assert_eq!(
                (reply.status.as_u16(), &*reply.body),
                (expected.status, &*expected.body),
                "{event:?}: {reply:?}"
            );
            match expected.cookie {
                Cookie::Kept => reply.assert_no_cookie(),
                Cookie::Removed => {
                    assert_eq!(reply.token().as_deref(), Some(""), "{event:?}: {reply:?}");
                    system.keep(browser, None);
                }
                Cookie::Set(token) => {
                    let value = reply.token().unwrap_or_default();
                    assert_eq!(value.len(), 70, "{event:?}: {reply:?}");
                    assert_eq!(is_persistent(&reply), token.is_persistent, "{event:?}");
                    let id = id_of(&value);
                    let known = system.ids.entry(token.session).or_insert(id);
                    assert_eq!(*known, id, "{event:?}: the record id is another");
                    system.keep(browser, Some(value));
                }
            }
            model.keep(browser, &expected.cookie);
        }
        Event::Revoke(browser) => {
            if let Jar::Holds(token) = model.jars[browser] {
                let session = &mut model.sessions[token.session];
                let revoked = system.sessions.revoke(system.ids[&token.session]).await;
                // If a session has expired, the store may have collected it, or not.
                if !session.is_over(model.now) || session.is_ended {
                    assert_eq!(revoked.unwrap(), !session.is_ended);
                }
                session.is_ended = true;
            }
        }
        Event::RevokeOthers(browser) => {
            if let Some((session, user)) = model.logged_in(browser) {
                let kept = system.ids[&session];
                system
                    .sessions
                    .revoke_others(USERS[user], kept)
                    .await
                    .unwrap();
                model.end_all_of(user, Some(session));
            }
        }
        Event::RevokeAll(user) => {
            system.sessions.revoke_user(USERS[user]).await.unwrap();
            model.end_all_of(user, None);
        }
        Event::Purge => {
            system.sessions.purge_expired().await.unwrap();
        }
        Event::Tick(seconds) => {
            model.now += seconds;
            system.clock.advance(Duration::from_secs(seconds));
        }
        Event::RotateKeys => {
            model.newest_key += 1;
            system.newest_key += 1;
            system.restart();
        }
        Event::DropKey => {
            model.first_key = model.newest_key;
            system.first_key = system.newest_key;
            system.restart();
        }
        Event::Corrupt(browser, letter) => {
            if let Some(token) = &mut system.jars[browser] {
                let old = &token[letter..=letter];
                let new = if old == "A" { "B" } else { "A" };
                token.replace_range(letter..=letter, new);
                model.jars[browser] = Jar::Spoilt;
            }
        }
        Event::Steal(from, to) => {
            system.keep(to, system.jars[from].clone());
            model.before[to] = model.jars[to];
            model.jars[to] = model.jars[from];
            if from == to {
                // Nothing was copied, so the browser keeps its own cookie.
                system.jars[to] = system.before[to].clone();
                model.jars[to] = model.before[to];
            }
        }
        Event::GoBack(browser) => {
            std::mem::swap(&mut system.jars[browser], &mut system.before[browser]);
            std::mem::swap(&mut model.jars[browser], &mut model.before[browser]);
        }
        Event::Restart(browser) => {
            if let Jar::Holds(Token {
                is_persistent: false,
                ..
            })
            | Jar::Spoilt = model.jars[browser]
            {
                model.jars[browser] = Jar::Empty;
                system.jars[browser] = None;
            }
        }
    }
}

/// What holds at any time: a user's list has exactly the sessions that are not over.
async fn assert_listed<S: UserIndex + Clone>(model: &Model, system: &System<S>) {
    for (user, name) in USERS.iter().enumerate() {
        let live = |(_, session): &(usize, &Kept)| {
            session.user == Some(user) && !session.is_over(model.now)
        };
        let expected: BTreeSet<_> = model
            .sessions
            .iter()
            .enumerate()
            .filter(live)
            .map(|(number, _)| system.ids[&number])
            .collect();
        assert_eq!(system.listed(user).await, expected, "{name}");
    }
}

async fn follows_the_model<S: UserIndex + Clone>(store: S, clock: TestClock, events: &[Event]) {
    let mut model = Model::default();
    let mut system = System::new(store, clock);
    for event in events {
        happens(event, &mut model, &mut system).await;
        assert_listed(&model, &system).await;
    }
    // In the end, every browser finds what it should.
    for browser in 0..BROWSERS {
        let read = Event::Request(browser, Act::Read);
        happens(&read, &mut model, &mut system).await;
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

pub(crate) fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_layer_over_memory_does_what_the_model_does(events in prop::collection::vec(event(), 1..120)) {
        run(async {
            let clock = TestClock::new();
            let store = MemoryStore::new().with_max_sessions(1000).with_clock(clock.clone());
            follows_the_model(store, clock, &events).await;
        });
    }

    #[test]
    fn the_layer_over_sqlite_does_what_the_model_does(events in prop::collection::vec(event(), 1..120)) {
        run(async {
            let store = SqliteStore::open(":memory:").await.unwrap();
            follows_the_model(store, TestClock::new(), &events).await;
        });
    }
}
