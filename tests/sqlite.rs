//! What is SQLite's own: files, processes, pools, migration, purge.

#![allow(clippy::unwrap_used)]

mod support;

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cloakroom::{SessionLayer, SessionStore, SqliteStore, TestClock};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use support::{Browser, app, builder, key};
use tokio::task::JoinSet;

#[tokio::test]
async fn sessions_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let mut tokens = None;
    for visits in 1..4 {
        let app = app(SessionLayer::new(
            SqliteStore::open(&path).await.unwrap(),
            key(),
        ));
        let mut browser = Browser::new(&app);
        if let Some(reply) = &tokens {
            browser.keep(reply);
        }
        let reply = browser.get("/update/visits").await;
        reply.assert(200, &visits.to_string());
        tokens.get_or_insert(reply);
    }
}

/// What tells a process that it is a child of the test below, and of what file.
const CHILD: &str = "CLOAKROOM_TEST_CHILD";

/// The test starts itself twice, and each child counts on the session that the parent made.
#[tokio::test]
async fn two_processes_on_one_file_lose_nothing() {
    if let Ok(name) = std::env::var(CHILD) {
        let variable = |name| std::env::var(name).unwrap();
        count_as_child(
            &name,
            &variable("CLOAKROOM_TEST_FILE"),
            &variable("CLOAKROOM_TEST_COOKIE"),
        )
        .await;
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let app = app(SessionLayer::new(
        SqliteStore::open(&path).await.unwrap(),
        key(),
    ));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let start = |name| {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "two_processes_on_one_file_lose_nothing",
                "--nocapture",
            ])
            .env(CHILD, name)
            .env("CLOAKROOM_TEST_FILE", &path)
            .env("CLOAKROOM_TEST_COOKIE", &browser.cookies()[0])
            .spawn()
            .unwrap()
    };
    for mut child in ["a", "b"].map(start) {
        assert!(child.wait().unwrap().success());
    }
    browser.get("/get/counter").await.assert(200, "64");
    let keys = browser.get("/keys").await.body;
    assert_eq!(
        keys.split(',')
            .filter(|key| key.starts_with("a-") || key.starts_with("b-"))
            .count(),
        64
    );
}

async fn count_as_child(name: &str, path: &str, cookie: &str) {
    let app = app(SessionLayer::new(
        SqliteStore::open(path).await.unwrap(),
        key(),
    ));
    let browser = Browser::new(&app);
    let mut requests = JoinSet::new();
    for n in 0..32 {
        for path in [
            "/update/counter".to_owned(),
            format!("/insert/{name}-{n}/x"),
        ] {
            requests.spawn(browser.send(&path, &[("cookie", cookie)]));
        }
    }
    for reply in requests.join_all().await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[tokio::test]
async fn a_database_in_memory_is_gone_with_its_store_and_shared_by_clones() {
    let store = SqliteStore::open(":memory:").await.unwrap();
    let (first, second) = (
        app(SessionLayer::new(store.clone(), key())),
        app(SessionLayer::new(store, key())),
    );
    let reply = Browser::new(&first).get("/insert/theme/dark").await;
    let mut browser = Browser::new(&second);
    browser.keep(&reply);
    browser.get("/get/theme").await.assert(200, "dark");
    let other = app(SessionLayer::new(
        SqliteStore::open(":memory:").await.unwrap(),
        key(),
    ));
    let mut browser = Browser::new(&other);
    browser.keep(&reply);
    browser.get("/get/theme").await.assert(200, "nothing");
}

#[tokio::test]
async fn files_are_in_wal_mode_with_indexes_on_expiry_and_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let _store = SqliteStore::open(&path).await.unwrap();
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path))
        .await
        .unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
    for (statement, index) in [
        (
            "DELETE FROM cloakroom_sessions WHERE expires_at <= 1",
            "cloakroom_sessions_expires_at",
        ),
        (
            "SELECT id FROM cloakroom_sessions WHERE user_id = 'ada'",
            "cloakroom_sessions_user_id",
        ),
    ] {
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(plan).fetch_all(&pool).await.unwrap();
        assert!(
            rows.iter().any(|(.., detail)| detail.contains(index)),
            "{statement}: {rows:?}"
        );
    }
}

#[tokio::test]
async fn the_applications_own_pool_works_once_it_is_migrated() {
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::new(pool.clone());
    let mut browser = Browser::new(&app(SessionLayer::new(store.clone(), key())));
    browser.get("/insert/theme/dark").await.assert(503, "");
    let error = store
        .load(cloakroom::RecordId::from_bytes([0; 16]))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("SqliteStore::migrate"),
        "{error}"
    );
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("no such table")
    );

    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    for statement in store.migration() {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&pool)
            .await
            .unwrap();
    }
    browser.get("/insert/theme/dark").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_or_is_no_database_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing").join("sessions.sqlite3");
    let text = directory.path().join("text.sqlite3");
    std::fs::write(&text, "This is no database at all. ".repeat(100)).unwrap();
    for path in [missing, text, PathBuf::from(directory.path())] {
        let error = SqliteStore::open(&path).await.unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(error.source().is_some());
    }
}

#[tokio::test]
async fn a_purge_removes_thousands_and_says_how_many() {
    let clock = TestClock::new();
    let layer = builder(SqliteStore::open(":memory:").await.unwrap())
        .clock(clock.clone())
        .build()
        .unwrap();
    let sessions = layer.sessions();
    let app = app(layer);
    for _ in 0..1234 {
        support::send(&app, support::request("/insert/a/b")).await;
    }
    assert_eq!(sessions.purge_expired().await.unwrap(), 0);
    clock.advance(Duration::from_secs(30 * 60));
    let mut live = Browser::new(&app);
    live.get("/insert/theme/dark").await;
    assert_eq!(sessions.purge_expired().await.unwrap(), 1234);
    live.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn columns_of_the_wrong_type_are_no_session() {
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    // A table without STRICT, as someone's own migration may make it.
    sqlx::query(
        "CREATE TABLE cloakroom_sessions (id PRIMARY KEY, version, user_id, expires_at, record)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(
        SqliteStore::new(pool.clone()),
        key(),
    )));
    browser.get("/log_in/ada").await.assert(200, "done");
    for column in ["expires_at", "record"] {
        for value in ["NULL", "'text'", "1.5"] {
            let mut window = browser.clone();
            let statement = format!("UPDATE cloakroom_sessions SET {column} = {value}");
            let mut transaction = pool.begin().await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
            window.get("/user").await.assert(401, "");
        }
        browser = Browser::new(&app(SessionLayer::new(
            SqliteStore::new(pool.clone()),
            key(),
        )));
        browser.get("/log_in/ada").await.assert(200, "done");
    }
}
