//! What is the memory store's own: its bound, what it collects, and how it scales.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use cloakroom::{MemoryStore, RecordId, SessionLayer, SessionStore, TestClock};
use support::{Browser, app, builder, key};

#[tokio::test]
async fn expired_sessions_are_collected_as_the_store_works() {
    let clock = TestClock::new();
    let store = MemoryStore::with_clock(10_000, clock.clone());
    let app = app(builder(store.clone()).clock(clock.clone()).build().unwrap());
    for _ in 0..2000 {
        support::send(&app, support::request("/log_in/ada")).await;
    }
    assert_eq!(store.len(), 2000);
    clock.advance(Duration::from_secs(30 * 60));
    for _ in 0..2000 {
        support::send(&app, support::request("/log_in/grace")).await;
    }
    assert!(
        store.len() < 2200,
        "{} sessions are left, of which 2000 are live",
        store.len()
    );
}

#[tokio::test]
async fn a_full_store_makes_room_by_what_has_expired() {
    let clock = TestClock::new();
    let store = MemoryStore::with_clock(640, clock.clone());
    let layer = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let app = app(layer);
    for _ in 0..640 {
        support::send(&app, support::request("/insert/a/b"))
            .await
            .assert(200, "done");
    }
    support::send(&app, support::request("/insert/a/b"))
        .await
        .assert(503, "");
    clock.advance(Duration::from_secs(30 * 60));
    for _ in 0..640 {
        support::send(&app, support::request("/insert/a/b"))
            .await
            .assert(200, "done");
    }
}

#[tokio::test]
async fn a_shorter_expiry_is_seen_by_the_collection() {
    let clock = TestClock::new();
    let store = MemoryStore::with_clock(1000, clock.clone());
    let layer = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let sessions = layer.sessions();
    let off =
        axum::routing::get(|session: cloakroom::Session| async move { session.remember(false) });
    let app = support::routes().route("/forget", off).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/remember/ada").await;
    browser.get("/forget").await;
    clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(sessions.purge_expired().await.unwrap(), 1);
}

#[tokio::test]
async fn logins_and_logouts_without_end_leave_nothing_behind() {
    let store = MemoryStore::with_max_sessions(1);
    let app = app(SessionLayer::new(store.clone(), key()));
    for _ in 0..10_000 {
        let mut browser = Browser::new(&app);
        browser.get("/remember/ada").await.assert(200, "done");
        browser.get("/log_out").await.assert(200, "done");
    }
    assert!(store.is_empty());
}

/// The nanoseconds of a load, as the fastest of several rounds, since other work on the machine only ever adds.
async fn load_time(store: &MemoryStore, ids: &[RecordId]) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..40 {
        let started = Instant::now();
        for id in ids {
            assert!(store.load(*id).await.unwrap().is_some());
        }
        best = best.min(started.elapsed().as_nanos() as f64 / ids.len() as f64);
    }
    best
}

#[tokio::test]
async fn a_million_live_sessions_are_read_as_fast_as_a_thousand_within_a_factor_of_two() {
    let source = MemoryStore::new();
    let app = app(SessionLayer::new(source.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let text = browser.get("/id").await.body;
    let id = text
        .trim_start_matches("Some(RecordId(")
        .trim_end_matches("))")
        .parse()
        .unwrap();
    let record = source.load(id).await.unwrap().unwrap();

    let (small, large) = (
        MemoryStore::new(),
        MemoryStore::with_max_sessions(1_000_000),
    );
    let mut ids = Vec::new();
    for n in 0..1_000_000_u128 {
        // Ids spread as random ones are; the multiplier is odd, so that all differ.
        let id = RecordId::from_bytes(
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
                .to_be_bytes(),
        );
        large.insert(id, &record).await.unwrap();
        // The thousand that are read lie all over the million.
        if n % 1000 == 0 {
            small.insert(id, &record).await.unwrap();
            ids.push(id);
        }
    }
    assert_eq!((small.len(), large.len()), (1000, 1_000_000));
    let (few, many) = (load_time(&small, &ids).await, load_time(&large, &ids).await);
    assert!(
        many < 2.0 * few,
        "{many:.0} ns among a million, {few:.0} ns among a thousand"
    );
}
