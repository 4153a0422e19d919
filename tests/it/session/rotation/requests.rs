//! A token is replaced in time, and nobody who is alone with it notices: whatever answers are lost,
//! whatever requests meet, and whatever the store does.

use std::time::Duration;

use cloakroom::testing::{Fault, StoreCall};
use futures_util::future::join_all;
use support::{Reply, builder, id_of};

use super::{EVERY, GRACE, Holder, MILLI, MINUTE, NAME, Site, Way, given};

#[test]
fn an_interval_below_a_minute_is_refused() {
    let build = |every| {
        let layer = builder(cloakroom::MemoryStore::new()).rotate_every(every);
        layer.build().map(drop)
    };
    for every in [Duration::ZERO, MINUTE - MILLI] {
        let error = build(every).unwrap_err().to_string();
        assert!(error.starts_with("rotate_every: "), "{error}");
    }
    build(MINUTE).unwrap();
    build(Duration::MAX).unwrap();
}

#[tokio::test]
async fn without_the_setting_no_token_changes() {
    let site = Site::with(|builder| builder);
    let mut owner = site.logged_in().await;
    for _ in 0..15 {
        site.clock.advance(20 * MINUTE);
        owner.gets_no_token("/user", 200, "ada").await;
        site.store.take_calls();
        owner.gets_no_token("/", 200, "untouched").await;
        assert_eq!(site.store.take_calls(), [StoreCall::Load]);
    }
    assert_eq!(site.heard.kinds(), [""; 0]);
}

#[tokio::test]
async fn a_request_that_changes_nothing_replaces_a_token_of_that_age() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let old = owner.token.clone();
    site.clock.advance(EVERY - MILLI);
    owner.gets_no_token("/", 200, "untouched").await;
    site.clock.advance(MILLI);
    owner.get("/").await.assert(200, "untouched");
    assert_ne!(owner.token, old);
    assert_eq!(id_of(&owner.token), id_of(&old), "it is the same session");
    assert_eq!(owner.token.len(), old.len());
    owner.gets_no_token("/user", 200, "ada").await;
    owner.gets_no_token("/get/theme", 200, "dark").await;
    assert_eq!(site.heard.kinds(), ["rotated"]);
}

#[tokio::test]
async fn a_visitors_token_and_that_of_a_poll_are_replaced_too() {
    let site = Site::new();
    let mut visitor = site.visitor();
    visitor.get("/insert/theme/dark").await;
    for _ in 0..3 {
        site.clock.advance(EVERY);
        let old = visitor.token.clone();
        visitor.get("/passive").await.assert(200, "done");
        assert_ne!(visitor.token, old);
        site.clock.advance(MINUTE);
        // A poll does not keep the session alive.
        visitor.gets_no_token("/get/theme", 200, "dark").await;
    }
}

#[tokio::test]
async fn the_old_token_is_good_until_the_new_one_is_used_and_a_minute_longer() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut old = owner.clone();
    site.clock.advance(EVERY);
    owner.gets_a_token().await;
    site.clock.advance(GRACE - MILLI);
    old.gets_no_token("/get/theme", 200, "dark").await;
    owner.gets_no_token("/user", 200, "ada").await;
    site.clock.advance(GRACE - MILLI);
    old.gets_no_token("/update/visits", 200, "1").await;
    owner.gets_no_token("/update/visits", 200, "2").await;
    assert_eq!(site.heard.alarms(), 0);
    site.clock.advance(MILLI);
    old.is_a_visitor().await;
    assert_eq!(site.heard.alarms(), 1);
}

#[tokio::test]
async fn a_client_whose_answer_is_lost_gets_a_sibling_after_the_grace_period() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    site.clock.advance(EVERY);
    let mut other = owner.clone();
    other.gets_a_token().await;

    // The owner never got that answer.
    site.clock.advance(GRACE - MILLI);
    owner.gets_no_token("/user", 200, "ada").await;
    site.clock.advance(MILLI);
    owner.gets_a_token().await;
    assert_ne!(owner.token, other.token);

    // Both tokens are good, for as long as no new one takes their place.
    for _ in 0..9 {
        owner.gets_no_token("/user", 200, "ada").await;
        other.gets_no_token("/user", 200, "ada").await;
        site.clock.advance(MINUTE);
    }
    site.clock.advance(MINUTE);
    owner.gets_a_token().await;
    owner.gets_no_token("/user", 200, "ada").await;
    site.clock.advance(GRACE - MILLI);
    other.gets_no_token("/user", 200, "ada").await;
    assert_eq!(site.heard.alarms(), 0);
}

#[tokio::test]
async fn ten_answers_that_are_lost_one_after_the_other_log_nobody_out() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    site.clock.advance(EVERY);
    for _ in 0..10 {
        let reply = owner.send("/update/visits", &[]).await;
        assert_eq!(reply.status, 200);
        assert_ne!(given(&reply, Way::Cookie), None);
        site.clock.advance(GRACE);
    }
    owner.get("/update/visits").await.assert(200, "11");
    for _ in 0..3 {
        site.rotates(&mut owner).await;
    }
    owner.gets_no_token("/get/visits", 200, "11").await;
    assert_eq!(site.heard.alarms(), 0);
}

#[tokio::test]
async fn of_parallel_requests_one_gets_a_token_and_all_succeed() {
    let site = Site::new();
    let owner = site.logged_in().await;
    site.clock.advance(EVERY);
    let sent = join_all((0..8).map(|_| owner.send("/user", &[]))).await;
    assert_all_succeed(&sent, 1);

    // All have loaded the old record before the first one writes.
    let site = Site::new();
    let mut owner = site.logged_in().await;
    site.clock.advance(EVERY);
    let mut under_way = Vec::new();
    for path in ["/user", "/update/visits", "/"] {
        let mut hold = site.store.hold_next(StoreCall::Replace);
        let sent = tokio::spawn(owner.send(path, &[]));
        hold.arrived().await;
        under_way.push((hold, sent));
    }
    let first = owner.send("/user", &[]).await;
    let mut sent = Vec::new();
    for (hold, under_way) in under_way {
        hold.release();
        sent.push(under_way.await.unwrap());
    }
    sent.push(first);
    assert_all_succeed(&sent, 1);

    site.clock.advance(GRACE - MILLI);
    owner.gets_no_token("/get/visits", 200, "1").await;
    sent.iter().for_each(|reply| owner.keep(reply));
    owner.gets_no_token("/get/visits", 200, "1").await;
    assert_eq!(site.heard.alarms(), 0);
}

#[track_caller]
fn assert_all_succeed(replies: &[Reply], tokens: usize) {
    assert!(
        replies.iter().all(|reply| reply.status == 200),
        "{replies:?}"
    );
    let given = replies
        .iter()
        .filter_map(|reply| given(reply, Way::Cookie))
        .count();
    assert_eq!(given, tokens);
}

#[tokio::test]
async fn a_rotation_costs_no_call_where_the_request_writes_anyway() {
    use StoreCall::{Load, Replace, Touch};
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let calls = || site.store.take_calls();
    // Not due.
    calls();
    owner.get("/user").await;
    assert_eq!(calls(), [Load]);
    site.clock.advance(5 * MINUTE);
    owner.get("/user").await;
    assert_eq!(calls(), [Load, Touch]);

    // A touch is due as well.
    site.clock.advance(5 * MINUTE);
    owner.gets_a_token().await;
    assert_eq!(calls(), [Load, Replace]);
    // The client has it.
    owner.gets_no_token("/user", 200, "ada").await;
    assert_eq!(calls(), [Load, Replace]);
    owner.gets_no_token("/user", 200, "ada").await;
    assert_eq!(calls(), [Load]);

    // The request writes, and then says that the client has the new token.
    site.clock.advance(EVERY);
    let old = owner.token.clone();
    owner.get("/update/visits").await.assert(200, "1");
    assert_ne!(owner.token, old);
    assert_eq!(calls(), [Load, Replace]);
    owner.get("/update/visits").await.assert(200, "2");
    assert_eq!(calls(), [Load, Replace]);
    owner.gets_no_token("/get/visits", 200, "2").await;
    assert_eq!(calls(), [Load]);

    // The request counts as no use of the session, so it would write nothing.
    site.clock.advance(EVERY);
    let old = owner.token.clone();
    owner.get("/passive").await;
    assert_ne!(owner.token, old);
    assert_eq!(calls(), [Load, Replace]);
}

#[tokio::test]
async fn a_rotation_counts_as_the_use_that_the_request_is() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    // The idle timeout is half an hour.
    for _ in 0..6 {
        site.clock.advance(25 * MINUTE);
        owner.gets_a_token().await;
    }
    site.clock.advance(25 * MINUTE);
    owner.get("/passive").await.assert(200, "done");
    site.clock.advance(5 * MINUTE);
    owner.is_a_visitor().await;
    assert_eq!(site.heard.alarms(), 0);
}

#[tokio::test]
async fn a_part_of_a_page_carries_a_token_only_if_one_is_long_due() {
    for mode in ["cors", "no-cors", "same-origin", "websocket"] {
        let site = Site::new();
        let mut owner = site.logged_in().await;
        let part = [("sec-fetch-mode", mode)];
        site.clock.advance(EVERY);
        for passed in [EVERY / 2, EVERY / 2 - MILLI] {
            owner
                .get_with("/update/visits", &part)
                .await
                .assert_no_cookie();
            owner.get_with("/", &part).await.assert_no_cookie();
            site.clock.advance(passed);
        }
        owner.get_with("/", &part).await.assert_no_cookie();
        site.clock.advance(MILLI);
        let old = owner.token.clone();
        owner.get_with("/", &part).await;
        assert_ne!(owner.token, old, "{mode}");
    }
    let site = Site::new();
    let mut owner = site.logged_in().await;
    site.clock.advance(EVERY);
    let page = [("sec-fetch-mode", "navigate")];
    let old = owner.token.clone();
    owner.get_with("/", &page).await;
    assert_ne!(owner.token, old);
}

#[tokio::test]
async fn an_answer_of_failure_carries_no_token() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let old = owner.clone();
    site.clock.advance(EVERY);
    for operation in ["read", "insert", "regenerate"] {
        let reply = owner.get(&format!("/fail/{operation}")).await;
        reply.assert(500, "failed");
        reply.assert_no_cookie();
    }
    owner.gets_a_token().await;
    // The first answer did not rotate, so the old token is this one's parent.
    old.clone().gets_no_token("/user", 200, "ada").await;
    assert_eq!(site.heard.kinds(), ["rotated"]);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_the_store_fails_spoils_no_answer() {
    for fault in [Fault::Refused, Fault::Hangs, Fault::Conflict] {
        let site = Site::new();
        let mut owner = site.logged_in().await;
        site.clock.advance(EVERY);
        site.store.fail_at(StoreCall::Replace, fault);
        for _ in 0..3 {
            owner.gets_no_token("/get/theme", 200, "dark").await;
        }
        site.store.recover();
        owner.gets_a_token().await;
        // The call that says that the client has it.
        site.store.fail_at(StoreCall::Replace, fault);
        owner.gets_no_token("/get/theme", 200, "dark").await;
        site.store.recover();
        owner.gets_no_token("/get/theme", 200, "dark").await;
        site.rotates(&mut owner).await;
        assert_eq!(site.heard.alarms(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_rotation_whose_answer_the_store_loses_locks_nobody_out() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    site.clock.advance(EVERY);
    for _ in 0..6 {
        // The store has a token that nobody got.
        site.store.fail_once(StoreCall::Replace, Fault::AnswerLost);
        owner.gets_no_token("/get/theme", 200, "dark").await;
        site.clock.advance(GRACE - MILLI);
        owner.gets_no_token("/get/theme", 200, "dark").await;
        site.clock.advance(MILLI);
    }
    owner.gets_a_token().await;
    site.store.fail_once(StoreCall::Replace, Fault::AnswerLost);
    owner.gets_no_token("/get/theme", 200, "dark").await;
    owner.gets_no_token("/get/theme", 200, "dark").await;
    site.rotates(&mut owner).await;
    assert_eq!(site.heard.alarms(), 0);
}

#[tokio::test]
async fn a_handler_outlives_two_rotations_and_its_change_is_kept() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let slow = tokio::spawn(owner.send("/slow", &[]));
    site.slow.arrived.notified().await;
    for _ in 0..3 {
        site.rotates(&mut owner).await;
    }
    site.slow.go_on.notify_one();
    let reply = slow.await.unwrap();
    reply.assert(200, "");
    // The old token could overwrite the newer one.
    reply.assert_no_cookie();
    owner.gets_no_token("/get/slow", 200, "kept").await;
    assert_eq!(site.heard.alarms(), 0);
}

/// What a handler of a lazy layer finds that asks for the session only after so many rotations.
async fn late(rotations: usize) -> (Site, Holder, Reply) {
    let site = Site::with(|builder| builder.rotate_every(EVERY).lazy(true));
    let mut owner = site.logged_in().await;
    let late = tokio::spawn(owner.send("/late", &[]));
    site.slow.arrived.notified().await;
    for _ in 0..rotations {
        site.clock.advance(EVERY);
        owner.gets_a_token().await;
        owner.gets_no_token("/user", 200, "ada").await;
        site.clock.advance(2 * GRACE);
    }
    site.slow.go_on.notify_one();
    let reply = late.await.unwrap();
    reply.assert_no_cookie();
    owner.gets_no_token("/user", 200, "ada").await;
    assert_eq!(site.heard.alarms(), 0);
    (site, owner, reply)
}

#[tokio::test]
async fn with_a_lazy_layer_a_token_counts_as_of_when_the_request_came() {
    let (_, _, reply) = late(1).await;
    reply.assert(200, "ada");
    // Nobody can say whether this token was good.
    let (.., reply) = late(2).await;
    reply.assert(401, "");
}

#[tokio::test]
async fn with_a_lazy_layer_a_thief_with_an_old_token_is_found() {
    let (site, mut owner, _) = late(0).await;
    let mut thief = owner.clone();
    site.clock.advance(EVERY);
    owner.gets_a_token().await;
    owner.gets_no_token("/user", 200, "ada").await;
    site.clock.advance(GRACE + MILLI);
    thief.gets_no_token("/user", 401, "").await;
    assert_eq!(site.heard.alarms(), 1);
    owner.is_a_visitor().await;
}

#[tokio::test]
async fn a_detached_handle_outlives_two_rotations_and_saves() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let mut later = site.detached(&mut owner).await;
    for round in 1..=3 {
        site.rotates(&mut owner).await;
        later.insert("round", round).unwrap();
        later.save().await.unwrap();
        let shown = round.to_string();
        owner.gets_no_token("/get/round", 200, &shown).await;
    }
    site.rotates(&mut owner).await;
    later.reload().await.unwrap();
    assert_eq!(
        later.get::<String>("theme").unwrap().as_deref(),
        Some("dark")
    );
    assert_eq!(later.user().unwrap().as_str(), "ada");
    assert_eq!(site.heard.alarms(), 0);
}

/// Both cookies have the same name, and the browser sends first the one with the longer path.
async fn with_both(first: &str, second: &str, owner: &Holder) -> Reply {
    let owner = Holder {
        token: String::new(),
        ..owner.clone()
    };
    let cookies = format!("{NAME}={first}; {NAME}={second}");
    owner.send("/user", &[("cookie", &cookies)]).await
}

#[tokio::test]
async fn an_old_cookie_beside_the_good_one_is_no_theft() {
    let site = Site::new();
    let mut owner = site.logged_in().await;
    let first = owner.token.clone();
    site.clock.advance(EVERY);
    owner.gets_a_token().await;
    // The old one is still good. The new one counts, so that the layer sees that the client has it.
    for (one, other) in [(&owner.token, &first), (&first, &owner.token)] {
        let reply = with_both(one, other, &owner).await;
        reply.assert(200, "ada");
        reply.assert_no_cookie();
    }
    site.clock.advance(GRACE);
    for _ in 0..3 {
        for (one, other) in [(&owner.token, &first), (&first, &owner.token)] {
            let reply = with_both(one, other, &owner).await;
            reply.assert(200, "ada");
            reply.assert_no_cookie();
        }
        site.rotates(&mut owner).await;
    }
    assert_eq!(site.heard.alarms(), 0);
    // Alone, it is one.
    with_both(&first, &first, &owner).await.assert(401, "");
    assert_eq!(site.heard.alarms(), 1);
}

#[tokio::test]
async fn sessions_of_before_the_setting_go_on_and_rotate() {
    let before = Site::with(|builder| builder);
    let mut owner = before.logged_in().await;
    before.clock.advance(EVERY);
    owner.gets_no_token("/user", 200, "ada").await;

    let site = Site::over(before.store.clone(), before.clock.clone(), |builder| {
        builder.rotate_every(EVERY)
    });
    let (mut first, mut lost) = (owner.at(&site), owner.at(&site));
    owner = owner.at(&site);
    lost.gets_a_token().await;
    site.clock.advance(GRACE - MILLI);
    owner.gets_no_token("/get/theme", 200, "dark").await;
    site.clock.advance(MILLI);
    owner.gets_a_token().await;
    owner.gets_no_token("/get/theme", 200, "dark").await;
    site.clock.advance(GRACE - MILLI);
    first.gets_no_token("/get/theme", 200, "dark").await;
    for _ in 0..3 {
        site.rotates(&mut owner).await;
        owner.gets_no_token("/get/theme", 200, "dark").await;
    }
    // It has no number, as those of before an earlier login. So nobody can say whose it is.
    first.is_a_visitor().await;
    assert_eq!(site.heard.alarms(), 0);
    owner.gets_no_token("/get/theme", 200, "dark").await;
}
