//! What `docs/moving_over/side_by_side.rs` does with an old login.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Method, Request, StatusCode};
use axum::{Router, routing::get};
use cloakroom::testing::{Browser, Fault, FaultyStore, StoreCall};
use cloakroom::{CurrentUser, MemoryStore, SessionLayer, Sessions, SigningKey};
use tower::ServiceExt;

#[allow(dead_code, reason = "its `main` is for the program")]
#[path = "../../docs/moving_over/side_by_side.rs"]
mod program;

/// The name of the new cookie.
const NEW: &str = "__Host-session";

/// A browser with an old login, and the new layer's store.
async fn logged_in_as_before() -> (Browser<Router>, FaultyStore<MemoryStore>) {
    let store = FaultyStore::new(MemoryStore::new());
    let new = SessionLayer::new(store.clone(), SigningKey::generate().unwrap());
    let broken = get(|| async { StatusCode::INTERNAL_SERVER_ERROR });
    let routes = program::routes().route("/broken", broken);
    let mut browser = Browser::new(program::with_both_layers(routes, new));
    browser.post("/login_as_before/ada", &[]).await.unwrap();
    (browser, store)
}

async fn account(browser: &mut Browser<Router>) -> (u16, String) {
    let answer = browser.get("/account").await.unwrap();
    let body = String::from_utf8(answer.body().to_vec()).unwrap();
    (answer.status().as_u16(), body)
}

fn ada() -> (u16, String) {
    (200, "You are ada, with tea.\n".to_owned())
}

#[tokio::test]
async fn a_5xx_leaves_the_old_login_which_the_next_request_carries_over() {
    let (mut browser, _) = logged_in_as_before().await;
    assert_eq!(browser.get("/broken").await.unwrap().status(), 500);
    assert!(browser.cookie(NEW).is_none());
    assert_eq!(account(&mut browser).await, ada());
    assert!(browser.cookie(NEW).is_some());
    assert_eq!(account(&mut browser).await, ada());
    assert!(browser.cookie("id").is_none());
}

#[tokio::test]
async fn a_new_session_that_cannot_be_stored_leaves_the_old_login() {
    let (mut browser, store) = logged_in_as_before().await;
    store.fail_at(StoreCall::Insert, Fault::Refused);
    assert_eq!(account(&mut browser).await.0, 503);
    store.recover();
    assert_eq!(account(&mut browser).await, ada());
}

#[tokio::test]
async fn a_client_that_never_gets_the_answer_keeps_its_old_login() {
    let (mut browser, _) = logged_in_as_before().await;
    let mut without_the_answer = browser.clone();
    assert_eq!(account(&mut without_the_answer).await, ada());
    assert_eq!(account(&mut browser).await, ada());
}

#[tokio::test]
async fn an_old_login_that_was_left_beside_a_new_one_does_not_come_back_after_the_logout() {
    let (mut browser, _) = logged_in_as_before().await;
    assert_eq!(account(&mut browser).await, ada());
    browser.post("/login_as_before/ada", &[]).await.unwrap();
    browser.post("/logout", &[]).await.unwrap();
    assert_eq!(account(&mut browser).await.0, 401);
}

#[tokio::test]
async fn a_logout_with_the_old_cookie_alone_ends_the_old_login() {
    let (mut browser, _) = logged_in_as_before().await;
    let copy = browser.clone();
    browser.post("/logout", &[]).await.unwrap();
    for mut browser in [browser, copy] {
        assert_eq!(account(&mut browser).await.0, 401);
    }
}

/// A browser that sends several requests at the same time. A request takes the cookies that the
/// browser has at that moment. The network needs some time.
#[derive(Clone)]
struct Tab {
    app: Router,
    cookies: Arc<Mutex<HashMap<String, String>>>,
}

impl Tab {
    async fn logged_in_as_before(app: &Router, user: &str) -> Self {
        let tab = Self {
            app: app.clone(),
            cookies: Arc::default(),
        };
        tab.send(Method::POST, &format!("/login_as_before/{user}"), 0)
            .await;
        assert!(tab.has("id") && !tab.has(NEW));
        tab
    }

    /// Sends a request that travels for some milliseconds. Its answer travels for 40.
    async fn send(&self, method: Method, path: &str, travels: u64) -> StatusCode {
        let cookies: Vec<String> = self
            .cookies
            .lock()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(COOKIE, cookies.join("; "))
            .body(Body::empty())
            .unwrap();
        tokio::time::sleep(Duration::from_millis(travels)).await;
        let answer = self.app.clone().oneshot(request).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
        let mut cookies = self.cookies.lock().unwrap();
        for value in answer.headers().get_all(SET_COOKIE) {
            let (pair, attributes) = value.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer.status()
    }

    fn has(&self, cookie: &str) -> bool {
        self.cookies.lock().unwrap().contains_key(cookie)
    }
}

/// Both layers around a page whose answers take 5 to 55 ms, so that requests overlap.
fn slow_page() -> (Router, Sessions<MemoryStore>) {
    let new = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
    let sessions = new.sessions();
    let page = async |user: CurrentUser, request: Request<Body>| {
        let call: u64 = request.uri().query().unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(5 + 10 * (call * 5 % 6))).await;
        user.to_string()
    };
    let routes = program::routes().route("/page", get(page));
    (program::with_both_layers(routes, new), sessions)
}

const USERS: [&str; 5] = ["ada", "bob", "cleo", "dan", "eve"];

/// Every user opens a page that makes eight requests, with a pause between them. The first request
/// travels for 20 ms. Each other request travels for up to `jitter` milliseconds more. No request
/// may be lost.
async fn first_visit(pause: Duration, jitter: u64) {
    let (app, sessions) = slow_page();
    let mut visits = Vec::new();
    for user in USERS {
        let tab = Tab::logged_in_as_before(&app, user).await;
        visits.extend((0..8).map(|call| {
            let tab = tab.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause * call).await;
                let travels = 20 + u64::from(call) * 7 % (jitter + 1);
                let page = format!("/page?{call}");
                let status = tab.send(Method::GET, &page, travels).await;
                (tab, user, call, status)
            })
        }));
    }
    let mut tabs = HashMap::new();
    for visit in visits {
        let (tab, user, call, status) = visit.await.unwrap();
        assert_eq!(status, 200, "{user}, call {call}, {pause:?} apart");
        tabs.insert(user, tab);
    }
    for (user, tab) in tabs {
        assert_eq!(tab.send(Method::GET, "/account", 0).await, 200, "{user}");
        assert!(tab.has(NEW) && !tab.has("id"), "{user}");
        // The cost of the old login: at most one session for each of its parallel requests.
        let made = sessions.list_for(user).await.unwrap().len();
        assert!((1..=8).contains(&made), "{user}: {made}");
        tab.send(Method::POST, "/logout", 0).await;
        assert_eq!(tab.send(Method::GET, "/account", 0).await, 401, "{user}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_is_lost_when_a_browser_sends_eight_at_once_with_an_old_login() {
    first_visit(Duration::ZERO, 50).await;
}

#[tokio::test(start_paused = true)]
async fn no_request_is_lost_when_a_browser_sends_eight_10_ms_apart_with_an_old_login() {
    // The difference is less than the 10 ms between the requests. So the requests arrive in the
    // order in which they were sent.
    first_visit(Duration::from_millis(10), 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_in_real_time_on_several_threads() {
    first_visit(Duration::ZERO, 50).await;
}
