//! Stores that fail, and random generators that fail.

mod interrupted;
mod rig;

use std::time::{Duration, Instant};

use cloakroom::testing::StoreCall::{Load, Remove, Replace, Touch};
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{MemoryStore, SessionLayer, SqliteStore, TestClock};
use support::{Browser, app, builder, key};

fn setup() -> (FaultyStore<MemoryStore>, Browser) {
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .store_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let browser = Browser::new(&app(layer));
    (spy, browser)
}

#[tokio::test]
async fn while_the_store_is_down_requests_are_answered_503_and_the_cookie_is_good_afterwards() {
    let (spy, mut browser) = setup();
    browser.get("/log_in/ada").await;
    let cookies = browser.cookies();
    for fault in [Fault::Refused, Fault::Hangs] {
        spy.fail(fault);
        for path in [
            "/",
            "/get/theme",
            "/user",
            "/insert/theme/dark",
            "/log_out",
            "/regenerate",
        ] {
            spy.take_calls();
            let started = Instant::now();
            let reply = browser.get(path).await;
            reply.assert(503, "");
            reply.assert_no_cookie();
            assert_eq!(reply.header("retry-after"), Some("1"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(
                spy.take_calls(),
                [Load],
                "the handler ran, or the store was asked again"
            );
            assert!(
                started.elapsed() < Duration::from_secs(1),
                "{path} took {:?}",
                started.elapsed()
            );
        }
        // Visitors without a session do not notice the failure.
        browser.clone().get_with("/", &[]).await;
        assert_eq!(browser.cookies(), cookies);
    }
    spy.recover();
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_visitor_does_not_notice_that_the_store_is_down_until_something_has_to_be_stored() {
    let (spy, mut browser) = setup();
    spy.fail(Fault::Refused);
    browser.get("/").await.assert(200, "untouched");
    browser.get("/get/theme").await.assert(200, "nothing");
    let reply = browser.get("/insert/theme/dark").await;
    reply.assert(503, "");
    reply.assert_no_cookie();
}

#[tokio::test]
async fn a_write_that_failed_is_answered_503_and_the_session_is_as_before() {
    for (path, call) in [
        ("/insert/theme/light", Replace),
        ("/update/visits", Replace),
        ("/regenerate", Replace),
        ("/log_in/eve", Replace),
        ("/log_out", Remove),
    ] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        spy.fail_at(call, Fault::Refused);
        let reply = browser.get(path).await;
        reply.assert(503, "");
        reply.assert_no_cookie();
        spy.recover();
        browser.get("/get/theme").await.assert(200, "dark");
        browser.get("/user").await.assert(401, "");
    }
}

#[tokio::test]
async fn when_the_answer_to_a_write_is_lost_the_record_has_the_old_token_or_the_new_one() {
    for path in ["/regenerate", "/log_in/ada"] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        spy.fail_at(Replace, Fault::AnswerLost);
        let reply = browser.get(path).await;
        reply.assert(503, "");
        reply.assert_no_cookie();
        spy.recover();
        // The write took effect, and nobody has its token. The old token is dead, and there is no
        // third one.
        browser.get("/get/theme").await.assert(200, "nothing");
        assert_eq!(spy.inner().len(), 1);
    }
}

#[tokio::test]
async fn a_failed_touch_spoils_no_answer() {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let mut browser = Browser::new(&app(builder(spy.clone())
        .clock(clock.clone())
        .build()
        .unwrap()));
    browser.get("/remember/ada").await;
    clock.advance(Duration::from_secs(5 * 24 * 60 * 60));
    spy.fail_at(Touch, Fault::Refused);
    let reply = browser.get("/user").await;
    reply.assert(200, "ada");
    reply.assert_no_cookie();
    spy.recover();
    spy.take_calls();
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(spy.take_calls(), [Load, Touch]);
}

#[tokio::test]
async fn a_random_generator_that_fails_is_an_error_and_never_a_token() {
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .random(|_| Err("no entropy"))
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    for path in ["/insert/theme/dark", "/log_in/ada"] {
        let reply = browser.get(path).await;
        reply.assert(500, "");
        reply.assert_no_cookie();
    }
    assert_eq!(spy.take_calls(), []);

    let good = Browser::new(&app(SessionLayer::new(spy.clone(), key())))
        .get("/insert/theme/dark")
        .await;
    browser.keep(&good);
    for path in ["/regenerate", "/log_in/ada"] {
        let reply = browser.get(path).await;
        reply.assert(500, "");
        reply.assert_no_cookie();
    }
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_random_generator_that_repeats_itself_overwrites_no_session() {
    let store = MemoryStore::new();
    let fill = |bytes: &mut [u8]| {
        bytes.fill(1);
        Ok::<_, std::io::Error>(())
    };
    let app = app(builder(store.clone()).random(fill).build().unwrap());
    let mut first = Browser::new(&app);
    first.get("/insert/theme/dark").await.assert(200, "done");
    let reply = Browser::new(&app).get("/insert/theme/light").await;
    reply.assert(500, "");
    reply.assert_no_cookie();
    first.get("/get/theme").await.assert(200, "dark");
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn a_memory_store_full_of_logged_in_sessions_refuses_new_ones_and_keeps_the_others() {
    let mut browsers = Vec::new();
    let app = app(SessionLayer::new(
        MemoryStore::new().with_max_sessions(2),
        key(),
    ));
    for _ in 0..2 {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await.assert(200, "done");
        browsers.push(browser);
    }
    let mut third = Browser::new(&app);
    third.get("/insert/theme/dark").await.assert(503, "");
    third.get("/log_in/grace").await.assert(503, "");
    browsers[0]
        .get("/insert/theme/light")
        .await
        .assert(200, "done");
    browsers[0].get("/log_out").await.assert(200, "done");
    third.get("/insert/theme/dark").await.assert(200, "done");
    browsers[1].get("/user").await.assert(200, "ada");
    // A login takes the place of the visitor's session.
    browsers[0].get("/log_in/ada").await.assert(200, "done");
    third.get("/get/theme").await.assert(200, "nothing");
    third.get("/log_in/grace").await.assert(503, "");
    browsers[1].get("/user").await.assert(200, "ada");
}

/// The test flips each byte of a stored record. Such a record gives no session. The layer does not
/// overwrite it and does not delete it.
#[tokio::test]
async fn a_corrupt_record_is_no_session_and_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let store = SqliteStore::open(&path).await.unwrap();
    let app = app(SessionLayer::new(store, key()));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    browser.get("/insert/theme/dark").await;

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let read = || {
        sqlx::query_scalar::<_, Vec<u8>>("SELECT record FROM cloakroom_sessions ORDER BY rowid")
            .fetch_all(&pool)
    };
    let write = |bytes: Vec<u8>| {
        sqlx::query("UPDATE cloakroom_sessions SET record = ?")
            .bind(bytes)
            .execute(&pool)
    };
    let good = read().await.unwrap().remove(0);

    let flipped = (0..good.len()).map(|index| {
        let mut bytes = good.clone();
        bytes[index] ^= 1 << (index % 8);
        bytes
    });
    let others = [
        vec![],
        vec![1],
        vec![0; 9],
        good[..good.len() - 1].to_vec(),
        [&good[..], b" "].concat(),
        vec![0xff; 4096],
    ];
    for bytes in flipped.chain(others) {
        write(bytes.clone()).await.unwrap();
        let mut visitor = browser.clone();
        visitor.get("/user").await.assert(401, "");
        assert_eq!(
            read().await.unwrap(),
            std::slice::from_ref(&bytes),
            "the corrupt record was changed"
        );
        visitor.get("/log_out").await.assert(200, "done");
        assert_eq!(
            read().await.unwrap(),
            [bytes],
            "the corrupt record was removed"
        );
    }
    // A write starts another session next to it.
    write(vec![0; 9]).await.unwrap();
    let mut visitor = browser.clone();
    visitor.get("/insert/theme/light").await.assert(200, "done");
    assert_eq!(read().await.unwrap().len(), 2);
    assert_eq!(read().await.unwrap()[0], vec![0; 9]);
    sqlx::query("DELETE FROM cloakroom_sessions WHERE rowid > 1")
        .execute(&pool)
        .await
        .unwrap();
    write(good).await.unwrap();
    browser.get("/get/theme").await.assert(200, "dark");
}
