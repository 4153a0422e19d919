//! The connections of the SQL stores, and databases that do not answer.

pub(super) mod database;

use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use cloakroom::{
    AnyStore, MySqlStore, PostgresStore, RecordId, SessionStore, SqliteStore, TestClock, UserId,
    UserIndex,
};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use support::{Browser, app, builder};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::opening::whole;
use database::{Database, Kind, Store};

const SOME_ID: RecordId = RecordId::from_bytes([7; 16]);

/// The time that the tests wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The number of connections that a store has to its server.
const CONNECTIONS: usize = 16;

/// The number of connections that a store has now.
fn count(store: &Store) -> usize {
    let text = format!("{store:?}");
    let (_, count) = text.split_once("connections: ").unwrap();
    let end = count.find(|c: char| !c.is_ascii_digit()).unwrap();
    count.split_at(end).0.parse().unwrap()
}

/// Polls a call this many times, and then drops it.
async fn abandon<T>(call: impl Future<Output = T>, mut polls: usize) {
    let mut call = pin!(call);
    poll_fn(|context| {
        polls -= 1;
        match call.as_mut().poll(context) {
            Poll::Pending if polls > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// Makes a test for each server. The function gets a `Kind`.
macro_rules! on_servers {
    ($($body:ident: $postgres:ident, $mysql:ident;)*) => {
        $(
            #[tokio::test]
            async fn $postgres() {
                $body(Kind::Postgres).await;
            }

            #[tokio::test]
            async fn $mysql() {
                $body(Kind::MySql).await;
            }
        )*
    };
}

on_servers! {
    requests_are_aborted: aborted_requests_keep_the_connections_to_postgres,
        aborted_requests_keep_the_connections_to_mysql;
    a_write_is_aborted: a_write_to_postgres_whose_caller_went_away_is_done,
        a_write_to_mysql_whose_caller_went_away_is_done;
    a_server_hangs: a_hung_postgres_keeps_no_places_of_abandoned_calls,
        a_hung_mysql_keeps_no_places_of_abandoned_calls;
    a_login_is_slow: a_connection_to_postgres_that_is_being_made_is_kept_for_the_next_call,
        a_connection_to_mysql_that_is_being_made_is_kept_for_the_next_call;
    statements_fail: errors_of_a_statement_close_no_connection_to_postgres,
        errors_of_a_statement_close_no_connection_to_mysql;
    a_server_is_read_only: a_postgres_that_writes_no_more_loses_its_connections,
        a_mysql_that_writes_no_more_loses_its_connections;
    a_migration_waits: a_migration_of_postgres_that_waits_too_long_is_an_error_that_says_what_to_do,
        a_migration_of_mysql_that_waits_too_long_is_an_error_that_says_what_to_do;
    opening_waits: opening_a_postgres_whose_table_is_locked_is_an_error_that_says_so,
        opening_a_mysql_whose_table_is_locked_is_an_error_that_says_so;
    a_server_says_nothing: opening_a_postgres_that_says_nothing_is_an_error_that_says_so,
        opening_a_mysql_that_says_nothing_is_an_error_that_says_so;
}

async fn requests_are_aborted(kind: Kind) {
    let mut database = Database::start(kind).await;
    let store = database.store().await;
    database.fill(&store).await;
    let before = database.connections().await;
    let app = app(builder(store.clone()).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    let aborting = browser.clone();
    let well_behaved = async {
        for visits in 1..=100 {
            let reply = browser.get("/update/visits").await;
            reply.assert(200, &visits.to_string());
        }
    };
    let user = UserId::new("__Host-session:ada").unwrap();
    let abort = async {
        for polls in (1..=6).cycle().take(120) {
            abandon(aborting.send("/get/visits", &[]), polls).await;
            abandon(store.load(SOME_ID), polls).await;
            abandon(store.remove(SOME_ID), polls).await;
            abandon(store.find_by_user(&user), polls).await;
        }
    };
    tokio::join!(well_behaved, abort);
    assert_eq!(database.connections().await, before);
    assert_eq!(count(&store), CONNECTIONS);
}

/// The application's own pool has only one connection.
async fn a_write_is_aborted(kind: Kind) {
    let mut database = Database::start(kind).await;
    let url = database.url();
    let pool_is: Box<dyn Fn() -> (u32, usize)>;
    let store: Store = match kind {
        Kind::Postgres => {
            let pool = PgPoolOptions::new().max_connections(1);
            let pool = pool.connect(&url).await.unwrap();
            let store = PostgresStore::new(pool.clone());
            store.migrate().await.unwrap();
            pool_is = Box::new(move || (pool.size(), pool.num_idle()));
            Arc::new(store)
        }
        Kind::MySql => {
            let pool = MySqlPoolOptions::new().max_connections(1);
            let pool = pool.connect(&url).await.unwrap();
            let store = MySqlStore::new(pool.clone());
            store.migrate().await.unwrap();
            pool_is = Box::new(move || (pool.size(), pool.num_idle()));
            Arc::new(store)
        }
    };
    let layer = builder(store.clone()).build().unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    let user = UserId::new("__Host-session:ada").unwrap();
    let sessions = store.find_by_user(&user).await.unwrap();
    let id = sessions.first().unwrap().0;
    let before = database.connections().await;

    database.lock().await;
    {
        let mut removal = pin!(store.remove(id));
        while database.waiting().await == 0 {
            let poll = poll_fn(|context| Poll::Ready(removal.as_mut().poll(context))).await;
            assert!(poll.is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(pool_is(), (1, 0));
    database.unlock().await;
    let begin = Instant::now();
    while pool_is() != (1, 1) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", pool_is());
        sleep(Duration::from_millis(1)).await;
    }
    assert!(store.load(id).await.unwrap().is_none());
    assert_eq!(database.connections().await, before);
}

async fn a_server_hangs(kind: Kind) {
    let mut database = Database::start(kind).await;
    let store = database.store().await;
    database.fill(&store).await;
    database.server.pause();
    let user = UserId::new("nobody").unwrap();
    for _ in 0..CONNECTIONS - 2 {
        abandon(store.find_by_user(&user), 1).await;
    }
    // The last connections have calls that share a statement.
    for number in 0..10 {
        let id = RecordId::from_bytes([number; 16]);
        let load = timeout(Duration::from_millis(20), store.load(id));
        assert!(load.await.is_err());
    }
    assert_eq!(count(&store), CONNECTIONS);
    tokio::time::pause();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(count(&store), 0);
    tokio::time::resume();
    database.server.resume();
    assert!(store.load(SOME_ID).await.unwrap().is_none());
}

async fn a_login_is_slow(kind: Kind) {
    let mut database = Database::start(kind).await;
    let _table = database.store().await;
    let of_before = database.connections().await;
    let store: Store = match kind {
        Kind::Postgres => Arc::new(PostgresStore::connect(&database.url()).await.unwrap()),
        Kind::MySql => Arc::new(MySqlStore::connect(&database.url()).await.unwrap()),
    };
    // `open` tried a connection. The test waits until this connection has gone.
    let begin = Instant::now();
    while database.connections().await != of_before {
        assert!(begin.elapsed() < PATIENCE);
    }
    database.server.pause();
    let waited = timeout(Duration::from_millis(100), store.load(SOME_ID)).await;
    assert!(waited.is_err());
    assert_eq!(count(&store), 0);
    database.server.resume();
    let made = loop {
        let made = &database.connections().await - &of_before;
        if !made.is_empty() {
            break made;
        }
        assert!(begin.elapsed() < PATIENCE);
        sleep(Duration::from_millis(1)).await;
    };
    assert!(store.load(SOME_ID).await.unwrap().is_none());
    // The abandoned call keeps its lane for a moment. So the next call may need another connection.
    let now = &database.connections().await - &of_before;
    assert!(made.is_subset(&now) && now.len() <= 2, "{made:?} {now:?}");
}

async fn statements_fail(kind: Kind) {
    let mut database = Database::start(kind).await;
    if matches!(kind, Kind::MySql) {
        // The value is in seconds. It is for connections that are made after this.
        let watcher = &mut database.watcher;
        watcher.run("SET GLOBAL lock_wait_timeout = 1").await;
    }
    let store = database.store().await;
    let rules = match kind {
        Kind::Postgres => {
            "ALTER TABLE cloakroom_sessions ADD CHECK (user_id <> 'forbidden');
             ALTER TABLE cloakroom_sessions ALTER user_id TYPE VARCHAR(9);
             CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON cloakroom_sessions FOR EACH ROW
                 WHEN (NEW.user_id = 'refused') EXECUTE FUNCTION refuse()"
        }
        Kind::MySql => {
            "ALTER TABLE cloakroom_sessions ADD CHECK (user_id <> 'forbidden');
             ALTER TABLE cloakroom_sessions MODIFY user_id VARBINARY(9);
             CREATE TRIGGER refuse BEFORE INSERT ON cloakroom_sessions FOR EACH ROW
                 IF NEW.user_id = 'refused' THEN SIGNAL SQLSTATE '45000'; END IF"
        }
    };
    database.watcher.run(rules).await;
    database.fill(&store).await;
    let before = database.connections().await;

    // These users cause the SQLSTATE classes 23, 22, and P0 or 45.
    let app = app(builder(store.clone()).build().unwrap());
    for user in ["forbidden", "much-too-long", "refused"] {
        let mut browser = Browser::new(&app);
        let path = format!("/log_in/{user}");
        browser.get(&path).await.assert(503, "");
        assert_eq!(count(&store), CONNECTIONS, "after {user}");
    }

    // PostgreSQL refuses a NUL in a text (22021). A user id cannot contain a NUL, so none reaches a
    // store.
    assert!(UserId::new("a\0b").is_err());

    // Somebody cancels the statement (57014), or the statement waits too long for a lock (1205).
    database.lock().await;
    let waits = tokio::spawn({
        let store = store.clone();
        async move { store.remove(SOME_ID).await }
    });
    let begin = Instant::now();
    while !waits.is_finished() {
        assert!(begin.elapsed() < PATIENCE);
        if matches!(kind, Kind::Postgres) {
            let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                WHERE wait_event_type = 'Lock'";
            database.watcher.run(cancel).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    waits.await.unwrap().unwrap_err();
    database.unlock().await;
    assert_eq!(count(&store), CONNECTIONS, "after a cancel");

    // The table does not exist (class 42).
    let rename = "ALTER TABLE cloakroom_sessions RENAME TO other";
    database.watcher.run(rename).await;
    store.load(SOME_ID).await.unwrap_err();
    assert_eq!(count(&store), CONNECTIONS, "without a table");
    assert_eq!(database.connections().await, before);
}

async fn a_server_is_read_only(kind: Kind) {
    let mut database = Database::start(kind).await;
    let store: Store = match kind {
        Kind::Postgres => database.store().await,
        Kind::MySql => {
            // A user with all rights may write even to a server that is read-only. So the test
            // makes a user with fewer rights.
            let _ = database.store().await;
            let plain =
                "CREATE USER plain IDENTIFIED BY 'secret'; GRANT ALL ON cloakroom.* TO plain";
            database.watcher.run(plain).await;
            let url = database.url().replace("cloakroom:", "plain:");
            Arc::new(MySqlStore::connect(&url).await.unwrap())
        }
    };
    // The calls wait for a lock, so that they need several connections.
    database.lock().await;
    let mut calls = JoinSet::new();
    for number in 0..CONNECTIONS {
        let store = store.clone();
        calls.spawn(async move {
            // Let an earlier call begin: calls that wait share a connection.
            sleep(Duration::from_millis(10 * number as u64)).await;
            let id = RecordId::from_bytes([number as u8; 16]);
            store.remove(id).await.unwrap()
        });
    }
    let begin = Instant::now();
    while count(&store) < 2 {
        assert!(begin.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    database.unlock().await;
    calls.join_all().await;
    let demotion = match kind {
        Kind::Postgres => "ALTER SYSTEM SET default_transaction_read_only = on",
        Kind::MySql => "SET GLOBAL read_only = 1",
    };
    database.watcher.run(demotion).await;
    if matches!(kind, Kind::Postgres) {
        database.watcher.run("SELECT pg_reload_conf()").await;
    }
    let begin = Instant::now();
    while store.remove(SOME_ID).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE);
    }
    assert_eq!(count(&store), 0);
}

/// The call waits in the server for a lock. Then the test advances the time.
async fn wait_too_long<T>(database: &mut Database, call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    database.lock().await;
    let begin = Instant::now();
    while database.waiting().await == 0 {
        assert!(begin.elapsed() < PATIENCE);
        assert!(
            timeout(Duration::from_millis(20), call.as_mut())
                .await
                .is_err()
        );
    }
    tokio::time::pause();
    timeout(Duration::from_secs(10 * 60), call).await.unwrap()
}

async fn a_migration_waits(kind: Kind) {
    let mut database = Database::start(kind).await;
    let _table = database.store().await;
    let url = database.url();
    let (error, store) = match kind {
        Kind::Postgres => {
            // The table has no index yet. The migration needs a lock to make one.
            let drop = "DROP INDEX cloakroom_sessions_user_id";
            database.watcher.run(drop).await;
            let store = PostgresStore::connect(&url).await.unwrap();
            let error = wait_too_long(&mut database, store.migrate()).await;
            (error.unwrap_err(), "PostgresStore::migration")
        }
        Kind::MySql => {
            let store = MySqlStore::connect(&url).await.unwrap();
            let error = wait_too_long(&mut database, store.migrate()).await;
            (error.unwrap_err(), "MySqlStore::migration")
        }
    };
    let text = whole(&error);
    assert!(text.contains("within 60s"), "{text}");
    assert!(text.contains("lock on the table"), "{text}");
    assert!(text.contains(store), "{text}");
}

async fn opening_waits(kind: Kind) {
    let mut database = Database::start(kind).await;
    let _table = database.store().await;
    let url = database.url();
    let error = wait_too_long(&mut database, AnyStore::connect(&url)).await;
    let text = whole(&error.unwrap_err());
    assert!(text.contains("within 10s"), "{text}");
    assert!(text.contains("locked the table"), "{text}");
}

async fn a_server_says_nothing(kind: Kind) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let scheme = match kind {
        Kind::Postgres => "postgres",
        Kind::MySql => "mysql",
    };
    let url = format!("{scheme}://cloakroom:secret@{at}/cloakroom");
    tokio::time::pause();
    let error = timeout(PATIENCE, AnyStore::connect(&url)).await.unwrap();
    let text = whole(&error.unwrap_err());
    assert!(text.contains(&at.to_string()), "{text}");
    assert!(text.contains("did not answer within 10s"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_runtime_that_ends_in_a_call_leaves_no_connection_to_the_next_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    for kind in [Kind::Postgres, Kind::MySql] {
        let (first, second) = (runtime(), runtime());
        let mut database = second.block_on(Database::start(kind));
        let store = first.block_on(database.store());
        first.block_on(store.load(SOME_ID)).unwrap();
        assert_eq!(count(&store), 1);
        second.block_on(database.lock());
        first.spawn({
            let store = store.clone();
            async move { store.load(SOME_ID).await }
        });
        while second.block_on(database.waiting()) == 0 {
            first.block_on(async { sleep(Duration::from_millis(10)).await });
        }
        drop(first);
        assert_eq!(count(&store), 0);
        second.block_on(database.unlock());
        assert!(second.block_on(store.load(SOME_ID)).unwrap().is_none());
    }
}

#[tokio::test]
async fn aborted_requests_leave_a_sqlite_file_with_all_its_connections() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let store = SqliteStore::open(path).await.unwrap();
    let app = app(builder(store).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    for visits in 1..=100 {
        for polls in 1..=3 {
            abandon(browser.send("/get/visits", &[]), polls).await;
            abandon(browser.send("/insert/theme/dark", &[]), polls).await;
        }
        let reply = browser.get("/update/visits").await;
        reply.assert(200, &visits.to_string());
    }
}

#[tokio::test]
async fn a_purge_of_mysql_needs_no_hash_of_the_server_and_takes_the_longest_names() {
    let mut database = Database::start(Kind::MySql).await;
    let (schema, table) = ("s".repeat(63), "t".repeat(50));
    let watcher = &mut database.watcher;
    watcher.run(&format!("CREATE SCHEMA {schema}")).await;
    watcher.run("SET GLOBAL log_output = 'TABLE'").await;
    watcher.run("SET GLOBAL general_log = 1").await;
    let store = MySqlStore::connect(&database.url()).await.unwrap();
    let other = store.clone().with_schema(schema).unwrap();
    let other = other.with_table(table).unwrap();
    for store in [store, other] {
        store.migrate().await.unwrap();
        let clock = TestClock::new();
        let layer = builder(store).clock(clock.clone()).build().unwrap();
        let sessions = layer.sessions();
        let mut browser = Browser::new(&app(layer));
        browser.get("/log_in/ada").await.assert(200, "done");
        clock.advance(Duration::from_secs(24 * 60 * 60));
        assert_eq!(sessions.purge_expired().await.unwrap(), 1);
    }
    let log = "FROM mysql.general_log \
        WHERE command_type = 'Execute' AND argument NOT LIKE '%general_log%' AND argument LIKE";
    let mut logged = async |what: &str| {
        let query = format!("SELECT count(*) {log} '%{what}%'");
        database.watcher.numbers(&query).await
    };
    assert_eq!(logged("GET\\_LOCK(_cloakroom ").await, [2]);
    // MySQL 9.6 does not have SHA1 and MD5.
    assert_eq!(logged("SHA").await, [0]);
    assert_eq!(logged("MD5").await, [0]);
}
