//! How to open a store. A wrong URL, host, password, name or path gives an error that says so.

use std::error::Error;

use cloakroom::{
    AnyStore, MySqlStore, PostgresStore, RecordId, SessionLayer, SessionStore, StoreError,
};
use support::servers::Server;
use support::{Browser, app, key};

/// The error and its causes as one text: `a`, caused by `b`, caused by `c`.
pub(super) fn whole(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(", caused by {cause}");
        source = cause.source();
    }
    text
}

/// Checks that the URL opens no store. The error must name what is wrong, but not the password.
async fn assert_not_opened(url: &str, names: &[&str]) {
    let error = AnyStore::connect(url).await.unwrap_err();
    let text = whole(&error);
    for name in names {
        assert!(text.contains(name), "{text:?} does not name {name:?}");
    }
    for secret in ["wrong-password", "secret"] {
        assert!(!text.contains(secret), "{text}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

const SOME_ID: RecordId = RecordId::from_bytes([7; 16]);

/// An address at which no server listens.
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
            AnyStore::connect(url).await.unwrap(),
            key(),
        )));
        browser.get("/insert/theme/dark").await.assert(200, "done");
        browser.get("/get/theme").await.assert(200, "dark");
    }
    assert!(file.exists());
}

#[tokio::test]
async fn without_a_migration_the_first_use_of_a_sql_store_says_so() {
    let (postgres, mariadb) = (Server::postgres(), Server::mariadb());
    let url = format!(
        "postgres://cloakroom:secret@{}/cloakroom",
        postgres.address()
    );
    let store = PostgresStore::connect(&url).await.unwrap();
    let text = whole(&store.load(SOME_ID).await.unwrap_err());
    assert!(text.contains("PostgresStore::migrate"), "{text}");
    store.migrate().await.unwrap();
    assert!(store.load(SOME_ID).await.unwrap().is_none());

    let url = format!("mysql://cloakroom:secret@{}/cloakroom", mariadb.address());
    let store = MySqlStore::connect(&url).await.unwrap();
    let text = whole(&store.load(SOME_ID).await.unwrap_err());
    assert!(text.contains("MySqlStore::migrate"), "{text}");
    store.migrate().await.unwrap();
    assert!(store.load(SOME_ID).await.unwrap().is_none());
}
