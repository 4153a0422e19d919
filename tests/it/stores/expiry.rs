//! Records that expire: how a purge removes them, and sessions that never end.

use std::time::Duration;

use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    MemcachedStore, MemoryStore, MySqlStore, PostgresStore, RedisStore, SessionStore, TestClock,
};
use sqlx::{MySqlPool, PgPool};
use support::dynamodb::Wire;
use support::servers::Server;
use support::{Browser, app, builder};

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

/// Servers have a longest TTL. They answer a longer one with an error.
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
    assert_sessions_can_last(RedisStore::connect(&url).await.unwrap()).await;
}

#[tokio::test]
async fn a_session_without_an_end_is_kept_in_memcached() {
    let server = Server::memcached(&[]);
    let url = format!("memcache://{}", server.address());
    assert_sessions_can_last(MemcachedStore::connect(&url).await.unwrap()).await;
}

#[tokio::test]
async fn a_session_without_an_end_is_kept_in_dynamodb() {
    let server = Server::dynalite();
    assert_sessions_can_last(Wire::to(&server).store("sessions").await).await;
}

#[tokio::test]
async fn one_node_purges_postgres_at_a_time() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::connect(&url).await.unwrap();
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
    let store = MySqlStore::connect(&url).await.unwrap();
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
