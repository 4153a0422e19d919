//! A million sessions: a page in the middle costs as much as the first one, and no statement reads
//! the whole table.

use std::time::Duration;

use cloakroom::{
    Cursor, MySqlStore, PostgresStore, SessionCatalog, SessionFilter, SessionInfo, SessionLayer,
    Sessions, SqliteStore,
};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, Row, SqliteConnection};
use support::servers::Server;
use support::{Browser, app, key};
use tokio::time::Instant;

const SESSIONS: u64 = 1_000_000;

/// Puts two sessions into the store, of a visitor and of a user.
async fn two_sessions<S: SessionCatalog + Clone>(store: &S) {
    let app = app(SessionLayer::new(store.clone(), key()));
    let mut visitor = Browser::new(&app);
    visitor.get("/insert/theme/dark").await.assert(200, "done");
    let mut ada = Browser::new(&app);
    ada.get("/log_in/ada").await.assert(200, "done");
}

/// The shortest times of a page of 50 behind each of these places. The pages take turns, so that
/// whatever else the machine does slows all of them equally.
async fn times_of_pages<S: SessionCatalog>(
    sessions: &Sessions<S>,
    filter: &SessionFilter,
    places: &[Option<Cursor>],
) -> Vec<Duration> {
    let mut shortest = vec![Duration::MAX; places.len()];
    for _ in 0..31 {
        for (place, shortest) in places.iter().zip(&mut shortest) {
            let start = Instant::now();
            let page = sessions.page(filter, place.as_ref(), 50).await.unwrap();
            *shortest = start.elapsed().min(*shortest);
            assert_eq!(page.sessions.len(), 50);
        }
    }
    shortest
}

/// A page of 50 in the middle takes at most three times as long as the first one.
async fn a_page_in_the_middle_costs_as_much_as_the_first<S: SessionCatalog>(
    sessions: &Sessions<S>,
) {
    // Half of all ids are below this one, and nine in ten below the other.
    let behind = |first: u8| Cursor::behind(cloakroom::RecordId::from_bytes([first; 16]));
    let places = [None, Some(behind(127)), Some(behind(230))];
    for filter in [SessionFilter::new(), SessionFilter::new().logged_in(false)] {
        let times = times_of_pages(sessions, &filter, &places).await;
        println!("{filter:?}: first, in the middle, near the end: {times:?}");
        for later in &times[1..] {
            assert!(*later <= times[0] * 3, "{times:?}");
        }
    }
    // Nobody has this client. A page looks at some of the sessions, and says where to go on.
    let start = Instant::now();
    let nobody = SessionFilter::new().client("no such browser");
    let page = sessions.page(&nobody, None, 50).await.unwrap();
    println!("a page without a session: {:?}", start.elapsed());
    assert!(page.sessions.is_empty() && page.next.is_some());
    assert!(start.elapsed() < Duration::from_secs(3));
    let of_user = SessionFilter::new().user("ada");
    let ada = sessions.page(&of_user, None, 50).await.unwrap();
    let of_ada = |session: &SessionInfo| session.user().is_some_and(|user| user.as_str() == "ada");
    assert!(ada.sessions.len() == 1 && ada.sessions.iter().all(of_ada));
}

#[tokio::test]
async fn in_postgres_a_page_of_a_million_sessions_reads_no_whole_table() {
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    two_sessions(&store).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let copies = format!(
        "INSERT INTO cloakroom_sessions SELECT decode(md5(n::text), 'hex'), version, NULL,
         expires_at, record, NULL FROM cloakroom_sessions, generate_series(3, {SESSIONS}) AS n
         WHERE user_id IS NULL"
    );
    let run = |statement: String| sqlx::query(AssertSqlSafe(statement));
    run(copies).execute(&mut connection).await.unwrap();
    run("VACUUM ANALYZE cloakroom_sessions".into())
        .execute(&mut connection)
        .await
        .unwrap();
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'cloakroom_sessions'";
    let sessions = SessionLayer::new(store, key()).sessions();
    let before: i64 = settled(&mut connection, scans).await;
    a_page_in_the_middle_costs_as_much_as_the_first(&sessions).await;
    sessions.end_external("no such id").await.unwrap();
    let after: i64 = settled(&mut connection, scans).await;
    assert_eq!(before, after, "a statement reads the whole table");
    assert_eq!(
        plan_of_postgres(&mut connection, "id > '\\x7f' ORDER BY id LIMIT 51").await,
        "Index Scan using cloakroom_sessions_pkey"
    );
    assert_eq!(
        plan_of_postgres(&mut connection, "user_id = 'ada'").await,
        "Index Scan using cloakroom_sessions_user_id"
    );
    assert_eq!(
        plan_of_postgres(&mut connection, "external_id = 'sid'").await,
        "Index Scan using cloakroom_sessions_external_id"
    );
}

/// A counter, once the server has written what it counts.
async fn settled(connection: &mut PgConnection, counter: &'static str) -> i64 {
    // Other connections write their counts when they are idle for a second, and at their end.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    sqlx::query_scalar(counter)
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn plan_of_postgres(connection: &mut PgConnection, rest: &str) -> String {
    let explain = format!("EXPLAIN (COSTS OFF) SELECT * FROM cloakroom_sessions WHERE {rest}");
    let rows = sqlx::query(AssertSqlSafe(explain))
        .fetch_all(connection)
        .await
        .unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let scan = lines.iter().find(|line| line.contains("Scan")).unwrap();
    let scan = scan.trim().trim_start_matches("->").trim();
    scan.split(" on ").next().unwrap().to_owned()
}

#[tokio::test]
async fn in_sqlite_a_page_of_a_million_sessions_reads_no_whole_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.sqlite3");
    let store = SqliteStore::open(&path).await.unwrap();
    two_sessions(&store).await;
    let url = format!("sqlite:{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let copies = format!(
        "WITH RECURSIVE n(n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM n WHERE n < {SESSIONS})
         INSERT INTO cloakroom_sessions SELECT randomblob(16), version, NULL, expires_at, record, NULL
         FROM cloakroom_sessions, n WHERE user_id IS NULL"
    );
    sqlx::query(AssertSqlSafe(copies))
        .execute(&mut connection)
        .await
        .unwrap();
    let sessions = SessionLayer::new(store, key()).sessions();
    a_page_in_the_middle_costs_as_much_as_the_first(&sessions).await;
    for (rest, plan) in [
        (
            "id > x'7f' ORDER BY id LIMIT 51",
            "SEARCH cloakroom_sessions USING INDEX sqlite_autoindex_cloakroom_sessions_1 (id>?)",
        ),
        (
            "user_id = 'ada'",
            "SEARCH cloakroom_sessions USING INDEX cloakroom_sessions_user_id (user_id=?)",
        ),
        (
            "external_id = 'sid'",
            "SEARCH cloakroom_sessions USING INDEX cloakroom_sessions_external_id (external_id=?)",
        ),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN SELECT * FROM cloakroom_sessions WHERE {rest}");
        let row = sqlx::query(AssertSqlSafe(explain))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<String, _>("detail"), plan);
    }
}

#[tokio::test]
async fn in_mysql_a_page_goes_along_the_primary_key() {
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let store = MySqlStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    two_sessions(&store).await;
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    let copies = "INSERT INTO cloakroom_sessions SELECT unhex(md5(seq)), version, NULL,
         expires_at, record, NULL FROM cloakroom_sessions, seq_3_to_20000 WHERE user_id IS NULL";
    sqlx::query(copies).execute(&mut connection).await.unwrap();
    for (rest, key) in [
        ("id > x'7f' ORDER BY id LIMIT 51", "PRIMARY"),
        ("user_id = 'ada'", "user_id"),
        ("external_id = 'sid'", "external_id"),
    ] {
        let explain = format!("EXPLAIN SELECT * FROM cloakroom_sessions WHERE {rest}");
        let row = sqlx::query(AssertSqlSafe(explain))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<String, _>("key"), key);
    }
    let sessions = SessionLayer::new(store, key()).sessions();
    let count = sessions.count(&SessionFilter::new()).await.unwrap();
    assert_eq!(count, 20_000);
}
