//! Several processes on one store, and a process that dies.

use std::io::{BufRead, BufReader};
use std::process::Child;

use cloakroom::SessionLayer;
use support::processes::{child, child_name, store_of_parent};
use support::stores::{Backend, Kind};
use support::{Browser, app, key};
use tokio::task::JoinSet;

const COOKIE: &str = "CLOAKROOM_TEST_COOKIE";

/// Starts a child that uses this browser's session.
fn start(test: &str, name: &str, url: &str, browser: &Browser) -> Child {
    let mut child = child(module_path!(), test, name, url);
    child.env(COOKIE, &browser.cookies()[0]).spawn().unwrap()
}

/// Runs in a child: an application on the same store, and a browser with the session's cookie.
async fn in_child() -> (Browser, String) {
    let browser = Browser::new(&app(SessionLayer::new(store_of_parent().await, key())));
    (browser, std::env::var(COOKIE).unwrap())
}

/// Two children count on one session. Each of their requests also inserts its own key.
async fn two_processes_lose_nothing(test: &str, kind: Kind) {
    if let Some(name) = child_name() {
        return visit_32_times(&name).await;
    }
    let backend = Backend::start(kind);
    let app = app(SessionLayer::new(backend.store().await, key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await.assert(200, "done");
    let url = backend.url();
    let children = ["a", "b"].map(|name| start(test, name, &url, &browser));
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
    let (browser, cookie) = in_child().await;
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
    two_processes_on_dynamodb_lose_nothing: Kind::DynamoDb;
}

/// The child writes without end, and prints each answer. The test kills the child while it writes.
#[tokio::test]
async fn what_sqlite_answered_before_its_process_was_killed_is_there() {
    if child_name().is_some() {
        let (browser, cookie) = in_child().await;
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
    let mut child = start(
        "what_sqlite_answered_before_its_process_was_killed_is_there",
        "writer",
        &backend.url(),
        &browser,
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
