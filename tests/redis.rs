//! What is the Redis store's own: servers that change behind a connection, and the index of a
//! user's sessions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use cloakroom::{RecordId, RedisStore, SessionLayer, SessionStore, Sessions, TestClock};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use support::servers::{Proxy, RedisCluster, RedisSentinel, Server, run_redis};
use support::{Browser, app, builder, key};

/// In which a store must work again.
const RECOVERY: Duration = Duration::from_secs(8);

async fn open(url: &str) -> RedisStore {
    RedisStore::open(url).await.unwrap()
}

fn with_timeout(store: RedisStore, timeout: Duration) -> Router {
    app(builder(store).store_timeout(timeout).build().unwrap())
}

/// Writes until that is answered, and gives the number of requests that were refused before.
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

/// A master, a replica that has what the master has, and the one address of both.
struct Managed {
    master: Server,
    replica: Server,
    address: Proxy,
}

impl Managed {
    fn start() -> Self {
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

    fn url(&self) -> String {
        format!("redis://{}", self.address.address())
    }

    /// The replica takes over, and the master becomes its replica. Connections stay.
    fn fail_over(&self) {
        let port = self.replica.port().to_string();
        self.fail_over_from(&[&["REPLICAOF", "127.0.0.1", &port]]);
    }

    /// The replica takes over, and these commands say what becomes of the master.
    fn fail_over_from(&self, commands: &[&[&str]]) {
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
    let mut browser = Browser::new(&app);
    browser.get("/update/visits").await.assert(200, "1");
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
        let mut browser = Browser::new(&app);
        browser.get("/update/visits").await.assert(200, "1");
        managed.fail_over_from(commands);
        browser.get("/update/visits").await.assert(200, "2");
        assert_eq!(managed.address.connections(), 2);
    }
}

#[tokio::test]
async fn a_closed_connection_is_replaced_while_nobody_uses_it() {
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let store = open(&format!("redis://{}", proxy.address())).await;
    let mut browser = Browser::new(&with_timeout(store, Duration::from_secs(5)));
    browser.get("/update/visits").await.assert(200, "1");
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
        let app = with_timeout(RedisStore::new(connection), Duration::from_secs(5));
        let mut browser = Browser::new(&app);
        browser.get("/update/visits").await.assert(200, "1");
        managed.fail_over();
        browser.get("/update/visits").await.assert(200, "2");
    }
}

/// Many requests, for a while in which no server takes writes.
#[tokio::test]
async fn connections_are_made_one_at_a_time_while_no_server_takes_writes() {
    let managed = Managed::start();
    let app = with_timeout(open(&managed.url()).await, Duration::from_secs(5));
    let mut browser = Browser::new(&app);
    browser.get("/update/visits").await.assert(200, "1");
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
    // Reads go on all the while.
    browser.get("/get/visits").await.assert(200, "1");
    run_redis(&managed.master.address(), &["REPLICAOF", "NO", "ONE"]);
    refused_until_written(&mut browser).await;
}

#[tokio::test]
async fn a_connection_that_went_silent_is_replaced() {
    for timeout in [Duration::from_millis(200), Duration::from_secs(5)] {
        let server = Server::redis(&[]);
        let proxy = Proxy::to(&server.address());
        let app = with_timeout(open(&format!("redis://{}", proxy.address())).await, timeout);
        let mut browser = Browser::new(&app);
        browser.get("/update/visits").await.assert(200, "1");
        proxy.mute();
        assert!(refused_until_written(&mut browser).await > 0);
        assert_eq!(proxy.connections(), 2);
    }
}

/// The caller goes away before anything could be noticed, and does not come back for a while.
#[tokio::test]
async fn a_silent_connection_is_replaced_for_a_caller_that_went_away() {
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let store = open(&format!("redis://{}", proxy.address())).await;
    let browser = Browser::new(&with_timeout(store.clone(), Duration::from_secs(5)));
    browser.send("/update/visits", &[]).await.assert(200, "1");
    proxy.mute();
    let id = RecordId::from_bytes([7; 16]);
    let load = tokio::time::timeout(Duration::from_millis(20), store.load(id)).await;
    assert!(load.is_err());
    let since = Instant::now();
    while proxy.connections() < 2 {
        assert!(since.elapsed() < RECOVERY);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It is accepted before it is in use, and a call on the old one has no answer.
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
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let store = open(&format!("redis://{}", proxy.address())).await;
    let mut browser = Browser::new(&with_timeout(store, Duration::from_millis(200)));
    browser.get("/update/visits").await.assert(200, "1");
    for _ in 0..3 {
        server.pause();
        browser.get("/update/visits").await.assert(503, "");
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.resume();
        refused_until_written(&mut browser).await;
    }
    assert_eq!(proxy.connections(), 1);
}

/// A store timeout that is shorter than anything that finds out about the master.
#[tokio::test]
async fn a_hung_master_is_left_for_the_one_that_sentinel_names() {
    let mut sentinel = RedisSentinel::start();
    let url = format!(
        "redis+sentinel://{}/cloakroom",
        sentinel.sentinels().join(",")
    );
    let app = with_timeout(open(&url).await, Duration::from_millis(500));
    let mut browser = Browser::new(&app);
    browser.get("/update/visits").await.assert(200, "1");
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
    let mut browser = Browser::new(&app);
    browser.get("/update/visits").await.assert(200, "1");
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

/// A store that was opened in one runtime goes on in another, in which nothing runs of the first.
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

/// A layer with what tells of its sessions.
fn listed(store: RedisStore) -> (Router, Sessions<RedisStore>) {
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    (app(layer), sessions)
}

const INDEX: &str = "cloakroom:user:__Host-session:ada";

/// An id that no session has.
fn nobodys(number: u128) -> RecordId {
    RecordId::from_bytes(number.to_be_bytes())
}

/// Writes entries into the index, at once. A score is in seconds, as seen from now.
fn file(address: &str, entries: impl Iterator<Item = (RecordId, i64)>) {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let mut command = Vec::new();
    for (id, age) in entries {
        command.push((now - age).to_string());
        command.push(id.to_string());
    }
    for command in command.chunks(20_000) {
        let words: Vec<_> = ["ZADD", INDEX]
            .into_iter()
            .chain(command.iter().map(|word| &**word))
            .collect();
        run_redis(address, &words);
    }
}

fn is_filed(address: &str, id: RecordId) -> bool {
    !run_redis(address, &["ZSCORE", INDEX, &id.to_string()]).is_empty()
}

fn entries(address: &str) -> u64 {
    run_redis(address, &["ZCARD", INDEX]).parse().unwrap()
}

const HOUR: i64 = 60 * 60;

/// The node that has the index.
fn index_node(cluster: &RedisCluster) -> String {
    let slot: u16 = run_redis(
        &cluster.nodes()[0].address(),
        &["CLUSTER", "KEYSLOT", INDEX],
    )
    .parse()
    .unwrap();
    cluster.nodes()[usize::from(slot / 5461).min(2)].address()
}

/// Polls a future so often at the most, and drops it right after. Whether it came to its end.
async fn dropped_after(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A client that resets its requests, wherever they are.
#[tokio::test]
async fn a_session_of_a_cluster_whose_login_was_dropped_midway_is_in_the_index() {
    let cluster = RedisCluster::start();
    let (app, sessions) = listed(
        open(&format!(
            "redis+cluster://{}",
            cluster.addresses().join(",")
        ))
        .await,
    );
    // Scripts and connections are there.
    let mut first = Browser::new(&app);
    for path in ["/insert/a/b", "/log_in/eve", "/log_out"] {
        first.get(path).await.assert(200, "done");
    }
    for polls in 1.. {
        assert!(polls < 100);
        let user = format!("ada{polls}");
        let visitor = {
            let mut visitor = Browser::new(&app);
            visitor.get("/insert/a/b").await.assert(200, "done");
            visitor
        };
        let login = visitor.send(&format!("/log_in/{user}"), &[]);
        let is_done = dropped_after(polls, login).await;
        // A reader clears what ended, and what was sent may take its time.
        sessions.list(&*user).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let all = all_sessions_of(&cluster, &user);
        assert_eq!(
            sessions.list(&*user).await.unwrap().len(),
            all,
            "dropped after {polls} polls"
        );
        assert_eq!(sessions.revoke_all(&*user).await.unwrap(), all as u64);
        assert_eq!(all_sessions_of(&cluster, &user), 0);
        if is_done {
            assert_eq!(all, 1);
            return;
        }
    }
}

/// How many sessions of a user there are, in the index or not.
fn all_sessions_of(cluster: &RedisCluster, user: &str) -> usize {
    let user = format!("__Host-session:{user}");
    let mut count = 0;
    for node in &cluster.nodes()[..3] {
        let at = node.address();
        for name in run_redis(&at, &["KEYS", "cloakroom:session:*"]).lines() {
            let value = run_redis(&at, &["GET", name]);
            count += usize::from(value.split('\0').nth(1) == Some(&*user));
        }
    }
    count
}

/// The session of an entry may be about to be written.
#[tokio::test]
async fn a_reader_of_a_cluster_leaves_young_entries_and_clears_old_ones() {
    let cluster = RedisCluster::start();
    let (_, sessions) = listed(
        open(&format!(
            "redis+cluster://{}",
            cluster.addresses().join(",")
        ))
        .await,
    );
    let at = index_node(&cluster);
    let ages = [0, 60, HOUR, 48 * HOUR, -HOUR, -48 * HOUR];
    for removes in [false, true] {
        file(
            &at,
            ages.into_iter()
                .enumerate()
                .map(|(id, age)| (nobodys(id as u128), age)),
        );
        match removes {
            true => assert_eq!(sessions.revoke_all("ada").await.unwrap(), 0),
            false => assert!(sessions.list("ada").await.unwrap().is_empty()),
        }
        let kept: Vec<_> = (0..6).map(|id| is_filed(&at, nobodys(id))).collect();
        assert_eq!(kept, [true, true, false, false, false, false]);
    }
}

#[tokio::test]
async fn a_logout_takes_its_entry_out_of_the_index() {
    let server = Server::redis(&[]);
    let (app, _) = listed(open(&format!("redis://{}", server.address())).await);
    let (mut ended, mut kept) = (Browser::new(&app), Browser::new(&app));
    ended.get("/log_in/ada").await.assert(200, "done");
    kept.get("/log_in/ada").await.assert(200, "done");
    assert_eq!(entries(&server.address()), 2);
    ended.get("/log_out").await.assert(200, "done");
    assert_eq!(entries(&server.address()), 1);
    kept.get("/user").await.assert(200, "ada");
    kept.get("/log_out").await.assert(200, "done");
    assert_eq!(entries(&server.address()), 0);
}

#[tokio::test]
async fn a_logout_in_a_cluster_takes_its_entry_out_of_the_index_even_if_its_caller_goes_away() {
    let cluster = RedisCluster::start();
    let store = open(&format!(
        "redis+cluster://{}",
        cluster.addresses().join(",")
    ))
    .await;
    let (app, sessions) = listed(store.clone());
    let at = index_node(&cluster);
    let mut browsers = vec![Browser::new(&app); 12];
    for browser in &mut browsers {
        browser.get("/log_in/ada").await.assert(200, "done");
    }
    let ids: Vec<_> = sessions
        .list("ada")
        .await
        .unwrap()
        .iter()
        .map(|session| session.id())
        .collect();
    for (polls, id) in ids.into_iter().enumerate() {
        dropped_after(polls, store.remove(id)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let is_there = store.load(id).await.unwrap().is_some();
        let since = Instant::now();
        while is_filed(&at, id) != is_there {
            assert!(since.elapsed() < RECOVERY, "after {polls} polls");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Each call has the store timeout, and the next one goes on where it stopped.
#[tokio::test]
async fn an_index_of_half_a_million_ended_sessions_is_read_and_cleared() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = open(&format!("redis://{at}")).await;
    let layer = builder(store).store_timeout(Duration::from_millis(400));
    let layer = layer.build().unwrap();
    let (app, sessions) = (app(layer.clone()), layer.sessions());
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    file(&at, (0..500_000).map(|number| (nobodys(number), HOUR)));
    let since = Instant::now();
    while sessions.list("ada").await.is_err() {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{} entries are left",
            entries(&at)
        );
    }
    assert_eq!(sessions.list("ada").await.unwrap().len(), 1);
    assert_eq!(entries(&at), 1);
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn many_sessions_are_listed_and_removed_in_parts() {
    let cluster = RedisCluster::start();
    let server = Server::redis(&[]);
    for url in [
        format!("redis://{}", server.address()),
        format!("redis+cluster://{}", cluster.addresses().join(",")),
    ] {
        let (app, sessions) = listed(open(&url).await);
        for _ in 0..600 {
            Browser::new(&app)
                .send("/log_in/ada", &[])
                .await
                .assert(200, "done");
        }
        let listed = sessions.list("ada").await.unwrap();
        assert_eq!(listed.len(), 600);
        assert_eq!(
            sessions.revoke_others("ada", listed[7].id()).await.unwrap(),
            599
        );
        let left = sessions.list("ada").await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].id(), listed[7].id());
    }
}

/// Nobody ever asks for the sessions of this user, who logs in and never out.
#[tokio::test]
async fn an_index_that_is_only_written_stays_short() {
    let cluster = RedisCluster::start();
    let server = Server::redis(&[]);
    let cluster_url = format!("redis+cluster://{}", cluster.addresses().join(","));
    for (url, at) in [
        (format!("redis://{}", server.address()), server.address()),
        (cluster_url, index_node(&cluster)),
    ] {
        let (app, sessions) = listed(open(&url).await);
        file(&at, (0..1000).map(|number| (nobodys(number), HOUR)));
        let mut logins = 0;
        while entries(&at) > logins + 100 {
            assert!(logins < 500, "{} entries", entries(&at));
            Browser::new(&app)
                .send("/log_in/ada", &[])
                .await
                .assert(200, "done");
            logins += 1;
        }
        assert_eq!(sessions.list("ada").await.unwrap().len() as u64, logins);
    }
}

/// What a node writes whose clock is wrong, and what it sees of what others have written.
#[tokio::test]
async fn a_clock_that_is_wrong_by_hours_hides_no_session_from_the_index() {
    let cluster = RedisCluster::start();
    let server = Server::redis(&[]);
    let cluster_url = format!("redis+cluster://{}", cluster.addresses().join(","));
    for (url, at) in [
        (format!("redis://{}", server.address()), server.address()),
        (cluster_url, index_node(&cluster)),
    ] {
        let (app, sessions) = listed(open(&url).await);
        let mut browsers = vec![Browser::new(&app); 3];
        for browser in &mut browsers {
            browser.get("/log_in/ada").await.assert(200, "done");
        }
        let ids: Vec<_> = sessions
            .list("ada")
            .await
            .unwrap()
            .iter()
            .map(|session| session.id())
            .collect();
        // Of a clock hours behind, hours ahead, and at the beginning of time.
        let ages = [12 * HOUR, -12 * HOUR, 50 * 365 * 24 * HOUR];
        let wrong = || file(&at, ids.iter().copied().zip(ages));
        wrong();
        // More ended sessions than a write leaves unseen.
        file(&at, (0..200).map(|number| (nobodys(number), HOUR)));
        for _ in 0..30 {
            Browser::new(&app)
                .send("/log_in/ada", &[])
                .await
                .assert(200, "done");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(sessions.list("ada").await.unwrap().len(), 33);
        wrong();
        assert_eq!(sessions.revoke_all("ada").await.unwrap(), 33);
        for browser in &mut browsers {
            browser.get("/user").await.assert(401, "");
        }
    }
}

/// The layers of two nodes have clocks that are hours apart.
#[tokio::test]
async fn nodes_whose_clocks_are_hours_apart_see_each_others_sessions() {
    let cluster = RedisCluster::start();
    let server = Server::redis(&[]);
    let cluster_url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let [first, second, third, _] = cluster.nodes().map(Server::address);
    for (url, nodes) in [
        (
            format!("redis://{}", server.address()),
            vec![server.address()],
        ),
        (cluster_url, vec![first, second, third]),
    ] {
        let store = open(&url).await;
        let early = TestClock::new();
        let late = TestClock::new();
        late.advance(Duration::from_secs(12 * 60 * 60));
        let [early, late] = [early, late].map(|clock| {
            let layer = builder(store.clone()).clock(clock).build().unwrap();
            (app(layer.clone()), layer.sessions())
        });
        for (app, _) in [&late, &early] {
            Browser::new(app)
                .get("/log_in/ada")
                .await
                .assert(200, "done");
        }
        // The index ends after the last of its sessions.
        let longest = |pattern| {
            let of_node = |at: &String| -> i64 {
                let names = run_redis(at, &["KEYS", pattern]);
                let ttl = |name| run_redis(at, &["PTTL", name]).parse::<i64>().unwrap();
                names.lines().map(ttl).max().unwrap_or(0)
            };
            nodes.iter().map(of_node).max().unwrap()
        };
        // Asked for first, since time passes between the two.
        let index = longest(INDEX);
        let session = longest("cloakroom:session:*");
        assert!(session > 12 * HOUR * 1000);
        assert!(index >= session);
        assert_eq!(early.1.list("ada").await.unwrap().len(), 2);
        // To the one that is ahead, the other's session is over.
        assert_eq!(late.1.list("ada").await.unwrap().len(), 1);
        assert_eq!(late.1.revoke_all("ada").await.unwrap(), 2);
    }
}
