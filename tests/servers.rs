//! What is the networked stores' own: round trips, wrong configuration, foreign bytes, purge.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    AnyStore, MemcachedStore, MemoryStore, MySqlStore, PostgresStore, RecordId, RedisStore,
    SessionLayer, SessionStore, Sessions, SqliteStore, StoreError, TestClock,
};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{MySqlPool, PgPool};
use support::servers::{RedisCluster, Server, run_redis};
use support::stores::{Backend, Kind};
use support::{Browser, app, builder, key};

/// Round trips of a visitor, a read, a due touch, a write, and a logout, once the connections and scripts are there.
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

/// Does what `round_trips` counts, and gives the statements that the server saw at each step.
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

#[tokio::test]
async fn postgres_needs_one_statement_for_a_read_and_two_for_a_write_a_touch_or_a_logout() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    for statement in [
        "ALTER SYSTEM SET log_statement = 'all'",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    // Connections take a new configuration at their next statement.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = async || {
        let log = server.log();
        let ours = log.lines().filter(|line| line.contains("LOG:  execute"));
        ours.filter(|line| line.contains("cloakroom_sessions"))
            .count() as u64
    };
    assert_eq!(statements(store, seen).await, [0, 1, 2, 2, 2]);
}

#[tokio::test]
async fn mysql_needs_one_statement_for_a_read_and_two_for_a_write_a_touch_or_a_logout() {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let store = MySqlStore::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    let pool = MySqlPool::connect(&url).await.unwrap();
    for statement in [
        "SET GLOBAL log_output = 'TABLE'",
        "SET GLOBAL general_log = 1",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let seen = async || {
        let count = "SELECT count(*) FROM mysql.general_log
            WHERE command_type = 'Execute' AND argument LIKE '%`cloakroom_sessions`%' AND argument NOT LIKE '%general_log%'";
        let (count,): (i64,) = sqlx::query_as(count).fetch_one(&pool).await.unwrap();
        count.unsigned_abs()
    };
    assert_eq!(statements(store, seen).await, [0, 1, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_purge_task_goes_on_after_an_error_and_ends_when_it_is_stopped() {
    let spy = FaultyStore::new(MemoryStore::new());
    let sessions = builder(spy.clone()).build().unwrap().sessions();
    let minute = Duration::from_secs(60);
    spy.fail(Fault::Refused);
    let purge = sessions.spawn_purge(minute);
    tokio::time::sleep(minute / 2).await;
    assert_eq!(spy.take_calls(), [StoreCall::PurgeExpired]);
    tokio::time::sleep(minute).await;
    assert_eq!(spy.take_calls(), [StoreCall::PurgeExpired]);
    spy.recover();
    tokio::time::sleep(minute * 3).await;
    assert_eq!(spy.take_calls(), [StoreCall::PurgeExpired; 3]);
    purge.stop().await;
    tokio::time::sleep(minute * 3).await;
    assert!(spy.take_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_hangs_can_be_stopped() {
    let spy = FaultyStore::new(MemoryStore::new());
    spy.fail(Fault::Hangs);
    let sessions = builder(spy.clone()).build().unwrap().sessions();
    let purge = sessions.spawn_purge(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(spy.take_calls(), [StoreCall::PurgeExpired]);
    purge.stop().await;
}

/// `a`, caused by `b`, caused by `c`.
fn whole(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(", caused by {cause}");
        source = cause.source();
    }
    text
}

/// Opening fails, and the error names what is wrong, but not the password.
async fn assert_not_opened(url: &str, names: &[&str]) {
    let error = AnyStore::open(url).await.unwrap_err();
    let text = whole(&error);
    for name in names {
        assert!(text.contains(name), "{text:?} does not name {name:?}");
    }
    for secret in ["wrong-password", "secret"] {
        assert!(!text.contains(secret), "{text}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

/// An address where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn a_wrong_postgres_password_database_or_host_is_an_error_when_opening() {
    let server = Server::postgres();
    let at = server.address();
    let url = format!("postgres://cloakroom:wrong-password@{at}/cloakroom");
    assert_not_opened(&url, &[&at, "\"cloakroom\"", "password"]).await;
    let url = format!("postgres://cloakroom:secret@{at}/missing");
    assert_not_opened(&url, &[&at, "\"missing\""]).await;
    let url = format!("postgres://cloakroom:secret@{NOWHERE}/cloakroom");
    assert_not_opened(&url, &[NOWHERE, "refused"]).await;
    let url = "postgres://cloakroom:secret@no-such-host.invalid/cloakroom";
    assert_not_opened(url, &["no-such-host.invalid"]).await;
}

#[tokio::test]
async fn a_wrong_mysql_password_database_or_host_is_an_error_when_opening() {
    let server = Server::mariadb();
    let at = server.address();
    let url = format!("mysql://cloakroom:wrong-password@{at}/cloakroom");
    assert_not_opened(&url, &[&at, "\"cloakroom\"", "denied"]).await;
    let url = format!("mysql://cloakroom:secret@{at}/missing");
    assert_not_opened(&url, &[&at, "\"missing\""]).await;
    let url = format!("mysql://cloakroom:secret@{NOWHERE}/cloakroom");
    assert_not_opened(&url, &[NOWHERE, "refused"]).await;
    let url = "mysql://cloakroom:secret@no-such-host.invalid/cloakroom";
    assert_not_opened(url, &["no-such-host.invalid"]).await;
}

#[tokio::test]
async fn a_wrong_redis_password_database_or_host_is_an_error_when_opening() {
    let server = Server::redis(&["--requirepass", "secret"]);
    let at = server.address();
    let url = format!("redis://:wrong-password@{at}");
    assert_not_opened(&url, &[&at, "assword"]).await;
    let url = format!("redis://:secret@{at}/99");
    assert_not_opened(&url, &[&at, "DB index is out of range"]).await;
    assert_not_opened(&format!("redis://{NOWHERE}"), &[NOWHERE, "refused"]).await;
    assert_not_opened("redis://no-such-host.invalid", &["no-such-host.invalid"]).await;
    assert_not_opened(&format!("redis+cluster://{NOWHERE}"), &[NOWHERE]).await;
    let url = format!("redis+sentinel://{NOWHERE}/master");
    assert_not_opened(&url, &[NOWHERE]).await;
    assert_not_opened(
        &format!("redis+sentinel://{NOWHERE}"),
        &["name of the master"],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_memcached_host_is_an_error_when_opening() {
    assert_not_opened(&format!("memcache://{NOWHERE}"), &[NOWHERE, "refused"]).await;
    assert_not_opened("memcache://no-such-host.invalid", &["no-such-host.invalid"]).await;
    assert_not_opened("memcache://", &["memcache://host:port"]).await;
}

#[tokio::test]
async fn a_url_that_no_store_has_is_an_error_that_names_the_schemes() {
    assert_not_opened(
        "mongodb://localhost",
        &["\"mongodb\"", "postgres:", "memcache:"],
    )
    .await;
    assert_not_opened("sessions.sqlite3", &["no scheme", "sqlite:"]).await;
    assert_not_opened("secret@localhost:6379", &["no scheme"]).await;
    assert_not_opened("//localhost/?password=secret&a=b:c", &["no scheme"]).await;
    assert_not_opened("sqlite:", &["sqlite:path"]).await;
    assert_not_opened("sqlite://app.db?mode=rwc", &["question mark"]).await;
    assert_not_opened("memory:1000", &["`memory:`"]).await;
}

#[tokio::test]
async fn a_login_in_the_place_of_the_database_is_refused_and_not_shown() {
    for scheme in ["postgres", "postgresql", "mysql", "mariadb"] {
        for rest in [
            "cloakroom:secret@host/database",
            "/cloakroom:secret@host/database",
            "///cloakroom:secret@host/database",
            "//cloakroom:12/secret@host/database",
            "//cloakroom:?secret@host/database",
            "//cloakroom:12?a=b&secret@host/database=c",
            "cloakroom:secret@host://database",
        ] {
            assert_not_opened(&format!("{scheme}:{rest}"), &["://user:password@host"]).await;
        }
    }
}

#[tokio::test]
async fn a_url_opens_the_store_of_its_scheme() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sessions.sqlite3");
    for url in [
        "memory:",
        "sqlite::memory:",
        &format!("sqlite:{}", file.display()),
    ] {
        let mut browser = Browser::new(&app(SessionLayer::new(
            AnyStore::open(url).await.unwrap(),
            key(),
        )));
        browser.get("/insert/theme/dark").await.assert(200, "done");
        browser.get("/get/theme").await.assert(200, "dark");
    }
    assert!(file.exists());
}

const SOME_ID: RecordId = RecordId::from_bytes([7; 16]);

#[tokio::test]
async fn without_a_migration_the_first_use_of_a_sql_store_says_so() {
    let (postgres, mariadb) = (Server::postgres(), Server::mariadb());
    let url = format!(
        "postgres://cloakroom:secret@{}/cloakroom",
        postgres.address()
    );
    let store = PostgresStore::open(&url).await.unwrap();
    let text = whole(&store.load(SOME_ID).await.unwrap_err());
    assert!(text.contains("PostgresStore::migrate"), "{text}");
    store.migrate().await.unwrap();
    assert!(store.load(SOME_ID).await.unwrap().is_none());

    let url = format!("mysql://cloakroom:secret@{}/cloakroom", mariadb.address());
    let store = MySqlStore::open(&url).await.unwrap();
    let text = whole(&store.load(SOME_ID).await.unwrap_err());
    assert!(text.contains("MySqlStore::migrate"), "{text}");
    store.migrate().await.unwrap();
    assert!(store.load(SOME_ID).await.unwrap().is_none());
}

#[tokio::test]
async fn tables_and_schemas_can_have_any_name() {
    let name = "my \"sessions\" `of` today's?";
    let (postgres, mariadb) = (Server::postgres(), Server::mariadb());
    let url = format!(
        "postgres://cloakroom:secret@{}/cloakroom",
        postgres.address()
    );
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::query("CREATE SCHEMA \"auth\"")
        .execute(&pool)
        .await
        .unwrap();
    let store = PostgresStore::new(pool)
        .with_table(name)
        .and_then(|store| store.with_schema("auth"))
        .unwrap();
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    works_and_purges(store).await;

    let url = format!("mysql://cloakroom:secret@{}/cloakroom", mariadb.address());
    // A pool of one connection must do for a purge, too.
    let pool = sqlx::mysql::MySqlPoolOptions::new()
        .max_connections(1)
        .connect(&url)
        .await
        .unwrap();
    sqlx::query("CREATE SCHEMA auth")
        .execute(&pool)
        .await
        .unwrap();
    let store = MySqlStore::new(pool)
        .with_table(name)
        .and_then(|store| store.with_schema("auth"))
        .unwrap();
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    works_and_purges(store).await;

    // A connection without a database of its own.
    let url = format!("mysql://cloakroom:secret@{}", mariadb.address());
    let store = MySqlStore::open(&url)
        .await
        .unwrap()
        .with_schema("auth")
        .unwrap();
    store.migrate().await.unwrap();
    works_and_purges(store).await;

    let store = SqliteStore::open(":memory:")
        .await
        .unwrap()
        .with_table(name)
        .unwrap();
    store.migrate().await.unwrap();
    works_and_purges(store).await;
}

async fn works_and_purges<S: SessionStore>(store: S) {
    let clock = TestClock::new();
    let layer = builder(store).clock(clock.clone()).build().unwrap();
    let sessions = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/user").await.assert(200, "ada");
    clock.advance(Duration::from_secs(41 * 60));
    assert_eq!(sessions.purge_expired().await.unwrap(), 1);
}

/// A server that went away in silence must not keep the pool's places.
async fn assert_dropped_calls_are_closed<S: SessionStore>(
    server: Server,
    store: S,
    connections: impl Fn() -> (u32, usize),
) {
    // All of the pool, and those of them that are idle.
    let are = async |expected| {
        let begin = Instant::now();
        while connections() != expected {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{:?}",
                connections()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };

    let layer = builder(store)
        .store_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/insert/theme/dark").await.assert(200, "done");
    are((1, 1)).await;
    server.pause();
    browser.get("/get/theme").await.assert(503, "");
    are((0, 0)).await;
    server.resume();
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_postgres_connection_whose_call_was_dropped_is_closed() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let options = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool = options.connect(&url).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    assert_dropped_calls_are_closed(server, store, || (pool.size(), pool.num_idle())).await;
}

#[tokio::test]
async fn a_mysql_connection_whose_call_was_dropped_is_closed() {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let options = sqlx::mysql::MySqlPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool = options.connect(&url).await.unwrap();
    let store = MySqlStore::new(pool.clone());
    store.migrate().await.unwrap();
    assert_dropped_calls_are_closed(server, store, || (pool.size(), pool.num_idle())).await;
}

/// The store has several connections open when the server ends them all.
async fn assert_ended_connections_cost_one_call<S: SessionStore + Clone>(
    store: S,
    count: impl AsyncFn() -> usize,
    end_all: impl AsyncFnOnce(),
) {
    let id = RecordId::from_bytes([7; 16]);
    // Calls that are answered quickly enough find the first connection free again.
    while count().await < 2 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let store = store.clone();
            calls.spawn(async move { store.load(id).await.unwrap() });
        }
        calls.join_all().await;
    }
    end_all().await;
    let mut failed = 0;
    for _ in 0..32 {
        failed += u32::from(store.load(id).await.is_err());
    }
    assert_eq!(failed, 1);
}

#[tokio::test]
async fn when_postgres_ends_all_connections_one_call_fails() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    // A single connection, or the others of its pool would be taken for the store's.
    let other = PgPoolOptions::new().max_connections(1);
    let other = other.connect(&url).await.unwrap();
    let all = "pg_stat_activity WHERE usename = 'cloakroom' AND pid <> pg_backend_pid()";
    let select = async |what: &str| {
        let select = sqlx::AssertSqlSafe(format!("SELECT {what} FROM {all}"));
        sqlx::query(select).fetch_all(&other).await.unwrap().len()
    };
    assert_ended_connections_cost_one_call(
        store,
        async || select("pid").await,
        async || {
            select("pg_terminate_backend(pid, 5000)").await;
        },
    )
    .await;
}

#[tokio::test]
async fn when_mysql_ends_all_connections_one_call_fails() {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let store = MySqlStore::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    let other = MySqlPoolOptions::new().max_connections(1);
    let other = other.connect(&url).await.unwrap();
    let all = async || -> Vec<(i64,)> {
        let all = "SELECT id FROM information_schema.processlist \
                   WHERE user = 'cloakroom' AND id <> connection_id()";
        sqlx::query_as(all).fetch_all(&other).await.unwrap()
    };
    assert_ended_connections_cost_one_call(
        store,
        async || all().await.len(),
        async || {
            for (id,) in all().await {
                let end = sqlx::AssertSqlSafe(format!("KILL HARD {id}"));
                sqlx::raw_sql(end).execute(&other).await.unwrap();
            }
        },
    )
    .await;
}

/// Servers have a longest TTL, and answer with an error beyond.
async fn assert_sessions_can_last<S: SessionStore>(store: S) {
    let layer = builder(store)
        .idle_timeout(Duration::MAX)
        .absolute_timeout(Duration::MAX)
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/insert/theme/dark").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_session_without_an_end_is_kept_in_redis() {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    assert_sessions_can_last(RedisStore::open(&url).await.unwrap()).await;
}

#[tokio::test]
async fn a_session_without_an_end_is_kept_in_memcached() {
    let server = Server::memcached(&[]);
    let url = format!("memcache://{}", server.address());
    assert_sessions_can_last(MemcachedStore::open(&url).await.unwrap()).await;
}

#[tokio::test]
async fn more_sessions_of_a_user_than_one_call_removes_end_in_redis() {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let store = RedisStore::open(&url).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let app = app(layer);
    let mut own = Browser::new(&app);
    own.get("/log_in/ada").await.assert(200, "done");
    for _ in 0..600 {
        support::send(&app, support::request("/log_in/ada")).await;
    }
    let [kept, ..] = &sessions.list("ada").await.unwrap()[..] else {
        panic!("no session");
    };
    assert_eq!(sessions.revoke_others("ada", kept.id()).await.unwrap(), 600);
    assert_eq!(sessions.list("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_node_purges_postgres_at_a_time() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    let clock = TestClock::new();
    let layer = builder(store).clock(clock.clone()).build().unwrap();
    let sessions = layer.sessions();
    Browser::new(&app(layer))
        .get("/insert/a/b")
        .await
        .assert(200, "done");
    clock.advance(Duration::from_secs(41 * 60));

    let mut other = PgPool::connect(&url)
        .await
        .unwrap()
        .acquire()
        .await
        .unwrap();
    let turn = "hashtext('\"cloakroom_sessions\"'), 0";
    let take = sqlx::AssertSqlSafe(format!("SELECT pg_advisory_lock({turn})"));
    sqlx::query(take).execute(&mut *other).await.unwrap();
    assert_eq!(sessions.purge_expired().await.unwrap(), 0);
    let give = sqlx::AssertSqlSafe(format!("SELECT pg_advisory_unlock({turn})"));
    sqlx::query(give).execute(&mut *other).await.unwrap();
    assert_eq!(sessions.purge_expired().await.unwrap(), 1);
}

#[tokio::test]
async fn one_node_purges_mysql_at_a_time() {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let store = MySqlStore::open(&url).await.unwrap();
    store.migrate().await.unwrap();
    let clock = TestClock::new();
    let layer = builder(store).clock(clock.clone()).build().unwrap();
    let sessions = layer.sessions();
    Browser::new(&app(layer))
        .get("/insert/a/b")
        .await
        .assert(200, "done");
    clock.advance(Duration::from_secs(41 * 60));

    let mut other = MySqlPool::connect(&url)
        .await
        .unwrap()
        .acquire()
        .await
        .unwrap();
    let turn =
        "CONCAT('cloakroom ', LEFT(SHA2(CONCAT(DATABASE(), '\\0cloakroom_sessions'), 256), 40))";
    let take = sqlx::AssertSqlSafe(format!("SELECT GET_LOCK({turn}, 0)"));
    sqlx::query(take).execute(&mut *other).await.unwrap();
    assert_eq!(sessions.purge_expired().await.unwrap(), 0);
    let give = sqlx::AssertSqlSafe(format!("SELECT RELEASE_LOCK({turn})"));
    sqlx::query(give).execute(&mut *other).await.unwrap();
    assert_eq!(sessions.purge_expired().await.unwrap(), 1);
}

/// A session whose bytes are spoilt is no session, and the bytes stay.
async fn assert_spoilt(browser: &mut Browser) {
    browser.get("/user").await.assert(401, "");
    browser.get("/insert/theme/light").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "light");
}

#[tokio::test]
async fn foreign_bytes_in_redis_are_no_session_and_stay() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::open(&format!("redis://{at}")).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let app = app(layer);
    let spoils: [(&[&str], &[&str], &str); 6] = [
        (
            &["SETRANGE", "60", "spoilt"],
            &["GETRANGE", "60", "65"],
            "spoilt",
        ),
        (&["SET", "spoilt"], &["GET"], "spoilt"),
        (&["SET", "12345"], &["GET"], "12345"),
        // The version, and the first letter of the user, behind the realm.
        (&["SETRANGE", "0", "9"], &["GETRANGE", "0", "0"], "9"),
        (&["SETRANGE", "54", "e"], &["GETRANGE", "54", "56"], "eda"),
        (&["HSET", "value", "spoilt"], &["HGET", "value"], "spoilt"),
    ];
    for (spoil, read, expected) in spoils {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await.assert(200, "done");
        let name = run_redis(&at, &["KEYS", "cloakroom:session:*"]);
        let of_session = |words: &[&str]| {
            let (command, arguments) = words.split_first().unwrap();
            run_redis(&at, &[&[*command, &*name], arguments].concat())
        };
        if spoil[0] == "HSET" {
            of_session(&["DEL"]);
        }
        of_session(spoil);
        assert_spoilt(&mut browser).await;
        assert_eq!(of_session(read), expected);
        assert!(sessions.list("ada").await.unwrap().is_empty());
        run_redis(&at, &["FLUSHALL"]);
    }
}

/// A write that the server refuses must not look as if the session had ended, nor a revocation as if there were none.
#[tokio::test]
async fn a_command_that_redis_refuses_is_an_error() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::open(&format!("redis://{at}")).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");

    run_redis(&at, &["ACL", "SETUSER", "default", "-getrange"]);
    browser.get("/user").await.assert(200, "ada");
    browser.get("/insert/theme/light").await.assert(503, "");
    sessions.revoke_all("ada").await.unwrap_err();

    run_redis(&at, &["ACL", "SETUSER", "default", "+getrange"]);
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.revoke_all("ada").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
}

/// Their names stand before the user, whom a script has to find behind them.
#[tokio::test]
async fn many_writes_to_a_redis_cluster_hide_no_user_of_the_longest_id() {
    let cluster = RedisCluster::start();
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let layer = SessionLayer::new(RedisStore::open(&url).await.unwrap(), key());
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
    assert_eq!(sessions.list(&user).await.unwrap().len(), 1);
    assert_eq!(sessions.revoke_all(&user).await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn foreign_bytes_in_postgres_and_mysql_are_no_session_and_stay() {
    let (postgres, mariadb) = (Server::postgres(), Server::mariadb());
    let url = format!(
        "postgres://cloakroom:secret@{}/cloakroom",
        postgres.address()
    );
    let mut browser = Browser::new(&app(SessionLayer::new(
        AnyStore::open(&url).await.unwrap(),
        key(),
    )));
    browser.get("/log_in/ada").await.assert(200, "done");
    let pool = PgPool::connect(&url).await.unwrap();
    let spoil = "UPDATE cloakroom_sessions SET record = 'spoilt'";
    sqlx::query(spoil).execute(&pool).await.unwrap();
    assert_spoilt(&mut browser).await;
    let count = "SELECT count(*) FROM cloakroom_sessions WHERE record = 'spoilt'";
    let (count,): (i64,) = sqlx::query_as(count).fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);

    let url = format!("mysql://cloakroom:secret@{}/cloakroom", mariadb.address());
    let mut browser = Browser::new(&app(SessionLayer::new(
        AnyStore::open(&url).await.unwrap(),
        key(),
    )));
    browser.get("/log_in/ada").await.assert(200, "done");
    let pool = MySqlPool::connect(&url).await.unwrap();
    sqlx::query(spoil).execute(&pool).await.unwrap();
    assert_spoilt(&mut browser).await;
    let count = "SELECT count(*) FROM cloakroom_sessions WHERE record = 'spoilt'";
    let (count,): (i64,) = sqlx::query_as(count).fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);
}

/// One line of Memcached's answer to a command.
fn ask_memcached(address: &str, command: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[tokio::test]
async fn foreign_bytes_in_memcached_are_no_session_and_stay() {
    let server = Server::memcached(&[]);
    let at = server.address();
    let store = MemcachedStore::open(&format!("memcache://{at}"))
        .await
        .unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    browser.get("/log_in/ada").await.assert(200, "done");
    let id = browser.get("/id").await.body;
    let id = id
        .trim_start_matches("Some(RecordId(")
        .trim_end_matches("))");
    let set = format!("set cloakroom:{id} 0 0 6\r\nspoilt\r\n");
    assert_eq!(ask_memcached(&at, &set), "STORED\r\n");
    assert_spoilt(&mut browser).await;
    let get = format!("get cloakroom:{id}\r\n");
    assert_eq!(
        ask_memcached(&at, &get),
        format!("VALUE cloakroom:{id} 0 6\r\n")
    );
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::open(&format!("redis://{at}")).await.unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    for n in 1..4 {
        let visits = n.to_string();
        browser.get("/update/visits").await.assert(200, &visits);
        run_redis(&at, &["SCRIPT", "FLUSH"]);
    }
}

#[tokio::test]
async fn the_index_of_redis_follows_touches_and_forgets_sessions_that_ended() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::open(&format!("redis://{at}")).await.unwrap();
    let clock = TestClock::new();
    let layer = builder(store).clock(clock.clone()).build().unwrap();
    let sessions = layer.sessions();
    let app = app(layer);
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
    let id = sessions.list("ada").await.unwrap()[0].id();
    run_redis(&at, &["DEL", &format!("cloakroom:session:{id}")]);
    assert_eq!(size(), "2");
    assert_eq!(sessions.list("ada").await.unwrap().len(), 1);
    assert_eq!(size(), "1");
}

/// A session of one user in each of two stores. The layers have the same key, and both sessions the same token, of [`SOME_ID`].
async fn strangers<S: SessionStore>(stores: [S; 2]) -> [(Sessions<S>, Browser); 2] {
    let [first, second] = stores.map(|store| {
        let random = |bytes: &mut [u8]| {
            bytes.fill(7);
            Ok::<_, std::io::Error>(())
        };
        let layer = builder(store).random(random).build().unwrap();
        (layer.sessions(), Browser::new(&app(layer)))
    });
    let ((sessions, mut browser), (other_sessions, mut other)) = (first, second);
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/insert/theme/dark").await.assert(200, "done");

    // A token that the other store does not know yet.
    let cookie = browser.cookies().remove(0);
    let reply = other.get_with("/user", &[("cookie", &cookie)]).await;
    reply.assert(401, "");
    reply.assert_no_cookie();
    let reply = other.get_with("/log_out", &[("cookie", &cookie)]).await;
    reply.assert(200, "done");
    browser.get("/user").await.assert(200, "ada");

    other.get("/log_in/ada").await.assert(200, "done");
    other.get("/insert/theme/light").await.assert(200, "done");
    assert_eq!(browser.token(), other.token());
    browser.get("/get/theme").await.assert(200, "dark");
    other.get("/get/theme").await.assert(200, "light");
    [(sessions, browser), (other_sessions, other)]
}

#[tokio::test]
async fn stores_of_two_prefixes_on_one_redis_are_strangers() {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let store = RedisStore::open(&url).await.unwrap();
    let stores = ["shop:", "shop:admin:"].map(|prefix| store.clone().with_prefix(prefix));
    let [(sessions, mut browser), (other_sessions, mut other)] = strangers(stores).await;
    for sessions in [&sessions, &other_sessions] {
        assert_eq!(sessions.list("ada").await.unwrap().len(), 1);
    }
    assert_eq!(sessions.revoke_all("ada").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
    other.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.list("ada").await.unwrap().len(), 0);
    assert_eq!(other_sessions.list("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn stores_of_two_prefixes_on_one_memcached_are_strangers() {
    let server = Server::memcached(&[]);
    let url = format!("memcache://{}", server.address());
    let store = MemcachedStore::open(&url).await.unwrap();
    let stores = ["shop:", "shop:admin:"].map(|prefix| store.clone().with_prefix(prefix).unwrap());
    let [(sessions, mut browser), (_, mut other)] = strangers(stores).await;
    assert!(sessions.revoke(SOME_ID).await.unwrap());
    browser.get("/user").await.assert(401, "");
    other.get("/user").await.assert(200, "ada");
    other.get("/get/theme").await.assert(200, "light");
}

#[tokio::test]
async fn a_key_of_the_application_that_is_named_like_a_session_is_none() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::open(&format!("redis://{at}")).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let app = app(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    let id = sessions.list("ada").await.unwrap()[0].id();

    // A user named so that the index of their sessions could be taken for that session.
    let user = format!("session:{id}");
    let mut named = Browser::new(&app);
    named
        .get(&format!("/log_in/{user}"))
        .await
        .assert(200, "done");
    named.get("/user").await.assert(200, &user);
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.revoke_all(&user).await.unwrap(), 1);
    named.get("/user").await.assert(401, "");
    browser.get("/user").await.assert(200, "ada");

    // The session's own bytes under other names are no session.
    let session = format!("cloakroom:session:{id}");
    let others = ["", "session:", "user:", "cloakroom:", "cloakroom:user:"];
    let others = others.map(|prefix| format!("{prefix}{id}"));
    for other in &others {
        assert_eq!(run_redis(&at, &["COPY", &session, other]), "1");
    }
    assert_eq!(run_redis(&at, &["DEL", &session]), "1");
    browser.get("/user").await.assert(401, "");
    browser.get("/log_out").await.assert(200, "done");
    for other in &others {
        assert_eq!(run_redis(&at, &["EXISTS", other]), "1", "{other}");
    }
}
