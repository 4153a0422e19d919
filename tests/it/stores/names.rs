//! Names of tables and schemas, prefixes of keys, and paths. A store keeps each one unchanged, or
//! refuses it.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::{
    AnyStore, MemcachedStore, MySqlStore, PostgresStore, SessionStore, SqliteStore, TestClock,
    UserId, UserIndex,
};
use sqlx::PgPool;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use support::servers::Server;
use support::{Browser, app, builder};

use super::opening::whole;
use super::sql::database::{Database, Kind, Store};

#[tokio::test]
async fn names_of_tables_and_schemas_that_a_database_would_cut_are_refused() {
    let sqlite = SqliteStore::open(":memory:").await.unwrap();
    let url = "postgres://cloakroom@127.0.0.1:1/cloakroom";
    let postgres = PostgresStore::new(PgPoolOptions::new().connect_lazy(url).unwrap());
    let url = "mysql://cloakroom@127.0.0.1:1/cloakroom";
    let mysql = MySqlStore::new(MySqlPoolOptions::new().connect_lazy(url).unwrap());
    let long = |count| "ü".repeat(count);
    for table in ["", "a\0b", &long(26), &"t".repeat(51)] {
        for result in [
            sqlite.clone().with_table(table).map(drop),
            postgres.clone().with_table(table).map(drop),
            mysql.clone().with_table(table).map(drop),
        ] {
            let text = result.unwrap_err().to_string();
            assert!(text.contains("table must have 1 to 50 bytes"), "{text}");
        }
    }
    for schema in ["", "a\0b", &long(32), &"s".repeat(64)] {
        for result in [
            postgres.clone().with_schema(schema).map(drop),
            mysql.clone().with_schema(schema).map(drop),
        ] {
            let text = result.unwrap_err().to_string();
            assert!(text.contains("schema must have 1 to 63 bytes"), "{text}");
        }
    }
}

#[tokio::test]
async fn the_longest_names_of_tables_are_not_cut() {
    let mut postgres = Database::start(Kind::Postgres).await;
    let mysql = Database::start(Kind::MySql).await;
    let names = ["1", "2"].map(|last| "t".repeat(49) + last);
    let schema = "s".repeat(63);
    let make = format!("CREATE SCHEMA {schema}");
    postgres.watcher.run(&make).await;
    let in_postgres = PostgresStore::connect(&postgres.url()).await.unwrap();
    let in_postgres = in_postgres.with_schema(&schema).unwrap();
    let in_mysql = MySqlStore::connect(&mysql.url()).await.unwrap();
    let in_sqlite = SqliteStore::open(":memory:").await.unwrap();
    let mut stores: Vec<Store> = Vec::new();
    for name in &names {
        let store = in_postgres.clone().with_table(name).unwrap();
        store.migrate().await.unwrap();
        stores.push(Arc::new(store));
        let store = in_mysql.clone().with_table(name).unwrap();
        store.migrate().await.unwrap();
        stores.push(Arc::new(store));
        let store = in_sqlite.clone().with_table(name).unwrap();
        store.migrate().await.unwrap();
        stores.push(Arc::new(store));
    }
    for store in &stores {
        let user = UserId::new("__Host-session:ada").unwrap();
        assert!(store.find_by_user(&user).await.unwrap().is_empty());
        let layer = builder(store.clone()).build().unwrap();
        let mut browser = Browser::new(&app(layer));
        browser.get("/log_in/ada").await.assert(200, "done");
        assert_eq!(store.find_by_user(&user).await.unwrap().len(), 1);
    }
    for name in names {
        let indexes = format!(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND tablename = '{name}'"
        );
        assert_eq!(postgres.watcher.numbers(&indexes).await, [4]);
    }
}

#[tokio::test]
async fn a_prefix_that_makes_keys_too_long_for_memcached_is_refused() {
    let server = Server::memcached(&[]);
    let url = format!("memcache://{}", server.address());
    let store = MemcachedStore::connect(&url).await.unwrap();
    for prefix in ["p".repeat(201), "ü".repeat(101)] {
        let text = store.clone().with_prefix(&prefix).unwrap_err().to_string();
        assert!(text.contains("up to 200 bytes"), "{text}");
    }
    for prefix in ["a b", "a\tb", "a\r\nb", "a\0b", "a\u{7f}b"] {
        let text = store.clone().with_prefix(prefix).unwrap_err().to_string();
        assert!(text.contains("white space"), "{text}");
    }
    for prefix in [String::new(), "ü".repeat(100)] {
        let store = store.clone().with_prefix(&prefix).unwrap();
        let mut browser = Browser::new(&app(builder(store).build().unwrap()));
        browser.get("/insert/theme/dark").await.assert(200, "done");
        browser.get("/get/theme").await.assert(200, "dark");
    }
}

#[tokio::test]
async fn what_is_no_path_is_an_error_of_sqlite_that_says_what_to_do() {
    for (path, advice) in [
        ("", "`:memory:`"),
        ("file:sessions.sqlite3", "`./file:name`"),
        ("file::memory:", "`./file:name`"),
        ("FILE:///sessions.sqlite3?mode=memory", "`./file:name`"),
        ("sqlite:sessions.sqlite3", "give the path alone"),
        ("sqlite://sessions.sqlite3", "give the path alone"),
        ("sqlite::memory:", "give the path alone"),
        ("postgres://ada:secret@host/database", "`AnyStore::connect`"),
        ("::memory:", "`./:name`"),
        (":memory", "`./:name`"),
        (":memory:?cache=shared", "`./:name`"),
        (":MEMORY:", "`./:name`"),
        ("sessions\0.sqlite3", "NUL"),
        ("~", "home directory"),
        ("~/sessions.sqlite3", "home directory"),
        ("sessions.sqlite3?mode=rwc", "leave them out"),
    ] {
        let text = whole(&SqliteStore::open(path).await.unwrap_err());
        assert!(text.contains(advice), "{path:?}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    for (url, advice) in [
        ("sqlite:file:sessions.sqlite3", "`./file:name`"),
        ("sqlite:sqlite:sessions.sqlite3", "give the path alone"),
        ("sqlite:::memory:", "`./:name`"),
        ("sqlite://~/sessions.sqlite3", "home directory"),
        ("sqlite:my%20sessions.sqlite3", "percent signs"),
        ("sqlite::memory:?cache=shared", "question mark"),
    ] {
        let text = whole(&AnyStore::connect(url).await.unwrap_err());
        assert!(text.contains(advice), "{url:?}: {text}");
    }
}

#[tokio::test]
async fn a_path_of_sqlite_that_leads_nowhere_is_an_error_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (path, why) in [
        (directory.path().to_owned(), "is a directory"),
        (directory.path().join("a/b.sqlite3"), "no directory"),
        (file.join("b.sqlite3"), "is no directory"),
    ] {
        let error = SqliteStore::open(&path).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(why), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(error.source().is_some());
    }
}

#[tokio::test]
async fn every_path_opens_the_file_of_its_name_in_sqlite() {
    // This directory is in the working directory, so a relative path can reach it.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let here = std::env::current_dir().unwrap();
    let relative = directory.path().strip_prefix(&here).unwrap();
    for name in [
        "sessions.sqlite3",
        "with a space",
        "file:with:colons",
        "sqlite:name",
        ":memory:",
        "what?",
        "a?b=c&d",
        "50%",
        "%41",
        "~",
        "ü#1",
        "https:",
    ] {
        let with_dot = Path::new(".").join(relative).join(name);
        for (path, is_new) in [
            (directory.path().join(name), true),
            (relative.join(name), false),
            (with_dot, false),
        ] {
            let absolute = directory.path().join(name);
            assert_eq!(absolute.exists(), !is_new, "{path:?}");
            let store = SqliteStore::open(&path).await.unwrap();
            let user = UserId::new("__Host-session:ada").unwrap();
            let sessions = store.find_by_user(&user).await.unwrap();
            assert_eq!(sessions.is_empty(), is_new, "{path:?}");
            let mut browser = Browser::new(&app(builder(store).build().unwrap()));
            browser.get("/log_in/ada").await.assert(200, "done");
            assert!(absolute.is_file(), "{path:?}");
        }
    }
    let names: BTreeSet<PathBuf> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            !["-wal", "-shm"]
                .iter()
                .any(|end| path.to_string_lossy().ends_with(end))
        })
        .collect();
    assert_eq!(names.len(), 12, "{names:?}");
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
    // A pool with one connection must be enough, also for a purge.
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

    // This connection does not choose a database.
    let url = format!("mysql://cloakroom:secret@{}", mariadb.address());
    let store = MySqlStore::connect(&url)
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
