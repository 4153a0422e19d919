//! What a handler does to its session, and what the next request finds there.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use cloakroom::testing::{FaultyStore, StoreCall};
use cloakroom::{Key, MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer};
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{Browser, app, builder, key, routes};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

fn setup() -> (FaultyStore<MemoryStore>, Router) {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(SessionLayer::new(spy.clone(), key()));
    (spy, app)
}

/// An application with one more route. It has this handler.
fn with_handler(handler: fn(Session) -> Result<(), SessionError>) -> Router {
    let route = get(move |session: Session| async move { handler(session) });
    routes()
        .route("/handler", route)
        .layer(SessionLayer::new(MemoryStore::new(), key()))
}

/// Whether the last token of this browser is still good. A second window looks.
async fn is_good(browser: &Browser) -> bool {
    browser.clone().get("/get/theme").await.body != "nothing"
}

#[tokio::test]
async fn values_are_kept_from_request_to_request() {
    let (_, app) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "dark");
    browser.get("/insert/theme/light").await;
    browser.get("/get/theme").await.assert(200, "light");
    browser.get("/remove/theme").await.assert(200, "light");
    browser.get("/get/theme").await.assert(200, "nothing");
    for expected in ["1", "2", "3"] {
        browser.get("/update/visits").await.assert(200, expected);
    }
    browser.get("/insert/theme/dark").await;
    browser.get("/keys").await.assert(200, "theme,visits");
    browser.get("/clear").await;
    browser.get("/keys").await.assert(200, "");
    Browser::new(&app)
        .get("/get/visits")
        .await
        .assert(200, "nothing");
}

#[tokio::test]
async fn a_request_sees_its_own_changes_at_once() {
    fn handler(session: Session) -> Result<(), SessionError> {
        session.insert("a", 1)?;
        assert_eq!(session.get("a")?, Some(1));
        assert_eq!(session.update("a", |n: Option<i32>| n.unwrap_or(0) + 1)?, 2);
        assert_eq!(session.remove("a")?, Some(2));
        assert_eq!(session.get::<i32>("a")?, None);
        assert_eq!(session.remove::<i32>("a")?, None);
        session.insert("b", "text")?;
        session.insert("c", [1, 2])?;
        assert_eq!(session.keys(), ["b", "c"]);
        session.clear()?;
        assert!(session.keys().is_empty());
        session.insert("d", true)?;
        // A clone is a handle to the same session.
        assert_eq!(session.get("d")?, Some(true));
        Ok(())
    }
    let app = with_handler(handler);
    let mut browser = Browser::new(&app);
    browser.get("/handler").await.assert(200, "");
    browser.get("/keys").await.assert(200, "d");
}

#[tokio::test]
async fn typed_keys_and_text_name_the_same_values() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Cart {
        items: Vec<u32>,
    }
    const CART: Key<Cart> = Key::new("cart");
    fn handler(session: Session) -> Result<(), SessionError> {
        assert_eq!(CART.name(), "cart");
        assert_eq!(session.get(CART)?, None);
        session.insert(CART, Cart { items: vec![1] })?;
        let cart = session.update(CART, |cart| {
            let mut cart = cart.unwrap_or(Cart { items: vec![] });
            cart.items.push(2);
            cart
        })?;
        assert_eq!(cart, Cart { items: vec![1, 2] });
        assert_eq!(session.get::<Cart>("cart")?, Some(cart.clone()));
        assert_eq!(
            session.get::<Cart>(String::from("cart"))?,
            Some(cart.clone())
        );
        assert_eq!(session.remove(CART)?, Some(cart));
        Ok(())
    }
    Browser::new(&with_handler(handler))
        .get("/handler")
        .await
        .assert(200, "");
}

#[tokio::test]
async fn an_equal_value_is_no_change() {
    let (spy, app) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    for path in ["/insert/theme/dark", "/remove/missing"] {
        browser.get(path).await;
        assert_eq!(spy.take_calls(), [StoreCall::Load], "{path}");
    }
}

#[tokio::test]
async fn changes_that_cancel_each_other_out_write_nothing() {
    fn handler(session: Session) -> Result<(), SessionError> {
        session.insert("theme", "light")?;
        session.insert("theme", "dark")?;
        session.update("theme", |theme: Option<String>| theme.unwrap_or_default())?;
        session.insert("new", 1)?;
        session.remove::<i32>("new")?;
        Ok(())
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let route = get(|session: Session| async { handler(session) });
    let app = routes()
        .route("/handler", route)
        .layer(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    browser.get("/handler").await.assert(200, "");
    assert_eq!(spy.take_calls(), [StoreCall::Load]);
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_for_the_handler_and_stays_as_it_is() {
    fn handler(session: Session) -> Result<(), SessionError> {
        for error in [
            session.get::<u64>("theme").unwrap_err(),
            session.remove::<u64>("theme").unwrap_err(),
            session
                .update("theme", |n: Option<u64>| n.unwrap_or(0))
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), SessionErrorKind::WrongType);
            assert!(error.to_string().contains("\"theme\""), "{error}");
            assert!(
                !format!("{error} {error:?}").contains("dark"),
                "the error tells the value"
            );
        }
        Ok(())
    }
    let mut browser = Browser::new(&with_handler(handler));
    browser.get("/insert/theme/dark").await;
    browser.get("/handler").await.assert(200, "");
    browser.get("/update/theme").await.assert(500, "");
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn data_over_the_limit_is_an_error_at_insert_and_the_session_stays_intact() {
    fn handler(session: Session) -> Result<(), SessionError> {
        session.insert("other", "kept")?;
        // The limit is 100 bytes. The key and the quotes count too.
        for error in [
            session.insert("large", "x".repeat(100)).unwrap_err(),
            session
                .update("large", |_: Option<String>| "x".repeat(100))
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), SessionErrorKind::TooLarge);
        }
        assert_eq!(session.get::<String>("large")?, None);
        Ok(())
    }
    let layer = builder(MemoryStore::new()).data_limit(100).build().unwrap();
    let route = get(|session: Session| async { handler(session) });
    let mut browser = Browser::new(&routes().route("/handler", route).layer(layer));
    browser.get("/handler").await.assert(200, "");
    browser.get("/keys").await.assert(200, "other");
    browser.get("/get/other").await.assert(200, "kept");
}

#[tokio::test]
async fn the_data_limit_is_64_kib_by_default() {
    fn handler(session: Session) -> Result<(), SessionError> {
        session.insert("a", "x".repeat(64 * 1024 - 3))?;
        assert_eq!(
            session
                .insert("a", "x".repeat(64 * 1024 - 2))
                .unwrap_err()
                .kind(),
            SessionErrorKind::TooLarge
        );
        Ok(())
    }
    Browser::new(&with_handler(handler))
        .get("/handler")
        .await
        .assert(200, "");
}

#[tokio::test]
async fn a_value_that_is_no_json_is_an_error_at_insert() {
    fn handler(session: Session) -> Result<(), SessionError> {
        let map = std::collections::HashMap::from([((1, 2), "a map whose keys are no text")]);
        assert_eq!(
            session.insert("map", map).unwrap_err().kind(),
            SessionErrorKind::Unserializable
        );
        Ok(())
    }
    Browser::new(&with_handler(handler))
        .get("/handler")
        .await
        .assert_no_cookie();
}

#[tokio::test]
async fn keys_cannot_collide_with_what_the_session_itself_keeps() {
    let (_, app) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    for key in [
        "user",
        "login",
        "version",
        "secret_hash",
        "expires_at",
        "created_at",
        "data",
        "__proto__",
    ] {
        browser
            .get(&format!("/insert/{key}/eve"))
            .await
            .assert(200, "done");
    }
    browser.get("/user").await.assert(200, "ada");
    browser.get("/clear").await;
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn regenerate_replaces_the_token_and_keeps_the_record_and_its_data() {
    let (spy, app) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let id = browser.get("/id").await.body;
    let old = browser.clone();
    browser.get("/regenerate").await;
    assert_ne!(browser.token(), old.token());
    assert!(!is_good(&old).await, "the old token is good still");
    browser.get("/get/theme").await.assert(200, "dark");
    assert_eq!(browser.get("/id").await.body, id);
    assert_eq!(spy.inner().len(), 1);
}

#[tokio::test]
async fn regenerate_and_changes_do_what_they_say_in_any_order() {
    let orders: [fn(Session) -> Result<(), SessionError>; 3] = [
        |session| {
            session.regenerate()?;
            session.insert("theme", "light")
        },
        |session| {
            session.insert("theme", "light")?;
            session.regenerate()
        },
        |session| {
            session.regenerate()?;
            session.insert("theme", "light")?;
            session.regenerate()
        },
    ];
    for handler in orders {
        let app = with_handler(handler);
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        let old = browser.clone();
        let reply = browser.get("/handler").await;
        assert_eq!(reply.cookies().len(), 1);
        browser.get("/get/theme").await.assert(200, "light");
        assert!(!is_good(&old).await);
    }
}

#[tokio::test]
async fn a_visitor_who_regenerates_and_inserts_gets_one_session() {
    let app = with_handler(|session| {
        session.regenerate()?;
        session.insert("theme", "light")?;
        session.regenerate()
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/handler").await.cookies().len(), 1);
    browser.get("/get/theme").await.assert(200, "light");
}

#[tokio::test]
async fn destroy_ends_the_session_on_the_server() {
    for path in ["/destroy", "/log_out"] {
        let (spy, app) = setup();
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        let replay = browser.clone();
        browser.get(path).await.assert(200, "done");
        assert_eq!(spy.inner().len(), 0);
        assert!(!is_good(&replay).await, "{path}");
    }
}

#[tokio::test]
async fn destroy_then_insert_makes_a_new_session_without_the_old_data() {
    let app = with_handler(|session| {
        session.insert("before", "x")?;
        session.destroy()?;
        assert_eq!(session.get::<String>("theme")?, None);
        session.insert("after", "y")
    });
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let id = browser.get("/id").await.body;
    let old = browser.clone();
    let reply = browser.get("/handler").await;
    assert_eq!(reply.cookies().len(), 1, "{reply:?}");
    browser.get("/keys").await.assert(200, "after");
    assert_ne!(browser.get("/id").await.body, id);
    assert!(!is_good(&old).await);
}

#[tokio::test]
async fn insert_then_destroy_leaves_nothing() {
    let app = with_handler(|session| {
        session.insert("before", "x")?;
        session.log_in("ada")?;
        session.destroy()
    });
    let mut browser = Browser::new(&app);
    browser.get("/handler").await.assert_no_cookie();
    browser.get("/insert/theme/dark").await;
    browser.get("/handler").await;
    assert!(browser.cookies().is_empty());
}

#[tokio::test]
async fn a_failed_request_changes_nothing_and_its_old_token_stays_good() {
    for operation in ["insert", "regenerate", "log_in", "read"] {
        let (spy, app) = setup();
        let mut browser = Browser::new(&app);
        browser.get("/insert/key/value").await;
        spy.take_calls();
        let reply = browser.get(&format!("/fail/{operation}")).await;
        reply.assert(500, "failed");
        reply.assert_no_cookie();
        assert_eq!(spy.take_calls(), [StoreCall::Load], "{operation}");
        browser.get("/get/key").await.assert(200, "value");
        browser.get("/user").await.assert(401, "");
    }
    let (spy, app) = setup();
    Browser::new(&app)
        .get("/fail/insert")
        .await
        .assert_no_cookie();
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn a_failed_request_that_ended_its_session_has_ended_it() {
    for operation in ["destroy", "destroy_and_insert"] {
        let (spy, app) = setup();
        let mut browser = Browser::new(&app);
        browser.get("/insert/key/value").await;
        let old = browser.clone();
        browser
            .get(&format!("/fail/{operation}"))
            .await
            .assert(500, "failed");
        assert!(browser.cookies().is_empty());
        assert_eq!(spy.inner().len(), 0, "{operation}");
        old.clone().get("/get/key").await.assert(200, "nothing");
    }
}

#[tokio::test]
async fn a_redirect_and_a_client_error_are_no_failure() {
    async fn handler(session: Session) -> Result<axum::http::StatusCode, SessionError> {
        session.insert("flash", "please log in")?;
        Ok(axum::http::StatusCode::FORBIDDEN)
    }
    let app = routes()
        .route("/handler", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/handler").await.assert(403, "");
    browser.get("/get/flash").await.assert(200, "please log in");
}

#[tokio::test]
async fn a_change_after_the_response_is_an_error_that_says_so() {
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let keep = kept.clone();
    let handler = move |session: Session| {
        let keep = keep.clone();
        async move {
            *keep.lock().unwrap() = Some(session.clone());
            session.insert("theme", "dark")
        }
    };
    let app = routes()
        .route("/handler", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    for _ in 0..2 {
        browser.get("/handler").await.assert(200, "");
        let late = kept.lock().unwrap().take().unwrap();
        for result in [
            late.insert("late", 1),
            late.update("late", |_: Option<u8>| 1).map(drop),
            late.remove::<String>("theme").map(drop),
            late.clear(),
            late.regenerate(),
            late.log_in("ada"),
            late.log_out(),
            late.destroy(),
            late.set_remembered(true),
            late.skip_touch(),
            late.set_client(cloakroom::Client::new()),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), SessionErrorKind::Sealed);
            assert!(error.to_string().contains("detach"), "{error}");
        }
        assert_eq!(
            late.get::<String>("theme").unwrap().as_deref(),
            Some("dark"),
            "reads go on"
        );
    }
    browser.get("/keys").await.assert(200, "theme");
}

#[tokio::test]
async fn a_change_from_a_spawned_task_or_a_streaming_body_is_an_error() {
    let turns = Arc::new(Semaphore::new(0));
    let (tell, mut told) = unbounded_channel();
    let task_turns = turns.clone();
    let handler = get(async move |session: Session| {
        session.insert("theme", "dark")?;
        let late = session.clone();
        tokio::spawn(async move {
            for _ in 0..2 {
                task_turns.acquire().await.unwrap().forget();
                tell.send(late.insert("task", 1)).unwrap();
            }
        });
        // The body changes the session while it is sent. Its text is the result of that change.
        let body = Full::<Bytes>::from("chunk").map_frame(move |frame| {
            let result = session.insert("body", 1).map_err(|error| error.kind());
            frame.map_data(|_| Bytes::from(format!("{result:?}")))
        });
        Ok::<_, SessionError>(Body::new(body))
    });
    let spy = FaultyStore::new(MemoryStore::new());
    let app = routes()
        .route("/handler", handler)
        .layer(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    let mut gate = spy.hold_next(StoreCall::Insert);
    let request = tokio::spawn(browser.send("/handler", &[]));
    gate.arrived().await;
    // The handler has ended. The store does not have its changes yet.
    turns.add_permits(1);
    let error = told.recv().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::Sealed);
    gate.release();
    let reply = request.await.unwrap();
    reply.assert(200, "Err(Sealed)");
    browser.keep(&reply);
    turns.add_permits(1);
    let error = told.recv().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::Sealed);
    browser.get("/keys").await.assert(200, "theme");
}

#[tokio::test]
async fn a_handle_of_a_request_that_never_got_to_its_end_is_sealed_too() {
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let keep = kept.clone();
    let handler = move |session: Session| {
        let keep = keep.clone();
        async move {
            session.insert("theme", "dark").unwrap();
            *keep.lock().unwrap() = Some(session);
            std::future::pending::<()>().await;
        }
    };
    let spy = FaultyStore::new(MemoryStore::new());
    let app = routes()
        .route("/handler", get(handler))
        .layer(SessionLayer::new(spy.clone(), key()));
    let request = tokio::spawn(Browser::new(&app).send("/handler", &[]));
    while kept.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    let late = kept.lock().unwrap().take().unwrap();
    assert_eq!(
        late.insert("late", 1).unwrap_err().kind(),
        SessionErrorKind::Sealed
    );
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn an_update_may_use_the_session_itself() {
    fn handler(session: Session) -> Result<(), SessionError> {
        session.insert("step", 5)?;
        let inner = session.clone();
        let value = session.update("n", move |n: Option<u64>| {
            let step = inner.get::<u64>("step").ok().flatten().unwrap_or(1);
            // A change inside the closure makes the update start again. That must end at some time.
            inner.insert("seen", true).ok();
            n.unwrap_or(0) + step
        })?;
        assert_eq!(value, 5);
        Ok(())
    }
    let mut browser = Browser::new(&with_handler(handler));
    browser.get("/handler").await.assert(200, "");
    browser.get("/get/n").await.assert(200, "5");
    browser.get("/get/seen").await.assert(200, "true");
}

#[tokio::test]
async fn a_value_that_two_tasks_of_a_request_take_is_given_to_one() {
    thread_local! {
        /// While this type is read, it also takes the value. Another task could do that at this
        /// moment.
        static OTHER: RefCell<Option<Session>> = const { RefCell::new(None) };
    }

    struct Taken;

    impl<'de> serde::Deserialize<'de> for Taken {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?;
            if let Some(session) = OTHER.take() {
                let taken = session.remove::<String>("notice").unwrap();
                assert_eq!(taken.as_deref(), Some("saved"));
            }
            Ok(Self)
        }
    }

    let app = with_handler(|session| {
        OTHER.set(Some(session.clone()));
        assert!(session.remove::<Taken>("notice")?.is_none());
        Ok(())
    });
    let mut browser = Browser::new(&app);
    browser.get("/insert/notice/saved").await;
    browser.get("/handler").await.assert(200, "");
    browser.get("/keys").await.assert(200, "");
}

#[tokio::test]
async fn an_insert_after_an_update_is_what_is_written_whatever_came_between() {
    let spy = FaultyStore::new(MemoryStore::new());
    let handler = axum::routing::get(|session: Session| async move {
        let n = session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        session.insert("n", n)
    });
    let app = support::routes()
        .route("/fix", handler)
        .layer(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/update/n").await;
    let mut gate = spy.hold_next(StoreCall::Replace);
    let fix = tokio::spawn(browser.send("/fix", &[]));
    gate.arrived().await;
    browser.get("/update/n").await.assert(200, "2");
    browser.get("/update/n").await.assert(200, "3");
    gate.release();
    fix.await.unwrap().assert(200, "");
    browser.get("/get/n").await.assert(200, "2");
}

#[tokio::test]
async fn an_update_to_what_cannot_be_read_back_changes_nothing() {
    let app = with_handler(|session| {
        let error = session
            .update("ratio", |_: Option<f64>| f64::NAN)
            .unwrap_err();
        assert_eq!(error.kind(), SessionErrorKind::Unserializable);
        assert_eq!(session.get::<f64>("ratio")?, None);
        Ok(())
    });
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    browser.get("/handler").await.assert(200, "");
    browser.get("/keys").await.assert(200, "theme");
}

#[tokio::test]
async fn a_value_that_uses_the_session_while_it_is_read_or_written_blocks_nobody() {
    thread_local! {
        static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
    }

    fn theme() -> Option<String> {
        let session = SESSION.with_borrow(Clone::clone).unwrap();
        session.get("theme").unwrap()
    }

    struct Curious;

    impl Serialize for Curious {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            theme().serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Curious {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let then = String::deserialize(deserializer)?;
            assert_eq!(Some(then), theme());
            Ok(Self)
        }
    }

    let app = with_handler(|session| {
        SESSION.set(Some(session.clone()));
        session.insert("copy", Curious)?;
        assert_eq!(session.get::<String>("copy")?.as_deref(), Some("dark"));
        session.get::<Curious>("copy")?;
        session.update("copy", |_: Option<Curious>| Curious)?;
        session.remove::<Curious>("copy")?;
        SESSION.set(None);
        Ok(())
    });
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    browser.get("/handler").await.assert(200, "");
    browser.get("/keys").await.assert(200, "theme");
}

#[tokio::test]
async fn a_session_over_a_lowered_data_limit_can_be_used_and_made_smaller() {
    let store = MemoryStore::new();
    let large = app(SessionLayer::new(store.clone(), key()));
    let small = app(builder(store).data_limit(16).build().unwrap());
    let mut of_large = Browser::new(&large);
    of_large.get("/insert/theme/a-long-name-of-one").await;
    let reply = of_large.get("/insert/note/x").await;
    reply.assert_no_cookie();
    let token = of_large.token();
    let mut browser = Browser::new(&small);
    let cookie = format!("__Host-session={token}");
    let reply = browser
        .get_with("/log_in/ada", &[("cookie", &cookie)])
        .await;
    reply.assert(200, "done");
    browser.get("/insert/more/data").await.assert(500, "");
    browser.get("/remove/note").await.assert(200, "x");
    browser
        .get("/get/theme")
        .await
        .assert(200, "a-long-name-of-one");
}

/// A route that logs in and inserts, and then answers with this status and header.
fn answering(
    layer: cloakroom::SessionLayer<FaultyStore<MemoryStore>>,
    status: u16,
    header: Option<(&'static str, &'static str)>,
) -> axum::Router {
    let handler = axum::routing::get(move |session: Session| async move {
        session.log_in("eve")?;
        session.insert("key", "half done")?;
        let mut response = axum::http::Response::new(axum::body::Body::empty());
        *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        Ok::<_, SessionError>(response)
    });
    routes().route("/half", handler).layer(layer)
}

#[tokio::test]
async fn a_timeout_inside_of_the_layer_and_a_grpc_error_are_failures() {
    for (status, header, is_failure) in [
        (408, None, true),
        (500, None, true),
        (599, None, true),
        (200, Some(("grpc-status", "13")), true),
        (200, Some(("grpc-status", "")), true),
        (200, Some(("grpc-status", "0")), false),
        (200, None, false),
        (303, None, false),
        (404, None, false),
        (409, None, false),
    ] {
        let spy = FaultyStore::new(MemoryStore::new());
        let app = answering(SessionLayer::new(spy.clone(), key()), status, header);
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        let token = browser.token();
        let reply = browser.get("/half").await;
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.cookies().is_empty(), is_failure, "{reply:?}");
        let keys = if is_failure { "theme" } else { "key,theme" };
        browser.get("/keys").await.assert(200, keys);
        assert_eq!(browser.token() == token, is_failure);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_layer_inside_drops_the_changes_of_the_handler_that_it_gave_up() {
    let slow = axum::routing::get(|session: Session| async move {
        session.log_in("eve")?;
        std::future::pending::<()>().await;
        Ok::<_, SessionError>(())
    });
    let timeout = tower_http::timeout::TimeoutLayer::with_status_code(
        axum::http::StatusCode::REQUEST_TIMEOUT,
        std::time::Duration::from_secs(10),
    );
    let app = routes()
        .route("/slow", slow)
        .layer(timeout)
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    let reply = browser.get("/slow").await;
    assert_eq!(reply.status.as_u16(), 408);
    reply.assert_no_cookie();
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn the_application_can_say_which_responses_commit() {
    // In this application, an answer 422 to a form means that nothing was done. A 503 means that
    // something was done.
    for (status, is_failure) in [(200, false), (422, true), (503, false)] {
        let spy = FaultyStore::new(MemoryStore::new());
        let layer = builder(spy.clone())
            .commit_when(|response| {
                assert!(response.headers.contains_key("x-seen"));
                response.status.as_u16() != 422
            })
            .build()
            .unwrap();
        let app = answering(layer, status, Some(("x-seen", "1")));
        let reply = Browser::new(&app).get("/half").await;
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.header("x-seen"), Some("1"));
        assert_eq!(reply.cookies().is_empty(), is_failure, "{status}");
        assert_eq!(spy.inner().is_empty(), is_failure);
    }
    // If a handler ends a session, the session ends, whatever the rule says.
    let store = Arc::new(MemoryStore::new());
    let mut browser = Browser::new(&app(SessionLayer::new(store.clone(), key())));
    browser.get("/insert/theme/dark").await;
    let never = builder(store.clone()).commit_when(|_| false).build();
    let mut other = Browser::new(&app(never.unwrap()));
    other.adopt(&browser);
    other.get("/insert/theme/light").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "dark");
    other.get("/log_out").await.assert(200, "done");
    assert!(other.kept().is_empty());
    assert!(store.is_empty());
}
