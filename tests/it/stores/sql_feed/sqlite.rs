//! The feed of SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::{
    AnyStore, Clock as _, Feed, MemoryStore, Notice, Record, SessionFeed, SessionStore,
    SqliteStore, TestClock,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqlitePool};
use support::processes::{child, child_name, store_of_parent};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{MANY, PATIENCE, assert_gap, assert_many_are_told, events, hex, id, ids, next, told};
use crate::stores::batches::record_of;

/// A file, a store on it, and a connection of the test.
struct Rig {
    dir: TempDir,
    store: SqliteStore,
    client: SqliteConnection,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.sqlite3");
        let store = SqliteStore::open(&path).await.unwrap();
        let client = open(&path).await;
        Self { dir, store, client }
    }

    fn url(&self) -> String {
        format!(
            "sqlite:{}",
            self.dir.path().join("sessions.sqlite3").display()
        )
    }

    async fn run(&mut self, statements: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        statements.execute(&mut self.client).await.unwrap();
    }

    async fn number(&mut self, query: &str) -> i64 {
        let query = AssertSqlSafe(query.to_owned());
        sqlx::query_scalar(query)
            .fetch_one(&mut self.client)
            .await
            .unwrap()
    }

    /// Adds records of these numbers, which have expired, in one transaction.
    async fn add(&mut self, numbers: std::ops::RangeInclusive<usize>) {
        self.run(&add(numbers)).await;
    }

    async fn subscribe(&self) -> Feed {
        self.store
            .session_feed()
            .unwrap()
            .subscribe()
            .await
            .unwrap()
    }
}

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(10));
    options.connect().await.unwrap()
}

async fn record() -> Record {
    record_of(&Arc::new(MemoryStore::new()), "ada").await
}

fn add(numbers: std::ops::RangeInclusive<usize>) -> String {
    let (first, last) = (numbers.start(), numbers.end());
    format!(
        "WITH RECURSIVE numbers(n) AS \
         (VALUES ({first}) UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) \
         INSERT INTO cloakroom_sessions (id, version, user_id, expires_at, record) \
         SELECT unhex(printf('%032x', n)), 0, NULL, 1, x'' FROM numbers"
    )
}

#[tokio::test]
async fn statements_of_other_connections_are_told_by_sqlite() {
    let mut rig = Rig::start().await;
    let mut feed = rig.subscribe().await;
    rig.add(1..=300).await;
    assert_eq!(ids(&mut feed).await, (1..=300).map(id).collect::<Vec<_>>());
    let one = format!("WHERE id = x'{}'", hex(id(7)));
    rig.run(&format!(
        "UPDATE cloakroom_sessions SET expires_at = 2 {one}"
    ))
    .await;
    assert_eq!(ids(&mut feed).await, [id(7)]);
    rig.run(&format!("DELETE FROM cloakroom_sessions {one}"))
        .await;
    // Without a ping, the task looks at an interval.
    assert_eq!(next(&mut feed).await, Notice::Changed(id(7)));
    rig.run(&format!("UPDATE cloakroom_sessions SET version = 2 {one}"))
        .await;
    rig.run("BEGIN; DELETE FROM cloakroom_sessions; ROLLBACK")
        .await;
    assert_eq!(told(&mut feed).await, []);
    let path = rig.dir.path().join("sessions.sqlite3");
    let other = SqliteStore::open(&path).await.unwrap();
    assert!(other.remove(id(9)).await.unwrap());
    assert_eq!(ids(&mut feed).await, [id(9)]);
    rig.run("DELETE FROM cloakroom_sessions").await;
    assert_eq!(told(&mut feed).await.len(), 298);
}

#[tokio::test]
async fn what_another_process_writes_to_a_sqlite_file_is_told() {
    if child_name().is_some() {
        // This process does not subscribe.
        let store = store_of_parent().await;
        assert!(store.remove(id(1)).await.unwrap());
        assert!(store.remove(id(2)).await.unwrap());
        return;
    }
    let mut rig = Rig::start().await;
    rig.add(1..=3).await;
    let mut feed = rig.subscribe().await;
    let test = "what_another_process_writes_to_a_sqlite_file_is_told";
    let child = child(module_path!(), test, "writer", &rig.url())
        .spawn()
        .unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    assert_eq!(next(&mut feed).await, Notice::Changed(id(1)));
    assert_eq!(next(&mut feed).await, Notice::Changed(id(2)));
    assert!(output.await.unwrap().unwrap().status.success());
    assert_eq!(told(&mut feed).await, []);
}

/// Two processes, and several stores in each, begin on a file that nobody has subscribed to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_subscribe_to_a_new_file_at_once_share_one_log() {
    async fn subscribe(path: &Path) {
        let mut stores = JoinSet::new();
        for _ in 0..4 {
            let path = path.to_owned();
            stores.spawn(async move {
                let store = SqliteStore::open(path).await.unwrap();
                let mut feed = store.subscribe().await.unwrap();
                told(&mut feed).await;
            });
        }
        stores.join_all().await;
    }
    if let Some(path) = child_name() {
        return subscribe(path.as_ref()).await;
    }
    let rig = Rig::start().await;
    for round in 0..5 {
        let path = rig.dir.path().join(format!("{round}.sqlite3"));
        let _first = SqliteStore::open(&path).await.unwrap();
        let test = "programs_that_subscribe_to_a_new_file_at_once_share_one_log";
        let name = path.to_str().unwrap();
        let child = child(module_path!(), test, name, "").spawn().unwrap();
        subscribe(&path).await;
        assert!(child.wait_with_output().unwrap().status.success());
        let mut client = open(&path).await;
        let marks = sqlx::query_scalar("SELECT count(*) FROM cloakroom_sessions_feed");
        let marks: i64 = marks.fetch_one(&mut client).await.unwrap();
        assert_eq!(marks, 1);
    }
}

#[tokio::test]
async fn a_large_purge_of_sqlite_is_told_or_is_a_gap() {
    let mut rig = Rig::start().await;
    rig.add(1..=MANY).await;
    let mut feed = rig.subscribe().await;
    let purged = rig
        .store
        .purge_expired(TestClock::new().now())
        .await
        .unwrap();
    assert_eq!(usize::try_from(purged), Ok(MANY));
    assert_many_are_told(&mut feed).await;
}

#[tokio::test]
async fn more_changes_than_the_log_keeps_are_a_gap() {
    let mut rig = Rig::start().await;
    let mut feed = rig.subscribe().await;
    rig.add(1..=MANY).await;
    assert_eq!(told(&mut feed).await, [Notice::Gap]);
    // The log is bounded, and goes on.
    let log = "SELECT count(*) FROM cloakroom_sessions_feed";
    let entries = rig.number(log).await;
    assert!((10_000..10_300).contains(&entries), "{entries}");
    rig.run("DELETE FROM cloakroom_sessions WHERE id <> x'00000000000000000000000000000001'")
        .await;
    assert_eq!(told(&mut feed).await, [Notice::Gap]);
    rig.run("DELETE FROM cloakroom_sessions").await;
    assert_eq!(ids(&mut feed).await, [id(1)]);
    // As many as it keeps.
    rig.add(1..=9_999).await;
    assert_eq!(ids(&mut feed).await.len(), 9_999);
}

#[test]
fn a_log_that_somebody_cleared_or_dropped_is_a_gap() {
    let seen = events(async {
        let mut rig = Rig::start().await;
        let mut feed = rig.subscribe().await;
        for change in [
            "DELETE FROM cloakroom_sessions_feed",
            // Nothing shows but the numbers.
            "DELETE FROM cloakroom_sessions_feed WHERE seq > 0",
            "DROP TABLE cloakroom_sessions_feed",
            "DROP TRIGGER cloakroom_sessions_feed_insert",
            "DROP TABLE cloakroom_sessions_feed; DROP TRIGGER cloakroom_sessions_feed_update",
        ] {
            rig.run("DELETE FROM cloakroom_sessions").await;
            rig.add(1..=3).await;
            told(&mut feed).await;
            rig.run(change).await;
            assert_gap(&mut feed).await;
            // SQLite does not look for a newer schema if a trigger lacks its table.
            rig.number("SELECT count(*) FROM cloakroom_sessions").await;
            rig.run("DELETE FROM cloakroom_sessions").await;
            let told = ids(&mut feed).await;
            assert_eq!(told, [1, 2, 3].map(id), "{change}");
        }
        // The table itself is new, and then the log is too.
        rig.run("DROP TABLE cloakroom_sessions").await;
        rig.store.migrate().await.unwrap();
        rig.add(1..=1).await;
        assert_gap(&mut feed).await;
        rig.add(2..=2).await;
        assert_eq!(ids(&mut feed).await, [id(2)]);
    });
    assert!(seen["feed_lost"] >= 2, "{seen:?}");
    assert_eq!(seen["feed_lost"], seen["feed_restored"]);
}

#[tokio::test]
async fn a_file_that_nobody_subscribed_to_has_no_log() {
    let mut rig = Rig::start().await;
    let count = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%feed%'";
    assert_eq!(rig.number(count).await, 0);
    let feed = rig.subscribe().await;
    assert_eq!(rig.number(count).await, 4);
    drop(feed);
    // A second one changes nothing, and so is no gap for others.
    let version = "SELECT schema_version FROM pragma_schema_version";
    let before = rig.number(version).await;
    let mut feed = rig.subscribe().await;
    assert_eq!(told(&mut feed).await, []);
    assert_eq!(rig.number(version).await, before);
}

#[tokio::test]
async fn a_store_without_a_table_has_no_feed_and_says_what_to_do() {
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::new(pool);
    let error = store.subscribe().await.unwrap_err().to_string();
    assert!(error.contains("SqliteStore::migrate"), "{error}");
    store.migrate().await.unwrap();
    let mut feed = store.subscribe().await.unwrap();
    assert_eq!(told(&mut feed).await, []);
}

/// A pool of the application's, on a file without WAL mode and on a database in memory.
#[tokio::test]
async fn an_applications_pool_has_a_feed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("application's.sqlite3");
    let file = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    file.connect().await.unwrap();
    let memory = "sqlite::memory:".parse().unwrap();
    for options in [file, memory] {
        // With a shared cache, a write in memory fails while another connection reads.
        let connections = if options.get_filename().exists() {
            4
        } else {
            1
        };
        let pool = SqlitePoolOptions::new().max_connections(connections);
        let pool = pool.connect_with(options).await.unwrap();
        let store = SqliteStore::new(pool.clone())
            .with_table("the app's \"s\"")
            .unwrap();
        store.migrate().await.unwrap();
        let mut feed = store.subscribe().await.unwrap();
        assert!(store.insert(id(1), &record().await).await.unwrap());
        assert_eq!(ids(&mut feed).await, [id(1)]);
        let by_hand = sqlx::query("DELETE FROM \"the app's \"\"s\"\"\"");
        by_hand.execute(&pool).await.unwrap();
        assert_eq!(next(&mut feed).await, Notice::Changed(id(1)));
        drop(feed);
    }
}

/// In memory, no write waits for a disk.
#[tokio::test]
async fn a_write_of_this_process_is_told_at_once() {
    let store = SqliteStore::open(":memory:").await.unwrap();
    let mut feed = store.subscribe().await.unwrap();
    let begin = Instant::now();
    for number in 0..100 {
        assert!(store.insert(id(number), &record().await).await.unwrap());
        assert_eq!(next(&mut feed).await, Notice::Changed(id(number)));
    }
    // By the interval alone, it would take five seconds.
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

/// A table without STRICT. Somebody's own migration may make such a table.
#[test]
fn ids_that_are_none_are_ignored_and_counted() {
    let seen = events(async {
        let mut rig = Rig::start().await;
        rig.run(
            "DROP TABLE cloakroom_sessions; CREATE TABLE cloakroom_sessions \
             (id PRIMARY KEY, version, user_id, expires_at, record)",
        )
        .await;
        let mut feed = rig.subscribe().await;
        for id in ["NULL", "1", "1.5", "'text'", "x''", "x'00'"] {
            rig.run(&format!(
                "INSERT INTO cloakroom_sessions (id) VALUES ({id})"
            ))
            .await;
        }
        rig.add(1..=1).await;
        assert_eq!(ids(&mut feed).await, [id(1)]);
    });
    assert_eq!(seen["feed_ignored"], 6);
}

#[tokio::test]
async fn a_feed_that_was_dropped_closes_its_file() {
    let rig = Rig::start().await;
    let open_files = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let files = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        files
            .filter(|file| file.starts_with(rig.dir.path()))
            .count()
    };
    let before = {
        let _feed = rig.subscribe().await;
        rig.store.load(id(1)).await.unwrap();
        open_files()
    };
    let settled = async {
        while open_files() >= before {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, settled).await.unwrap();
}

#[tokio::test]
async fn a_sqlite_store_of_a_url_has_a_feed() {
    let rig = Rig::start().await;
    let store = AnyStore::connect(&rig.url()).await.unwrap();
    let mut feed = store.session_feed().unwrap().subscribe().await.unwrap();
    assert!(store.insert(id(1), &record().await).await.unwrap());
    assert_eq!(ids(&mut feed).await, [id(1)]);
    rig.store.remove(id(1)).await.unwrap();
    assert_eq!(ids(&mut feed).await, [id(1)]);
}
