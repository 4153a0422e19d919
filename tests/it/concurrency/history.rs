//! Histories of sessions while the store fails. The clients use two processes. They write down
//! their requests and the answers. Afterwards the test must find an order that explains every
//! answer.

mod order;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use cloakroom::{Session, SessionError};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use order::{Answer, Call, Content, Cookie, History, Operation, Token};
use support::processes::{child, child_name, store_of_parent};
use support::stores::{Backend, Kind};
use support::{Browser, Reply, builder, routes};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// The seed of the first round. Each further round has the next number.
const SEED: &str = "CLOAKROOM_TEST_SEED";
const ROUNDS: &str = "CLOAKROOM_TEST_ROUNDS";

const PROCESSES: u64 = 2;

/// The browser of each client. Some clients share a browser, like two tabs.
const BROWSERS: [usize; 8] = [0, 1, 2, 3, 4, 4, 5, 5];

const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// A store that is back must work again within this time.
const RECOVERY: Duration = Duration::from_secs(20);

/// Each client gets this many answers before, between and after the faults.
const ANSWERS: u64 = 20;

/// After this many calls on one session, its client logs out. So the search for an order stays
/// short.
const LONGEST_SESSION: usize = 50;

/// What happens to a store while its clients go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Its connections break.
    Cut,
    /// Its servers stop for longer than the store timeout.
    Stop,
    /// Its servers crash, and start again.
    Kill,
}

const ALL: [Fault; 3] = [Fault::Cut, Fault::Stop, Fault::Kill];

/// Runs in a child process. It serves the application on a free port, until the parent closes the
/// child's input.
async fn serve() {
    let layer = builder(store_of_parent().await)
        .store_timeout(STORE_TIMEOUT)
        .build()
        .unwrap();
    let app = routes().layer(from_fn(tell_what_was_loaded)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nlistens on {}", listener.local_addr().unwrap());
    let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        ended = async { axum::serve(listener, app).await } => panic!("{ended:?}"),
        _ = closed => {}
    }
}

/// Adds to each answer what the session held when it was loaded. Pauses, so that parallel requests
/// overlap.
async fn tell_what_was_loaded(
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, SessionError> {
    let saw = match session.id() {
        Some(_) => Some(content(&session)?),
        None => None,
    };
    let pause = number_of(&request, "pause") as u64;
    let mut response = next.run(request).await;
    sleep(Duration::from_millis(pause)).await;
    let saw = serde_json::to_string(&saw).unwrap();
    response.headers_mut().insert("saw", saw.parse().unwrap());
    Ok(response)
}

fn number_of(request: &Request, header: &str) -> usize {
    request.headers()[header].to_str().unwrap().parse().unwrap()
}

fn content(session: &Session) -> Result<Content, SessionError> {
    let mut values = BTreeMap::new();
    for key in session.keys() {
        if let Some(value) = session.get::<serde_json::Value>(&*key)? {
            let text = value.as_str().map(str::to_owned);
            values.insert(key, text.unwrap_or_else(|| value.to_string()));
        }
    }
    let user = session.user().map(|user| user.to_string());
    Ok(Content { values, user })
}

/// A process that serves the application. It ends when this value is dropped.
struct Process {
    child: Child,
    /// The process also prints at its end. Without this reader, that would fail.
    _output: BufReader<ChildStdout>,
    address: String,
}

impl Process {
    fn start(test: &str, name: &str, url: &str) -> Self {
        let mut child = child(module_path!(), test, name, url)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let lines = output.by_ref().lines().map_while(Result::ok);
        let address = |line: String| line.strip_prefix("listens on ").map(str::to_owned);
        Self {
            address: lines.filter_map(address).next().unwrap(),
            child,
            _output: output,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Sends each request to the process that the request names.
fn gateway(processes: &[Process]) -> Router {
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    let addresses: Vec<_> = processes
        .iter()
        .map(|process| process.address.clone())
        .collect();
    Router::new().fallback(async move |mut request: Request| {
        let process = number_of(&request, "process");
        let uri = format!("http://{}{}", addresses[process], request.uri());
        *request.uri_mut() = uri.parse().unwrap();
        client.request(request).await.unwrap().map(Body::new)
    })
}

/// SplitMix64. The same seed makes the same choices.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Gives a number to each event.
#[derive(Clone, Default)]
struct Order(Arc<AtomicU64>);

impl Order {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// How many answers the store has made possible so far, and how many failures there were.
#[derive(Clone, Default)]
struct Progress {
    answers: Arc<[AtomicU64; BROWSERS.len()]>,
    failures: Arc<AtomicU64>,
}

impl Progress {
    /// Waits until each client has got `ANSWERS` more answers.
    async fn calm(&self) {
        let answers = || self.answers.each_ref().map(|n| n.load(Ordering::Relaxed));
        let enough = answers().map(|answers| answers + ANSWERS);
        let since = Instant::now();
        while answers()
            .iter()
            .zip(enough)
            .any(|(now, enough)| *now < enough)
        {
            assert!(since.elapsed() < RECOVERY, "the store does not come back");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// A browser. Several clients may use it at the same time.
struct Tabs {
    browser: Browser,
    /// All tokens that this browser has had.
    tokens: Vec<Token>,
    /// The calls on the browser's current session.
    calls: usize,
}

impl Tabs {
    fn token(&self) -> Option<Token> {
        let has_one = !self.browser.cookies().is_empty();
        has_one.then(|| Token(self.browser.token()))
    }

    fn keep(&mut self, reply: &Reply) {
        self.browser.keep(reply);
        if let Some(token) = self.token()
            && self.tokens.last() != Some(&token)
        {
            let last = self.tokens.last();
            if last.is_none_or(|last| !last.is_of_session_of(&token)) {
                self.calls = 0;
            }
            self.tokens.push(token);
        }
    }
}

/// What kind of answer the client got last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    /// The store failed.
    Waiting,
    /// The client's token is not good any more.
    Locked,
}

struct Client {
    number: usize,
    tabs: Arc<Mutex<Tabs>>,
    app: Router,
    order: Order,
    progress: Progress,
    random: Random,
    mood: Mood,
    calls: Vec<Call>,
}

impl Client {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            let old = match self.random.percent(4) {
                true => self.old_token(),
                false => None,
            };
            match old {
                Some(token) => self.look_with(token).await,
                None => {
                    let (operation, leaves) = (self.choose(), self.random.percent(3));
                    self.call(operation, leaves).await;
                }
            }
            let pause = match self.mood {
                Mood::Waiting => 150,
                Mood::Good | Mood::Locked => self.random.below(30),
            };
            sleep(Duration::from_millis(pause)).await;
        }
        self
    }

    fn choose(&mut self) -> Operation {
        let (is_visitor, is_long) = {
            let tabs = self.tabs.lock().unwrap();
            (tabs.token().is_none(), tabs.calls > LONGEST_SESSION)
        };
        let name = if self.random.percent(80) {
            "user"
        } else {
            "guest"
        };
        let user = format!("{name}-{}", BROWSERS[self.number]);
        match self.mood {
            // While the store fails, most writes get no answer, and the search must try them at
            // every later time. So the client mostly reads.
            Mood::Waiting if self.random.percent(75) => return Operation::Read,
            Mood::Locked if self.random.percent(50) => return Operation::LogIn(user),
            Mood::Good if is_long => return Operation::LogOut,
            _ => {}
        }
        let choice = self.random.below(if is_visitor { 60 } else { 100 });
        let key = ["a", "b", "c"][usize::try_from(self.random.below(3)).unwrap()];
        match choice {
            0..25 => Operation::Insert(key, format!("{}-{}", self.number, self.calls.len())),
            25..50 => Operation::Count,
            50..56 => Operation::LogIn(user),
            56..70 => Operation::Read,
            70..84 => Operation::Remove(key),
            84..94 => Operation::Regenerate,
            94..97 => Operation::LogIn(user),
            _ => Operation::LogOut,
        }
    }

    fn old_token(&mut self) -> Option<Token> {
        let tabs = self.tabs.lock().unwrap();
        let which = self.random.below(tabs.tokens.len().max(1) as u64);
        tabs.tokens.get(usize::try_from(which).unwrap()).cloned()
    }

    /// Sends a request as its browser would. If the client leaves, it does not wait for the answer.
    async fn call(&mut self, operation: Operation, leaves: bool) {
        let headers = self.headers();
        let (began, token, reply) = {
            let mut tabs = self.tabs.lock().unwrap();
            tabs.calls += 1;
            let reply = tabs.browser.send(&operation.path(), &as_pairs(&headers));
            (self.order.next(), tabs.token(), reply)
        };
        let reply = match leaves {
            true => {
                let patience = Duration::from_millis(self.random.below(10));
                timeout(patience, reply).await.ok()
            }
            false => Some(reply.await),
        };
        let ended = {
            let mut tabs = self.tabs.lock().unwrap();
            if let Some(reply) = &reply {
                tabs.keep(reply);
            }
            self.order.next()
        };
        self.write_down(began, ended, token, operation, reply);
    }

    /// Reads with a token that this browser has, or once had.
    async fn look_with(&mut self, token: Token) {
        let headers = self.headers();
        let cookie = format!("__Host-session={}", token.0);
        let mut headers = as_pairs(&headers).to_vec();
        headers.push(("cookie", &cookie));
        let mood = self.mood;
        let began = self.order.next();
        let reply = Browser::new(&self.app).send("/", &headers).await;
        let ended = self.order.next();
        self.write_down(began, ended, Some(token), Operation::Read, Some(reply));
        self.mood = mood;
    }

    /// The last look. The history shows whether all writes are there, and whether ended sessions
    /// stay ended.
    async fn look_around(&mut self) {
        self.call(Operation::Read, false).await;
        let tokens = self.tabs.lock().unwrap().tokens.clone();
        for token in tokens {
            self.look_with(token).await;
        }
    }

    /// Headers that choose the process, and the milliseconds that the handler takes.
    fn headers(&mut self) -> [(&'static str, String); 2] {
        [
            ("process", self.random.below(PROCESSES).to_string()),
            ("pause", self.random.below(6).to_string()),
        ]
    }

    fn write_down(
        &mut self,
        began: u64,
        ended: u64,
        token: Option<Token>,
        operation: Operation,
        reply: Option<Reply>,
    ) {
        let answer = match &reply {
            None => Answer::Lost,
            Some(reply) => answer(&operation, reply),
        };
        match answer {
            Answer::Lost if reply.is_none() => {}
            Answer::Lost => {
                self.progress.failures.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Done { .. } | Answer::Refused => {
                self.progress.answers[self.number].fetch_add(1, Ordering::Relaxed);
            }
        }
        self.mood = match (&answer, &token) {
            (Answer::Lost, _) => Mood::Waiting,
            (Answer::Refused, _) | (Answer::Done { saw: None, .. }, Some(_)) => Mood::Locked,
            (Answer::Done { .. }, _) => Mood::Good,
        };
        self.calls.push(Call {
            client: format!("client {}", self.number),
            began,
            ended,
            token,
            operation,
            answer,
        });
    }
}

fn as_pairs<'a>(headers: &'a [(&'static str, String); 2]) -> [(&'a str, &'a str); 2] {
    headers.each_ref().map(|(name, value)| (*name, &**value))
}

fn answer(operation: &Operation, reply: &Reply) -> Answer {
    match reply.status.as_u16() {
        200 => {
            let saw: Option<Content> = serde_json::from_str(reply.header("saw").unwrap()).unwrap();
            let seen = saw.clone().unwrap_or_default();
            assert_eq!(
                reply.body,
                operation.body(&seen),
                "{operation:?}: {reply:?}"
            );
            let cookie = match reply.token() {
                None => Cookie::Stays,
                Some(token) if token.is_empty() => Cookie::Removed,
                Some(token) => Cookie::New(Token(token)),
            };
            Answer::Done { saw, cookie }
        }
        status @ (409 | 503) => {
            reply.assert_no_cookie();
            match status {
                409 => Answer::Refused,
                _ => Answer::Lost,
            }
        }
        _ => panic!("{operation:?}: {reply:?}"),
    }
}

/// Lets clients work while faults happen, and returns what they saw.
async fn record(backend: &mut Backend, app: &Router, faults: &[Fault], seed: u64) -> History {
    let order = Order::default();
    let progress = Progress::default();
    let mut random = Random(seed);
    let tabs: Vec<_> = (0..=BROWSERS[7])
        .map(|_| {
            Arc::new(Mutex::new(Tabs {
                browser: Browser::new(app),
                tokens: Vec::new(),
                calls: 0,
            }))
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = BROWSERS.iter().enumerate().map(|(number, &browser)| {
        let client = Client {
            number,
            tabs: tabs[browser].clone(),
            app: app.clone(),
            order: order.clone(),
            progress: progress.clone(),
            random: Random(random.below(u64::MAX)),
            mood: Mood::Good,
            calls: Vec::new(),
        };
        tokio::spawn(client.work(stop.clone()))
    });
    let clients: Vec<_> = clients.collect();

    let mut history = History::default();
    let mut faults = faults.to_vec();
    progress.calm().await;
    while !faults.is_empty() {
        let which = usize::try_from(random.below(faults.len() as u64)).unwrap();
        let fault = faults.swap_remove(which);
        let before = progress.failures();
        happen(backend, fault, &order, &mut history).await;
        // A cut may cause no failure: the store may try again by itself, or no answer was on its
        // way.
        if fault != Fault::Cut {
            assert_ne!(progress.failures(), before, "{fault:?} was not felt");
        }
        progress.calm().await;
    }

    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let mut client = client.await.unwrap();
        client.look_around().await;
        history.calls.append(&mut client.calls);
    }
    history.calls.sort_by_key(|call| call.began);
    history
}

async fn happen(backend: &mut Backend, fault: Fault, order: &Order, history: &mut History) {
    match fault {
        Fault::Cut => {
            for _ in 0..5 {
                // The server does what clients ask now, but its answers do not arrive.
                backend.mute();
                sleep(Duration::from_millis(20)).await;
                backend.cut();
                sleep(Duration::from_millis(130)).await;
            }
        }
        Fault::Stop => {
            for server in backend.irreplaceable() {
                server.pause();
            }
            sleep(STORE_TIMEOUT * 3 / 2).await;
            for server in backend.irreplaceable() {
                server.resume();
            }
        }
        Fault::Kill => {
            if backend.kind() == Kind::MySql {
                // InnoDB shows a change to others before it flushes the change. If the answer was
                // lost, a crash may take such a change back. So no client may see an answer at this
                // time.
                backend.mute();
                sleep(Duration::from_millis(100)).await;
            }
            let from = order.next();
            for server in backend.irreplaceable() {
                server.kill();
            }
            let until = order.next();
            if matches!(backend.kind(), Kind::Redis | Kind::Memcached) {
                history.losses.push((from, until));
            }
            sleep(Duration::from_millis(300)).await;
            for server in backend.irreplaceable() {
                server.start();
            }
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(number) => number.parse().unwrap(),
        Err(_) => default,
    }
}

async fn every_answer_has_an_explanation(test: &str, kind: Kind, faults: &[Fault]) {
    if child_name().is_some() {
        return serve().await;
    }
    let mut backend = Backend::start(kind);
    let url = backend.url();
    let processes: Vec<_> = (1..=PROCESSES)
        .map(|number| Process::start(test, &format!("process {number}"), &url))
        .collect();
    let app = gateway(&processes);
    let first = number(SEED, 1);
    for seed in first..first + number(ROUNDS, 2) {
        println!("{SEED}={seed}");
        let history = record(&mut backend, &app, faults, seed).await;

        if let Err(error) = history.explain() {
            panic!("{kind:?}, {SEED}={seed}: {error}");
        }
    }
}

macro_rules! histories {
    ($($test:ident: $kind:expr, $faults:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                every_answer_has_an_explanation(stringify!($test), $kind, &$faults).await;
            }
        )*
    };
}

histories! {
    what_postgres_answers_has_an_order: Kind::Postgres, ALL;
    what_mysql_answers_has_an_order: Kind::MySql, ALL;
    what_durable_redis_answers_has_an_order: Kind::DurableRedis, ALL;
    what_redis_answers_has_an_order: Kind::Redis, ALL;
    what_memcached_answers_has_an_order: Kind::Memcached, ALL;
    // A server of the tests that is killed has no table any more.
    what_dynamodb_answers_has_an_order: Kind::DynamoDb, [Fault::Cut, Fault::Stop];
    // A failover loses writes, and such losses have no order. So these two tests cause no failover.
    what_redis_cluster_answers_has_an_order: Kind::RedisCluster, [Fault::Cut, Fault::Stop];
    what_redis_sentinel_answers_has_an_order: Kind::RedisSentinel, [Fault::Cut];
}
