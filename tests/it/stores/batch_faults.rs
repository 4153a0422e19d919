//! What goes wrong for one call of a batch, or beside it: locked rows, full disks, other
//! transactions, servers that are down. The other calls have their own answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::{
    MemcachedStore, PostgresStore, Record, RecordId, Replaced, SessionStore, SqliteStore,
};
use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection as _, PgPool, SqliteConnection};
use support::servers::Server;
use support::stores::{Backend, Kind};

use super::batches::{each_call_has_its_own_answer, id, newer, record_of};
use super::opening::whole;

/// PostgreSQL, a pool for the test, a store, and 64 sessions.
struct Postgres {
    backend: Backend,
    pool: PgPool,
    store: Arc<PostgresStore>,
    record: Record,
}

impl Postgres {
    async fn start() -> Self {
        let backend = Backend::start(Kind::Postgres);
        let pool = PgPool::connect(&backend.direct_url()).await.unwrap();
        let store = PostgresStore::connect(&backend.direct_url()).await.unwrap();
        store.migrate().await.unwrap();
        let store = Arc::new(store);
        let record = record_of(&store, "ada").await;
        let inserts = join_all((0..64).map(|number| store.insert(id(number), &record))).await;
        assert!(inserts.into_iter().all(|inserted| inserted.unwrap()));
        Self {
            backend,
            pool,
            store,
            record,
        }
    }

    /// A store whose connections have this setting.
    async fn other_node(&self, setting: &'static str) -> Arc<PostgresStore> {
        let text = format!("ALTER DATABASE cloakroom SET {setting}");
        let text = sqlx::AssertSqlSafe(text);
        sqlx::raw_sql(text).execute(&self.pool).await.unwrap();
        let url = self.backend.direct_url();
        Arc::new(PostgresStore::connect(&url).await.unwrap())
    }

    /// Locks the rows of these sessions. They are free again when the transaction ends.
    async fn lock(&self, numbers: &[u8]) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut transaction = self.pool.begin().await.unwrap();
        for &number in numbers {
            let lock = "UPDATE cloakroom_sessions SET expires_at = expires_at + 1 WHERE id = $1";
            let lock = sqlx::query(lock).bind(id(number).as_bytes().to_vec());
            let locked = lock.execute(&mut *transaction).await.unwrap();
            assert_eq!(locked.rows_affected(), 1);
        }
        transaction
    }
}

/// Another transaction has a few rows. Only their own callers wait for it.
#[tokio::test]
async fn a_locked_row_of_postgres_holds_up_its_own_callers_alone() {
    let postgres = Postgres::start().await;
    let Postgres { store, record, .. } = &postgres;
    let transaction = postgres.lock(&[3, 13, 23]).await;
    let is_locked = |number: u8| matches!(number, 3 | 13 | 23);
    let calls = (0..64).map(|number| {
        let (store, record) = (store.clone(), record.clone());
        tokio::spawn(async move {
            match number % 3 {
                0 => store.touch(id(number), &record).await.unwrap(),
                1 => {
                    let replaced = store.replace(id(number), record.version(), &record);
                    replaced.await.unwrap() == Replaced::Done
                }
                _ => store.remove(id(number)).await.unwrap(),
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for (number, call) in (0..64).zip(calls) {
        if is_locked(number) {
            waiting.push(call);
        } else {
            let limit = tokio::time::timeout(Duration::from_secs(2), call);
            assert!(limit.await.expect("this row is not locked").unwrap());
        }
    }
    // Lanes wait for locked rows. A call that comes now has another lane.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = join_all(
        (0..64)
            .filter(|&number| number % 3 == 0 && !is_locked(number))
            .map(|number| {
                tokio::time::timeout(Duration::from_secs(1), store.touch(id(number), record))
            }),
    );
    for touched in later.await {
        assert!(touched.expect("this row is not locked").unwrap());
    }
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert!(waiting.iter().all(|call| !call.is_finished()));
    transaction.commit().await.unwrap();
    for call in waiting {
        assert!(call.await.unwrap(), "its version is as before");
    }
}

/// With a limit for locks, or for statements, the locked row's caller gets the error.
#[tokio::test]
async fn a_limit_of_postgres_for_locks_fails_only_the_callers_of_locked_rows() {
    let postgres = Postgres::start().await;
    let record = &postgres.record;
    for setting in ["lock_timeout = '300ms'", "statement_timeout = '300ms'"] {
        let store = postgres.other_node(setting).await;
        let transaction = postgres.lock(&[13]).await;
        let replaces = (0..64).map(|number| store.replace(id(number), record.version(), record));
        for (number, replaced) in join_all(replaces).await.into_iter().enumerate() {
            match replaced {
                Ok(replaced) => assert!(number != 13 && replaced == Replaced::Done),
                Err(error) => assert!(
                    number == 13 && whole(&error).contains("timeout"),
                    "{number} {}",
                    whole(&error)
                ),
            }
        }
        transaction.rollback().await.unwrap();
        // An insert of an id that another transaction removes waits for it.
        let mut removal = postgres.pool.begin().await.unwrap();
        sqlx::query("DELETE FROM cloakroom_sessions WHERE id = $1")
            .bind(id(14).as_bytes().to_vec())
            .execute(&mut *removal)
            .await
            .unwrap();
        let inserts = (0..80).map(|number| store.insert(id(number), record));
        for (number, inserted) in join_all(inserts).await.into_iter().enumerate() {
            match inserted {
                Ok(inserted) => assert_eq!(inserted, number >= 64, "{number}"),
                Err(error) => assert_eq!(number, 14, "{}", whole(&error)),
            }
        }
        removal.rollback().await.unwrap();
        join_all((64..80).map(|number| store.remove(id(number)))).await;
    }
}

/// A stricter isolation lets a transaction fail that lost a race. It runs again.
#[tokio::test]
async fn batches_of_two_nodes_pass_with_every_isolation_of_postgres() {
    let postgres = Postgres::start().await;
    let record = &postgres.record;
    for setting in [
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_isolation = 'serializable'",
    ] {
        let store = postgres.other_node(setting).await;
        let other = postgres.other_node(setting).await;
        // Each node replaces each record. One of them wins.
        for round in 0..10 {
            let write = async |node: &PostgresStore, number: u8| match round % 2 {
                0 => node.touch(id(number), record).await.map(|touched| {
                    assert!(touched, "nobody changes the version");
                }),
                _ => node
                    .replace(id(number), record.version(), record)
                    .await
                    .map(|replaced| {
                        assert_eq!(replaced, Replaced::Done, "nobody changes the version");
                    }),
            };
            let one = join_all((0..64).map(|number| write(&store, number)));
            let two = join_all((0..64).rev().map(|number| write(&other, number)));
            let (one, two) = futures_util::future::join(one, two).await;
            for result in one.into_iter().chain(two) {
                result.unwrap();
            }
        }
        let one = join_all((0..64).map(|number| store.remove(id(number))));
        let two = join_all((0..64).map(|number| other.remove(id(number))));
        let (one, two) = futures_util::future::join(one, two).await;
        for (one, two) in one.into_iter().zip(two) {
            assert!(one.unwrap() != two.unwrap(), "one of them removes it");
        }
        let one = join_all((0..64).map(|number| store.insert(id(number), record)));
        let two = join_all((0..64).map(|number| other.insert(id(number), record)));
        let (one, two) = futures_util::future::join(one, two).await;
        for (one, two) in one.into_iter().zip(two) {
            assert!(one.unwrap() != two.unwrap(), "one of them inserts it");
        }
    }
}

/// A table that the application has made itself may be in partitions, and have triggers.
#[tokio::test]
async fn each_call_to_a_partitioned_table_of_postgres_has_its_own_answer() {
    let backend = Backend::start(Kind::Postgres);
    let pool = PgPool::connect(&backend.direct_url()).await.unwrap();
    let table = "CREATE TABLE cloakroom_sessions (id BYTEA NOT NULL PRIMARY KEY,
            version BIGINT NOT NULL, user_id TEXT COLLATE \"C\", external_id TEXT COLLATE \"C\",
            expires_at BIGINT NOT NULL, record BYTEA NOT NULL) PARTITION BY HASH (id);
        CREATE TABLE one PARTITION OF cloakroom_sessions FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE two PARTITION OF cloakroom_sessions FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE VIEW seen AS SELECT * FROM cloakroom_sessions";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    each_call_has_its_own_answer(store.clone()).await;
    sqlx::raw_sql("DELETE FROM cloakroom_sessions")
        .execute(&pool)
        .await
        .unwrap();
    each_call_has_its_own_answer(store.with_table("seen").unwrap()).await;
}

/// A pool of one connection, with a trigger that refuses two users. For the first, SQLite rolls
/// back the whole transaction by itself, as it does when the disk is full.
#[tokio::test]
async fn a_transaction_that_sqlite_rolls_back_by_itself_takes_no_later_write_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sqlite3");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let store = Arc::new(SqliteStore::new(pool.clone()));
    store.migrate().await.unwrap();
    let good = record_of(&store, "ada").await;
    let rolled_back = record_of(&store, "eve").await;
    let refused = record_of(&store, "mallory").await;
    let triggers = "CREATE TRIGGER eve BEFORE INSERT ON cloakroom_sessions
            WHEN NEW.user_id LIKE '%eve' BEGIN SELECT RAISE(ROLLBACK, 'not eve'); END;
        CREATE TRIGGER mallory BEFORE INSERT ON cloakroom_sessions
            WHEN NEW.user_id LIKE '%mallory' BEGIN SELECT RAISE(ABORT, 'not mallory'); END";
    sqlx::raw_sql(triggers).execute(&pool).await.unwrap();
    for (round, bad) in [&rolled_back, &refused, &rolled_back, &refused]
        .into_iter()
        .enumerate()
    {
        let first = 40 * round as u8;
        // Removes and inserts are of one batch.
        let calls = (first..first + 40).map(|number| {
            let (store, record) = (&store, if number % 40 == 13 { bad } else { &good });
            async move {
                match number % 2 {
                    0 => store.remove(id(number)).await,
                    _ => store.insert(id(number), record).await,
                }
            }
        });
        for (number, answer) in (first..).zip(join_all(calls).await) {
            match answer {
                Ok(answer) => assert_eq!(answer, number % 2 == 1),
                Err(error) => assert_eq!(number % 40, 13, "{}", whole(&error)),
            }
        }
        // What was answered is on the disk, where other processes see it.
        let mut other = SqliteConnection::connect_with(&options).await.unwrap();
        let count = sqlx::query_scalar("SELECT count(*) FROM cloakroom_sessions WHERE id >= ?");
        let stored: i64 = count
            .bind(id(first).as_bytes().to_vec())
            .fetch_one(&mut other)
            .await
            .unwrap();
        assert!(stored >= 19, "round {round}: {stored}");
        sqlx::raw_sql("PRAGMA user_version = 1")
            .execute(&mut other)
            .await
            .expect("no transaction is open");
    }
}

/// Each call for a server that is down fails, and no call for the other one.
#[tokio::test]
async fn a_memcached_that_is_down_fails_its_own_callers_alone() {
    let (up, mut down) = (Server::memcached(&[]), Server::memcached(&[]));
    let url = format!("memcache://{},{}", up.address(), down.address());
    let prefix = "p".repeat(200);
    let store = MemcachedStore::connect(&url).await.unwrap();
    let store = Arc::new(store.with_prefix(prefix).unwrap());
    let record = record_of(&store, "ada").await;
    let ids: Vec<RecordId> = (0..128).map(id).collect();
    for inserted in join_all(ids.iter().map(|&id| store.insert(id, &record))).await {
        assert!(inserted.unwrap());
    }
    for loaded in join_all(ids.iter().map(|&id| store.load(id))).await {
        assert!(loaded.unwrap().is_some());
    }
    down.kill();
    for round in 0..2 {
        let loaded = join_all(ids.iter().map(|&id| store.load(id))).await;
        let found = loaded.iter().filter(|loaded| loaded.is_ok()).count();
        assert!((30..98).contains(&found), "round {round}: {found}");
        for loaded in loaded.into_iter().flatten() {
            assert!(loaded.is_some());
        }
    }
    let replaced = store.replace(id(0), newer(&record), &record).await;
    assert!(!matches!(replaced, Ok(Replaced::Done)));
}
