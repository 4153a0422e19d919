//! The cost of a call in round trips to a server, or in statements.

use std::time::Duration;

use cloakroom::{MySqlStore, PostgresStore, SessionFilter, SessionStore, TestClock};
use sqlx::{MySqlPool, PgPool};
use support::servers::Server;
use support::stores::{Backend, Kind};
use support::{Browser, app, builder};

/// The round trips of a visitor, a read, a due touch, a write and a logout. The connections and
/// scripts are already there.
async fn round_trips(kind: Kind) -> [u64; 5] {
    let backend = Backend::start(kind);
    let clock = TestClock::new();
    let layer = builder(backend.store().await)
        .clock(clock.clone())
        .build()
        .unwrap();
    let app = app(layer);
    for _ in 0..2 {
        let mut warm = Browser::new(&app);
        warm.get("/log_in/ada").await.assert(200, "done");
        warm.get("/insert/theme/dark").await.assert(200, "done");
        clock.advance(Duration::from_secs(5 * 60));
        warm.get("/get/theme").await.assert(200, "dark");
        warm.get("/log_out").await.assert(200, "done");
    }
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    let mut counts = [0; 5];
    let mut visitor = Browser::new(&app);
    let before = backend.round_trips();
    visitor.get("/get/theme").await.assert(200, "nothing");
    counts[0] = backend.round_trips() - before;
    for (count, path, moves) in [
        (1, "/get/theme", 0),
        (2, "/get/theme", 5 * 60),
        (3, "/insert/theme/light", 0),
        (4, "/log_out", 0),
    ] {
        clock.advance(Duration::from_secs(moves));
        let before = backend.round_trips();
        assert_eq!(browser.get(path).await.status, 200);
        counts[count] = backend.round_trips() - before;
    }
    counts
}

#[tokio::test]
async fn redis_needs_one_round_trip_for_a_read_and_two_for_a_write_a_touch_or_a_logout() {
    assert_eq!(round_trips(Kind::Redis).await, [0, 1, 2, 2, 2]);
}

#[tokio::test]
async fn memcached_needs_one_round_trip_for_a_read_and_two_for_a_write_a_touch_or_a_logout() {
    assert_eq!(round_trips(Kind::Memcached).await, [0, 1, 2, 2, 2]);
}

#[tokio::test]
async fn redis_counts_many_sessions_in_a_round_trip() {
    let backend = Backend::start(Kind::Redis);
    let store = backend.store().await.session_catalog().unwrap();
    let layer = builder(store).build().unwrap();
    let sessions = layer.sessions();
    let app = app(layer);
    for _ in 0..300 {
        let mut visitor = Browser::new(&app);
        let reply = visitor.get("/insert/theme/dark").await;
        reply.assert(200, "done");
    }
    let before = backend.round_trips();
    assert_eq!(sessions.count(&SessionFilter::new()).await.unwrap(), 300);
    let needed = backend.round_trips() - before;
    assert!(needed <= 25, "{needed} round trips");
}

/// Does the same steps as `round_trips`. Returns the number of statements that the server saw at
/// each step.
async fn statements(store: impl SessionStore, seen: impl AsyncFn() -> u64) -> [u64; 5] {
    let clock = TestClock::new();
    let app = app(builder(store).clock(clock.clone()).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    let mut counts = [0; 5];
    let mut visitor = Browser::new(&app);
    let before = seen().await;
    visitor.get("/get/theme").await.assert(200, "nothing");
    counts[0] = seen().await - before;
    for (count, path, moves) in [
        (1, "/get/theme", 0),
        (2, "/get/theme", 5 * 60),
        (3, "/insert/theme/light", 0),
        (4, "/log_out", 0),
    ] {
        clock.advance(Duration::from_secs(moves));
        let before = seen().await;
        assert_eq!(browser.get(path).await.status, 200);
        counts[count] = seen().await - before;
    }
    counts
}

/// A PostgreSQL that logs all statements, and a store on it.
pub(super) async fn logging_postgres() -> (Server, PostgresStore) {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    for statement in [
        "ALTER SYSTEM SET log_statement = 'all'",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    // A connection takes the new configuration before its next statement.
    tokio::time::sleep(Duration::from_millis(500)).await;
    (server, store)
}

/// How many statements of stores the server has logged.
pub(super) fn seen_by_postgres(server: &Server) -> u64 {
    let log = server.log();
    let ours = log.lines().filter(|line| line.contains("LOG:  execute"));
    ours.filter(|line| line.contains("cloakroom_sessions"))
        .count() as u64
}

/// A MariaDB that logs all statements, a store on it, and connections to read the log with.
pub(super) async fn logging_mysql() -> (Server, MySqlStore, MySqlPool) {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let store = MySqlStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let pool = MySqlPool::connect(&url).await.unwrap();
    for statement in [
        "SET GLOBAL log_output = 'TABLE'",
        "SET GLOBAL general_log = 1",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    (server, store, pool)
}

/// How many statements of stores the server has logged.
pub(super) async fn seen_by_mysql(pool: &MySqlPool) -> u64 {
    let count = "SELECT count(*) FROM mysql.general_log
        WHERE command_type = 'Execute' AND argument LIKE '%`cloakroom_sessions`%' AND argument NOT LIKE '%general_log%'";
    let (count,): (i64,) = sqlx::query_as(count).fetch_one(pool).await.unwrap();
    count.unsigned_abs()
}

#[tokio::test]
async fn postgres_needs_one_statement_for_a_read_and_two_for_a_write_a_touch_or_a_logout() {
    let (server, store) = logging_postgres().await;
    let seen = async || seen_by_postgres(&server);
    assert_eq!(statements(store, seen).await, [0, 1, 2, 2, 2]);
}

#[tokio::test]
async fn mysql_needs_one_statement_for_a_read_and_two_for_a_write_a_touch_or_a_logout() {
    let (_server, store, log) = logging_mysql().await;
    let seen = async || seen_by_mysql(&log).await;
    assert_eq!(statements(store, seen).await, [0, 1, 2, 2, 2]);
}
