//! How many syncs a batch of SQLite takes, and databases from which the store reads row by row.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cloakroom::{Record, Replaced, SessionStore, SqliteStore};
use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use support::stores::{Backend, Kind};
use support::{Browser, app, builder};

use super::batches::{id, newer, record_of};

/// How many calls are made at once.
const CALLS: u8 = 64;

/// How many commits are in the log of a database.
///
/// The log has a header of 32 bytes, in which the size of a page is at 8 and two salts are at 16.
/// Each page has a header of 24 bytes before it. At 4 is the database's size in pages, if the page
/// is the last one of a commit, and zero if not. At 8 are the salts of the log. All numbers have
/// their highest byte first (<https://www.sqlite.org/fileformat2.html#walformat>).
fn commits(database: &Path) -> usize {
    let log = fs::read(format!("{}-wal", database.display())).unwrap();
    let (header, pages) = log.split_at(32);
    let number = |bytes: &[u8], at: usize| {
        let number = bytes[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_be_bytes(number)).unwrap()
    };
    pages
        .chunks_exact(24 + number(header, 8))
        .take_while(|page| page[8..16] == header[16..24])
        .filter(|page| number(page, 4) != 0)
        .count()
}

/// A commit is a sync of the disk, since the store sets `synchronous` to `FULL`.
#[tokio::test]
async fn writes_of_sqlite_that_wait_together_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let record = record_of(&store, "ada").await;

    let before = commits(&path);
    for inserted in join_all((0..CALLS).map(|number| store.insert(id(number), &record))).await {
        assert!(inserted.unwrap());
    }
    let between = commits(&path);
    let version = record.version();
    let writes = (0..CALLS).map(|number| {
        let (store, record) = (&store, &record);
        async move {
            match number % 3 {
                0 => store.touch(id(number), record).await.unwrap(),
                1 => store.remove(id(number)).await.unwrap(),
                _ => {
                    let replaced = store.replace(id(number), version, record).await;
                    replaced.unwrap() == Replaced::Done
                }
            }
        }
    });
    assert!(join_all(writes).await.into_iter().all(|is_done| is_done));
    let after = commits(&path);

    // The first call is alone, and the others may not be there yet when the second batch begins.
    for commits in [between - before, after - between] {
        assert!((1..=8).contains(&commits), "{commits}");
    }
    for (number, loaded) in (0..CALLS).zip(loads(&store).await) {
        assert_eq!(loaded.is_some(), number % 3 != 1, "{number}");
    }
}

async fn loads(store: &SqliteStore) -> Vec<Option<Record>> {
    let loads = join_all((0..CALLS).map(|number| store.load(id(number)))).await;
    loads.into_iter().map(Result::unwrap).collect()
}

/// Many users with a session each, who all come back at once.
async fn each_user_is_known(store: SqliteStore) {
    let app = app(builder(store).build().unwrap());
    // The records have many lengths. In UTF-16, it matters whether the number of bytes is odd.
    for more in 0..2 {
        let mut users = Vec::new();
        for number in 0..CALLS {
            let user = format!(
                "{number:02}{}",
                "u".repeat(usize::from(number % 16) * 2 + more)
            );
            let mut browser = Browser::new(&app);
            let reply = browser.get(&format!("/log_in/{user}")).await;
            reply.assert(200, "done");
            users.push((user, browser));
        }
        let visits = users.iter_mut().map(|(user, browser)| async move {
            browser.get("/user").await.assert(200, user);
        });
        join_all(visits).await;
    }
}

#[tokio::test]
async fn users_who_come_at_once_are_known() {
    let backend = Backend::start(Kind::Sqlite);
    let path = backend.direct_url();
    let path = path.strip_prefix("sqlite:").unwrap();
    each_user_is_known(SqliteStore::open(path).await.unwrap()).await;
}

/// In such a database, bytes that become text and bytes again may be others.
#[tokio::test]
async fn users_who_come_at_once_are_known_in_utf_16_too() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sqlite3");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .pragma("encoding", format!("'{encoding}'"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query("CREATE TABLE other (number INTEGER)")
            .execute(&pool)
            .await
            .unwrap();
        let store = SqliteStore::open(&path).await.unwrap();
        let known: String = sqlx::query_scalar("PRAGMA encoding")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(known, encoding);
        each_user_is_known(store).await;
    }
}

/// As in a table that the application made, and whose columns take any type.
#[tokio::test]
async fn a_row_of_other_types_hides_no_other_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sqlite3");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let table = "CREATE TABLE cloakroom_sessions (id BLOB PRIMARY KEY, version INTEGER, \
                 user_id TEXT, external_id TEXT, expires_at, record)";
    sqlx::query(table).execute(&pool).await.unwrap();
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let record = record_of(&store, "ada").await;
    for number in 0..CALLS {
        assert!(store.insert(id(number), &record).await.unwrap());
    }
    for (number, change) in [
        (1, "record = NULL"),
        (2, "record = 'däta'"),
        (3, "record = 7"),
        (4, "expires_at = NULL"),
        (5, "expires_at = 'never'"),
        (6, "record = x''"),
    ] {
        let text = format!("UPDATE cloakroom_sessions SET {change} WHERE id = ?");
        let update = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id(number).as_bytes().to_vec());
        update.execute(&pool).await.unwrap();
        for (other, loaded) in (0..CALLS).zip(loads(&store).await) {
            assert!(loaded.is_some() || other == number, "{change}, {other}");
        }
        let wrong = newer(&record);
        store.load(id(number)).await.unwrap();
        assert_ne!(
            store.replace(id(number), wrong, &record).await.unwrap(),
            Replaced::Done
        );
        assert!(store.remove(id(number)).await.unwrap());
        assert!(store.insert(id(number), &record).await.unwrap());
    }
}
