//! Several nodes over one store: clocks that differ, a node that does not rotate, and caches.

use std::time::Duration;

use cloakroom::{FeedSender, TestClock};

use super::{EVERY, GRACE, MILLI, MINUTE, Site};
use crate::stores::near;

/// How far the clocks of two nodes are apart.
const APART: Duration = Duration::from_secs(20);

/// Two nodes that rotate. The second one's clock is ahead.
fn two_nodes() -> (Site, Site) {
    let here = Site::new();
    let there = here.ahead(APART, |builder| builder.rotate_every(EVERY));
    (here, there)
}

/// Time passes everywhere.
fn passes(time: Duration, here: &Site, there: &Site) {
    here.clock.advance(time);
    there.clock.advance(time);
}

fn alarms(here: &Site, there: &Site) -> usize {
    here.heard.alarms() + there.heard.alarms()
}

#[tokio::test]
async fn clocks_that_are_apart_raise_no_alarm() {
    let (here, there) = two_nodes();
    let mut owner = here.logged_in().await;
    for round in 0..6 {
        // Each node rotates at times, and the other one sees the new token first.
        let (rotates, sees) = match round % 2 {
            0 => (&here, &there),
            _ => (&there, &here),
        };
        passes(EVERY + 2 * APART, &here, &there);
        let old = owner.clone();
        owner = owner.at(rotates);
        owner.gets_a_token().await;
        owner = owner.at(sees);
        owner.gets_no_token("/user", 200, "ada").await;
        // Requests with the old token that are under way for half a minute, at both nodes.
        for _ in 0..3 {
            for node in [&here, &there] {
                old.at(node).gets_no_token("/user", 200, "ada").await;
                owner.at(node).gets_no_token("/user", 200, "ada").await;
            }
            passes(MINUTE / 6, &here, &there);
        }
    }
    assert_eq!(alarms(&here, &there), 0);
}

#[tokio::test]
async fn a_thief_at_another_node_is_found_there() {
    for is_thief_ahead in [false, true] {
        let (here, there) = two_nodes();
        let (of_owner, of_thief) = match is_thief_ahead {
            true => (&here, &there),
            false => (&there, &here),
        };
        let mut owner = of_owner.logged_in().await;
        let mut thief = owner.stolen().at(of_thief);
        passes(EVERY, &here, &there);
        owner.gets_a_token().await;
        owner.gets_no_token("/user", 200, "ada").await;
        let grace = match is_thief_ahead {
            true => GRACE - APART,
            false => GRACE + APART,
        };
        // The two clocks were read one after the other.
        let slack = Duration::from_millis(500);
        passes(grace - slack, &here, &there);
        thief.gets_no_token("/user", 200, "ada").await;
        passes(2 * slack, &here, &there);
        thief.is_a_visitor().await;
        assert_eq!(of_thief.heard.alarms(), 1);
        owner.is_a_visitor().await;
        assert_eq!(alarms(&here, &there), 1);
    }
}

#[tokio::test]
async fn a_node_that_does_not_rotate_accepts_what_another_one_gave() {
    let here = Site::new();
    let there = here.ahead(APART, |builder| builder);
    let mut owner = there.logged_in().await;
    for _ in 0..3 {
        passes(EVERY + 2 * APART, &here, &there);
        owner = owner.at(&there);
        owner.gets_no_token("/get/theme", 200, "dark").await;
        let mut old = owner.clone();
        owner = owner.at(&here);
        owner.gets_a_token().await;
        // The node without the setting writes nothing of its own for it.
        for mut holder in [owner.at(&there), old.at(&there)] {
            holder
                .gets_no_token("/insert/theme/dark", 200, "done")
                .await;
        }
        old = old.at(&here);
        old.gets_no_token("/user", 200, "ada").await;
        owner.gets_no_token("/user", 200, "ada").await;
        passes(GRACE + APART, &here, &there);
    }
    assert_eq!(alarms(&here, &there), 0);

    // It ends the session as well.
    let mut thief = owner.stolen().at(&there);
    here.rotates(&mut owner).await;
    there.clock.advance(EVERY + GRACE + APART);
    thief.is_a_visitor().await;
    assert_eq!(there.heard.alarms(), 1);
    owner.is_a_visitor().await;
}

#[tokio::test]
async fn a_login_at_a_node_that_does_not_rotate_is_followed_by_rotations_elsewhere() {
    let here = Site::new();
    let there = here.ahead(Duration::ZERO, |builder| builder);
    let mut owner = here.logged_in().await;
    here.rotates(&mut owner).await;
    // The rotation has moved the clock of one node only.
    there.clock.advance(EVERY);
    passes(EVERY + GRACE, &here, &there);
    let mut before = owner.clone();
    owner = owner.at(&there);
    owner.get("/log_in/ada").await.assert(200, "done");
    owner = owner.at(&here);
    owner.gets_no_token("/get/theme", 200, "dark").await;
    for _ in 0..3 {
        here.rotates(&mut owner).await;
        before.is_a_visitor().await;
    }
    assert_eq!(alarms(&here, &there), 0);
    let mut thief = owner.stolen();
    here.rotates(&mut owner).await;
    thief.is_a_visitor().await;
    assert_eq!(here.heard.alarms(), 1);
}

/// A node with a cache that hears nothing of the other nodes. Its cache answers for a while.
async fn cached_node(store: &near::Played, clock: &TestClock) -> (Site<near::Near>, FeedSender) {
    let (near, feed) = near::node(store).await;
    let site = Site::over(near, clock.clone(), |builder| builder.rotate_every(EVERY));
    (site, feed)
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_behind_raises_no_alarm() {
    let (store, clock) = (near::Played::new(), TestClock::new());
    let (here, _here) = cached_node(&store, &clock).await;
    let (there, _there) = cached_node(&store, &clock).await;
    let mut owner = here.logged_in().await;
    let mut behind = owner.at(&there);
    behind.gets_no_token("/user", 200, "ada").await;
    let first = owner.clone();
    for _ in 0..3 {
        // The cache there does not know the new token, and then not that it was used.
        clock.advance(EVERY);
        let old = owner.clone();
        owner.gets_a_token().await;
        for path in ["/user", "/user"] {
            for mut holder in [owner.at(&there), owner.at(&here), old.at(&there)] {
                holder.gets_no_token(path, 200, "ada").await;
            }
        }
        clock.advance(GRACE - MILLI);
        old.at(&there).gets_no_token("/user", 200, "ada").await;
        owner.at(&there).gets_no_token("/user", 200, "ada").await;
    }
    // The caches answer at all.
    assert!(there.store.stats().hits > 0);
    assert!(there.store.stats().is_fresh);
    // A login here, of which the cache there has not heard.
    let before = owner.clone();
    owner.get("/log_in/ada").await.assert(200, "done");
    clock.advance(GRACE);
    owner.at(&there).gets_no_token("/user", 200, "ada").await;
    for mut old in [first, before] {
        old.is_a_visitor().await;
    }
    assert_eq!(here.heard.alarms() + there.heard.alarms(), 0);

    // A thief is found with caches too.
    let mut thief = owner.stolen();
    here.rotates(&mut owner).await;
    owner.at(&there).gets_no_token("/user", 200, "ada").await;
    thief.is_a_visitor().await;
    assert_eq!(here.heard.alarms(), 1);
}
