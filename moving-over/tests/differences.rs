//! Tests with other session layers. They show that `docs/moving_over.md` and `docs/comparison.md`
//! are right.

mod apps;

use apps::{App, AxumApp, Database, Gate, Jar, KEYS};
use support::servers::Server;

const PARALLEL: usize = KEYS;

/// The results of three experiments.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// How many increments are kept of parallel requests that increment one counter.
    increments: usize,
    /// How many keys are kept of parallel requests that set a key each.
    keys: usize,
    /// Whether the session is good after the answer to its logout, while an earlier request runs.
    during: bool,
    /// Whether the session is good after the answer to that earlier request.
    afterwards: bool,
}

async fn outcome(app: &impl App, gate: &Gate) -> Outcome {
    let increments = kept_increments(app, gate, "/count").await;
    let keys = kept_keys(app, gate).await;
    let (during, afterwards) = logout_during_a_request(app, gate).await;
    Outcome {
        increments,
        keys,
        during,
        afterwards,
    }
}

async fn kept_increments(app: &impl App, gate: &Gate, path: &str) -> usize {
    let jar = in_parallel(app, gate, |_| path.to_owned()).await;
    let answer = app.get("/show", &jar).await;
    let (user, count) = answer.body.split_once(' ').unwrap();
    assert_eq!(user, "ada");
    count.parse().unwrap()
}

async fn kept_keys(app: &impl App, gate: &Gate) -> usize {
    let jar = in_parallel(app, gate, |key| format!("/set/{key}")).await;
    app.get("/keys", &jar).await.body.parse().unwrap()
}

/// Sends parallel requests on a new session. All of them read before the first one writes.
async fn in_parallel(app: &impl App, gate: &Gate, path: impl Fn(usize) -> String) -> Jar {
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    let paths: Vec<String> = (0..PARALLEL).map(path).collect();
    let requests = paths.iter().map(|path| app.get(path, &jar));
    let (answers, ()) = futures_util::join!(futures_util::future::join_all(requests), async {
        gate.arrived(PARALLEL).await;
        gate.let_through(PARALLEL);
    });
    for answer in answers {
        assert_eq!(answer.status, 200);
        jar.keep(&answer);
    }
    jar
}

/// Sends a request that changes the session, and a logout while the request runs. Returns whether a
/// cookie is logged in after the logout, and after both.
async fn logout_during_a_request(app: &impl App, gate: &Gate) -> (bool, bool) {
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    let (late, during) = futures_util::join!(app.get("/count", &jar), async {
        gate.arrived(1).await;
        app.get("/log_out", &jar).await;
        let during = is_logged_in(app, &jar).await;
        gate.let_through(1);
        during
    });
    let mut kept = jar.clone();
    kept.keep(&late);
    let afterwards = is_logged_in(app, &jar).await || is_logged_in(app, &kept).await;
    (during, afterwards)
}

async fn is_logged_in(app: &impl App, jar: &Jar) -> bool {
    app.get("/show", jar).await.body.starts_with("ada ")
}

/// Increments the counter several times, one request after another. Returns the counter.
async fn count(app: &impl App, gate: &Gate, jar: &mut Jar, times: usize) -> String {
    for _ in 0..times {
        gate.let_through(1);
        app.follow("/count", jar).await;
        gate.arrived(1).await;
    }
    app.get("/show", jar).await.body
}

#[tokio::test]
async fn cloakroom_keeps_every_increment_and_an_ended_session_ended() {
    let (app, gate) = apps::cloakroom();
    let expected = Outcome {
        increments: PARALLEL,
        keys: KEYS,
        during: false,
        afterwards: false,
    };
    assert_outcome(&app, &gate, "cloakroom, `MemoryStore`", expected).await;
}

#[tokio::test]
async fn cloakroom_keeps_one_increment_without_update() {
    let (app, gate) = apps::cloakroom();
    assert_eq!(kept_increments(&app, &gate, "/count_by_insert").await, 1);
}

#[tokio::test]
async fn tower_sessions_keeps_one_increment_and_a_late_request_revives_the_session() {
    let (app, gate) = apps::tower_sessions(tower_sessions::MemoryStore::default());
    let expected = Outcome {
        increments: 1,
        keys: 1,
        during: false,
        afterwards: true,
    };
    assert_outcome(
        &app,
        &gate,
        "tower-sessions 0.15.0, `MemoryStore`",
        expected,
    )
    .await;
}

#[tokio::test]
async fn axum_session_keeps_one_increment_and_the_session_until_the_last_request_is_answered() {
    let (app, gate) = apps::axum_session(None).await;
    let expected = Outcome {
        increments: 1,
        keys: KEYS,
        during: true,
        afterwards: false,
    };
    assert_outcome(&app, &gate, "axum_session 0.22.1, in memory", expected).await;
}

#[tokio::test]
async fn ruts_keeps_every_key_and_one_increment() {
    let (app, gate) = apps::ruts();
    let expected = Outcome {
        increments: 1,
        keys: KEYS,
        during: false,
        afterwards: false,
    };
    assert_outcome(&app, &gate, "ruts 0.13.0, `MokaStore`", expected).await;
}

#[tokio::test]
async fn what_ruts_sets_after_a_logout_makes_a_session_of_the_ended_id() {
    let (app, gate) = apps::ruts();
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    futures_util::join!(app.get("/count", &jar), async {
        gate.arrived(1).await;
        app.get("/log_out", &jar).await;
        gate.let_through(1);
    });
    assert_eq!(app.get("/show", &jar).await.body, "nobody 1");
}

#[actix_web::test]
async fn actix_session_over_redis_keeps_one_increment_and_a_late_request_revives_the_session() {
    let redis = Server::redis(&[]);
    let url = format!("redis://{}", redis.address());
    let store = actix_session::storage::RedisSessionStore::new(url)
        .await
        .unwrap();
    let (app, gate) = apps::actix_session(store).await;
    let expected = Outcome {
        increments: 1,
        keys: 1,
        during: false,
        afterwards: true,
    };
    assert_outcome(
        &app,
        &gate,
        "actix-session 0.11.0, `RedisSessionStore`",
        expected,
    )
    .await;
}

#[actix_web::test]
async fn actix_session_in_the_cookie_keeps_one_increment_and_a_logout_ends_nothing() {
    let store = actix_session::storage::CookieSessionStore::default();
    let (app, gate) = apps::actix_session(store).await;
    let expected = Outcome {
        increments: 1,
        keys: 1,
        during: true,
        afterwards: true,
    };
    assert_outcome(
        &app,
        &gate,
        "actix-session 0.11.0, `CookieSessionStore`",
        expected,
    )
    .await;
}

/// Checks the results, and that the page has a line with them.
async fn assert_outcome(app: &impl App, gate: &Gate, who: &str, expected: Outcome) {
    assert_eq!(outcome(app, gate).await, expected, "{who}");
    let yes = |it| if it { "yes" } else { "no" };
    let line = format!(
        "| {who} | {} of {PARALLEL} | {} of {KEYS} | {} | {} |",
        expected.increments,
        expected.keys,
        yes(expected.during),
        yes(expected.afterwards)
    );
    let page = include_str!("../../docs/comparison.md");
    assert!(
        page.lines().any(|it| it == line),
        "docs/comparison.md should say\n{line}"
    );
}

#[tokio::test]
async fn axum_session_has_a_session_in_each_process_that_does_not_end_with_the_others() {
    let database = Database::default();
    let (one, gate) = apps::axum_session(Some(database.clone())).await;
    let (other, other_gate) = apps::axum_session(Some(database)).await;
    let mut jar = Jar::default();
    one.follow("/log_in", &mut jar).await;
    assert_eq!(count(&one, &gate, &mut jar, 1).await, "ada 1");
    assert_eq!(count(&other, &other_gate, &mut jar, 1).await, "ada 2");
    assert_eq!(count(&other, &other_gate, &mut jar, 1).await, "ada 3");
    // Each process knows only its own memory.
    assert_eq!(one.get("/show", &jar).await.body, "ada 1");
    other.get("/log_out", &jar).await;
    assert!(!is_logged_in(&other, &jar).await);
    assert!(is_logged_in(&one, &jar).await);
}

#[tokio::test]
async fn cloakroom_has_one_session_in_all_processes() {
    let store = std::sync::Arc::new(cloakroom::MemoryStore::new());
    let key = cloakroom::SigningKey::generate().unwrap();
    let (one, gate) = apps::cloakroom_over(store.clone(), key.clone());
    let (other, other_gate) = apps::cloakroom_over(store, key);
    let mut jar = Jar::default();
    one.follow("/log_in", &mut jar).await;
    assert_eq!(count(&one, &gate, &mut jar, 1).await, "ada 1");
    assert_eq!(count(&other, &other_gate, &mut jar, 1).await, "ada 2");
    assert_eq!(one.get("/show", &jar).await.body, "ada 2");
    other.get("/log_out", &jar).await;
    assert!(!is_logged_in(&one, &jar).await);
}

/// The counter was 1, and a request sets it to 100 and answers 500. Returns the counter.
async fn after_a_failed_request(app: &impl App, gate: &Gate) -> String {
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    assert_eq!(count(app, gate, &mut jar, 1).await, "ada 1");
    let answer = app.follow("/fail", &mut jar).await;
    assert_eq!(answer.status, 500);
    app.get("/show", &jar).await.body
}

#[tokio::test]
async fn cloakroom_and_tower_sessions_drop_the_changes_of_a_failed_request() {
    let (app, gate) = apps::cloakroom();
    assert_eq!(after_a_failed_request(&app, &gate).await, "ada 1");
    let (app, gate) = apps::tower_sessions(tower_sessions::MemoryStore::default());
    assert_eq!(after_a_failed_request(&app, &gate).await, "ada 1");
}

#[actix_web::test]
async fn axum_session_and_actix_session_keep_the_changes_of_a_failed_request() {
    let (app, gate) = apps::axum_session(None).await;
    assert_eq!(after_a_failed_request(&app, &gate).await, "ada 100");
    let store = actix_session::storage::CookieSessionStore::default();
    let (app, gate) = apps::actix_session(store).await;
    assert_eq!(after_a_failed_request(&app, &gate).await, "ada 100");
}

#[tokio::test]
async fn a_new_id_of_a_failed_request_costs_the_session_with_tower_sessions_and_not_with_cloakroom()
{
    async fn is_lost(app: &impl App) -> bool {
        let mut jar = Jar::default();
        app.follow("/log_in", &mut jar).await;
        assert_eq!(app.follow("/renew_and_fail", &mut jar).await.status, 500);
        !is_logged_in(app, &jar).await
    }
    assert!(is_lost(&apps::tower_sessions(tower_sessions::MemoryStore::default()).0).await);
    assert!(!is_lost(&apps::cloakroom().0).await);
}

/// The names of the cookies that a visitor gets with the first answer, and with the next one.
async fn cookies_of_a_visitor(app: &impl App) -> Vec<String> {
    let mut jar = Jar::default();
    let first = app.follow("/show", &mut jar).await;
    let second = app.follow("/show", &mut jar).await;
    let all = first.set_cookies.iter().chain(&second.set_cookies);
    let mut names: Vec<_> = all
        .map(|it| it.split_once('=').unwrap().0.to_owned())
        .collect();
    names.sort();
    names
}

#[actix_web::test]
async fn axum_session_alone_sends_cookies_with_each_answer_to_a_visitor_without_data() {
    let (app, _) = apps::axum_session(None).await;
    let names = ["session", "session", "store", "store"];
    assert_eq!(cookies_of_a_visitor(&app).await, names);
    let none = [""; 0];
    let (app, _) = apps::cloakroom();
    assert_eq!(cookies_of_a_visitor(&app).await, none);
    let (app, _) = apps::tower_sessions(tower_sessions::MemoryStore::default());
    assert_eq!(cookies_of_a_visitor(&app).await, none);
    let store = actix_session::storage::CookieSessionStore::default();
    let (app, _) = apps::actix_session(store).await;
    assert_eq!(cookies_of_a_visitor(&app).await, none);
}

#[tokio::test]
async fn axum_session_without_a_key_adopts_an_id_that_a_client_made_up_and_tower_sessions_does_not()
{
    async fn is_adopted(app: &AxumApp, gate: &Gate, cookie: &str) -> bool {
        gate.let_through(1);
        app.get("/count", &Jar::of(cookie)).await;
        app.get("/show", &Jar::of(cookie)).await.body == "nobody 1"
    }
    let (app, gate) = apps::axum_session(None).await;
    assert!(is_adopted(&app, &gate, "session=made-up").await);
    let (app, gate) = apps::tower_sessions(tower_sessions::MemoryStore::default());
    assert!(!is_adopted(&app, &gate, "id=AAAAAAAAAAAAAAAAAAAAAA").await);
}

#[tokio::test]
async fn axum_session_with_a_key_knows_a_session_only_from_the_same_user_agent() {
    let (app, _) = apps::axum_session_with_key().await;
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    assert!(is_logged_in(&app, &jar).await);
    jar.user_agent = "another";
    assert!(!is_logged_in(&app, &jar).await);
}

#[tokio::test]
async fn with_tower_sessions_a_read_does_not_move_the_end_of_a_session() {
    use tower_sessions::SessionStore as _;

    let store = tower_sessions::MemoryStore::default();
    let (app, _) = apps::tower_sessions(store.clone());
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    let id = jar.value("id").parse().unwrap();
    let before = store.load(&id).await.unwrap().unwrap().expiry_date;
    assert!(is_logged_in(&app, &jar).await);
    let after = store.load(&id).await.unwrap().unwrap().expiry_date;
    assert_eq!(before, after);
}

#[actix_web::test]
async fn actix_session_does_not_save_an_update_alone() {
    let store = actix_session::storage::CookieSessionStore::default();
    let (app, gate) = apps::actix_session(store).await;
    let mut jar = Jar::default();
    app.follow("/log_in", &mut jar).await;
    assert_eq!(count(&app, &gate, &mut jar, 1).await, "ada 1");
    assert_eq!(app.follow("/update", &mut jar).await.status, 200);
    assert_eq!(app.get("/show", &jar).await.body, "ada 1");
}
