//! What the SQL stores do with their connections, with wrong names and paths, and with databases
//! that do not answer.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use cloakroom::{
    AnyStore, MemcachedStore, MySqlStore, PostgresStore, RecordId, SessionStore, SqliteStore,
    StoreError, TestClock, UserId, UserIndex,
};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use support::servers::Server;
use support::{Browser, app, builder};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SOME_ID: RecordId = RecordId::from_bytes([7; 16]);

/// In which what is to come must have come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many connections a store has to its server.
const CONNECTIONS: usize = 16;

type Store = Arc<dyn UserIndex>;

#[derive(Clone, Copy)]
enum Kind {
    Postgres,
    MySql,
}

/// A connection of the test's own.
enum Client {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl Client {
    async fn open(kind: Kind, url: &str) -> Self {
        match kind {
            Kind::Postgres => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            Kind::MySql => Self::MySql(MySqlConnection::connect(url).await.unwrap()),
        }
    }

    async fn run(&mut self, statements: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match self {
            Self::Postgres(client) => drop(statements.execute(client).await.unwrap()),
            Self::MySql(client) => drop(statements.execute(client).await.unwrap()),
        }
    }

    async fn numbers(&mut self, query: &str) -> Vec<i64> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Postgres(client) => sqlx::query_scalar(query).fetch_all(client).await.unwrap(),
            Self::MySql(client) => sqlx::query_scalar(query).fetch_all(client).await.unwrap(),
        }
    }
}

/// A server, and two connections to it: one that looks, and one that stands in the way.
struct Database {
    kind: Kind,
    server: Server,
    watcher: Client,
    blocker: Client,
    own: BTreeSet<i64>,
}

impl Database {
    async fn start(kind: Kind) -> Self {
        let server = match kind {
            Kind::Postgres => Server::postgres(),
            Kind::MySql => Server::mariadb(),
        };
        let url = url_of(kind, &server);
        let mut database = Self {
            kind,
            server,
            watcher: Client::open(kind, &url).await,
            blocker: Client::open(kind, &url).await,
            own: BTreeSet::new(),
        };
        let id = match kind {
            Kind::Postgres => "SELECT pg_backend_pid()::bigint",
            Kind::MySql => "SELECT CAST(connection_id() AS SIGNED)",
        };
        database.own.extend(database.watcher.numbers(id).await);
        database.own.extend(database.blocker.numbers(id).await);
        database
    }

    fn url(&self) -> String {
        url_of(self.kind, &self.server)
    }

    /// A store with connections of its own, and its table.
    async fn store(&self) -> Store {
        match self.kind {
            Kind::Postgres => {
                let store = PostgresStore::open(&self.url()).await.unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
            Kind::MySql => {
                let store = MySqlStore::open(&self.url()).await.unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
        }
    }

    /// What the server calls the connections that others than the test have.
    async fn connections(&mut self) -> BTreeSet<i64> {
        let query = match self.kind {
            Kind::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity \
                 WHERE usename = 'cloakroom' AND backend_type = 'client backend'"
            }
            Kind::MySql => {
                "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                 WHERE user = 'cloakroom'"
            }
        };
        let all = BTreeSet::from_iter(self.watcher.numbers(query).await);
        &all - &self.own
    }

    /// Lets every statement on the table wait.
    async fn lock(&mut self) {
        let lock = match self.kind {
            Kind::Postgres => "BEGIN; LOCK TABLE cloakroom_sessions IN ACCESS EXCLUSIVE MODE",
            Kind::MySql => "LOCK TABLES cloakroom_sessions WRITE",
        };
        self.blocker.run(lock).await;
    }

    async fn unlock(&mut self) {
        let unlock = match self.kind {
            Kind::Postgres => "COMMIT",
            Kind::MySql => "UNLOCK TABLES",
        };
        self.blocker.run(unlock).await;
    }

    /// How many statements wait for a lock.
    async fn waiting(&mut self) -> usize {
        let query = match self.kind {
            Kind::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            }
            Kind::MySql => {
                "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                 WHERE state LIKE 'Waiting for table %lock'"
            }
        };
        self.watcher.numbers(query).await.len()
    }

    /// Has the store open all the connections that it may have.
    async fn fill(&mut self, store: &Store) {
        self.lock().await;
        let mut calls = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let store = store.clone();
            calls.spawn(async move { store.load(SOME_ID).await.unwrap() });
        }
        let begin = Instant::now();
        while self.waiting().await < CONNECTIONS {
            assert!(begin.elapsed() < PATIENCE, "{} wait", self.waiting().await);
        }
        self.unlock().await;
        calls.join_all().await;
        assert_eq!(self.connections().await.len(), CONNECTIONS);
    }
}

fn url_of(kind: Kind, server: &Server) -> String {
    let scheme = match kind {
        Kind::Postgres => "postgres",
        Kind::MySql => "mysql",
    };
    format!("{scheme}://cloakroom:secret@{}/cloakroom", server.address())
}

/// How many connections a store has.
fn count(store: &Store) -> usize {
    let text = format!("{store:?}");
    let (_, count) = text.split_once("connections: ").unwrap();
    let end = count.find(|c: char| !c.is_ascii_digit()).unwrap();
    count.split_at(end).0.parse().unwrap()
}

/// Asks a call for its answer as often as this, and then drops it.
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

/// Makes a test for each server of one that takes a `Kind`.
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
    let user = UserId::from("__Host-session:ada");
    let abort = async {
        for polls in (1..=6).cycle().take(120) {
            abandon(aborting.send("/get/visits", &[]), polls).await;
            abandon(store.load(SOME_ID), polls).await;
            abandon(store.remove(SOME_ID), polls).await;
            abandon(store.sessions_of(&user), polls).await;
        }
    };
    tokio::join!(well_behaved, abort);
    assert_eq!(database.connections().await, before);
    assert_eq!(count(&store), CONNECTIONS);
}

/// With the only connection of the application's own pool.
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
    let user = UserId::from("__Host-session:ada");
    let sessions = store.sessions_of(&user).await.unwrap();
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
    for _ in 0..CONNECTIONS {
        abandon(store.load(SOME_ID), 1).await;
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
        Kind::Postgres => Arc::new(PostgresStore::open(&database.url()).await.unwrap()),
        Kind::MySql => Arc::new(MySqlStore::open(&database.url()).await.unwrap()),
    };
    // The one that `open` tried is gone.
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
    assert_eq!(&database.connections().await - &of_before, made);
}

async fn statements_fail(kind: Kind) {
    let mut database = Database::start(kind).await;
    if matches!(kind, Kind::MySql) {
        // In seconds, for connections that are made from now on.
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

    // SQLSTATE 23, 22, and P0 or 45.
    let app = app(builder(store.clone()).build().unwrap());
    for user in ["forbidden", "much-too-long", "refused"] {
        let mut browser = Browser::new(&app);
        let path = format!("/log_in/{user}");
        browser.get(&path).await.assert(503, "");
        assert_eq!(count(&store), CONNECTIONS, "after {user}");
    }

    // A NUL in a text, which PostgreSQL refuses (22021), and MySQL has in its binary column.
    let with_nul = store.sessions_of(&UserId::from("a\0b")).await;
    assert_eq!(with_nul.is_err(), matches!(kind, Kind::Postgres));
    assert_eq!(count(&store), CONNECTIONS, "after a NUL");

    // Somebody cancels the statement (57014), or it waits for a lock for too long (1205).
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

    // There is no table (42).
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
            // One that may do everything may also write to a server that is read-only.
            let _ = database.store().await;
            let plain =
                "CREATE USER plain IDENTIFIED BY 'secret'; GRANT ALL ON cloakroom.* TO plain";
            database.watcher.run(plain).await;
            let url = database.url().replace("cloakroom:", "plain:");
            Arc::new(MySqlStore::open(&url).await.unwrap())
        }
    };
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let store = store.clone();
        calls.spawn(async move { store.remove(SOME_ID).await.unwrap() });
    }
    calls.join_all().await;
    assert!(count(&store) > 1);
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

/// Lets a call wait in the server for a lock, and then time run.
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
            // The table has no index yet, for which the migration needs a lock.
            let drop = "DROP INDEX cloakroom_sessions_user_id";
            database.watcher.run(drop).await;
            let store = PostgresStore::open(&url).await.unwrap();
            let error = wait_too_long(&mut database, store.migrate()).await;
            (error.unwrap_err(), "PostgresStore::migration")
        }
        Kind::MySql => {
            let store = MySqlStore::open(&url).await.unwrap();
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
    let error = wait_too_long(&mut database, AnyStore::open(&url)).await;
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
    let error = timeout(PATIENCE, AnyStore::open(&url)).await.unwrap();
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
    let store = MySqlStore::open(&database.url()).await.unwrap();
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
    // MySQL 9.6 has no SHA1 and no MD5.
    assert_eq!(logged("SHA").await, [0]);
    assert_eq!(logged("MD5").await, [0]);
}

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
    let in_postgres = PostgresStore::open(&postgres.url()).await.unwrap();
    let in_postgres = in_postgres.with_schema(&schema).unwrap();
    let in_mysql = MySqlStore::open(&mysql.url()).await.unwrap();
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
        let user = UserId::from("__Host-session:ada");
        assert!(store.sessions_of(&user).await.unwrap().is_empty());
        let layer = builder(store.clone()).build().unwrap();
        let mut browser = Browser::new(&app(layer));
        browser.get("/log_in/ada").await.assert(200, "done");
        assert_eq!(store.sessions_of(&user).await.unwrap().len(), 1);
    }
    for name in names {
        let indexes = format!(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND tablename = '{name}'"
        );
        assert_eq!(postgres.watcher.numbers(&indexes).await, [3]);
    }
}

#[tokio::test]
async fn a_prefix_that_makes_keys_too_long_for_memcached_is_refused() {
    let server = Server::memcached(&[]);
    let url = format!("memcache://{}", server.address());
    let store = MemcachedStore::open(&url).await.unwrap();
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
        ("postgres://ada:secret@host/database", "`AnyStore::open`"),
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
        let text = whole(&AnyStore::open(url).await.unwrap_err());
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
    // Beneath the working directory, so that a relative path leads there.
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
            let user = UserId::from("__Host-session:ada");
            let sessions = store.sessions_of(&user).await.unwrap();
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
