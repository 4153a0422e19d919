//! Several processes on one store, and a process that dies.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use cloakroom::{AnyStore, SessionLayer};
use support::stores::{Backend, Kind};
use support::{Browser, app, key};
use tokio::task::JoinSet;

/// What tells a process that it is the child of a test, and which one.
const CHILD: &str = "CLOAKROOM_TEST_CHILD";
const URL: &str = "CLOAKROOM_TEST_URL";
const COOKIE: &str = "CLOAKROOM_TEST_COOKIE";

/// A child that runs one test of this program again, as `name`.
fn child(test: &str, name: &str, url: &str, cookie: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, name)
        .env(URL, url)
        .env(COOKIE, cookie)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Two children count on one session, and each of their requests inserts a key of its own.
async fn two_processes_lose_nothing(test: &str, kind: Kind) {
    if let Ok(name) = std::env::var(CHILD) {
        return visit_32_times(&name).await;
    }
    let backend = Backend::start(kind);
    let app = app(SessionLayer::new(backend.store().await, key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await.assert(200, "done");
    let url = backend.url();
    let children = ["a", "b"].map(|name| child(test, name, &url, &browser.cookies()[0]));
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    browser.get("/get/visits").await.assert(200, "64");
    let keys = browser.get("/keys").await.body;
    let own = keys
        .split(',')
        .filter(|key| key.starts_with("a-") || key.starts_with("b-"));
    assert_eq!(own.count(), 64);
}

async fn visit_32_times(name: &str) {
    let variable = |name| std::env::var(name).unwrap();
    let store = AnyStore::open(&variable(URL)).await.unwrap();
    let browser = Browser::new(&app(SessionLayer::new(store, key())));
    let cookie = variable(COOKIE);
    let mut requests = JoinSet::new();
    for n in 0..32 {
        requests.spawn(browser.send(&format!("/visit/{name}-{n}"), &[("cookie", &cookie)]));
    }
    for reply in requests.join_all().await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

macro_rules! two_processes {
    ($($test:ident: $kind:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                two_processes_lose_nothing(stringify!($test), $kind).await;
            }
        )*
    };
}

two_processes! {
    two_processes_on_one_sqlite_file_lose_nothing: Kind::Sqlite;
    two_processes_on_postgres_lose_nothing: Kind::Postgres;
    two_processes_on_mysql_lose_nothing: Kind::MySql;
    two_processes_on_redis_lose_nothing: Kind::Redis;
    two_processes_on_redis_cluster_lose_nothing: Kind::RedisCluster;
    two_processes_on_redis_sentinel_lose_nothing: Kind::RedisSentinel;
    two_processes_on_memcached_lose_nothing: Kind::Memcached;
}

/// The child writes without end, and says what was answered. It is killed in the midst of it.
#[tokio::test]
async fn what_sqlite_answered_before_its_process_was_killed_is_there() {
    if std::env::var(CHILD).is_ok() {
        let store = AnyStore::open(&std::env::var(URL).unwrap()).await.unwrap();
        let browser = Browser::new(&app(SessionLayer::new(store, key())));
        let cookie = std::env::var(COOKIE).unwrap();
        for n in 0.. {
            let path = format!("/visit/key-{n}");
            let reply = browser.send(&path, &[("cookie", &cookie)]).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            println!("answered key-{n}");
        }
        return;
    }
    let backend = Backend::start(Kind::Sqlite);
    let app = app(SessionLayer::new(backend.store().await, key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await.assert(200, "done");
    let mut child = child(
        "what_sqlite_answered_before_its_process_was_killed_is_there",
        "writer",
        &backend.url(),
        &browser.cookies()[0],
    );
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = Vec::new();
    for line in lines.map_while(Result::ok) {
        answered.extend(line.strip_prefix("answered ").map(str::to_owned));
        if answered.len() == 100 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(answered.len() >= 100);
    let keys = browser.get("/keys").await.body;
    let keys: Vec<_> = keys.split(',').collect();
    for key in &answered {
        assert!(keys.contains(&&**key), "{key} was answered and is lost");
    }
}
