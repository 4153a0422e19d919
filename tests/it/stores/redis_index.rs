//! The index of a user's sessions in Redis. It names every live session. Ended sessions are removed
//! from it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::{
    RecordId, RedisStore, Session, SessionCatalog, SessionLayer, SessionStore, Sessions, TestClock,
};
use support::servers::{RedisCluster, Server, run_redis};
use support::{Browser, app, builder, id_of, key, routes};

use super::redis::{RECOVERY, listed, open};

const INDEX: &str = "cloakroom:user:__Host-session:ada";

/// An id that no session has.
fn nobodys(number: u128) -> RecordId {
    RecordId::from_bytes(number.to_be_bytes())
}

/// Writes entries into the index, all at once. A score is a number of seconds from now.
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

/// The node that holds the index.
fn index_node(cluster: &RedisCluster) -> String {
    let slot: u16 = run_redis(
        &cluster.nodes()[0].address(),
        &["CLUSTER", "KEYSLOT", INDEX],
    )
    .parse()
    .unwrap();
    cluster.nodes()[usize::from(slot / 5461).min(2)].address()
}

/// Polls a future at most this many times, and then drops it. Returns whether it ended.
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

/// A client aborts its requests at every possible point.
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
    // The first request loads the scripts and opens the connections.
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
        // Reading the list removes ended entries. Commands that the client already sent may need
        // some time.
        sessions.list_for(&*user).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let all = find_all_by_user(&cluster, &user);
        assert_eq!(
            sessions.list_for(&*user).await.unwrap().len(),
            all,
            "dropped after {polls} polls"
        );
        assert_eq!(sessions.revoke_user(&*user).await.unwrap(), all as u64);
        assert_eq!(find_all_by_user(&cluster, &user), 0);
        if is_done {
            assert_eq!(all, 1);
            return;
        }
    }
}

/// The number of all sessions of a user, in the index or not.
fn find_all_by_user(cluster: &RedisCluster, user: &str) -> usize {
    // In a record, the user comes after 63 bytes. The number of the next field follows.
    let user = format!("__Host-session:{user}\u{1}");
    let end = (62 + user.len()).to_string();
    let mut count = 0;
    for node in &cluster.nodes()[..3] {
        let at = node.address();
        for name in run_redis(&at, &["KEYS", "cloakroom:session:*"]).lines() {
            count += usize::from(run_redis(&at, &["GETRANGE", name, "63", &end]) == user);
        }
    }
    count
}

/// Perhaps another request is about to write the session of an entry.
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
            true => assert_eq!(sessions.revoke_user("ada").await.unwrap(), 0),
            false => assert!(sessions.list_for("ada").await.unwrap().is_empty()),
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
        .list_for("ada")
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

/// Each call ends at the store timeout. The next call continues at the same point.
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
    while sessions.list_for("ada").await.is_err() {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{} entries are left",
            entries(&at)
        );
    }
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 1);
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
        let listed = sessions.list_for("ada").await.unwrap();
        assert_eq!(listed.len(), 600);
        assert_eq!(
            sessions.revoke_others("ada", listed[7].id()).await.unwrap(),
            599
        );
        let left = sessions.list_for("ada").await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].id(), listed[7].id());
    }
}

/// This user logs in and never logs out. Nobody ever asks for the user's sessions.
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
        assert_eq!(sessions.list_for("ada").await.unwrap().len() as u64, logins);
    }
}

/// What a node with a wrong clock writes, and what it sees of other nodes' writes.
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
            .list_for("ada")
            .await
            .unwrap()
            .iter()
            .map(|session| session.id())
            .collect();
        // These entries come from a clock hours behind, a clock hours ahead, and a clock at the
        // beginning of time.
        let ages = [12 * HOUR, -12 * HOUR, 50 * 365 * 24 * HOUR];
        let wrong = || file(&at, ids.iter().copied().zip(ages));
        wrong();
        // There are more ended sessions than one write leaves in the index.
        file(&at, (0..200).map(|number| (nobodys(number), HOUR)));
        for _ in 0..30 {
            Browser::new(&app)
                .send("/log_in/ada", &[])
                .await
                .assert(200, "done");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(sessions.list_for("ada").await.unwrap().len(), 33);
        wrong();
        assert_eq!(sessions.revoke_user("ada").await.unwrap(), 33);
        for browser in &mut browsers {
            browser.get("/user").await.assert(401, "");
        }
    }
}

/// Two nodes have clocks that differ by hours.
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
        // The index stays until after the last of its sessions.
        let longest = |pattern| {
            let of_node = |at: &String| -> i64 {
                let names = run_redis(at, &["KEYS", pattern]);
                let ttl = |name| run_redis(at, &["PTTL", name]).parse::<i64>().unwrap();
                names.lines().map(ttl).max().unwrap_or(0)
            };
            nodes.iter().map(of_node).max().unwrap()
        };
        // The index is first, because some time passes between the two calls.
        let index = longest(INDEX);
        let session = longest("cloakroom:session:*");
        assert!(session > 12 * HOUR * 1000);
        assert!(index >= session);
        assert_eq!(early.1.list_for("ada").await.unwrap().len(), 2);
        // For the node whose clock is ahead, the other node's session is over.
        assert_eq!(late.1.list_for("ada").await.unwrap().len(), 1);
        assert_eq!(late.1.revoke_user("ada").await.unwrap(), 2);
    }
}

#[tokio::test]
async fn more_sessions_of_a_user_than_one_call_removes_end_in_redis() {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let store = RedisStore::connect(&url).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let app = app(layer);
    let mut own = Browser::new(&app);
    own.get("/log_in/ada").await.assert(200, "done");
    for _ in 0..600 {
        support::send(&app, support::request("/log_in/ada")).await;
    }
    let [kept, ..] = &sessions.list_for("ada").await.unwrap()[..] else {
        panic!("no session");
    };
    assert_eq!(sessions.revoke_others("ada", kept.id()).await.unwrap(), 600);
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 1);
}

/// A script has to read as many bytes as the longest user has, with the realm before it.
#[tokio::test]
async fn many_writes_to_a_redis_cluster_hide_no_user_of_the_longest_id() {
    let cluster = RedisCluster::start();
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let layer = SessionLayer::new(RedisStore::connect(&url).await.unwrap(), key());
    let sessions = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    let user = "u".repeat(255);
    browser
        .get(&format!("/log_in/{user}"))
        .await
        .assert(200, "done");
    for number in 0..40 {
        browser
            .get(&format!("/insert/number/{number}"))
            .await
            .assert(200, "done");
    }
    assert_eq!(sessions.list_for(&user).await.unwrap().len(), 1);
    assert_eq!(sessions.revoke_user(&user).await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
}

/// An application on this server, whose time the test moves.
async fn with_clock(address: &str) -> (TestClock, Router, Sessions<RedisStore>) {
    let store = open(&format!("redis://{address}")).await;
    let clock = TestClock::new();
    let layer = builder(store).clock(clock.clone()).build().unwrap();
    let sessions = layer.sessions();
    (clock, app(layer), sessions)
}

#[tokio::test]
async fn the_index_of_redis_follows_touches_and_forgets_sessions_that_ended() {
    let server = Server::redis(&[]);
    let at = server.address();
    let (clock, app, sessions) = with_clock(&at).await;
    let (mut kept, mut ended) = (Browser::new(&app), Browser::new(&app));
    kept.get("/log_in/ada").await.assert(200, "done");
    ended.get("/log_in/ada").await.assert(200, "done");
    let size = || run_redis(&at, &["ZCARD", "cloakroom:user:__Host-session:ada"]);
    clock.advance(Duration::from_secs(10 * 60));
    kept.get("/user").await.assert(200, "ada");
    let ttl: u64 = run_redis(&at, &["PTTL", "cloakroom:user:__Host-session:ada"])
        .parse()
        .unwrap();
    assert!(ttl > 35 * 60 * 1000, "the index would end after {ttl} ms");

    ended.get("/user").await.assert(200, "ada");
    let id = sessions.list_for("ada").await.unwrap()[0].id();
    run_redis(&at, &["DEL", &format!("cloakroom:session:{id}")]);
    assert_eq!(size(), "2");
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 1);
    assert_eq!(size(), "1");
}

#[tokio::test]
async fn a_touch_of_a_short_session_leaves_the_index_as_long_as_the_longest_session() {
    let server = Server::redis(&[]);
    let at = server.address();
    let (clock, app, sessions) = with_clock(&at).await;
    let (mut long, mut short) = (Browser::new(&app), Browser::new(&app));
    long.get("/remember/ada").await.assert(200, "done");
    short.get("/log_in/ada").await.assert(200, "done");
    let ttl = || -> u64 { run_redis(&at, &["PTTL", INDEX]).parse().unwrap() };
    let before = ttl();
    assert!(before > 13 * 24 * 60 * 60 * 1000, "{before} ms");
    clock.advance(Duration::from_secs(10 * 60));
    for path in ["/user", "/insert/theme/dark"] {
        short.get(path).await;
        assert!(before - ttl() < 60_000, "{} ms after {path}", ttl());
    }
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 2);
}

/// A session may get an external id again that it had before. On one server, a write does not renew
/// an entry that is there. So no reader may take the entry out in between.
#[tokio::test]
async fn an_old_entry_of_an_external_id_stays_while_its_session_is_there() {
    let server = Server::redis(&[]);
    let address = server.address();
    let store = RedisStore::connect(&format!("redis://{address}")).await;
    let store = store.unwrap();
    let name = async |session: Session, Path(id): Path<String>| session.set_external_id(&id);
    let app = routes()
        .route("/external/{id}", get(name))
        .layer(SessionLayer::new(store.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/external/a").await.assert(200, "");
    let index = run_redis(&address, &["KEYS", "*external:*"]);
    let id = id_of(&browser.token()).to_string();
    let score = || run_redis(&address, &["ZSCORE", index.trim(), &id]);
    let old = score().trim().parse::<f64>().unwrap() - 3600.0;
    run_redis(&address, &["ZADD", index.trim(), &old.to_string(), &id]);

    browser.get("/external/b").await.assert(200, "");
    let found = async |id| store.find_by_external_id(id).await.unwrap().len();
    assert_eq!((found("a").await, found("b").await), (0, 1));
    assert!(!score().trim().is_empty());
    browser.get("/external/a").await.assert(200, "");
    assert_eq!((found("a").await, found("b").await), (1, 0));
    browser.get("/log_out").await.assert(200, "done");
    assert_eq!(found("a").await, 0);
}
