//! PgBouncer between a store and PostgreSQL: what works in which mode, and what the errors say.
//!
//! PgBouncer follows no prepared statements here, as all versions before 1.21. The whole contract
//! in session mode is in `conformance.rs`.
//!
//! To run the contract over another PgBouncer, name it in `CLOAKROOM_TEST_POSTGRES`.

use std::time::Duration;

use cloakroom::{AnyStore, PostgresStore, RecordId, SessionStore, StoreError, UserId, UserIndex};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use support::servers::Server;
use support::{Browser, app, builder};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::opening::whole;

const SOME_ID: RecordId = RecordId::from_bytes([7; 16]);

fn url(server: &Server) -> String {
    format!("postgres://cloakroom:secret@{}/cloakroom", server.address())
}

/// A pool of the application's, which asks no connection whether it is alive.
fn pool(pooler: &Server, connections: u32) -> PgPool {
    let options = PgPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false);
    options.connect_lazy(&url(pooler)).unwrap()
}

/// A store that goes straight to the server. Its table exists.
async fn direct(postgres: &Server) -> PostgresStore {
    let store = PostgresStore::connect(&url(postgres)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

#[track_caller]
fn assert_says(error: &StoreError, what: &[&str]) {
    let text = whole(error);
    for what in what {
        assert!(text.contains(what), "{text:?} does not say {what:?}");
    }
    assert!(!text.contains("secret"), "{text}");
}

const MIXED_UP: [&str; 3] = ["`pool_mode = session`", "1.21", "`max_prepared_statements`"];

#[tokio::test]
async fn a_store_refuses_a_pgbouncer_that_mixes_up_statements() {
    let postgres = Server::postgres();
    for mode in ["transaction", "statement"] {
        let pooler = Server::pgbouncer(&postgres, &[&format!("pool_mode = {mode}")]);
        // Without the cache of statements, sqlx gives names to them too.
        for option in ["", "?statement-cache-capacity=0"] {
            let connected = AnyStore::connect(&(url(&pooler) + option)).await;
            assert_says(&connected.unwrap_err(), &MIXED_UP);
        }
    }
}

/// If one of the two servers is busy, the trial's connections do not share the other one at once.
#[tokio::test]
async fn a_busy_pgbouncer_that_mixes_up_statements_is_refused() {
    let postgres = Server::postgres();
    let pooler = Server::pgbouncer(&postgres, &["pool_mode = transaction"]);
    let traffic = pool(&pooler, 4);
    let mut busy = JoinSet::new();
    for _ in 0..4 {
        let traffic = traffic.clone();
        busy.spawn(async move {
            loop {
                let wait = sqlx::raw_sql("SELECT pg_sleep(0.001)");
                wait.execute(&traffic).await.unwrap();
            }
        });
    }
    for _ in 0..10 {
        let error = PostgresStore::connect(&url(&pooler)).await.unwrap_err();
        assert_says(&error, &MIXED_UP);
    }
}

/// The store cannot try a pool of the application's. The server has one connection here, so that
/// each statement meets the statements of other clients.
#[tokio::test]
async fn statements_that_pgbouncer_mixes_up_are_errors_and_write_nothing() {
    let postgres = Server::postgres();
    let direct = direct(&postgres).await;
    let settings = ["pool_mode = transaction", "default_pool_size = 1"];
    let pooler = Server::pgbouncer(&postgres, &settings);
    let mut other = PgConnection::connect(&url(&pooler)).await.unwrap();
    let taken = sqlx::query("SELECT 1").execute(&mut other).await;
    taken.unwrap();

    // The name is taken.
    let store = PostgresStore::new(pool(&pooler, 4));
    assert_says(&store.load(SOME_ID).await.unwrap_err(), &MIXED_UP);
    // After that error, PgBouncer may replace the server's connection. Then the name is free for
    // one caller. Each answer is true.
    let mut writes = JoinSet::new();
    for _ in 0..32 {
        let layer = builder(store.clone()).build().unwrap();
        let mut browser = Browser::new(&app(layer));
        writes.spawn(async move { browser.get("/log_in/ada").await.status });
    }
    let answers = writes.join_all().await;
    let with = |status: u16| answers.iter().filter(|&&answer| answer == status).count();
    assert_eq!(with(503) + with(200), answers.len());
    let user = UserId::new("__Host-session:ada").unwrap();
    assert_eq!(direct.find_by_user(&user).await.unwrap().len(), with(200));

    // The server's connection is another one, which has no such statement.
    drop(other);
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
               WHERE application_name = '' AND pid <> pg_backend_pid()";
    let end = async || {
        let mut direct = PgConnection::connect(&url(&postgres)).await.unwrap();
        sqlx::query(end).execute(&mut direct).await.unwrap();
    };
    end().await;
    let store = PostgresStore::new(pool(&pooler, 1));
    store.load(SOME_ID).await.unwrap();
    end().await;
    let error = store.load(SOME_ID).await.unwrap_err();
    assert_says(&error, &MIXED_UP);
    assert_says(&error, &["does not exist"]);
}

/// A name of another client's statement is a danger that no error shows: see the module `pooler`.
/// PostgreSQL notices it only if the number of parameters differs.
#[tokio::test]
async fn a_statement_of_another_client_is_an_error_if_postgres_notices_it() {
    let postgres = Server::postgres();
    let direct = direct(&postgres).await;
    let settings = ["pool_mode = transaction", "default_pool_size = 2"];
    let pooler = Server::pgbouncer(&postgres, &settings);
    // Each of the two connections to the server has a statement of the first name.
    let store = PostgresStore::new(pool(&pooler, 1));
    let mut other = PgConnection::connect(&url(&pooler)).await.unwrap();
    store.load(SOME_ID).await.unwrap();
    let mut blocker = PgConnection::connect(&url(&pooler)).await.unwrap();
    let run = async |connection: &mut PgConnection, statement: &'static str| {
        sqlx::raw_sql(statement).execute(connection).await.unwrap();
    };
    run(&mut blocker, "BEGIN").await;
    let two = "SELECT $1::int8 + $2::int8";
    let two = sqlx::query(two).bind(1_i64).bind(1_i64);
    two.execute(&mut other).await.unwrap();
    // The store's read goes to the connection that has the other statement.
    let error = store.load(SOME_ID).await.unwrap_err();
    assert_says(&error, &MIXED_UP);
    assert_says(&error, &["bind message supplies 1 parameters"]);
    drop(direct);
}

#[tokio::test]
async fn a_migration_in_statement_mode_is_an_error_that_says_what_to_do() {
    let postgres = Server::postgres();
    let pooler = Server::pgbouncer(&postgres, &["pool_mode = statement"]);
    let store = PostgresStore::new(pool(&pooler, 1));
    let error = store.migrate().await.unwrap_err();
    assert_says(&error, &["statement mode", "connect to PostgreSQL itself"]);
}

#[tokio::test]
async fn a_pgbouncer_that_refuses_a_parameter_is_an_error_that_says_what_to_do() {
    let postgres = Server::postgres();
    let pooler = Server::pgbouncer(&postgres, &["ignore_startup_parameters ="]);
    let error = PostgresStore::connect(&url(&pooler)).await.unwrap_err();
    let setting = "`ignore_startup_parameters = extra_float_digits`";
    assert_says(&error, &[setting, &pooler.address()]);
}

/// In session mode, each connection of a client keeps one to the server.
#[tokio::test]
async fn a_pgbouncer_with_too_few_connections_is_an_error_that_says_what_to_do() {
    let postgres = Server::postgres();
    direct(&postgres).await;
    let settings = ["default_pool_size = 1", "query_wait_timeout = 3"];
    let pooler = Server::pgbouncer(&postgres, &settings);
    let mut other = PgConnection::connect(&url(&pooler)).await.unwrap();
    other.ping().await.unwrap();
    let store = PostgresStore::connect(&url(&pooler)).await.unwrap();
    let error = timeout(Duration::from_secs(30), store.load(SOME_ID)).await;
    let error = error.unwrap().unwrap_err();
    assert_says(&error, &["query_wait_timeout", "`default_pool_size`"]);
    other.close().await.unwrap();
    assert!(store.load(SOME_ID).await.unwrap().is_none());
}

/// Reads and writes of records need six connections of a store, however many come at once.
#[tokio::test]
async fn reads_and_writes_in_session_mode_need_six_connections() {
    let postgres = Server::postgres();
    direct(&postgres).await;
    let settings = ["default_pool_size = 6", "query_wait_timeout = 3"];
    let pooler = Server::pgbouncer(&postgres, &settings);
    let store = PostgresStore::connect(&url(&pooler)).await.unwrap();
    let app = app(builder(store).build().unwrap());
    let mut first = Browser::new(&app);
    first.get("/update/visits").await.assert(200, "1");
    let mut requests = JoinSet::new();
    for _ in 0..32 {
        let (mut shared, mut own) = (first.clone(), Browser::new(&app));
        requests.spawn(async move {
            for n in 1..=4 {
                assert_eq!(shared.get("/update/visits").await.status, 200);
                own.get("/update/visits").await.assert(200, &n.to_string());
            }
        });
    }
    requests.join_all().await;
    first.get("/get/visits").await.assert(200, "129");
}

/// A pool of the application's may have as many connections as PgBouncer has to the server.
#[tokio::test]
async fn a_small_pool_in_session_mode_serves_all_calls() {
    let postgres = Server::postgres();
    direct(&postgres).await;
    let settings = ["default_pool_size = 2", "query_wait_timeout = 3"];
    let pooler = Server::pgbouncer(&postgres, &settings);
    let store = PostgresStore::new(pool(&pooler, 2));
    store.migrate().await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let store = store.clone();
        calls.spawn(async move {
            let user = UserId::new("ada").unwrap();
            store.find_by_user(&user).await.unwrap();
            store.remove_by_user(&user, None).await.unwrap();
            store.load(SOME_ID).await.unwrap();
        });
    }
    calls.join_all().await;
}

#[tokio::test]
async fn a_restart_of_pgbouncer_loses_no_session() {
    let postgres = Server::postgres();
    let mut pooler = Server::pgbouncer(&postgres, &["pool_mode = session"]);
    let store = PostgresStore::connect(&url(&pooler)).await.unwrap();
    store.migrate().await.unwrap();
    let mut browser = Browser::new(&app(builder(store).build().unwrap()));
    for visits in 1..=3 {
        let visits = visits.to_string();
        browser.get("/update/visits").await.assert(200, &visits);
        pooler.kill();
        browser.get("/get/visits").await.assert(503, "");
        pooler.start();
        browser.get("/get/visits").await.assert(200, &visits);
    }
}
