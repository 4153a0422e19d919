//! What only SQLite has: files, processes, pools, migration, purge.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use cloakroom::{SessionLayer, SessionStore, SqliteStore, TestClock};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use support::{Browser, app, builder, key};

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
    clock.advance(Duration::from_secs(40 * 60));
    let mut live = Browser::new(&app);
    live.get("/insert/theme/dark").await;
    assert_eq!(sessions.purge_expired().await.unwrap(), 1234);
    live.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn columns_of_the_wrong_type_are_no_session() {
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    // A table without STRICT. Somebody's own migration may make such a table.
    sqlx::query(
        "CREATE TABLE cloakroom_sessions \
         (id PRIMARY KEY, version, user_id, expires_at, record, external_id)",
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
