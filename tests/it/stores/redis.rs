//! What only the Redis store has: servers that change behind a connection.

use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::{RecordId, RedisStore, SessionLayer, SessionStore, Sessions};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use support::servers::{Proxy, RedisCluster, RedisSentinel, Server, run_redis};
use support::{Browser, app, builder, key};

/// A store must work again within this time.
pub(super) const RECOVERY: Duration = Duration::from_secs(8);

pub(super) async fn open(url: &str) -> RedisStore {
    RedisStore::connect(url).await.unwrap()
}

fn with_timeout(store: RedisStore, timeout: Duration) -> Router {
    app(builder(store).store_timeout(timeout).build().unwrap())
}

async fn first_visit(app: &Router) -> Browser {
    let mut browser = Browser::new(app);
    browser.get("/update/visits").await.assert(200, "1");
    browser
}

/// A server behind a proxy, a store on it, and a browser. The browser has an answer over the
/// store's one connection.
async fn behind_a_proxy(timeout: Duration) -> (Server, Proxy, RedisStore, Browser) {
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let store = open(&format!("redis://{}", proxy.address())).await;
    let browser = first_visit(&with_timeout(store.clone(), timeout)).await;
    (server, proxy, store, browser)
}

/// Writes until a write succeeds. Returns the number of requests that were refused before.
async fn refused_until_written(browser: &mut Browser) -> usize {
    let since = Instant::now();
    let mut refused = 0;
    loop {
        let reply = browser.get("/update/visits").await;
        match reply.status.as_u16() {
            200 => return refused,
            503 if since.elapsed() < RECOVERY => refused += 1,
            _ => panic!("{reply:?} {:?} after the trouble", since.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A master, a replica with the same data, and one address for both.
pub(super) struct Managed {
    pub(super) master: Server,
    pub(super) replica: Server,
    address: Proxy,
}

impl Managed {
    pub(super) fn start() -> Self {
        let master = Server::redis(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port().to_string();
        let replica = Server::redis(&["--replicaof", "127.0.0.1", &port]);
        let address = Proxy::to(&master.address());
        Self {
            master,
            replica,
            address,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.address.address())
    }

    /// The replica takes over, and the master becomes its replica. The connections stay open.
    pub(super) fn fail_over(&self) {
        let port = self.replica.port().to_string();
        self.fail_over_from(&[&["REPLICAOF", "127.0.0.1", &port]]);
    }

    /// The replica takes over. These commands decide what happens to the master.
    pub(super) fn fail_over_from(&self, commands: &[&[&str]]) {
        let since = Instant::now();
        let offset = |server: &Server| {
            let info = run_redis(&server.address(), &["INFO", "replication"]);
            let of = |name: &str| {
                info.lines()
                    .find_map(|line| line.strip_prefix(name).map(str::to_owned))
            };
            of("master_repl_offset:").unwrap()
        };
        while offset(&self.master) != offset(&self.replica) {
            assert!(since.elapsed() < RECOVERY, "the replica does not follow");
            std::thread::sleep(Duration::from_millis(20));
        }
        run_redis(&self.replica.address(), &["REPLICAOF", "NO", "ONE"]);
        for command in commands {
            assert_eq!(run_redis(&self.master.address(), command), "OK");
        }
        self.address.lead_to(&self.replica.address());
    }
}

#[tokio::test]
async fn a_failover_behind_one_address_refuses_no_write() {
    let managed = Managed::start();
    let app = with_timeout(open(&managed.url()).await, Duration::from_secs(5));
    let mut browser = first_visit(&app).await;
    managed.fail_over();
    browser.get("/update/visits").await.assert(200, "2");
    browser.get("/update/visits").await.assert(200, "3");
    assert_eq!(managed.address.connections(), 2);
}

#[tokio::test]
async fn a_server_that_lost_its_master_or_its_replicas_is_left_for_another() {
    let lost_its_master: &[&[&str]] = &[
        &["CONFIG", "SET", "replica-serve-stale-data", "no"],
        &["REPLICAOF", "127.0.0.1", "1"],
    ];
    let lost_its_replicas: &[&[&str]] = &[&["CONFIG", "SET", "min-replicas-to-write", "1"]];
    for commands in [lost_its_master, lost_its_replicas] {
        let managed = Managed::start();
        let app = with_timeout(open(&managed.url()).await, Duration::from_secs(5));
        let mut browser = first_visit(&app).await;
        managed.fail_over_from(commands);
        browser.get("/update/visits").await.assert(200, "2");
        assert_eq!(managed.address.connections(), 2);
    }
}

#[tokio::test]
async fn a_closed_connection_is_replaced_while_nobody_uses_it() {
    let (_server, proxy, _store, mut browser) = behind_a_proxy(Duration::from_secs(5)).await;
    for connections in 2..5 {
        proxy.cut();
        let since = Instant::now();
        while proxy.connections() < connections {
            assert!(since.elapsed() < RECOVERY);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    browser.get("/update/visits").await.assert(200, "2");
}

#[tokio::test]
async fn a_failover_is_survived_on_the_applications_own_connection() {
    for protocol in ["resp2", "resp3"] {
        let managed = Managed::start();
        let client =
            redis::Client::open(format!("{}/?protocol={protocol}", managed.url())).unwrap();
        let config = ConnectionManagerConfig::new().set_response_timeout(None);
        let connection = ConnectionManager::new_with_config(client, config)
            .await
            .unwrap();
        let app = with_timeout(
            RedisStore::from_connection(connection),
            Duration::from_secs(5),
        );
        let mut browser = first_visit(&app).await;
        managed.fail_over();
        browser.get("/update/visits").await.assert(200, "2");
    }
}

/// The test sends many requests while, for some time, no server takes writes.
#[tokio::test]
async fn connections_are_made_one_at_a_time_while_no_server_takes_writes() {
    let managed = Managed::start();
    let app = with_timeout(open(&managed.url()).await, Duration::from_secs(5));
    let mut browser = first_visit(&app).await;
    let nowhere = ["REPLICAOF", "127.0.0.1", "1"];
    run_redis(&managed.master.address(), &nowhere);
    let before = managed.address.connections();
    let requests = (0..20).map(|_| {
        let browser = browser.clone();
        tokio::spawn(async move {
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(4) {
                assert_eq!(browser.send("/update/visits", &[]).await.status, 503);
            }
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    let made = managed.address.connections() - before;
    assert!((2..=10).contains(&made), "{made} connections in 4 s");
    // Reads work during all this time.
    browser.get("/get/visits").await.assert(200, "1");
    run_redis(&managed.master.address(), &["REPLICAOF", "NO", "ONE"]);
    refused_until_written(&mut browser).await;
}

#[tokio::test]
async fn a_connection_that_went_silent_is_replaced() {
    for timeout in [Duration::from_millis(200), Duration::from_secs(5)] {
        let (_server, proxy, _store, mut browser) = behind_a_proxy(timeout).await;
        proxy.mute();
        assert!(refused_until_written(&mut browser).await > 0);
        assert_eq!(proxy.connections(), 2);
    }
}

/// The caller goes away before the store can notice the silence. For a while it does not come back.
#[tokio::test]
async fn a_silent_connection_is_replaced_for_a_caller_that_went_away() {
    let (_server, proxy, store, _browser) = behind_a_proxy(Duration::from_secs(5)).await;
    proxy.mute();
    let id = RecordId::from_bytes([7; 16]);
    let load = tokio::time::timeout(Duration::from_millis(20), store.load(id)).await;
    assert!(load.is_err());
    let since = Instant::now();
    while proxy.connections() < 2 {
        assert!(since.elapsed() < RECOVERY);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The proxy accepts the new connection before the store uses it. A call on the old connection
    // gets no answer.
    loop {
        let load = tokio::time::timeout(Duration::from_millis(100), store.load(id));
        if let Ok(answer) = load.await {
            assert!(answer.unwrap().is_none());
            return;
        }
        assert!(since.elapsed() < RECOVERY);
    }
}

#[tokio::test]
async fn a_server_that_answers_late_keeps_its_connection() {
    let (server, proxy, _store, mut browser) = behind_a_proxy(Duration::from_millis(200)).await;
    for _ in 0..3 {
        server.pause();
        browser.get("/update/visits").await.assert(503, "");
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.resume();
        refused_until_written(&mut browser).await;
    }
    assert_eq!(proxy.connections(), 1);
}

/// The store timeout ends before anything can find out about the master.
#[tokio::test]
async fn a_hung_master_is_left_for_the_one_that_sentinel_names() {
    let mut sentinel = RedisSentinel::start();
    let url = format!(
        "redis+sentinel://{}/cloakroom",
        sentinel.sentinels().join(",")
    );
    let app = with_timeout(open(&url).await, Duration::from_millis(500));
    let mut browser = first_visit(&app).await;
    sentinel.master().pause();
    let since = Instant::now();
    loop {
        let reply = browser.get("/update/visits").await;
        match reply.status.as_u16() {
            200 => break,
            503 if since.elapsed() < Duration::from_secs(20) => {}
            _ => panic!("{reply:?} {:?} after the trouble", since.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sentinel.master().resume();
}

#[tokio::test]
async fn connections_of_a_cluster_that_went_silent_are_replaced() {
    let cluster = RedisCluster::start();
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let app = with_timeout(open(&url).await, Duration::from_millis(500));
    let mut browser = first_visit(&app).await;
    cluster.proxies().iter().for_each(Proxy::mute);
    assert!(refused_until_written(&mut browser).await > 0);

    // One node is silent, and the others answer.
    let mut browsers = vec![Browser::new(&app); 12];
    for browser in &mut browsers {
        browser.get("/update/visits").await.assert(200, "1");
    }
    cluster.proxies()[1].mute();
    let mut refused = 0;
    for browser in &mut browsers {
        refused += refused_until_written(browser).await;
    }
    assert!(refused > 0);
}

/// A store is opened in one runtime and used in another one. The first runtime does not run any
/// more.
#[test]
fn a_store_outlives_the_runtime_that_it_was_opened_in() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let opened = runtime().block_on(open(&url));
    runtime().block_on(async {
        let app = with_timeout(opened, Duration::from_secs(5));
        refused_until_written(&mut Browser::new(&app)).await;
    });
}

/// An application with this store, and the list of its sessions.
pub(super) fn listed(store: RedisStore) -> (Router, Sessions<RedisStore>) {
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    (app(layer), sessions)
}

/// If the server refuses a write, the session must not look ended. If the server refuses a
/// revocation, it must not look as if there were no session.
#[tokio::test]
async fn a_command_that_redis_refuses_is_an_error() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::connect(&format!("redis://{at}")).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");

    run_redis(&at, &["ACL", "SETUSER", "default", "-getrange"]);
    browser.get("/user").await.assert(200, "ada");
    browser.get("/insert/theme/light").await.assert(503, "");
    sessions.revoke_user("ada").await.unwrap_err();

    run_redis(&at, &["ACL", "SETUSER", "default", "+getrange"]);
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::connect(&format!("redis://{at}")).await.unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    for n in 1..4 {
        let visits = n.to_string();
        browser.get("/update/visits").await.assert(200, &visits);
        run_redis(&at, &["SCRIPT", "FLUSH"]);
    }
}
