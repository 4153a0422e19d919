//! What the feed of the Redis store tells, and what it does when servers and connections fail.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::{Feed, Notice, RecordId, RedisStore, SessionFeed, SessionLayer, SessionStore};
use redis::aio::ConnectionManager;
use support::servers::{Proxy, RedisCluster, RedisSentinel, Server, run_redis};
use support::{Browser, app, key};
use tokio::time::timeout;

use super::redis::{Managed, open};
use crate::secrecy::logging::Log;

/// How long the feed may take. A failover takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// No pong comes in this time, and a feed that is silent has not noticed it yet.
const SOON: Duration = Duration::from_millis(500);

async fn next(feed: &mut Feed) -> Notice {
    let notice = timeout(PATIENCE, feed.next()).await;
    notice
        .expect("the feed tells nothing")
        .expect("the feed has ended")
}

/// What changed until the answer to a ping of now.
async fn changed(feed: &mut Feed) -> Vec<RecordId> {
    let ping = feed.ping();
    let mut changed = Vec::new();
    loop {
        match next(feed).await {
            Notice::Changed(id) => changed.push(id),
            Notice::Pong(number) if number == ping => return changed,
            // The answer to a ping that waited for the end of some trouble.
            Notice::Pong(number) if number < ping => {}
            other => panic!("{other:?} before {ping}"),
        }
    }
}

/// Waits for a gap. Until then, the feed answers no ping.
async fn gap(feed: &mut Feed) {
    loop {
        match next(feed).await {
            Notice::Gap => return,
            Notice::Changed(_) => {}
            Notice::Pong(number) => panic!("a pong {number} before the gap"),
        }
    }
}

/// Pings until there is a gap, for trouble that the feed notices only when it asks.
async fn gap_after_pings(feed: &mut Feed) {
    let pings = async {
        loop {
            feed.ping();
            match next(feed).await {
                Notice::Gap => return,
                // The nodes of a cluster take a while until they know of the trouble.
                Notice::Pong(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Notice::Changed(_) => {}
            }
        }
    };
    timeout(PATIENCE, pings).await.expect("no gap");
}

fn id(number: u8) -> RecordId {
    RecordId::from_bytes([number; 16])
}

fn key_of(id: RecordId) -> String {
    format!("cloakroom:session:{id}")
}

/// Writes to this record's key, over a new connection.
#[track_caller]
fn write(address: &str, id: RecordId) {
    assert_eq!(run_redis(address, &["SET", &key_of(id), "x"]), "OK");
}

/// The feed still tells what happens after this.
async fn assert_works(feed: &mut Feed, address: &str) {
    changed(feed).await;
    write(address, id(77));
    assert_eq!(changed(feed).await, [id(77)]);
}

async fn at(address: &str) -> (RedisStore, Feed) {
    let store = open(&format!("redis://{address}")).await;
    let feed = store.subscribe().await.unwrap();
    (store, feed)
}

/// The ids of the connections that the server names keys to.
fn feeds_at(address: &str) -> Vec<String> {
    let clients = run_redis(address, &["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
        fields.find_map(|(found, value)| (found == name).then(|| value.to_owned()))
    };
    let listens = |line: &&str| field(line, "flags").is_some_and(|flags| flags.contains('B'));
    let feeds = clients.lines().filter(listens);
    feeds.filter_map(|line| field(line, "id")).collect()
}

#[tokio::test]
async fn what_others_do_to_sessions_is_told() {
    let server = Server::redis(&[]);
    let (store, mut feed) = at(&server.address()).await;

    // An application on another node.
    let other = open(&format!("redis://{}", server.address())).await;
    let mut browser = Browser::new(&app(SessionLayer::new(other.clone(), key())));
    browser.get("/log_in/ada").await.assert(200, "done");
    let told = changed(&mut feed).await;
    let key = run_redis(&server.address(), &["KEYS", "cloakroom:session:*"]);
    let session: RecordId = key.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(told, [session]);
    browser.get("/insert/theme/dark").await.assert(200, "done");
    assert_eq!(changed(&mut feed).await, [session]);
    // A read changes nothing.
    browser.get("/user").await.assert(200, "ada");
    assert!(store.load(session).await.unwrap().is_some());
    assert_eq!(changed(&mut feed).await, []);
    assert!(other.remove(session).await.unwrap());
    assert_eq!(changed(&mut feed).await, [session]);

    // An operator.
    write(&server.address(), id(1));
    assert_eq!(changed(&mut feed).await, [id(1)]);
    run_redis(&server.address(), &["DEL", &key_of(id(1))]);
    assert_eq!(changed(&mut feed).await, [id(1)]);
}

#[tokio::test]
async fn an_expiry_is_told() {
    let server = Server::redis(&[]);
    let (_store, mut feed) = at(&server.address()).await;
    let set = ["SET", &key_of(id(1)), "x", "PX", "100"];
    run_redis(&server.address(), &set);
    // Nobody asks for the key in between.
    for _ in 0..2 {
        assert_eq!(next(&mut feed).await, Notice::Changed(id(1)));
    }
}

#[tokio::test]
async fn a_flush_is_a_gap() {
    let server = Server::redis(&[]);
    let (_store, mut feed) = at(&server.address()).await;
    for flush in ["FLUSHALL", "FLUSHDB"] {
        write(&server.address(), id(1));
        assert_eq!(changed(&mut feed).await, [id(1)]);
        assert_eq!(run_redis(&server.address(), &[flush]), "OK");
        assert_eq!(next(&mut feed).await, Notice::Gap);
        assert_works(&mut feed, &server.address()).await;
    }
    assert_eq!(feeds_at(&server.address()).len(), 1);
}

/// A pong comes after all that was answered before its ping, whatever else the server has to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_waits_for_all_changes_while_others_write() {
    let server = Server::redis(&[]);
    let (store, mut feed) = at(&server.address()).await;
    let others: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    store.remove(id(100 + number)).await.unwrap();
                }
            })
        })
        .collect();
    for round in 0..500 {
        let id = id(round as u8 % 50);
        write(&server.address(), id);
        assert!(changed(&mut feed).await.contains(&id), "round {round}");
    }
    others.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_prefix_that_another_begins_with_tells_only_its_own() {
    let (log, _guard) = Log::start();
    let server = Server::redis(&[]);
    let store = open(&format!("redis://{}", server.address())).await;
    let mut feeds = Vec::new();
    for prefix in ["a:", "a:b:", "a:session:", "a"] {
        let store = store.clone().with_prefix(prefix);
        feeds.push((prefix, store.subscribe().await.unwrap()));
    }
    let write = |prefix: &str, number| {
        let key = format!("{prefix}session:{}", id(number));
        run_redis(&server.address(), &["SET", &key, "x"]);
    };
    for (prefix, number) in [("a:", 1), ("a:b:", 2), ("a:session:", 3), ("a", 4)] {
        write(prefix, number);
    }
    // What is not a session, under a session's key.
    run_redis(&server.address(), &["SET", "a:session:", "x"]);
    run_redis(&server.address(), &["SET", "a:session:\u{e9}", "x"]);
    log.take();
    for (number, (prefix, feed)) in (1..).zip(&mut feeds) {
        assert_eq!(changed(feed).await, [id(number)], "{prefix}");
    }
    // The keys of the third store begin as the keys of the first one do.
    let ignored = log.assert("DEBUG", "feed_ignored");
    let counts = ignored.lines().filter_map(|line| {
        let (_, rest) = line.split_once("event=\"feed_ignored\" store=\"redis\" count=")?;
        rest.split(' ').next()?.parse::<u64>().ok()
    });
    assert_eq!(counts.sum::<u64>(), 3, "{ignored}");
}

#[tokio::test]
async fn a_server_that_starts_again_is_a_gap() {
    let (log, _guard) = Log::start();
    let mut server = Server::redis(&[]);
    let (_store, mut feed) = at(&server.address()).await;
    assert_works(&mut feed, &server.address()).await;
    server.kill();
    let ping = feed.ping();
    assert!(timeout(SOON, feed.next()).await.is_err());
    log.assert("WARN", "feed_lost");
    server.start();
    gap(&mut feed).await;
    // The ping of before has its answer now.
    assert_eq!(next(&mut feed).await, Notice::Pong(ping));
    assert_works(&mut feed, &server.address()).await;
    let after = log.assert("INFO", "feed_restored");
    assert!(!after.contains("event=\"feed_lost\""), "{after}");
}

#[tokio::test]
async fn a_silent_network_ends_the_pongs() {
    let (log, _guard) = Log::start();
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let (_store, mut feed) = at(&proxy.address()).await;
    changed(&mut feed).await;
    proxy.mute();
    proxy.refuse(true);
    write(&server.address(), id(1));
    let since = Instant::now();
    feed.ping();
    // The write was lost, so no pong may come.
    assert!(
        timeout(4 * Duration::from_secs(1), feed.next())
            .await
            .is_err()
    );
    log.assert("WARN", "feed_lost");
    proxy.refuse(false);
    gap(&mut feed).await;
    assert!(since.elapsed() > Duration::from_secs(2));
    assert_works(&mut feed, &server.address()).await;
    log.assert("INFO", "feed_restored");
}

/// Nobody pings, and nobody uses the store.
#[tokio::test]
async fn a_silent_network_is_noticed_without_a_ping() {
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let (_store, mut feed) = at(&proxy.address()).await;
    proxy.mute();
    gap(&mut feed).await;
    assert_works(&mut feed, &server.address()).await;
}

/// Only the feed's connection ends, or only the store's.
#[tokio::test]
async fn one_connection_that_ends_is_a_gap() {
    let server = Server::redis(&[]);
    let address = server.address();
    let (store, mut feed) = at(&address).await;
    let [before] = feeds_at(&address).try_into().unwrap();
    run_redis(&address, &["CLIENT", "KILL", "ID", &before]);
    gap(&mut feed).await;
    let [feeds] = feeds_at(&address).try_into().unwrap();
    assert_ne!(feeds, before);
    assert_works(&mut feed, &address).await;

    let clients = run_redis(&address, &["CLIENT", "LIST"]);
    let id_of = |line: &str| line.split(['=', ' ']).nth(1).unwrap().to_owned();
    let others = clients.lines().map(id_of).filter(|id| *id != feeds);
    for other in others {
        run_redis(&address, &["CLIENT", "KILL", "ID", &other]);
    }
    gap(&mut feed).await;
    assert_works(&mut feed, &address).await;
    store.load(id(1)).await.unwrap();
}

/// The feed ends with its connections: when it works, and while it looks for the server.
#[tokio::test]
async fn a_feed_that_is_dropped_leaves_no_connection() {
    let server = Server::redis(&[]);
    let proxy = Proxy::to(&server.address());
    let (store, mut feed) = at(&proxy.address()).await;
    changed(&mut feed).await;
    let ends = async |feed: Feed| {
        drop(feed);
        let since = Instant::now();
        while !feeds_at(&server.address()).is_empty() {
            assert!(since.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let second = store.subscribe().await.unwrap();
    assert_eq!(feeds_at(&server.address()).len(), 2);
    drop(second);
    ends(feed).await;

    let feed = store.subscribe().await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    tokio::time::sleep(SOON).await;
    drop(feed);
    tokio::time::sleep(Duration::from_millis(50)).await;
    proxy.refuse(false);
    let connections = proxy.connections();
    store.load(id(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The store connected again, and nobody else.
    assert_eq!(proxy.connections(), connections + 1);
    assert_eq!(feeds_at(&server.address()).len(), 0);
}

#[tokio::test]
async fn a_feed_ends_with_its_store() {
    let server = Server::redis(&[]);
    let (store, mut feed) = at(&server.address()).await;
    changed(&mut feed).await;
    drop(store);
    assert_eq!(timeout(PATIENCE, feed.next()).await.unwrap(), None);
    let since = Instant::now();
    while !feeds_at(&server.address()).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One address leads to another server. The old one stays and becomes a replica. Nobody uses the
/// store, so only the feed can notice.
#[tokio::test]
async fn a_feed_follows_a_failover_behind_one_address() {
    let managed = Managed::start();
    let store = open(&managed.url()).await;
    let mut feed = store.subscribe().await.unwrap();
    changed(&mut feed).await;
    managed.fail_over();
    write(&managed.replica.address(), id(1));
    gap_after_pings(&mut feed).await;
    assert_works(&mut feed, &managed.replica.address()).await;
    assert_eq!(feeds_at(&managed.master.address()).len(), 0);
}

/// The feed's connection ends and the store's stays, at a server that the address leads away from.
#[tokio::test]
async fn a_feed_is_at_the_server_that_the_store_uses() {
    let managed = Managed::start();
    let store = open(&managed.url()).await;
    let mut feed = store.subscribe().await.unwrap();
    managed.fail_over_from(&[]);
    let [of_feed] = feeds_at(&managed.master.address()).try_into().unwrap();
    run_redis(
        &managed.master.address(),
        &["CLIENT", "KILL", "ID", &of_feed],
    );
    gap(&mut feed).await;
    assert_works(&mut feed, &managed.replica.address()).await;
    // The store has left the old server too.
    store.remove(id(77)).await.unwrap();
    assert_eq!(changed(&mut feed).await, [id(77)]);
}

#[tokio::test]
async fn a_feed_follows_the_master_that_sentinel_names() {
    let mut sentinel = RedisSentinel::start();
    let url = format!(
        "redis+sentinel://{}/cloakroom",
        sentinel.sentinels().join(",")
    );
    let store = open(&url).await;
    let mut feed = store.subscribe().await.unwrap();
    changed(&mut feed).await;
    let [_, replica] = sentinel.nodes().map(Server::address);
    // It hangs: its connections stay open.
    sentinel.master().pause();
    feed.ping();
    gap(&mut feed).await;
    changed(&mut feed).await;
    write(&replica, id(1));
    assert_eq!(changed(&mut feed).await, [id(1)]);
    sentinel.master().resume();
}

/// A cluster, and which of its nodes owns a key. All parts of it are the same for each test.
struct Slots {
    cluster: RedisCluster,
}

impl Slots {
    fn start() -> (Self, String) {
        let cluster = RedisCluster::start();
        let url = format!("redis+cluster://{}", cluster.addresses().join(","));
        (Self { cluster }, url)
    }

    fn slot(&self, id: RecordId) -> String {
        let node = self.cluster.nodes()[1].address();
        run_redis(&node, &["CLUSTER", "KEYSLOT", &key_of(id)])
    }

    /// A record whose key is at this master.
    fn id_at(&self, master: u16) -> RecordId {
        let is_there = |id: &RecordId| {
            let slot: u16 = self.slot(*id).parse().unwrap();
            (slot / 5461).min(2) == master
        };
        (0..255).map(id).find(is_there).unwrap()
    }

    /// Writes at this node, as soon as it takes the write.
    async fn write(&self, node: &Server, id: RecordId) {
        let since = Instant::now();
        loop {
            match &*run_redis(&node.address(), &["SET", &key_of(id), "x"]) {
                "OK" => return,
                answer => assert!(since.elapsed() < PATIENCE, "{answer}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn every_master_of_a_cluster_tells_and_a_replica_that_takes_over() {
    let (mut slots, url) = Slots::start();
    let store = open(&url).await;
    let mut feed = store.subscribe().await.unwrap();
    for master in 0..3 {
        let id = slots.id_at(master);
        write(&slots.cluster.nodes()[usize::from(master)].address(), id);
        assert_eq!(changed(&mut feed).await, [id]);
    }
    // A flush of one node.
    run_redis(&slots.cluster.nodes()[1].address(), &["FLUSHALL"]);
    assert_eq!(next(&mut feed).await, Notice::Gap);
    changed(&mut feed).await;

    let id = slots.id_at(0);
    slots.cluster.master_with_replica().kill();
    slots.write(slots.cluster.nodes()[3], id).await;
    feed.ping();
    gap(&mut feed).await;
    changed(&mut feed).await;
    slots.write(slots.cluster.nodes()[3], id).await;
    assert_eq!(changed(&mut feed).await, [id]);
}

/// A master that the other nodes cannot reach still takes writes for a while, and so does its
/// replica, which takes over. So the feed must not trust the old master.
#[tokio::test]
async fn an_old_master_of_a_cluster_ends_the_pongs() {
    let (slots, url) = Slots::start();
    let store = open(&url).await;
    let mut feed = store.subscribe().await.unwrap();
    changed(&mut feed).await;
    let id = slots.id_at(0);
    let replica = slots.cluster.nodes()[3];
    run_redis(&replica.address(), &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    slots.write(replica, id).await;
    gap_after_pings(&mut feed).await;
    changed(&mut feed).await;
    slots.write(replica, id).await;
    assert_eq!(changed(&mut feed).await, [id]);
}

#[tokio::test]
async fn slots_that_move_and_a_node_that_joins_lose_nothing() {
    let (slots, url) = Slots::start();
    let store = open(&url).await;
    let mut feed = store.subscribe().await.unwrap();
    let (id, slot) = (slots.id_at(0), slots.slot(slots.id_at(0)));
    let give = |to: &Server| {
        let node = run_redis(&to.address(), &["CLUSTER", "MYID"]);
        let [first, second, third, _] = slots.cluster.nodes();
        for owner in [to, first, second, third] {
            let set = ["CLUSTER", "SETSLOT", &*slot, "NODE", &*node];
            assert_eq!(run_redis(&owner.address(), &set), "OK");
        }
    };
    let second = slots.cluster.nodes()[1];
    give(second);
    slots.write(second, id).await;
    // The subscription is at both masters.
    assert_eq!(changed(&mut feed).await, [id]);

    let joined = Server::redis(&["--cluster-enabled", "yes"]);
    let port = joined.port().to_string();
    run_redis(&second.address(), &["CLUSTER", "MEET", "127.0.0.1", &port]);
    gap_after_pings(&mut feed).await;
    run_redis(&second.address(), &["DEL", &key_of(id)]);
    give(&joined);
    slots.write(&joined, id).await;
    assert_eq!(changed(&mut feed).await.last(), Some(&id));
    slots.write(&joined, id).await;
    assert_eq!(changed(&mut feed).await, [id]);
}

#[tokio::test]
async fn a_silent_node_of_a_cluster_ends_the_pongs() {
    let (slots, url) = Slots::start();
    let store = open(&url).await;
    let mut feed = store.subscribe().await.unwrap();
    changed(&mut feed).await;
    slots.cluster.proxies()[1].mute();
    feed.ping();
    gap(&mut feed).await;
    let id = slots.id_at(1);
    changed(&mut feed).await;
    slots.write(slots.cluster.nodes()[1], id).await;
    assert_eq!(changed(&mut feed).await, [id]);
    drop(feed);
    let since = Instant::now();
    for node in slots.cluster.nodes() {
        while !feeds_at(&node.address()).is_empty() {
            assert!(since.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_user_needs_few_rights_for_a_feed() {
    let server = Server::redis(&[]);
    let address = server.address();
    let rights = ["+@all", "-@admin", "-@dangerous"];
    let user = |name: &str, more: &[&str]| {
        let user = ["ACL", "SETUSER", name, "on", ">secret", "~cloakroom:*"];
        let answer = run_redis(&address, &[&user[..], &rights, more].concat());
        assert_eq!(answer, "OK");
        format!("redis://{name}:secret@{address}")
    };
    let store = open(&user("app", &[])).await;
    let mut feed = store.subscribe().await.unwrap();
    assert_works(&mut feed, &address).await;

    let store = open(&user("less", &["-client|tracking"])).await;
    let error = store.subscribe().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("client|tracking"), "{error} {cause}");
    assert_eq!(feeds_at(&address).len(), 1);
}

#[tokio::test]
async fn an_applications_own_connection_has_no_feed() {
    let server = Server::redis(&[]);
    let client = redis::Client::open(format!("redis://{}", server.address())).unwrap();
    let connection = ConnectionManager::new(client).await.unwrap();
    let store = RedisStore::from_connection(connection);
    assert!(store.session_feed().is_none());
    let error = store.subscribe().await.unwrap_err().to_string();
    assert!(error.contains("`RedisStore::connect`"), "{error}");

    let (store, _feed) = at(&server.address()).await;
    assert!(store.session_feed().is_some());
}

/// A server with these answers to commands in capitals. Its threads end with the connections.
fn fake(answer: impl Fn(&str, u16) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                serve(stream.unwrap(), |command| answer(command, address.port()));
            });
        }
    });
    address.to_string()
}

fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(command) = read_command(&mut reader) {
        let answer = answer(&command.join(" ").to_uppercase());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Redis 5, alone or as the only node of a cluster.
fn as_redis_5(command: &str, port: u16) -> String {
    match command {
        "PING" => "+PONG\r\n".to_owned(),
        "INFO SERVER" => bulk("# Server\r\nredis_version:5.0.14\r\n"),
        "CLUSTER SLOTS" => {
            let (host, id) = (bulk("127.0.0.1"), bulk(&"a".repeat(40)));
            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n{host}:{port}\r\n{id}")
        }
        _ => {
            let name = command.split(' ').next().unwrap();
            format!("-ERR unknown command `{name}`, with args beginning with: \r\n")
        }
    }
}

fn read_command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    fn number(reader: &mut impl BufRead) -> Option<usize> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse().ok()
    }
    let count = number(reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named_with_its_version() {
    let address = fake(as_redis_5);
    let error = RedisStore::connect(&format!("redis://{address}")).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("5.0.14") && error.contains("needs Redis 7"),
        "{error}"
    );

    let store = open(&format!("redis+cluster://{address}")).await;
    let error = store.subscribe().await.unwrap_err().to_string();
    assert!(
        error.contains("5.0.14") && error.contains("needs Redis 7"),
        "{error}"
    );
}

/// A server with I/O threads may answer a write and the feed's next question before it names the
/// key. It names the key before it reads one more question.
#[tokio::test]
async fn a_pong_comes_after_what_the_server_names_late() {
    let asked = AtomicU8::new(0);
    let address = fake(move |command, _| match command {
        "HELLO 3" => {
            asked.fetch_add(1, Ordering::SeqCst);
            let proto = format!("{}:3\r\n", bulk("proto"));
            format!("%2\r\n{proto}{}{}", bulk("role"), bulk("master"))
        }
        "PING" => {
            let key = bulk(&key_of(id(asked.load(Ordering::SeqCst))));
            format!(">2\r\n{}*1\r\n{key}+PONG\r\n", bulk("invalidate"))
        }
        "INFO SERVER" => bulk("run_id:1"),
        _ => "+OK\r\n".to_owned(),
    });
    let (_store, mut feed) = at(&address).await;
    // The store said hello, and then the feed: to connect, to subscribe, and for the ping.
    assert_eq!(changed(&mut feed).await, [id(3), id(4)]);
}
