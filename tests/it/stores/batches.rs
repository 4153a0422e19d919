//! Calls that wait at the same time go to the database or the server together. Each caller gets its
//! own answer.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::{
    MemoryStore, MySqlStore, PostgresStore, Record, RecordId, Replaced, SessionStore, SqliteStore,
    StoreError, Version, testing,
};
use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use sqlx::{MySqlPool, PgPool};
use support::servers::Server;
use support::stores::{Backend, Kind};
use support::{Browser, app, builder, id_of};
use tempfile::TempDir;

use super::opening::whole;
use super::round_trips::{logging_mysql, logging_postgres, seen_by_mysql, seen_by_postgres};

/// More than a batch takes.
const CALLS: u8 = 200;

pub(super) fn id(number: u8) -> RecordId {
    RecordId::from_bytes([number; 16])
}

/// A record of a user.
pub(super) async fn record_of(store: &Arc<impl SessionStore>, user: &str) -> Record {
    let app = app(builder(store.clone()).build().unwrap());
    let mut browser = Browser::new(&app);
    browser
        .get(&format!("/log_in/{user}"))
        .await
        .assert(200, "done");
    let id = id_of(&browser.token());
    store.load(id).await.unwrap().unwrap()
}

pub(super) fn newer(record: &Record) -> Version {
    Version::from_u64(record.version().as_u64() + 1)
}

/// Two hundred calls of all kinds at once. Each call has its own record, and a known answer.
pub(super) async fn each_call_has_its_own_answer(store: impl SessionStore) {
    let store = Arc::new(store);
    let record = record_of(&store, "ada").await;
    let version = record.version();
    let is_stored = |number: u8| matches!(number % 9, 1 | 2 | 3 | 5 | 7);
    for number in (0..CALLS).filter(|&number| is_stored(number)) {
        assert!(store.insert(id(number), &record).await.unwrap());
    }
    let calls = (0..CALLS).map(|number| {
        let (store, record, id) = (store.clone(), record.clone(), id(number));
        async move {
            let wrong = newer(&record);
            let answer = match number % 9 {
                0 => format!("inserted: {}", store.insert(id, &record).await.unwrap()),
                1 => format!("inserted: {}", store.insert(id, &record).await.unwrap()),
                2 | 4 => format!("{:?}", store.replace(id, version, &record).await.unwrap()),
                3 => format!("{:?}", store.replace(id, wrong, &record).await.unwrap()),
                5 | 6 => format!("touched: {}", store.touch(id, &record).await.unwrap()),
                _ => format!("removed: {}", store.remove(id).await.unwrap()),
            };
            let expected = [
                "inserted: true",
                "inserted: false",
                "Done",
                "Conflict",
                "Missing",
                "touched: true",
                "touched: false",
                "removed: true",
                "removed: false",
            ];
            assert_eq!(answer, expected[usize::from(number % 9)], "{number}");
        }
    });
    join_all(calls).await;
    let loads = join_all((0..CALLS).map(|number| store.load(id(number)))).await;
    for (number, loaded) in (0..CALLS).zip(loads) {
        let is_there = matches!(number % 9, 0 | 1 | 2 | 3 | 5);
        let loaded = loaded.unwrap();
        assert_eq!(loaded.is_some(), is_there, "{number}");
        if let Some(loaded) = loaded {
            assert_eq!(loaded.user(), record.user());
            assert_eq!(loaded.expires_at(), record.expires_at());
        }
    }
}

#[tokio::test]
async fn each_call_to_sqlite_has_its_own_answer() {
    each_call_has_its_own_answer(Backend::start(Kind::Sqlite).store().await).await;
    each_call_has_its_own_answer(SqliteStore::open(":memory:").await.unwrap()).await;
}

#[tokio::test]
async fn each_call_to_postgres_has_its_own_answer() {
    each_call_has_its_own_answer(Backend::start(Kind::Postgres).store().await).await;
}

#[tokio::test]
async fn each_call_to_mysql_has_its_own_answer() {
    each_call_has_its_own_answer(Backend::start(Kind::MySql).store().await).await;
}

#[tokio::test]
async fn each_call_to_memcached_has_its_own_answer() {
    each_call_has_its_own_answer(Backend::start(Kind::Memcached).store().await).await;
}

#[tokio::test]
async fn reads_of_memcached_that_wait_together_share_a_round_trip() {
    let backend = Backend::start(Kind::Memcached);
    let store = Arc::new(backend.store().await);
    let record = record_of(&store, "ada").await;
    join_all((0..64).map(|number| store.insert(id(number), &record))).await;
    let before = backend.round_trips();
    for loaded in join_all((0..64).map(|number| store.load(id(number)))).await {
        assert!(loaded.unwrap().is_some());
    }
    // There are two servers, and each session belongs to one of them.
    let round_trips = backend.round_trips() - before;
    assert!((2..=32).contains(&round_trips), "{round_trips}");
}

/// 64 reads, and then 64 writes, each of its own record. Returns how many statements each took.
async fn statements_of_64(store: impl SessionStore, seen: impl AsyncFn() -> u64) -> [u64; 2] {
    let store = Arc::new(store);
    let record = record_of(&store, "ada").await;
    join_all((0..64).map(|number| store.insert(id(number), &record))).await;
    let before = seen().await;
    for loaded in join_all((0..64).map(|number| store.load(id(number)))).await {
        assert!(loaded.unwrap().is_some());
    }
    let between = seen().await;
    let replaces = (0..64).map(|number| store.replace(id(number), record.version(), &record));
    for replaced in join_all(replaces).await {
        assert_eq!(replaced.unwrap(), Replaced::Done);
    }
    [between - before, seen().await - between]
}

#[tokio::test]
async fn reads_and_writes_of_postgres_that_wait_together_share_a_statement() {
    let (server, store) = logging_postgres().await;
    let seen = async || seen_by_postgres(&server);
    let [reads, writes] = statements_of_64(store, seen).await;
    // The first calls may have their answers before the others are there.
    assert!(reads <= 32 && writes <= 32, "{reads} {writes}");
}

#[tokio::test]
async fn reads_of_mysql_that_wait_together_share_a_statement() {
    let (_server, store, log) = logging_mysql().await;
    let seen = async || seen_by_mysql(&log).await;
    let [reads, writes] = statements_of_64(store, seen).await;
    assert!(reads <= 32, "{reads}");
    assert_eq!(
        writes, 64,
        "`UPDATE` of MySQL does not say which rows it wrote"
    );
}

/// Inserts of several records at once. The database refuses one of them.
async fn only_the_refused_record_fails(store: impl SessionStore, reason: &str) {
    let store = Arc::new(store);
    let good = record_of(&store, "ada").await;
    let bad = record_of(&store, "eve").await;
    let inserts = (0..20).map(|number| {
        let (store, record) = (store.clone(), if number == 13 { &bad } else { &good });
        async move { store.insert(id(number), record).await }
    });
    for (number, inserted) in join_all(inserts).await.into_iter().enumerate() {
        match inserted {
            Ok(inserted) => assert!(inserted && number != 13, "{number}"),
            Err(error) => {
                assert_eq!(number, 13, "{error:?}");
                assert!(whole(&error).contains(reason), "{}", whole(&error));
            }
        }
    }
    let loads = join_all((0..20).map(|number| store.load(id(number)))).await;
    for (number, loaded) in loads.into_iter().enumerate() {
        assert_eq!(loaded.unwrap().is_some(), number != 13);
    }
}

#[tokio::test]
async fn a_record_that_postgres_refuses_fails_alone() {
    let backend = Backend::start(Kind::Postgres);
    let store = PostgresStore::connect(&backend.direct_url()).await.unwrap();
    store.migrate().await.unwrap();
    let pool = PgPool::connect(&backend.direct_url()).await.unwrap();
    let trigger = "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN
        IF NEW.user_id LIKE '%eve' AND NEW.id >= '\\x00' AND NEW.id = decode(repeat('0d', 16), 'hex') THEN
            RAISE EXCEPTION 'no coat for eve'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql";
    sqlx::raw_sql(trigger).execute(&pool).await.unwrap();
    let on = "CREATE TRIGGER refuse BEFORE INSERT ON cloakroom_sessions
        FOR EACH ROW EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(on).execute(&pool).await.unwrap();
    only_the_refused_record_fails(store, "no coat for eve").await;
}

/// An application's own pool, with the settings that the store would choose.
async fn sqlite_pool(directory: &TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("app.sqlite3"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    SqlitePool::connect_with(options).await.unwrap()
}

#[tokio::test]
async fn a_record_that_sqlite_refuses_fails_alone_also_in_the_applications_pool() {
    let directory = tempfile::tempdir().unwrap();
    let pool = sqlite_pool(&directory).await;
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON cloakroom_sessions
        WHEN NEW.user_id LIKE '%eve' AND hex(NEW.id) LIKE '0D0D0D%' BEGIN
        SELECT RAISE(ABORT, 'no coat for eve'); END";
    sqlx::raw_sql(trigger).execute(&pool).await.unwrap();
    only_the_refused_record_fails(store, "no coat for eve").await;
}

#[tokio::test]
async fn all_kinds_of_writes_in_the_applications_sqlite_pool_have_their_own_answers() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::new(sqlite_pool(&directory).await);
    store.migrate().await.unwrap();
    each_call_has_its_own_answer(store).await;
}

/// The server takes the calls, and says nothing. Then it goes on.
async fn a_silent_server_is_a_503_for_each_caller(kind: Kind) {
    let mut backend = Backend::start(kind);
    let limit = Duration::from_millis(500);
    let layer = builder(backend.store().await).store_timeout(limit);
    let app = app(layer.build().unwrap());
    let mut browsers: Vec<_> = (0..40).map(|_| Browser::new(&app)).collect();
    for (number, browser) in browsers.iter_mut().enumerate() {
        let path = format!("/log_in/user-{number}");
        browser.get(&path).await.assert(200, "done");
    }
    backend
        .servers()
        .into_iter()
        .for_each(|server| server.pause());
    let begin = Instant::now();
    let visits = browsers
        .iter_mut()
        .map(|browser| browser.get("/update/visits"));
    for reply in join_all(visits).await {
        reply.assert(503, "");
    }
    assert!(begin.elapsed() < 4 * limit, "{:?}", begin.elapsed());
    backend
        .servers()
        .into_iter()
        .for_each(|server| server.resume());
    // What waited in the server may come to its end, and the connections to theirs.
    let begin = Instant::now();
    for browser in &mut browsers {
        loop {
            let reply = browser.get("/insert/theme/dark").await;
            if reply.status == 200 {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{}",
                reply.status
            );
        }
        browser.get("/get/theme").await.assert(200, "dark");
    }
}

#[tokio::test]
async fn a_postgres_that_says_nothing_is_a_503_for_each_caller_of_a_batch() {
    a_silent_server_is_a_503_for_each_caller(Kind::Postgres).await;
}

#[tokio::test]
async fn a_mysql_that_says_nothing_is_a_503_for_each_caller_of_a_batch() {
    a_silent_server_is_a_503_for_each_caller(Kind::MySql).await;
}

#[tokio::test]
async fn a_memcached_that_says_nothing_is_a_503_for_each_caller_of_a_batch() {
    a_silent_server_is_a_503_for_each_caller(Kind::Memcached).await;
}

/// Two nodes write the same records at once, one in this order and one in the other.
#[tokio::test]
async fn batches_of_two_nodes_that_write_the_same_records_never_deadlock() {
    let backend = Backend::start(Kind::Postgres);
    let url = backend.direct_url();
    let nodes = [
        Arc::new(PostgresStore::connect(&url).await.unwrap()),
        Arc::new(PostgresStore::connect(&url).await.unwrap()),
    ];
    nodes[0].migrate().await.unwrap();
    let record = record_of(&nodes[0], "ada").await;
    join_all((0..64).map(|number| nodes[0].insert(id(number), &record))).await;
    let write = async |node: &PostgresStore, number: u8, round: u8| match round % 4 {
        0 => node.touch(id(number), &record).await.map(drop),
        1 if number.is_multiple_of(7) => node.remove(id(number)).await.map(drop),
        2 => node.insert(id(number), &record).await.map(drop),
        _ => {
            let replaced = node.replace(id(number), record.version(), &record).await;
            replaced.map(drop)
        }
    };
    for round in 0..100 {
        let one = join_all((0..64).map(|number| write(&nodes[0], number, round)));
        let other = join_all(
            (0..64)
                .rev()
                .map(|number| write(&nodes[1], number, round + 3)),
        );
        let (one, other) = futures_util::future::join(one, other).await;
        for result in one.into_iter().chain(other) {
            result.unwrap();
        }
    }
    let pool = PgPool::connect(&url).await.unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'cloakroom'";
    let (deadlocks,): (i64,) = sqlx::query_as(deadlocks).fetch_one(&pool).await.unwrap();
    assert_eq!(deadlocks, 0);
}

/// MySQL closes the connection of a packet that is too large.
#[tokio::test]
async fn a_record_over_the_packet_limit_of_mysql_fails_alone_with_the_settings_name() {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let pool = MySqlPool::connect(&url).await.unwrap();
    let limit = "SET GLOBAL max_allowed_packet = 65536";
    sqlx::query(limit).execute(&pool).await.unwrap();
    let store = Arc::new(MySqlStore::connect(&url).await.unwrap());
    store.migrate().await.unwrap();
    let good = record_of(&store, "ada").await;
    let bad = large_record(100_000).await;
    let inserts = (0..20).map(|number| {
        let record = if number == 13 { &bad } else { &good };
        store.insert(id(number), record)
    });
    for (number, inserted) in join_all(inserts).await.into_iter().enumerate() {
        let error: StoreError = match inserted {
            Ok(_) if number != 13 => continue,
            other => other.expect_err("it is larger than a packet may be"),
        };
        assert_eq!(number, 13, "{}", whole(&error));
        let whole = whole(&error);
        assert!(whole.contains("max_allowed_packet"), "{whole}");
    }
    assert!(store.load(id(0)).await.unwrap().is_some());
}

/// A record with a value of this many bytes.
async fn large_record(bytes: usize) -> Record {
    let store = Arc::new(MemoryStore::new());
    let layer = builder(store.clone())
        .data_limit(2 * bytes)
        .build()
        .unwrap();
    let mut browser = testing::Browser::new(app(layer.clone()));
    let large = "x".repeat(bytes);
    let insert = browser.with_session(&layer, |session| session.insert("large", large));
    insert.await.unwrap();
    let token = browser.cookie("__Host-session").unwrap();
    store.load(id_of(token)).await.unwrap().unwrap()
}

/// A program has one libsqlite3 (`links = "sqlite3"`), whichever crates use it.
#[test]
fn an_application_may_use_another_sqlite_crate_beside_the_store() {
    let crates = [
        "sqlx = { version = \"0.8\", features = [\"sqlite\"] }",
        "sqlx = { version = \"0.9\", features = [\"sqlite\"] }",
        "diesel = { version = \"2\", features = [\"sqlite\"] }",
        "rusqlite = \"0.32\"",
        "rusqlite = \"0.39\"",
    ];
    for other in crates {
        let directory = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = format!(
            "[package]\nname = \"application\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [workspace]\n[dependencies]\n\
             cloakroom = {{ path = {root:?}, features = [\"sqlite\"] }}\n{other}\n"
        );
        std::fs::write(directory.path().join("Cargo.toml"), manifest).unwrap();
        std::fs::create_dir(directory.path().join("src")).unwrap();
        std::fs::write(directory.path().join("src/lib.rs"), "").unwrap();
        let resolved = Command::new(env!("CARGO"))
            .args(["generate-lockfile", "--quiet"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&resolved.stderr);
        assert!(resolved.status.success(), "{other}: {errors}");
    }
}

/// PostgreSQL keeps a plan until it analyzes the table. That happens once a minute at most, and a
/// young table grows faster.
#[tokio::test]
async fn batches_of_writes_do_not_read_all_of_a_postgres_table_that_has_grown() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let record = record_of(&Arc::new(MemoryStore::new()), "ada").await;
    let id = |number: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_769).to_be_bytes());
        RecordId::from_bytes(bytes)
    };
    let (few, many, times) = (64, 20_000, 40_u8);
    let insert = |numbers: std::ops::Range<u32>| {
        join_all(numbers.map(|number| store.insert(id(number), &record)))
    };
    let touch = || join_all((0..few).map(|number| store.touch(id(number), &record)));

    insert(0..few).await;
    for _ in 0..20 {
        touch().await;
    }
    insert(few..many).await;
    for _ in 0..times {
        let mut touched = touch().await.into_iter();
        assert!(touched.all(Result::unwrap));
    }
    drop(store);

    let pool = PgPool::connect(&url).await.unwrap();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'cloakroom' \
                  AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    // A connection tells what it has read when it ends.
    while sqlx::query_scalar::<_, i64>(others)
        .fetch_one(&pool)
        .await
        .unwrap()
        > 0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'cloakroom_sessions'";
    let read: i64 = sqlx::query_scalar(read).fetch_one(&pool).await.unwrap();
    let whole_tables = read / i64::from(many);
    assert!(
        whole_tables < i64::from(times) / 4,
        "it read the table {whole_tables} times"
    );
}
