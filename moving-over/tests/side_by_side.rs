//! What `docs/moving_over/side_by_side.rs` does with an old login where the new session is not stored.

use axum::http::StatusCode;
use axum::{Router, routing::get};
use cloakroom::testing::{Browser, Fault, FaultyStore, StoreCall};
use cloakroom::{MemoryStore, SessionLayer, SigningKey};

#[allow(dead_code, reason = "its `main` is for the program")]
#[path = "../../docs/moving_over/side_by_side.rs"]
mod program;

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
    assert!(browser.cookie("__Host-session").is_none());
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
async fn an_old_login_that_was_left_beside_a_new_one_does_not_come_back_after_the_logout() {
    let (mut browser, _) = logged_in_as_before().await;
    assert_eq!(account(&mut browser).await, ada());
    browser.post("/login_as_before/ada", &[]).await.unwrap();
    browser.post("/logout", &[]).await.unwrap();
    assert_eq!(account(&mut browser).await.0, 401);
}
