//! Connections of the SQL stores: a caller drops its call, or the server ends the connection.

use std::time::{Duration, Instant};

use cloakroom::{MySqlStore, PostgresStore, RecordId, SessionStore, UserId, UserIndex};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use support::servers::Server;
use support::{Browser, app, builder};

/// A server has gone without a word. Its connections must not keep places in the pool.
async fn assert_dropped_calls_are_closed<S: SessionStore>(
    server: Server,
    store: S,
    connections: impl Fn() -> (u32, usize),
) {
    // The number of all connections in the pool, and the number of idle ones.
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

/// The store has several open connections, and the server ends all of them.
async fn assert_ended_connections_cost_one_call<S: UserIndex + Clone>(
    store: S,
    count: impl AsyncFn() -> usize,
    end_all: impl AsyncFnOnce(),
) {
    let id = RecordId::from_bytes([7; 16]);
    // If a call ends quickly, the next call uses the same connection. So the test tries until there
    // are two.
    while count().await < 2 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let store = store.clone();
            let user = UserId::new("nobody").unwrap();
            // Reads of records would share a connection.
            calls.spawn(async move { store.find_by_user(&user).await.unwrap() });
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
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    // This pool has one connection. The count leaves only that one out, so a second one would count
    // as the store's.
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
    let store = MySqlStore::connect(&url).await.unwrap();
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
