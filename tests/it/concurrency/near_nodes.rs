//! Nodes with near caches on a shared store, and a network that breaks in silence.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::get;
use cloakroom::{
    CurrentUser, NearCache, RedisStore, Session, SessionError, SessionFeed, SessionLayer, Sessions,
    UserIndex,
};
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use support::processes::{child, child_name, store_of_parent};
use support::servers::{Proxy, RedisSentinel, Server, run_redis};
use support::stores::{Backend, Kind};
use support::{Browser, app, key};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What the tests in this process allow.
const MAX_STALE: Duration = Duration::from_millis(500);

/// What a URL with `near` allows.
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(2);

/// How long something may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node with a near cache.
async fn node<S: SessionFeed + UserIndex>(store: S) -> (Router, NearCache<S>) {
    let near = NearCache::builder(store).max_stale(MAX_STALE);
    let near = near.open().await.unwrap();
    (app(SessionLayer::new(near.clone(), key())), near)
}

async fn is_fresh<S: SessionFeed>(near: &NearCache<S>) {
    let fresh = async {
        while !near.stats().is_fresh {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, fresh)
        .await
        .expect("the cache never answers");
}

async fn redis(address: &str) -> RedisStore {
    RedisStore::connect(&format!("redis://{address}"))
        .await
        .unwrap()
}

/// Logs somebody in at each place, and has the other node read the session.
async fn logged_in(here: &Router, there: &Router, count: usize) -> Vec<(Browser, Browser)> {
    let mut browsers = Vec::new();
    for n in 0..count {
        let (mut browser, mut other) = (Browser::new(here), Browser::new(there));
        let user = format!("user-{n}");
        let log_in = format!("/log_in/{user}");
        browser.get(&log_in).await.assert(200, "done");
        other.adopt(&browser);
        other.get("/user").await.assert(200, &user);
        browsers.push((browser, other));
    }
    browsers
}

/// The sessions end on one node while the other one hears nothing any more. Each session is a
/// trial.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_partition_in_silence_no_ended_session_is_served_longer_than_the_bound() {
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let (here, _) = node(redis(&server.address()).await).await;
    let (there, near) = node(redis(&proxy.address()).await).await;
    let mut late = Vec::new();
    let mut stale = 0;
    for _ in 0..2 {
        // The connection of the reads was silent as well, and was replaced.
        let mut canary = Browser::new(&there);
        while canary.get("/log_in/canary").await.status == 503 {}
        is_fresh(&near).await;
        let browsers = logged_in(&here, &there, 500).await;
        let hits = near.stats().hits;
        proxy.mute();
        let mut trials = JoinSet::new();
        let turns = Arc::new(Semaphore::new(8));
        for (mut browser, mut other) in browsers {
            let turns = turns.clone();
            trials.spawn(async move {
                let turn = turns.acquire().await;
                browser.get("/log_out").await.assert(200, "done");
                drop(turn);
                let ended = Instant::now();
                let mut served = Vec::new();
                loop {
                    let asked = Instant::now();
                    match other.get("/user").await.status.as_u16() {
                        200 => served.push(asked.duration_since(ended)),
                        401 => return served,
                        // The store cannot be reached yet.
                        503 => {}
                        status => panic!("{status}"),
                    }
                    assert!(asked.duration_since(ended) < PATIENCE, "it never heals");
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
        for served in trials.join_all().await {
            stale += served.len();
            late.extend(served.into_iter().filter(|after| *after > MAX_STALE));
        }
        assert!(near.stats().hits > hits, "the cache was asked");
    }
    println!("{stale} stale answers within the bound");
    assert!(stale > 0, "the test shows nothing: nothing was stale");
    assert_eq!(late, [] as [Duration; 0], "of 1000 sessions");
    assert!(near.stats().gaps > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_on_one_node_counts_on_the_other_a_thousand_times() {
    let server = Server::redis(&[]);
    let (here, _) = node(redis(&server.address()).await).await;
    let (there, _) = node(redis(&server.address()).await).await;
    for round in 0..10 {
        let mut logins = JoinSet::new();
        for n in 0..100 {
            let (mut browser, mut other) = (Browser::new(&here), Browser::new(&there));
            logins.spawn(async move {
                browser.get("/insert/cart/2").await;
                other.adopt(&browser);
                other.get("/get/cart").await.assert(200, "2");
                let user = format!("user-{round}-{n}");
                browser
                    .get(&format!("/log_in/{user}"))
                    .await
                    .assert(200, "done");
                other.adopt(&browser);
                other.get("/user").await.assert(200, &user);
            });
        }
        logins.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_logs_everybody_out_within_the_bound() {
    let server = Server::redis(&[]);
    let (here, _) = node(redis(&server.address()).await).await;
    let (there, near) = node(redis(&server.address()).await).await;
    is_fresh(&near).await;
    let browsers = logged_in(&here, &there, 20).await;
    run_redis(&server.address(), &["FLUSHALL"]);
    let flushed = Instant::now();
    for (_, mut other) in browsers {
        loop {
            let asked = Instant::now();
            if other.get("/user").await.status == 401 {
                break;
            }
            assert!(asked.duration_since(flushed) <= MAX_STALE);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_everything_in_a_crash_logs_everybody_out_within_the_bound() {
    let mut server = Server::redis(&[]);
    let (here, _) = node(redis(&server.address()).await).await;
    let (there, near) = node(redis(&server.address()).await).await;
    is_fresh(&near).await;
    let browsers = logged_in(&here, &there, 20).await;
    server.kill();
    server.start();
    let lost = Instant::now();
    for (_, mut other) in browsers {
        loop {
            let asked = Instant::now();
            match other.get("/user").await.status.as_u16() {
                401 => break,
                200 => assert!(asked.duration_since(lost) <= MAX_STALE),
                _ => {}
            }
            assert!(asked.duration_since(lost) < PATIENCE);
        }
    }
    // It works again.
    is_fresh(&near).await;
    logged_in(&here, &there, 1).await;
}

/// The master hangs, and a replica takes its place. Both nodes follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_an_ended_session_is_refused_within_the_bound() {
    let mut sentinel = RedisSentinel::start();
    let sentinels = sentinel.sentinels().join(",");
    let url = format!("redis+sentinel://{sentinels}/cloakroom");
    let (here, _) = node(RedisStore::connect(&url).await.unwrap()).await;
    let (there, near) = node(RedisStore::connect(&url).await.unwrap()).await;
    is_fresh(&near).await;
    sentinel.master().pause();
    let followed = async {
        for node in [&here, &there] {
            let mut canary = Browser::new(node);
            while canary.get("/log_in/canary").await.status == 503 {}
        }
        while near.stats().gaps == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, followed).await.expect("no failover");
    is_fresh(&near).await;
    for (mut browser, mut other) in logged_in(&here, &there, 20).await {
        browser.get("/log_out").await.assert(200, "done");
        let ended = Instant::now();
        loop {
            let asked = Instant::now();
            if other.get("/user").await.status == 401 {
                break;
            }
            assert!(asked.duration_since(ended) <= MAX_STALE);
        }
    }
    sentinel.master().resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_table_logs_everybody_out_within_the_bound() {
    let backend = Backend::start(Kind::Postgres);
    let url = format!("{}?near=8MiB", backend.direct_url());
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let store = cloakroom::AnyStore::connect(&url).await.unwrap();
        nodes.push(app(SessionLayer::new(store, key())));
    }
    let browsers = logged_in(&nodes[0], &nodes[1], 20).await;
    let pool = sqlx::PgPool::connect(&backend.direct_url()).await.unwrap();
    sqlx::query("TRUNCATE cloakroom_sessions")
        .execute(&pool)
        .await
        .unwrap();
    let truncated = Instant::now();
    for (_, mut other) in browsers {
        loop {
            let asked = Instant::now();
            if other.get("/user").await.status == 401 {
                break;
            }
            assert!(asked.duration_since(truncated) <= DEFAULT_MAX_STALE);
        }
    }
}

// Two processes, eight clients.

/// Runs in a child: serves until its standard input ends.
async fn serve() {
    type Answer = Result<String, SessionError>;
    let store = store_of_parent().await.user_index().unwrap();
    let layer = SessionLayer::builder(store, key())
        .secure(false)
        .store_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    async fn revoke(
        State(sessions): State<Sessions<Arc<dyn UserIndex>>>,
        Path(user): Path<String>,
    ) -> Answer {
        Ok(sessions.revoke_user(user).await?.to_string())
    }
    async fn visit(session: Session, _user: CurrentUser) -> Answer {
        let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        Ok(visits.to_string())
    }
    async fn count(session: Session, _user: CurrentUser) -> Answer {
        Ok(session.get::<u64>("visits")?.unwrap_or(0).to_string())
    }
    let app = Router::new()
        .route(
            "/log_in/{user}",
            get(|session: Session, Path(user): Path<String>| async move { session.log_in(user) }),
        )
        .route(
            "/log_out",
            get(|session: Session| async move { session.log_out() }),
        )
        .route("/visit", get(visit))
        .route("/count", get(count))
        .route("/revoke/{user}", get(revoke))
        .layer(layer.clone())
        .with_state(layer.sessions());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening {}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    // The parent closes it when it ends, however it ends.
    let input = tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop));
    input.await.unwrap();
    server.abort();
}

/// A child that serves.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(test: &str, name: &str, url: &str) -> Self {
        let mut child = child(module_path!(), test, name, url)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the child ended").unwrap();
            if let Some((_, address)) = line.split_once("listening ") {
                break address.to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// When something was asked for, and when it was answered.
#[derive(Clone, Copy, Debug)]
struct Span {
    asked: Instant,
    answered: Instant,
}

/// What all clients know.
struct World {
    addresses: [String; 2],
    http: Client<HttpConnector, Empty<Bytes>>,
    revocations: Mutex<HashMap<String, Vec<Span>>>,
    /// A network that breaks may cost a 503, and leave open whether a write took effect.
    may_fail: bool,
    max_stale: Duration,
    until: Instant,
}

struct Reply {
    status: u16,
    body: String,
    cookie: Option<String>,
    at: Span,
}

impl World {
    async fn ask(&self, node: usize, path: &str, cookie: Option<&str>) -> Reply {
        let mut request = Request::get(format!("http://{}{path}", self.addresses[node]));
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, format!("session={cookie}"));
        }
        let asked = Instant::now();
        let request = self.http.request(request.body(Empty::new()).unwrap());
        let reply = timeout(PATIENCE, request).await.unwrap().unwrap();
        let (parts, body) = reply.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let cookie = parts.headers.get(SET_COOKIE).map(|cookie| {
            let cookie = cookie.to_str().unwrap();
            cookie.split(['=', ';']).nth(1).unwrap().to_owned()
        });
        let status = parts.status.as_u16();
        assert!(
            matches!(status, 200 | 401) || status == 503 && self.may_fail,
            "{path}: {status}"
        );
        Reply {
            status,
            body: String::from_utf8(body.to_vec()).unwrap(),
            cookie,
            at: Span {
                asked,
                answered: Instant::now(),
            },
        }
    }

    fn revoked(&self, user: &str) -> Vec<Span> {
        self.revocations
            .lock()
            .unwrap()
            .get(user)
            .cloned()
            .unwrap_or_default()
    }
}

/// A login of a client, and what is known of it.
#[derive(Debug)]
struct Login {
    user: String,
    cookie: String,
    at: Span,
    /// The number of visits at least and at most, since when.
    counts: Vec<(Instant, u64, u64)>,
    /// Some answer says that the session is over, or may be: when that was answered.
    over: Option<Instant>,
    may_be_over: bool,
}

impl Login {
    /// Whether the session must be over for a request, may be, or cannot be.
    fn is_over(&self, world: &World, reply: &Reply) -> Over {
        let since = |ended: Instant| reply.at.asked.saturating_duration_since(ended);
        let revoked = world.revoked(&self.user);
        // A revocation that begins after the answer to the login ends the session.
        let ended = revoked
            .iter()
            .filter(|revoked| revoked.asked > self.at.answered)
            .map(|revoked| revoked.answered);
        if ended
            .chain(self.over)
            .any(|ended| since(ended) > world.max_stale)
        {
            return Over::Yes;
        }
        let touches =
            |revoked: &Span| revoked.answered > self.at.asked && revoked.asked < reply.at.answered;
        match self.may_be_over || self.over.is_some() || revoked.iter().any(touches) {
            true => Over::Maybe,
            false => Over::No,
        }
    }

    /// The visits that a read may show: those of a moment within the bound, or of now.
    /// `added` is what the request itself has added.
    fn check_count(&self, world: &World, reply: &Reply, added: u64) {
        let count = reply.body.parse::<u64>().unwrap() - added;
        let oldest = reply.at.asked.checked_sub(world.max_stale).unwrap();
        let at_that_time = self.counts.iter().rev().find(|(at, ..)| *at <= oldest);
        let least = at_that_time.map_or(0, |(_, least, _)| *least);
        let most = self.counts.last().unwrap().2;
        assert!(
            (least..=most).contains(&count),
            "{count} of {least} to {most}: {self:?}"
        );
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Over {
    Yes,
    Maybe,
    No,
}

/// One client, which asks one thing after the other, of either node.
async fn client(world: Arc<World>, number: u64) -> u64 {
    // A generator of Lehmer's kind, so that a run can be repeated.
    let mut state = 2 * number + 1;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
        (state >> 33) % below
    };
    let lingers = match number % 2 {
        0 => world.max_stale * 5 / 4,
        _ => Duration::ZERO,
    };
    let mut login: Option<Login> = None;
    let mut asked = 0;
    while Instant::now() < world.until {
        asked += 1;
        let node = usize::try_from(random(2)).unwrap();
        let Some(own) = &mut login else {
            let user = format!("user-{}", random(4));
            let reply = world.ask(node, &format!("/log_in/{user}"), None).await;
            if reply.status == 200 {
                login = Some(Login {
                    user,
                    cookie: reply.cookie.unwrap(),
                    at: reply.at,
                    counts: vec![(reply.at.answered, 0, 0)],
                    over: None,
                    may_be_over: false,
                });
            }
            continue;
        };
        match random(20) {
            // Every other client goes on reading until the bound is over.
            0 if own.over.is_some_and(|over| over.elapsed() > lingers) => login = None,
            0 => {
                let reply = world.ask(node, "/log_out", Some(&own.cookie)).await;
                own.may_be_over = true;
                if reply.status == 200 {
                    own.over = own.over.or(Some(reply.at.answered));
                }
            }
            1 => {
                let user = format!("user-{}", random(4));
                // From now on, sessions may be over.
                let now = Instant::now();
                let far = now + PATIENCE * 10;
                let begun = Span {
                    asked: now,
                    answered: far,
                };
                let index = {
                    let mut revocations = world.revocations.lock().unwrap();
                    let of_user = revocations.entry(user.clone()).or_default();
                    of_user.push(begun);
                    of_user.len() - 1
                };
                let reply = world.ask(node, &format!("/revoke/{user}"), None).await;
                if reply.status == 200 {
                    let mut revocations = world.revocations.lock().unwrap();
                    revocations.get_mut(&user).unwrap()[index].answered = reply.at.answered;
                }
            }
            2..=6 => {
                let reply = world.ask(node, "/visit", Some(&own.cookie)).await;
                let over = own.is_over(&world, &reply);
                let (_, least, most) = *own.counts.last().unwrap();
                match (reply.status, over) {
                    (200, Over::Yes) => panic!("a dead session is served: {own:?}"),
                    (401, Over::No) => panic!("a live session is lost: {own:?}"),
                    (200, Over::No) => {
                        // The handler may have counted on from a record that is out of date. The
                        // commit counted on from the newest one.
                        own.check_count(&world, &reply, 1);
                        own.counts.push((reply.at.answered, least + 1, most + 1));
                    }
                    (401, _) => own.over = own.over.or(Some(reply.at.answered)),
                    _ => own.counts.push((reply.at.answered, least, most + 1)),
                }
            }
            _ => {
                let reply = world.ask(node, "/count", Some(&own.cookie)).await;
                match (reply.status, own.is_over(&world, &reply)) {
                    (200, Over::Yes) => panic!("a dead session is served: {own:?}"),
                    (401, Over::No) => panic!("a live session is lost: {own:?}"),
                    (200, _) => own.check_count(&world, &reply, 0),
                    (401, _) => own.over = own.over.or(Some(reply.at.answered)),
                    _ => {}
                }
            }
        }
    }
    asked
}

/// How long the random tests run.
fn duration() -> Duration {
    let seconds = std::env::var("CLOAKROOM_NEAR_SECONDS").ok();
    Duration::from_secs(seconds.map_or(6, |seconds| seconds.parse().unwrap()))
}

async fn every_answer_is_one_of_the_model(
    test: &str,
    urls: [String; 2],
    disturb: Option<&dyn Fn()>,
) {
    let near = |url: &str| format!("{url}?near=8MiB");
    let processes =
        [("a", 0), ("b", 1)].map(|(name, n)| Process::start(test, name, &near(&urls[n])));
    let world = Arc::new(World {
        addresses: [0, 1].map(|n: usize| processes[n].address.clone()),
        http: Client::builder(TokioExecutor::new()).build_http(),
        revocations: Mutex::default(),
        may_fail: disturb.is_some(),
        max_stale: DEFAULT_MAX_STALE,
        until: Instant::now() + duration(),
    });
    let mut clients: JoinSet<_> = (0..8).map(|number| client(world.clone(), number)).collect();
    let mut asked = 0;
    let mut next = Instant::now() + Duration::from_secs(2);
    loop {
        match timeout(Duration::from_millis(50), clients.join_next()).await {
            Ok(None) => break,
            Ok(Some(requests)) => asked += requests.unwrap(),
            Err(_) if Instant::now() > next => {
                // Each disturbance has time to show, and to heal.
                next = Instant::now() + Duration::from_secs(3);
                disturb.iter().for_each(|disturb| disturb());
            }
            Err(_) => {}
        }
    }
    println!("{test}: {asked} requests");
    assert!(asked > 100);
}

macro_rules! random_tests {
    ($($test:ident: $kind:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if child_name().is_some() {
                    return serve().await;
                }
                let backend = Backend::start($kind);
                // The first process makes the table and the feed.
                drop(backend.store().await);
                let urls = [0, 1].map(|_| backend.direct_url());
                every_answer_is_one_of_the_model(stringify!($test), urls, None).await;
            }
        )*
    };
}

random_tests! {
    every_answer_over_redis_is_one_of_the_model: Kind::Redis;
    every_answer_over_redis_cluster_is_one_of_the_model: Kind::RedisCluster;
    every_answer_over_postgres_is_one_of_the_model: Kind::Postgres;
    every_answer_over_sqlite_is_one_of_the_model: Kind::Sqlite;
}

/// Every three seconds, one process loses its network: in silence, or at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_over_redis_behind_a_network_that_breaks_is_one_of_the_model() {
    if child_name().is_some() {
        return serve().await;
    }
    let server = Server::redis(&[]);
    let proxies = [(); 2].map(|()| Proxy::to(&server.address()));
    let urls = [0, 1].map(|n: usize| format!("redis://{}", proxies[n].address()));
    let count = std::cell::Cell::new(0);
    let disturb = move || {
        let n = count.replace(count.get() + 1);
        let proxy = &proxies[n % 2];
        match n % 3 {
            2 => proxy.cut(),
            _ => proxy.mute(),
        }
    };
    every_answer_is_one_of_the_model(
        "every_answer_over_redis_behind_a_network_that_breaks_is_one_of_the_model",
        urls,
        Some(&disturb),
    )
    .await;
}
