//! Stores that fail under load. The tests kill them, stop them, and cut their connections.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use support::stores::{Backend, Kind};
use support::{Browser, Reply, app, builder};
use tokio::sync::Barrier;

const CLIENTS: usize = 8;

const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request makes two calls, a load and a write. The machine may be busy.
const LONGEST_REQUEST: Duration = Duration::from_secs(3);

/// A store that is back must work again within this time.
const RECOVERY: Duration = Duration::from_secs(20);

/// What a client saw of its session.
struct Client {
    number: usize,
    browser: Browser,
    answered: BTreeSet<String>,
    refused: usize,
}

impl Client {
    async fn new(app: &Router, number: usize) -> Self {
        let mut browser = Browser::new(app);
        let path = format!("/log_in/user-{number}");
        browser.get(&path).await.assert(200, "done");
        Self {
            number,
            browser,
            answered: BTreeSet::new(),
            refused: 0,
        }
    }

    /// Writes until the test sets `stop`. Each request gets an answer in time. The answer is a
    /// success or a 503, and it removes no cookie.
    async fn write(mut self, stop: Arc<AtomicBool>, started: Arc<Barrier>) -> Self {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("k{n}");
            let asked = Instant::now();
            let reply = self.browser.get(&format!("/visit/{key}")).await;
            let took = asked.elapsed();
            assert!(took < LONGEST_REQUEST, "a request took {took:?}");
            match reply.status.as_u16() {
                200 => drop(self.answered.insert(key)),
                503 => {
                    self.refused += 1;
                    assert_eq!(reply.header("retry-after"), Some("1"));
                }
                _ => panic!("{reply:?}"),
            }
            reply.assert_no_cookie();
            if n == 0 {
                started.wait().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self
    }

    async fn visits(&mut self) -> Reply {
        self.browser.get("/get/visits").await
    }

    /// All writes that got an answer are there, and the session still belongs to the user.
    async fn assert_kept(&mut self) {
        let user = format!("user-{}", self.number);
        self.browser.get("/user").await.assert(200, &user);
        let keys = self.browser.get("/keys").await.body;
        let keys: BTreeSet<_> = keys.split(',').collect();
        for key in &self.answered {
            assert!(keys.contains(&**key), "{key} was answered and is lost");
        }
        let visits: usize = self.visits().await.body.parse().unwrap();
        let (least, most) = (self.answered.len(), self.answered.len() + self.refused);
        assert!(
            (least..=most).contains(&visits),
            "{visits} visits are counted, of which {least} were answered and {} not",
            self.refused
        );
    }

    /// The session has gone. The client is a visitor, and can start a new session.
    async fn assert_gone(&mut self) {
        self.browser.get("/user").await.assert(401, "");
        self.browser.get("/visit/again").await.assert(200, "1");
        self.browser.get("/get/visits").await.assert(200, "1");
    }
}

/// Lets clients write while something happens to the servers.
async fn under_load(backend: &mut Backend, trouble: impl AsyncFnOnce(&mut Backend)) -> Vec<Client> {
    let layer = builder(backend.store().await)
        .store_timeout(STORE_TIMEOUT)
        .build()
        .unwrap();
    let app = app(layer);
    let stop = Arc::new(AtomicBool::new(false));
    let started = Arc::new(Barrier::new(CLIENTS + 1));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::new(&app, number).await;
        clients.push(tokio::spawn(client.write(stop.clone(), started.clone())));
    }
    started.wait().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = resident_kib();

    trouble(backend).await;

    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut back = Vec::new();
    for client in clients {
        back.push(client.await.unwrap());
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "the process grew by {grown} KiB");
    assert!(
        back.iter().all(|client| !client.answered.is_empty()),
        "nothing was written before the trouble"
    );
    back
}

/// Waits until the store answers every client.
async fn recovered(mut clients: Vec<Client>) -> Vec<Client> {
    let since = Instant::now();
    for client in &mut clients {
        loop {
            let reply = client.visits().await;
            match reply.status.as_u16() {
                200 => break,
                503 if since.elapsed() < RECOVERY => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => panic!("{reply:?} {:?} after the trouble", since.elapsed()),
            }
        }
    }
    clients
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

async fn killed(backend: &mut Backend) {
    for server in backend.servers() {
        server.kill();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn started(backend: &mut Backend) {
    for server in backend.servers() {
        server.start();
    }
}

/// Stops the servers for longer than the store timeout.
async fn stopped(backend: &mut Backend) {
    for server in backend.servers() {
        server.pause();
    }
    tokio::time::sleep(STORE_TIMEOUT * 5 / 2).await;
    for server in backend.servers() {
        server.resume();
    }
}

async fn cut(backend: &mut Backend) {
    for _ in 0..5 {
        backend.cut();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The clients continue while the server comes back.
async fn kill_and_keep(kind: Kind) {
    let mut backend = Backend::start(kind);
    let clients = under_load(&mut backend, async |backend| {
        killed(backend).await;
        started(backend);
    })
    .await;
    assert!(clients.iter().all(|client| client.refused > 0));
    for client in &mut recovered(clients).await {
        client.assert_kept().await;
    }
}

/// The clients wait until the server is back, because they lose their sessions and start new ones.
async fn kill_and_forget(kind: Kind) {
    let mut backend = Backend::start(kind);
    let clients = under_load(&mut backend, killed).await;
    assert!(clients.iter().all(|client| client.refused > 0));
    started(&mut backend);
    for client in &mut recovered(clients).await {
        client.assert_gone().await;
    }
}

async fn stop_and_go_on(kind: Kind) {
    let mut backend = Backend::start(kind);
    let clients = under_load(&mut backend, stopped).await;
    assert!(clients.iter().all(|client| client.refused > 0));
    for client in &mut recovered(clients).await {
        client.assert_kept().await;
    }
}

async fn cut_connections(kind: Kind) {
    let mut backend = Backend::start(kind);
    let clients = under_load(&mut backend, cut).await;
    for client in &mut recovered(clients).await {
        client.assert_kept().await;
    }
}

macro_rules! outages {
    ($($test:ident: $outage:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $outage.await;
            }
        )*
    };
}

outages! {
    postgres_is_killed_and_all_that_was_answered_is_kept: kill_and_keep(Kind::Postgres);
    mysql_is_killed_and_all_that_was_answered_is_kept: kill_and_keep(Kind::MySql);
    durable_redis_is_killed_and_all_that_was_answered_is_kept: kill_and_keep(Kind::DurableRedis);
    redis_is_killed_and_its_sessions_are_gone: kill_and_forget(Kind::Redis);
    memcached_is_killed_and_its_sessions_are_gone: kill_and_forget(Kind::Memcached);

    postgres_stops_and_goes_on: stop_and_go_on(Kind::Postgres);
    mysql_stops_and_goes_on: stop_and_go_on(Kind::MySql);
    redis_stops_and_goes_on: stop_and_go_on(Kind::Redis);
    memcached_stops_and_goes_on: stop_and_go_on(Kind::Memcached);
    dynamodb_stops_and_goes_on: stop_and_go_on(Kind::DynamoDb);

    connections_to_postgres_are_cut: cut_connections(Kind::Postgres);
    connections_to_mysql_are_cut: cut_connections(Kind::MySql);
    connections_to_redis_are_cut: cut_connections(Kind::Redis);
    connections_to_memcached_are_cut: cut_connections(Kind::Memcached);
    connections_to_dynamodb_are_cut: cut_connections(Kind::DynamoDb);
}

/// The master does not come back. Its replica takes over.
async fn fail_over(kind: Kind) {
    let mut backend = Backend::start(kind);
    let clients = under_load(&mut backend, async |backend| {
        killed(backend).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
    })
    .await;
    assert!(clients.iter().any(|client| client.refused > 0));
    for client in &mut recovered(clients).await {
        let user = format!("user-{}", client.number);
        client.browser.get("/user").await.assert(200, &user);
        // Replication is asynchronous. So the failover may lose the last writes before it, but it
        // loses no later ones.
        client.browser.get("/visit/after").await;
        let keys = client.browser.get("/keys").await.body;
        assert!(keys.split(',').any(|key| key == "after"), "{keys}");
        let first = client.answered.first().unwrap();
        assert!(keys.split(',').any(|key| key == first), "{keys}");
    }
}

outages! {
    a_redis_cluster_node_fails_over: fail_over(Kind::RedisCluster);
    a_redis_sentinel_master_fails_over: fail_over(Kind::RedisSentinel);
}
