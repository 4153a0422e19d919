//! Requests of one browser that meet, answers that are lost, and a store that fails.

use cloakroom::testing::{Fault, StoreCall};

use super::*;

#[tokio::test]
async fn a_registration_that_races_a_logout_brings_nothing_back() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    site.heard();
    let mut hold = site.store.hold_next(StoreCall::Replace);
    let mut window = browser.clone();
    let proof = device.registration(&challenge);
    let registration = window.register(&proof);
    let log_out = async {
        hold.arrived().await;
        let reply = browser.get("/log_out").await;
        hold.release();
        reply
    };
    let (registered, logged_out) = tokio::join!(registration, log_out);
    logged_out.assert(200, "done");
    assert_eq!(registered.status, 403);
    registered.assert_no_cookie();
    assert!(site.store.inner().is_empty());
    assert_eq!(site.heard(), ["ended, logged_out: ada"]);
    site.assert_rejected("no live session");
}

#[tokio::test]
async fn a_registration_that_races_another_login_is_not_taken_for_it() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    let id = browser.id();
    site.clock.advance(A_WHILE);
    let mut hold = site.store.hold_next(StoreCall::Replace);
    let mut window = browser.clone();
    let proof = device.registration(&challenge);
    let registration = window.register(&proof);
    let log_in = async {
        hold.arrived().await;
        let reply = browser.get("/log_in/ada").await;
        hold.release();
        reply
    };
    let (registered, logged_in) = tokio::join!(registration, log_in);
    logged_in.assert(200, "done");
    assert_eq!(registered.status, 403);
    browser.get("/device").await.assert(200, "NotBound");
    assert_eq!(site.version(id).await, 2);
    // The challenge of the earlier login is worth nothing for the later one.
    assert_eq!(
        browser
            .register(&device.registration(&challenge))
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn a_registration_that_meets_another_write_loses_neither() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    let mut hold = site.store.hold_next(StoreCall::Replace);
    let mut window = browser.clone();
    let proof = device.registration(&challenge);
    let registration = window.register(&proof);
    let insert = async {
        hold.arrived().await;
        let reply = browser.get("/insert/theme/dark").await;
        hold.release();
        reply
    };
    let (registered, inserted) = tokio::join!(registration, insert);
    assert_eq!(registered.status, 200);
    inserted.assert(200, "done");
    browser.keep(&registered);
    site.clock.advance(A_WHILE);
    browser.get("/device").await.assert(200, "Bound");
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn of_two_refreshes_with_one_challenge_at_once_one_succeeds() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    site.clock.advance(COOKIE_LIFETIME);
    let challenge = browser.challenge(id).await;
    let proof = device.refresh(&challenge);
    let mut hold = site.store.hold_next(StoreCall::Replace);
    let version = site.version(id).await;
    let first = browser.lose_refresh(id, Some(&proof));
    let second = async {
        hold.arrived().await;
        let reply = browser.lose_refresh(id, Some(&proof)).await;
        hold.release();
        reply
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (403, 200));
    first.assert_no_cookie();
    assert_eq!(site.version(id).await, version + 1);
    site.assert_rejected("the challenge, or a newer one, was used before");
    // The browser answers the new challenge.
    let again = browser
        .refresh(id, Some(&device.refresh(&asked(&first, id))))
        .await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn a_lost_answer_to_a_refresh_costs_one_more() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    site.clock.advance(COOKIE_LIFETIME);
    let challenge = browser.challenge(id).await;
    let proof = device.refresh(&challenge);
    assert_eq!(browser.lose_refresh(id, Some(&proof)).await.status, 200);
    let refused = browser.refresh(id, Some(&proof)).await;
    assert_eq!(refused.status, 403);
    let proof = device.refresh(&asked(&refused, id));
    assert_eq!(browser.refresh(id, Some(&proof)).await.status, 200);
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn after_a_lost_answer_to_a_registration_the_user_logs_in_again() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    let proof = format!("\"{}\"", device.registration(&challenge));
    let headers = [("secure-session-response", &*proof)];
    assert_eq!(browser.lose(Method::POST, BIND, &headers).await.status, 200);
    browser.get("/user").await.assert(200, "ada");
    // A repetition would give a bound cookie to whoever recorded the first request.
    assert_eq!(browser.send(Method::POST, BIND, &headers).await.status, 403);
    site.clock.advance(A_WHILE);
    browser.get("/user").await.assert(401, "");
    browser.bind("ada", &device).await;
    site.clock.advance(A_WHILE);
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_refresh_with_a_token_that_was_just_rotated_does_not_end_the_binding() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    let mut late = browser.clone();
    browser.get("/regenerate").await.assert(200, "done");
    let challenge = late.challenge(id).await;
    let proof = device.refresh(&challenge);
    assert_eq!(late.refresh(id, Some(&proof)).await.status, 403);
    assert_eq!(browser.refresh(id, Some(&proof)).await.status, 200);
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_and_nothing_else_is_a_server_error() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    site.store.fail(Fault::Refused);
    let reply = browser.register(&device.registration(&challenge)).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    site.store.recover();
    let reply = browser.register(&device.registration(&challenge)).await;
    assert_eq!(reply.status, 200);
    site.store.fail(Fault::Refused);
    assert_eq!(browser.refresh(browser.id(), None).await.status, 503);
}
