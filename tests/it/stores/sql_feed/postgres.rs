//! The feed of PostgreSQL.

use std::time::Duration;

use cloakroom::{
    AnyStore, Clock as _, Feed, Notice, PostgresStore, SessionFeed, SessionStore, StoreError,
    TestClock,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::servers::{Proxy, Server};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{MANY, PATIENCE, assert_gap, assert_many_are_told, events, hex, id, ids, told};
use crate::stores::opening::whole;

/// The connection of a feed has this name.
const NAME: &str = "?application_name=feed";

fn url(address: &str) -> String {
    format!("postgres://cloakroom:secret@{address}/cloakroom")
}

/// A server, a store with a feed on it, and a connection of the test.
struct Rig {
    server: Server,
    store: PostgresStore,
    client: PgConnection,
}

impl Rig {
    async fn start() -> Self {
        let server = Server::postgres();
        let store = PostgresStore::connect(&url(&server.address()))
            .await
            .unwrap();
        store.migrate().await.unwrap();
        store.migrate_feed().await.unwrap();
        let client = PgConnection::connect(&url(&server.address()))
            .await
            .unwrap();
        let store = store
            .with_feed_url(&(url(&server.address()) + NAME))
            .unwrap();
        Self {
            server,
            store,
            client,
        }
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

    /// How many connections of feeds the server has.
    async fn feeds(&mut self) -> i64 {
        self.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'feed'")
            .await
    }

    async fn wait_for_feeds(&mut self, count: i64) {
        let settled = async {
            while self.feeds().await != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, settled).await.unwrap();
    }

    /// Adds records of these numbers, which have expired.
    async fn add(&mut self, numbers: std::ops::RangeInclusive<usize>) {
        let (first, last) = (numbers.start(), numbers.end());
        self.run(&format!(
            "INSERT INTO cloakroom_sessions (id, version, user_id, expires_at, record) \
             SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 0, NULL, 1, '' \
             FROM generate_series({first}, {last}) AS n"
        ))
        .await;
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

#[track_caller]
fn assert_says(error: &StoreError, what: &[&str]) {
    let text = whole(error);
    for what in what {
        assert!(text.contains(what), "{text:?} does not say {what:?}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn statements_of_other_programs_are_told_by_postgres() {
    let mut rig = Rig::start().await;
    let mut feed = rig.subscribe().await;
    rig.add(1..=600).await;
    assert_eq!(ids(&mut feed).await, (1..=600).map(id).collect::<Vec<_>>());
    let one = format!("WHERE id = '\\x{}'", hex(id(7)));
    rig.run(&format!(
        "UPDATE cloakroom_sessions SET expires_at = 2 {one}"
    ))
    .await;
    assert_eq!(ids(&mut feed).await, [id(7)]);
    rig.run(&format!("DELETE FROM cloakroom_sessions {one}"))
        .await;
    assert_eq!(ids(&mut feed).await, [id(7)]);
    // These change nothing, or are rolled back.
    rig.run(&format!("UPDATE cloakroom_sessions SET version = 2 {one}"))
        .await;
    rig.run("BEGIN; DELETE FROM cloakroom_sessions; ROLLBACK")
        .await;
    assert_eq!(told(&mut feed).await, []);
    // A node whose store knows nothing of feeds.
    let older = PostgresStore::connect(&url(&rig.server.address()))
        .await
        .unwrap();
    assert!(older.session_feed().is_none());
    assert!(older.remove(id(9)).await.unwrap());
    assert_eq!(ids(&mut feed).await, [id(9)]);
}

#[tokio::test]
async fn a_truncate_of_postgres_is_a_gap() {
    let mut rig = Rig::start().await;
    rig.add(1..=3).await;
    let mut feed = rig.subscribe().await;
    rig.run("TRUNCATE cloakroom_sessions").await;
    assert_eq!(told(&mut feed).await, [Notice::Gap]);
}

#[tokio::test]
async fn a_large_purge_of_postgres_is_told_or_is_a_gap() {
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
async fn tables_of_one_name_in_two_schemas_have_feeds_of_their_own() {
    let mut rig = Rig::start().await;
    rig.run("CREATE SCHEMA \"other's\"").await;
    let other = PostgresStore::connect(&url(&rig.server.address()))
        .await
        .unwrap();
    let other = other.with_feed().with_schema("other's").unwrap();
    other.migrate().await.unwrap();
    other.migrate_feed().await.unwrap();
    let mut feed = rig.subscribe().await;
    let mut other_feed = other.session_feed().unwrap().subscribe().await.unwrap();
    rig.add(1..=1).await;
    assert_eq!(ids(&mut feed).await, [id(1)]);
    rig.run("INSERT INTO \"other's\".cloakroom_sessions TABLE cloakroom_sessions")
        .await;
    assert_eq!(told(&mut feed).await, []);
    assert_eq!(ids(&mut other_feed).await, [id(1)]);
    // The same table by another way.
    let named = other.with_schema("public").unwrap();
    let mut named_feed = named.subscribe().await.unwrap();
    assert!(named.remove(id(1)).await.unwrap());
    assert_eq!(ids(&mut named_feed).await, [id(1)]);
    assert_eq!(ids(&mut feed).await, [id(1)]);
    assert_eq!(told(&mut other_feed).await, []);
}

#[test]
fn a_feed_whose_connection_postgres_ends_has_a_gap() {
    let seen = events(async {
        let mut rig = Rig::start().await;
        let mut feed = rig.subscribe().await;
        rig.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
             WHERE application_name = 'feed'",
        )
        .await;
        assert_gap(&mut feed).await;
        rig.add(1..=1).await;
        assert_eq!(ids(&mut feed).await, [id(1)]);
        assert_eq!(rig.feeds().await, 1);
    });
    assert_eq!(seen["feed_lost"], 1);
    assert_eq!(seen["feed_restored"], 1);
}

#[tokio::test]
async fn a_feed_of_a_postgres_that_was_killed_has_a_gap_when_it_is_back() {
    let mut rig = Rig::start().await;
    let mut feed = rig.subscribe().await;
    rig.server.kill();
    let ping = feed.ping();
    let silence = timeout(Duration::from_secs(3), feed.next()).await;
    assert!(silence.is_err(), "{silence:?} to ping {ping}");
    rig.server.start();
    assert_gap(&mut feed).await;
    rig.client = PgConnection::connect(&url(&rig.server.address()))
        .await
        .unwrap();
    rig.add(1..=1).await;
    assert_eq!(ids(&mut feed).await, [id(1)]);
}

#[tokio::test]
async fn a_feed_over_a_silent_network_has_a_gap_and_leaves_no_connection() {
    let mut rig = Rig::start().await;
    let proxy = Proxy::to(&rig.server.address());
    let over_proxy = url(&proxy.address()) + NAME;
    rig.store = rig.store.clone().with_feed_url(&over_proxy).unwrap();
    let mut feed = rig.subscribe().await;
    assert_eq!(told(&mut feed).await, []);
    proxy.refuse(true);
    proxy.mute();
    rig.add(1..=1).await;
    feed.ping();
    let silence = timeout(Duration::from_secs(3), feed.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    proxy.refuse(false);
    assert_gap(&mut feed).await;
    assert!(rig.store.remove(id(1)).await.unwrap());
    assert_eq!(ids(&mut feed).await, [id(1)]);
    // The silent connection is closed, though the server's answer never comes.
    rig.wait_for_feeds(1).await;
    proxy.mute();
    drop(feed);
    rig.wait_for_feeds(0).await;
}

#[tokio::test]
async fn a_feed_that_was_dropped_leaves_no_connection_to_postgres() {
    let mut rig = Rig::start().await;
    let mut feeds = Vec::new();
    for _ in 0..4 {
        feeds.push(rig.subscribe().await);
    }
    assert_eq!(rig.feeds().await, 4);
    drop(feeds);
    rig.wait_for_feeds(0).await;
    // A subscription that was dropped on the way.
    for wait in 0..20 {
        drop(timeout(Duration::from_millis(wait), rig.store.subscribe()).await);
    }
    rig.wait_for_feeds(0).await;
}

#[tokio::test]
async fn a_feed_does_not_wait_for_the_pool_of_the_store() {
    let mut rig = Rig::start().await;
    let options = PgPoolOptions::new().max_connections(1);
    let pool = options.connect(&url(&rig.server.address())).await.unwrap();
    let store = PostgresStore::new(pool.clone()).with_feed();
    let mut feed = store.session_feed().unwrap().subscribe().await.unwrap();
    let _held = pool.acquire().await.unwrap();
    rig.add(1..=1).await;
    assert_eq!(ids(&mut feed).await, [id(1)]);
    rig.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
         WHERE query LIKE '%pg_trigger%' AND pid <> pg_backend_pid()",
    )
    .await;
    assert_gap(&mut feed).await;
}

#[test]
fn messages_of_others_on_the_channel_are_ignored_and_counted() {
    let seen = events(async {
        let mut rig = Rig::start().await;
        let mut feed = rig.subscribe().await;
        let channel = rig
            .number("SELECT 'cloakroom_sessions'::regclass::oid::bigint")
            .await;
        for payload in ["", "hello", "00", &"0".repeat(33), &"x".repeat(32)] {
            rig.run(&format!("NOTIFY cloakroom_feed_{channel}, '{payload}'"))
                .await;
        }
        rig.run("NOTIFY another_channel, 'hello'").await;
        assert_eq!(told(&mut feed).await, []);
    });
    assert_eq!(seen["feed_ignored"], 5);
}

#[tokio::test]
async fn triggers_that_are_turned_off_lose_the_feed_until_they_are_on() {
    let mut rig = Rig::start().await;
    rig.add(1..=1).await;
    let mut feed = rig.subscribe().await;
    rig.run("ALTER TABLE cloakroom_sessions DISABLE TRIGGER cloakroom_feed_delete")
        .await;
    rig.run("DELETE FROM cloakroom_sessions").await;
    feed.ping();
    let silence = timeout(Duration::from_secs(2), feed.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    rig.run("ALTER TABLE cloakroom_sessions ENABLE TRIGGER cloakroom_feed_delete")
        .await;
    assert_gap(&mut feed).await;
    // On again before anybody has asked.
    rig.add(1..=1).await;
    assert_eq!(ids(&mut feed).await, [id(1)]);
    rig.run(
        "ALTER TABLE cloakroom_sessions DISABLE TRIGGER ALL; DELETE FROM cloakroom_sessions; \
         ALTER TABLE cloakroom_sessions ENABLE TRIGGER ALL",
    )
    .await;
    assert_gap(&mut feed).await;
    // Another table of the same name.
    rig.run("DROP TABLE cloakroom_sessions").await;
    rig.store.migrate().await.unwrap();
    rig.store.migrate_feed().await.unwrap();
    assert_gap(&mut feed).await;
    rig.add(1..=1).await;
    assert_eq!(ids(&mut feed).await, [id(1)]);
}

/// The block of statements in the page on operations.
fn statements_of_the_docs() -> String {
    let page = include_str!("../../../../docs/operations.md");
    let (_, after) = page.split_once("```sql\n").unwrap();
    let (statements, _) = after.split_once("```").unwrap();
    statements.to_owned()
}

#[tokio::test]
async fn a_database_user_without_rights_follows_when_the_owner_has_made_the_triggers() {
    let mut rig = Rig::start().await;
    let statements = statements_of_the_docs();
    assert_eq!(statements, rig.store.feed_migration().join(";\n") + ";\n");
    rig.run(
        "DROP TABLE cloakroom_sessions; DROP FUNCTION cloakroom_sessions_feed; \
         CREATE USER weak PASSWORD 'secret'",
    )
    .await;
    rig.store.migrate().await.unwrap();
    rig.run("GRANT SELECT, INSERT, UPDATE, DELETE ON cloakroom_sessions TO weak")
        .await;
    let weak = url(&rig.server.address()).replace("cloakroom:", "weak:");
    let store = PostgresStore::connect(&weak).await.unwrap();
    let missing = [
        "lacks the triggers",
        "`PostgresStore::migrate_feed`",
        "feed_migration",
    ];
    assert_says(&store.subscribe().await.unwrap_err(), &missing);
    assert_says(
        &store.migrate_feed().await.unwrap_err(),
        &["triggers of the feed"],
    );
    let connected = AnyStore::connect(&(weak.clone() + "?feed=true")).await;
    assert_says(&connected.unwrap_err(), &["triggers of the feed"]);

    for _ in 0..2 {
        rig.run(&statements).await;
    }
    let mut feed = store.subscribe().await.unwrap();
    rig.add(1..=1).await;
    assert!(store.remove(id(1)).await.unwrap());
    assert_eq!(told(&mut feed).await, [Notice::Changed(id(1)); 2]);
    // The triggers are there, so that this makes none.
    store.migrate_feed().await.unwrap();
    assert_eq!(told(&mut feed).await, []);
    let any = AnyStore::connect(&(weak + "?feed=true&application_name=any"))
        .await
        .unwrap();
    assert!(any.session_feed().is_some());
}

#[tokio::test]
async fn nodes_that_make_the_triggers_at_once_make_them_once() {
    let rig = Rig::start().await;
    let mut client = PgConnection::connect(&url(&rig.server.address()))
        .await
        .unwrap();
    for _ in 0..3 {
        let drop_all = "DROP TABLE cloakroom_sessions; DROP FUNCTION cloakroom_sessions_feed";
        sqlx::raw_sql(drop_all).execute(&mut client).await.unwrap();
        rig.store.migrate().await.unwrap();
        let mut nodes = JoinSet::new();
        for _ in 0..8 {
            let store = rig.store.clone();
            nodes.spawn(async move {
                store.migrate_feed().await.unwrap();
                let mut feed = store.subscribe().await.unwrap();
                assert_eq!(told(&mut feed).await, []);
            });
        }
        nodes.join_all().await;
    }
}

#[tokio::test]
async fn a_feed_url_that_leads_elsewhere_is_an_error_that_says_so() {
    let rig = Rig::start().await;
    // Another server with such a table.
    let other_rig = Rig::start().await;
    let other = url(&other_rig.server.address());
    let elsewhere = rig.store.clone().with_feed_url(&other).unwrap();
    // The channels of both have the same name or not. A message comes in neither case.
    let error = elsewhere.subscribe().await.unwrap_err();
    assert_says(&error, &["did not arrive", "the store's database"]);
    let nowhere = rig
        .store
        .clone()
        .with_feed_url(&url("127.0.0.1:1"))
        .unwrap();
    assert_says(
        &nowhere.subscribe().await.unwrap_err(),
        &["127.0.0.1:1", "refused"],
    );
    let wrong = rig
        .store
        .clone()
        .with_feed_url("postgres:/cloakroom:secret@host/name");
    assert_says(&wrong.unwrap_err(), &["scheme://user:password@host"]);
}

#[tokio::test]
async fn a_feed_needs_a_direct_url_behind_pgbouncer_in_transaction_mode() {
    let mut rig = Rig::start().await;
    let transaction = Server::pgbouncer(&rig.server, &["pool_mode = transaction"]);
    let session = Server::pgbouncer(&rig.server, &["pool_mode = session"]);
    let over_transaction = url(&transaction.address());
    let store = rig.store.clone().with_feed_url(&over_transaction).unwrap();
    let error = store.subscribe().await.unwrap_err();
    assert_says(
        &error,
        &[
            "PgBouncer in transaction mode",
            "`PostgresStore::with_feed_url`",
        ],
    );

    // The store itself goes over a pooler, and its feed does not; or both go over the pooler.
    let store = PostgresStore::connect(&url(&session.address()))
        .await
        .unwrap();
    let direct = store
        .clone()
        .with_feed_url(&url(&rig.server.address()))
        .unwrap();
    for store in [direct, store.with_feed()] {
        let mut feed = store.session_feed().unwrap().subscribe().await.unwrap();
        rig.add(1..=1).await;
        assert!(store.remove(id(1)).await.unwrap());
        assert_eq!(ids(&mut feed).await, [id(1), id(1)]);
    }
}
