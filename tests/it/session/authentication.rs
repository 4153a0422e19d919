//! How and when a user proved who they are, and what a request may ask of it.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cloakroom::{
    Account, Authentication, MemoryStore, Session, Stamp, TestClock, Timestamp, Transport,
};
use support::{Browser, builder, routes};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn app(clock: &TestClock, transport: Transport) -> Router {
    let layer = builder(MemoryStore::new())
        .clock(clock.clone())
        .transport(transport)
        .build()
        .unwrap();
    let yesterday = clock_time(clock, DAY);
    let sign_on = move |session: Session| async move {
        let how = Authentication::at(yesterday)
            .with_methods(["pwd", "otp"])
            .with_level("aal2");
        session.log_in_with("ada", how)
    };
    let long = |session: Session| async move {
        session.log_in_with("ada", Authentication::now().with_level("x".repeat(256)))
    };
    let many = |session: Session| async move {
        session.log_in_with("ada", Authentication::now().with_methods(["pwd"; 17]))
    };
    let stamped = |session: Session| async move {
        session.log_in(Account::new("ada").with_stamp(Stamp::of("hash")))
    };
    let how = |session: Session| async move { format!("{:?}", session.authentication()) };
    let recent = |session: Session| async move { session.require_recent_login(5 * MINUTE) };
    let high = |session: Session| async move { session.require_level(&["aal2", "aal3"]) };
    let odd = |session: Session| async move { session.require_level(&["a\"b", "aal3", "x\r\ny"]) };
    let only_odd = |session: Session| async move { session.require_level(&["a b", ""]) };
    let higher = |session: Session| async move { session.require_level(&["aal3"]) };
    routes()
        .route("/sign_on", get(sign_on))
        .route("/long", get(long))
        .route("/many", get(many))
        .route("/stamped", get(stamped))
        .route("/how", get(how))
        .route("/recent", get(recent))
        .route("/high", get(high))
        .route("/higher", get(higher))
        .route("/odd", get(odd))
        .route("/only_odd", get(only_odd))
        .layer(layer)
}

fn clock_time(clock: &TestClock, before: Duration) -> Timestamp {
    use cloakroom::Clock as _;
    let now = clock.now().as_millis();
    Timestamp::from_millis(now - u64::try_from(before.as_millis()).unwrap())
}

#[tokio::test]
async fn a_login_tells_later_requests_how_it_was_made() {
    let clock = TestClock::new();
    let app = app(&clock, Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/how").await.assert(200, "None");
    browser.get("/sign_on").await.assert(200, "");
    clock.advance(MINUTE);
    let told = browser.get("/how").await.body;
    let at = clock_time(&clock, DAY + MINUTE);
    assert_eq!(
        told,
        format!(
            "Some(Authentication {{ time: Some({at:?}), methods: [\"pwd\", \"otp\"], level: \
             Some(\"aal2\") }})"
        )
    );
}

#[tokio::test]
async fn a_plain_login_is_made_now_and_says_nothing_more() {
    let clock = TestClock::new();
    let app = app(&clock, Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let at = clock_time(&clock, Duration::ZERO);
    clock.advance(MINUTE);
    browser.get("/how").await.assert(
        200,
        &format!("Some(Authentication {{ time: Some({at:?}), methods: [], level: None }})"),
    );
}

#[tokio::test]
async fn a_sign_on_of_yesterday_is_no_recent_login() {
    let clock = TestClock::new();
    let app = app(&clock, Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/sign_on").await;
    let reply = browser.get("/recent").await;
    reply.assert(401, "");
    assert_eq!(
        reply.header("www-authenticate").unwrap(),
        "Cookie realm=\"__Host-session\", error=\"insufficient_user_authentication\", \
         max_age=\"300\""
    );
    browser.get("/log_in/ada").await;
    browser.get("/recent").await.assert(200, "");
}

#[tokio::test]
async fn a_session_lasts_as_if_the_sign_on_was_now() {
    let clock = TestClock::new();
    let app = app(&clock, Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/sign_on").await;
    clock.advance(29 * MINUTE);
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_level_must_be_one_of_those_that_are_asked_for() {
    let clock = TestClock::new();
    let app = app(&clock, Transport::Cookie);
    let mut browser = Browser::new(&app);
    let reply = browser.get("/high").await;
    reply.assert(401, "");
    assert_eq!(
        reply.header("www-authenticate").unwrap(),
        "Cookie realm=\"__Host-session\"",
        "a visitor must log in first"
    );
    browser.get("/sign_on").await;
    browser.get("/high").await.assert(200, "");
    let reply = browser.get("/higher").await;
    reply.assert(401, "");
    assert_eq!(
        reply.header("www-authenticate").unwrap(),
        "Cookie realm=\"__Host-session\", error=\"insufficient_user_authentication\", \
         acr_values=\"aal3\""
    );
    browser.get("/log_in/ada").await;
    browser.get("/high").await.assert(401, "");
}

#[tokio::test]
async fn a_level_that_no_header_can_have_stays_out_of_the_challenge() {
    let app = app(&TestClock::new(), Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let reply = browser.get("/odd").await;
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.ends_with("acr_values=\"aal3\""), "{challenge}");
    let reply = browser.get("/only_odd").await;
    reply.assert(401, "");
    assert_eq!(
        reply.header("www-authenticate").unwrap(),
        "Cookie realm=\"__Host-session\", error=\"insufficient_user_authentication\""
    );
}

#[tokio::test]
async fn an_api_gets_the_challenge_of_rfc_9470() {
    let app = app(&TestClock::new(), Transport::Bearer);
    let mut client = Browser::new(&app);
    let reply = client.get("/sign_on").await;
    let token = reply.header("x-session-token").unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let with = [("authorization", &*bearer)];
    let reply = client.get_with("/recent", &with).await;
    reply.assert(401, "");
    assert_eq!(
        reply.header("www-authenticate").unwrap(),
        "Bearer error=\"insufficient_user_authentication\", max_age=\"300\""
    );
    let reply = client.get_with("/higher", &with).await;
    assert_eq!(
        reply.header("www-authenticate").unwrap(),
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"aal3\""
    );
}

#[tokio::test]
async fn what_a_provider_says_is_not_kept_without_bounds() {
    let app = app(&TestClock::new(), Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/long").await.assert(500, "");
    browser.get("/many").await.assert(500, "");
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_login_with_a_stamp_is_a_login() {
    let app = app(&TestClock::new(), Transport::Cookie);
    let mut browser = Browser::new(&app);
    browser.get("/stamped").await.assert(200, "");
    browser.get("/user").await.assert(200, "ada");
}

#[test]
fn a_stamp_shows_nothing_of_the_credentials() {
    let stamp = Stamp::of("$argon2id$secret");
    assert_eq!(format!("{stamp:?}"), "Stamp(..)");
    assert_ne!(stamp, Stamp::of("$argon2id$other"));
    assert_ne!(stamp, Stamp::none());
    assert!(Stamp::none().is_none());
}
