//! Two clients go on with the same token. The layer ends the session, and says whose it is.

use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{EndCause, Ended, MemoryStore, SessionEventKind, Transport};
use futures_util::FutureExt;
use support::id_of;
use tokio::task::yield_now;

use super::{EVERY, GRACE, Holder, MILLI, MINUTE, OWNER, Site, THIEF, Way};

/// Both have the token. The first one gets the new token, uses it, and the old one is over.
async fn first_goes_on(site: &Site, first: &mut Holder) {
    site.clock.advance(EVERY);
    first.gets_a_token().await;
    first.gets_no_token("/user", 200, "ada").await;
    site.clock.advance(GRACE);
    site.heard.take();
}

/// Checks that the session has ended, that the hooks have heard why, and nothing else.
#[track_caller]
fn assert_alarm(site: &Site, token: &str, client: &str, presented_by: &str) {
    let events = site.heard.take();
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, [SessionEventKind::Reuse, SessionEventKind::Ended]);
    for event in &events {
        assert_eq!(event.user().unwrap().as_str(), "ada");
        assert_eq!(event.record_id(), Some(id_of(token)));
        assert_eq!(event.client().unwrap().address(), Some(client));
    }
    let [reuse, ended] = &events[..] else {
        panic!()
    };
    let other = reuse.presented_by().unwrap();
    assert_eq!(other.address(), Some(presented_by));
    assert_eq!(reuse.cause(), None);
    assert_eq!(ended.cause(), Some(EndCause::TokenReused));
    assert_eq!(ended.presented_by(), None);
    assert!(site.store.inner().is_empty());
}

#[tokio::test]
async fn a_thief_with_an_old_token_ends_the_session_for_both() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    thief.gets_no_token("/user", 200, "ada").await;
    first_goes_on(&site, &mut owner).await;
    thief.gets_no_token("/get/theme", 200, "nothing").await;
    assert_alarm(&site, &owner.token, OWNER, THIEF);
    for _ in 0..3 {
        thief.is_a_visitor().await;
        owner.is_a_visitor().await;
        site.clock.advance(GRACE);
    }
    assert_eq!(site.heard.alarms(), 0);
}

#[tokio::test]
async fn an_owner_whom_a_thief_has_overtaken_ends_the_session_for_both() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    first_goes_on(&site, &mut thief).await;
    for _ in 0..5 {
        // However far the thief gets.
        site.rotates(&mut thief).await;
    }
    site.heard.take();
    owner.gets_no_token("/user", 401, "").await;
    assert_alarm(&site, &owner.token, THIEF, OWNER);
    thief.is_a_visitor().await;
    owner.is_a_visitor().await;
}

#[tokio::test]
async fn a_thief_whose_token_was_never_replaced_is_found_in_two_intervals_and_a_minute() {
    // The thief copies the token just before it is replaced, and takes the sibling.
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    site.clock.advance(EVERY);
    owner.gets_a_token().await;
    site.clock.advance(GRACE);
    thief.gets_a_token().await;
    for _ in 0..9 {
        owner.gets_no_token("/user", 200, "ada").await;
        thief.gets_no_token("/user", 200, "ada").await;
        site.clock.advance(MINUTE);
    }
    site.clock.advance(MINUTE);
    owner.gets_a_token().await;
    owner.gets_no_token("/user", 200, "ada").await;
    assert_eq!(site.heard.alarms(), 0);
    site.clock.advance(GRACE);
    thief.is_a_visitor().await;
    assert_eq!(site.heard.alarms(), 1);
}

#[tokio::test]
async fn clients_with_bearer_tokens_have_the_same() {
    for (transport, way) in [
        (Transport::Bearer, Way::Bearer),
        (Transport::CookieOrBearer, Way::Bearer),
        (Transport::CookieOrBearer, Way::Cookie),
    ] {
        let site = Site::with(|builder| builder.transport(transport).rotate_every(EVERY));
        let mut owner = site.logged_in_by(way).await;
        let mut thief = owner.stolen();
        site.clock.advance(EVERY);
        // `given` checks that the token comes in one way only.
        owner.gets_a_token().await;
        site.clock.advance(GRACE);
        let mut lost = thief.clone();
        lost.gets_a_token().await;
        owner.gets_no_token("/user", 200, "ada").await;
        lost.gets_no_token("/user", 200, "ada").await;
        site.clock.advance(GRACE - MILLI);
        thief.gets_no_token("/user", 200, "ada").await;
        site.clock.advance(MILLI);
        site.heard.take();
        thief.gets_no_token("/user", 401, "").await;
        assert_alarm(&site, &owner.token, THIEF, THIEF);
        owner.is_a_visitor().await;
        lost.is_a_visitor().await;
    }
}

#[tokio::test]
async fn a_token_of_before_a_login_is_dead_at_once_and_in_silence() {
    for path in ["/log_in/ada", "/regenerate", "/remember/ada"] {
        let site = Site::new();
        let mut owner = site.logged_in().await;
        let first = owner.clone();
        site.rotates(&mut owner).await;
        let second = owner.clone();
        site.clock.advance(EVERY);
        owner.gets_a_token().await;
        let third = owner.clone();
        let mut before = [first, second, third];

        owner.get(path).await.assert(200, "done");
        for old in &mut before {
            // The request could be under way, so the layer does not say that the session is over.
            old.gets_no_token("/update/visits", 409, "").await;
        }
        site.clock.advance(GRACE);
        for _ in 0..12 {
            for old in &mut before {
                old.is_a_visitor().await;
            }
            site.rotates(&mut owner).await;
        }
        owner.gets_no_token("/get/theme", 200, "dark").await;
        assert_eq!(site.heard.alarms(), 0, "{path}");
    }
}

#[tokio::test]
async fn a_login_that_comes_first_is_not_ended_by_the_alarm() {
    for path in ["/log_in/ada", "/regenerate"] {
        let site = Site::new();
        let mut owner = site.logged_in().await;
        let thief = owner.stolen();
        first_goes_on(&site, &mut owner).await;
        // The layer has found the reuse, and is about to end the session.
        let mut hold = site.store.hold_next(StoreCall::Replace);
        let alarm = tokio::spawn(thief.send("/user", &[]));
        hold.arrived().await;
        owner.get(path).await.assert(200, "done");
        hold.release();
        alarm.await.unwrap().assert(401, "");
        assert_eq!(site.heard.alarms(), 0, "{path}");
        owner.gets_no_token("/get/theme", 200, "dark").await;
        site.rotates(&mut owner).await;
    }
}

#[tokio::test]
async fn a_write_that_comes_first_does_not_prevent_the_alarm() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let thief = owner.stolen();
    first_goes_on(&site, &mut owner).await;
    let mut hold = site.store.hold_next(StoreCall::Replace);
    let alarm = tokio::spawn(thief.send("/user", &[]));
    hold.arrived().await;
    owner.get("/update/visits").await.assert(200, "1");
    hold.release();
    alarm.await.unwrap().assert(401, "");
    assert_alarm(&site, &owner.token, OWNER, THIEF);
    owner.is_a_visitor().await;
}

#[tokio::test]
async fn an_end_wins_over_a_write_that_is_under_way() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    first_goes_on(&site, &mut owner).await;
    let mut hold = site.store.hold_next(StoreCall::Replace);
    let write = tokio::spawn(owner.send("/update/visits", &[]));
    hold.arrived().await;
    thief.gets_no_token("/user", 401, "").await;
    assert_alarm(&site, &owner.token, OWNER, THIEF);
    hold.release();
    write.await.unwrap().assert_no_cookie();
    owner.is_a_visitor().await;
    assert!(site.store.inner().is_empty());
}

#[tokio::test]
async fn a_login_with_a_stolen_token_gets_a_session_of_its_own() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    first_goes_on(&site, &mut thief).await;
    let old = id_of(&owner.token);
    owner.get("/log_in/ada").await.assert(200, "done");
    assert_ne!(id_of(&owner.token), old);
    assert_eq!(
        site.heard.kinds(),
        ["reuse", "ended", "created", "logged_in"]
    );
    thief.is_a_visitor().await;
    owner.gets_no_token("/user", 200, "ada").await;
    // What was in the session, the thief may have put there.
    owner.gets_no_token("/get/theme", 200, "nothing").await;
}

#[tokio::test]
async fn a_store_that_cannot_remove_the_session_does_not_keep_it_alive() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    first_goes_on(&site, &mut owner).await;
    site.store.fail_at(StoreCall::Remove, Fault::Refused);
    thief.gets_no_token("/user", 401, "").await;
    assert_eq!(site.heard.alarms(), 1);
    owner.is_a_visitor().await;
    site.store.recover();
    owner.is_a_visitor().await;
    thief.is_a_visitor().await;
    assert_eq!(site.heard.alarms(), 1);
}

#[tokio::test]
async fn a_store_that_fails_delays_the_alarm_and_one_that_loses_the_answer_does_not() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    first_goes_on(&site, &mut owner).await;
    site.store.fail_at(StoreCall::Replace, Fault::Refused);
    thief.gets_no_token("/user", 503, "").await;
    assert_eq!(site.heard.alarms(), 0);
    site.store.fail_once(StoreCall::Replace, Fault::AnswerLost);
    thief.gets_no_token("/user", 401, "").await;
    assert_alarm(&site, &owner.token, OWNER, THIEF);
    owner.is_a_visitor().await;
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_session_hears_of_the_reuse() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let session = site.detached(&mut owner).await;
    let mut ended = Box::pin(session.ended());
    let mut thief = owner.stolen();
    // A socket that began with a token which is two generations old goes on.
    for _ in 0..3 {
        site.rotates(&mut owner).await;
        quiet().await;
        assert_eq!((&mut ended).now_or_never(), None);
    }
    let mut later = Box::pin(session.ended());
    quiet().await;
    assert_eq!((&mut later).now_or_never(), None);
    assert_eq!(site.heard.alarms(), 0);

    thief.gets_no_token("/user", 401, "").await;
    assert_eq!(ended.await, Ended::Here(EndCause::TokenReused));
    assert_eq!(later.await, Ended::Here(EndCause::TokenReused));
    assert_eq!(session.ended().await, Ended::Elsewhere);
}

#[tokio::test]
async fn who_waits_on_another_node_hears_that_the_session_has_ended() {
    let here = Site::new();
    let there = here.ahead(MINUTE / 3, |builder| builder.rotate_every(EVERY));
    let mut owner = here.logged_in().await;
    let session = there.detached(&mut owner.at(&there)).await;
    let mut ended = Box::pin(session.ended());
    let mut thief = owner.stolen();
    there.clock.advance(EVERY + GRACE);
    first_goes_on(&here, &mut owner).await;
    quiet().await;
    assert_eq!((&mut ended).now_or_never(), None);
    thief.gets_no_token("/user", 401, "").await;
    assert_eq!(ended.await, Ended::Elsewhere);
}

/// Lets all tasks do what they can do now.
async fn quiet() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_layer_that_cannot_say_who_its_clients_are_raises_the_alarm_as_well() {
    let site = Site::with(|builder| {
        builder
            .client_from(|_, _| cloakroom::Client::new())
            .rotate_every(EVERY)
    });
    let mut owner = site.logged_in().await;
    let mut thief = owner.stolen();
    first_goes_on(&site, &mut owner).await;
    thief.is_a_visitor().await;
    let events = site.heard.take();
    assert_eq!(events[0].kind(), SessionEventKind::Reuse);
    assert_eq!(events[0].presented_by().unwrap().address(), None);

    let heard = super::Heard::default();
    let clock = cloakroom::TestClock::new();
    let layer = support::builder(FaultyStore::new(MemoryStore::new()))
        .clock(clock.clone())
        .rotate_every(EVERY)
        .on_event(heard.hook());
    let app = support::app(layer.build().unwrap());
    let mut owner = Holder {
        app,
        ..site.visitor()
    };
    owner.get("/log_in/ada").await.assert(200, "done");
    let mut thief = owner.stolen();
    clock.advance(EVERY);
    owner.gets_a_token().await;
    owner.gets_no_token("/user", 200, "ada").await;
    clock.advance(GRACE);
    heard.take();
    thief.is_a_visitor().await;
    let events = heard.take();
    assert_eq!(events[0].kind(), SessionEventKind::Reuse);
    assert_eq!(events[0].presented_by(), None);
    assert_eq!(events[0].client(), None);
}
