//! The tools for applications' tests: the browser, sessions for handlers, and the store that fails.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Form;
use axum::http::{HeaderMap, Uri};
use axum::response::Redirect;
use axum::routing::{get, post};
use cloakroom::testing::{Browser, Fault, FaultyStore, StoreCall, TestClock, session};
use cloakroom::{
    CurrentUser, MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer, SigningKey,
    Transport,
};
use http::{Request, StatusCode};

type Tested = Result<(), Box<dyn Error>>;

/// A shop, as an application could have.
fn shop() -> Router {
    Router::new()
        .route("/cart", get(cart).post(add))
        .route("/account", get(account))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
}

async fn cart(session: Session) -> Result<String, SessionError> {
    Ok(session.get::<u32>("cart")?.unwrap_or(0).to_string())
}

async fn add(session: Session) -> Result<Redirect, SessionError> {
    session.update("cart", |items: Option<u32>| items.unwrap_or(0) + 1)?;
    Ok(Redirect::to("/cart"))
}

async fn account(user: CurrentUser) -> String {
    user.to_string()
}

async fn log_in(
    session: Session,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Redirect, SessionError> {
    let (_, user) = fields.into_iter().find(|(name, _)| name == "user").unwrap();
    session.log_in(user)?;
    Ok(Redirect::to("/account"))
}

async fn log_out(session: Session) -> Result<(), SessionError> {
    session.log_out()
}

type Layer = SessionLayer<FaultyStore<MemoryStore>>;

fn setup() -> (FaultyStore<MemoryStore>, TestClock, Layer, Browser<Router>) {
    let store = FaultyStore::new(MemoryStore::new());
    let clock = TestClock::new();
    let layer = SessionLayer::builder(store.clone(), SigningKey::generate().unwrap())
        .clock(clock.clone())
        .store_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let browser = Browser::new(shop().layer(layer.clone()));
    (store, clock, layer, browser)
}

#[tokio::test]
async fn a_shop_is_tested_from_the_first_visit_to_the_timeout() -> Tested {
    let (store, clock, _, mut browser) = setup();
    assert_eq!(browser.get("/cart").await?.body(), "0");
    assert_eq!(store.take_calls(), []);
    assert_eq!(browser.cookie("__Host-session"), None);

    let added = browser.post("/cart", &[]).await?;
    assert_eq!(added.status(), StatusCode::SEE_OTHER);
    let token = browser.cookie("__Host-session").unwrap().to_owned();
    let login = browser
        .post("/login", &[("user", "ada & co"), ("next", "/")])
        .await?;
    assert_eq!(login.headers()["location"], "/account");
    assert_ne!(browser.cookie("__Host-session"), Some(&*token));
    assert_eq!(browser.get("/account").await?.body(), "ada & co");
    assert_eq!(browser.get("/cart").await?.body(), "1");

    let mut second_window = browser.clone();
    clock.advance(Duration::from_secs(29 * 60));
    assert_eq!(second_window.get("/account").await?.body(), "ada & co");
    clock.advance(Duration::from_secs(29 * 60));
    browser.post("/logout", &[]).await?;
    assert_eq!(browser.cookie("__Host-session"), None);
    assert_eq!(second_window.get("/account").await?.status(), 401);
    Ok(())
}

#[tokio::test]
async fn a_test_starts_logged_in_and_looks_into_the_session() -> Tested {
    let (_, _, layer, mut browser) = setup();
    browser
        .with_session(&layer, |session| {
            session.log_in("ada")?;
            session.insert("cart", 3)
        })
        .await?;
    assert_eq!(browser.get("/account").await?.body(), "ada");
    browser.post("/cart", &[]).await?;
    let cart = browser.with_session(&layer, |session| session.get("cart"));
    assert_eq!(cart.await?, Some(4));
    Ok(())
}

#[tokio::test]
async fn a_session_made_for_a_test_works_with_a_lazy_layer_as_well() -> Tested {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .lazy(true)
        .build()?;
    let mut browser = Browser::new(shop().layer(layer.clone()));
    let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
    log_in.await?;
    assert_eq!(browser.get("/account").await?.body(), "ada");
    let user = browser.with_session(&layer, |session| Ok(session.user()));
    assert_eq!(user.await?.unwrap().as_str(), "ada");
    Ok(())
}

#[tokio::test]
async fn what_a_test_fails_to_do_to_a_session_is_an_error_and_leaves_it_as_it_was() -> Tested {
    let (store, _, layer, mut browser) = setup();
    let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
    log_in.await?;

    let too_long = browser.with_session(&layer, |session| {
        session.insert("cart", 1)?;
        session.log_in("u".repeat(256))
    });
    let error = too_long.await.unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::InvalidUserId);

    store.fail(Fault::Refused);
    let down = browser.with_session(&layer, |session| session.insert("cart", 1));
    assert_eq!(down.await.unwrap_err().kind(), SessionErrorKind::Store);

    store.recover();
    assert_eq!(browser.get("/cart").await?.body(), "0");
    assert_eq!(browser.get("/account").await?.body(), "ada");
    Ok(())
}

#[tokio::test]
async fn a_handler_is_called_as_a_function_with_the_session_of_a_user() -> Tested {
    let of_ada = session(|session| {
        session.log_in("ada")?;
        session.insert("cart", 2)
    })
    .await?;
    assert!(of_ada.id().is_some(), "an earlier request stored it");
    assert_eq!(cart(of_ada.clone()).await?, "2");
    let _redirect = add(of_ada.clone()).await?;
    assert_eq!(of_ada.get("cart")?, Some(3));
    log_out(of_ada.clone()).await?;
    assert_eq!(of_ada.user(), None);

    let of_a_visitor = session(|_| Ok(())).await?;
    assert_eq!(of_a_visitor.id(), None);
    assert_eq!(cart(of_a_visitor).await?, "0");
    let refused = session(|session| session.log_in("")).await;
    assert!(refused.is_err());
    Ok(())
}

#[tokio::test]
async fn each_fault_is_what_its_name_says() -> Tested {
    let (store, _, layer, mut browser) = setup();
    let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
    log_in.await?;
    assert_eq!(store.take_calls(), [StoreCall::Insert]);

    // All calls fail.
    store.fail(Fault::Refused);
    assert_eq!(browser.get("/account").await?.status(), 503);
    assert_eq!(store.take_calls(), [StoreCall::Load]);

    // Calls of one kind fail, and have no effect.
    store.fail_at(StoreCall::Replace, Fault::Refused);
    for _ in 0..2 {
        assert_eq!(browser.post("/cart", &[]).await?.status(), 503);
        assert_eq!(store.take_calls(), [StoreCall::Load, StoreCall::Replace]);
    }
    assert_eq!(browser.get("/cart").await?.body(), "0");

    // Only the answer fails, and the call takes effect. Only one call fails.
    store.fail_once(StoreCall::Replace, Fault::AnswerLost);
    assert_eq!(browser.post("/cart", &[]).await?.status(), 503);
    assert_eq!(browser.get("/cart").await?.body(), "1");
    assert_eq!(browser.post("/cart", &[]).await?.status(), 303);
    assert_eq!(browser.get("/cart").await?.body(), "2");

    // Nothing fails. Then the calls of the user index fail.
    store.fail_at(StoreCall::FindByUser, Fault::Refused);
    let sessions = layer.sessions();
    assert!(sessions.list_for("ada").await.is_err());
    store.recover();
    assert_eq!(sessions.list_for("ada").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn calls_from_outside_of_requests_are_those_of_the_store_inside() -> Tested {
    let (store, clock, layer, mut browser) = setup();
    let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
    log_in.await?;
    let sessions = layer.sessions();
    assert_eq!(sessions.revoke_user("ada").await?, 1);
    browser.post("/cart", &[]).await?;
    clock.advance(Duration::from_secs(41 * 60));
    assert_eq!(sessions.purge_expired().await?, 1);
    assert!(store.inner().is_empty());
    assert!(store.take_calls().ends_with(&[StoreCall::PurgeExpired]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_runs_into_the_layers_timeout() -> Tested {
    let (store, _, layer, mut browser) = setup();
    let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
    log_in.await?;
    store.fail(Fault::Hangs);
    let start = tokio::time::Instant::now();
    assert_eq!(browser.get("/account").await?.status(), 503);
    assert_eq!(start.elapsed().as_secs(), 1);
    Ok(())
}

#[tokio::test]
async fn a_call_is_held_until_the_test_lets_it_go_and_no_other_is() -> Tested {
    let (store, _, layer, mut browser) = setup();
    let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
    log_in.await?;

    let mut hold = store.hold_next(StoreCall::Replace);
    let mut window = browser.clone();
    let slow = tokio::spawn(async move { window.post("/cart", &[]).await });
    hold.arrived().await;
    assert_eq!(
        store.take_calls(),
        [StoreCall::Insert, StoreCall::Load, StoreCall::Replace]
    );
    assert_eq!(browser.post("/cart", &[]).await?.status(), 303);
    assert_eq!(browser.get("/cart").await?.body(), "1");
    assert!(!slow.is_finished());
    hold.release();
    assert_eq!(slow.await??.status(), 303);
    assert_eq!(browser.get("/cart").await?.body(), "2");

    // Nobody waits for this hold. When it is dropped, the call continues.
    drop(store.hold_next(StoreCall::Replace));
    assert_eq!(browser.post("/cart", &[]).await?.status(), 303);

    // The call for this hold never came. To drop the hold does not let the next call through.
    drop(store.hold_next(StoreCall::Replace));
    let mut hold = store.hold_next(StoreCall::Replace);
    let mut window = browser.clone();
    let slow = tokio::spawn(async move { window.post("/cart", &[]).await });
    hold.arrived().await;
    assert!(!slow.is_finished());
    hold.release();
    assert_eq!(slow.await??.status(), 303);
    Ok(())
}

#[tokio::test]
async fn a_browser_keeps_cookies_by_the_rules_of_browsers() -> Tested {
    async fn set() -> [(&'static str, &'static str); 1] {
        [("set-cookie", "a=1; Path=/a; Secure; Max-Age=60")]
    }
    async fn sent(headers: HeaderMap) -> String {
        let cookie = headers.get("cookie").map(|cookie| cookie.to_str().unwrap());
        cookie.unwrap_or("none").to_owned()
    }
    let app = Router::new()
        .route("/a", get(sent).post(set))
        .route("/b", get(sent));
    let mut browser = Browser::new(app);
    browser.post("https://shop.example/a", &[]).await?;
    assert_eq!(browser.cookie("a"), Some("1"));
    for (uri, cookie) in [
        ("https://shop.example/a", "a=1"),
        ("https://shop.example/b", "none"),
        ("http://shop.example/a", "none"),
        ("https://www.shop.example/a", "none"),
        ("/a", "none"),
    ] {
        assert_eq!(browser.get(uri).await?.body(), cookie, "{uri}");
    }

    // A test may send any header.
    let request = Request::get("/a").header("cookie", "b=2").body("")?;
    assert_eq!(browser.send(request).await?.body(), "b=2");
    assert_eq!(format!("{browser:?}"), "Browser { cookies: [\"a\"], .. }");
    Ok(())
}

#[tokio::test]
async fn a_browser_drops_cookies_that_a_browser_would() -> Tested {
    let set_cookie = |cookie: &'static str| get(move || async move { [("set-cookie", cookie)] });
    for (uri, cookie, is_kept) in [
        ("/", "a=1; Secure", true),
        ("http://localhost/", "a=1; Secure", true),
        ("http://shop.example/", "a=1; Secure", false),
        ("http://shop.example/", "a=1", true),
        ("/", "__Secure-a=1; Secure", true),
        ("/", "__secure-a=1", false),
        ("/", "__Host-a=1; Secure; Path=/", true),
        ("/", "__Host-a=1; Path=/", false),
        ("/", "__Host-a=1; Secure; Path=/a", false),
        (
            "https://shop.example/",
            "__Host-a=1; Secure; Path=/; Domain=shop.example",
            false,
        ),
        ("https://shop.example/", "a=1; Domain=other.example", false),
    ] {
        let mut browser = Browser::new(Router::new().route("/", set_cookie(cookie)));
        browser.get(uri).await?;
        let name = cookie.split('=').next().unwrap();
        assert_eq!(browser.cookie(name).is_some(), is_kept, "{cookie} of {uri}");
    }
    Ok(())
}

#[tokio::test]
async fn cookies_of_longer_paths_come_first() -> Tested {
    async fn set() -> axum::response::AppendHeaders<[(&'static str, &'static str); 3]> {
        axum::response::AppendHeaders([
            ("set-cookie", "a=root; Path=/"),
            ("set-cookie", "a=page; Path=/shop/page"),
            ("set-cookie", "a=shop; Path=/shop"),
        ])
    }
    async fn sent(headers: HeaderMap) -> String {
        headers["cookie"].to_str().unwrap().to_owned()
    }
    let app = Router::new()
        .route("/", get(set))
        .route("/shop/page", get(sent));
    let mut browser = Browser::new(app);
    browser.get("/").await?;
    let sent = browser.get("/shop/page").await?;
    assert_eq!(sent.body(), "a=page; a=shop; a=root");
    assert_eq!(browser.cookie("a"), Some("page"));
    Ok(())
}

#[tokio::test]
async fn a_test_starts_logged_in_whatever_the_cookies_settings() -> Tested {
    for (site, name, domain, path) in [
        ("https://localhost", "__Host-session", None, "/"),
        ("https://shop.example.com:8443", "__Host-session", None, "/"),
        (
            "https://shop.example.com",
            "__Secure-session",
            Some("example.com"),
            "/",
        ),
        ("https://localhost", "__Secure-session", None, "/account"),
        ("http://localhost:3000", "session", None, "/"),
    ] {
        let mut builder = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
            .cookie_name(name)
            .cookie_path(path)
            .secure(site.starts_with("https"));
        if let Some(domain) = domain {
            builder = builder.cookie_domain(domain);
        }
        let layer = builder.build()?;
        let mut browser = Browser::new(shop().layer(layer.clone())).at(site)?;
        let log_in = browser.with_session(&layer, |session| session.log_in("ada"));
        log_in.await?;
        let user = browser.with_session(&layer, |session| Ok(session.user()));
        assert_eq!(user.await?.unwrap().as_str(), "ada", "{site} {name}");
        assert_eq!(
            browser.get("/account").await?.body(),
            "ada",
            "{site} {name}"
        );
    }
    assert!(Browser::new(shop()).at("localhost:3000").is_err());
    Ok(())
}

#[tokio::test]
async fn the_token_of_a_bearer_layer_is_kept_until_it_ends() -> Tested {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .transport(Transport::Bearer)
        .build()?;
    let mut browser = Browser::new(shop().layer(layer.clone()));
    browser.post("/login", &[("user", "ada")]).await?;
    assert_eq!(browser.get("/account").await?.body(), "ada");
    let user = browser.with_session(&layer, |session| Ok(session.user()));
    assert_eq!(user.await?.unwrap().as_str(), "ada");
    let log_in = browser.with_session(&layer, |session| session.log_in("grace"));
    log_in.await?;
    assert_eq!(browser.get("/account").await?.body(), "grace");
    browser.post("/logout", &[]).await?;
    assert_eq!(browser.get("/account").await?.status(), 401);
    Ok(())
}

#[tokio::test]
async fn a_restarted_browser_has_only_cookies_that_were_to_be_remembered() -> Tested {
    let (_, _, layer, mut browser) = setup();
    for remember in [false, true] {
        let log_in = browser.with_session(&layer, move |session| {
            session.set_remembered(remember)?;
            session.log_in("ada")
        });
        log_in.await?;
        browser.restart();
        let status = browser.get("/account").await?.status();
        assert_eq!(status, if remember { 200 } else { 401 });
    }
    Ok(())
}

#[tokio::test]
async fn requests_look_as_those_of_a_browser_on_its_own_site() -> Tested {
    async fn show(headers: HeaderMap, uri: Uri) -> String {
        let header = |name| headers.get(name).map_or("none", |it| it.to_str().unwrap());
        format!("{} {} {uri}", header("host"), header("origin"))
    }
    let mut browser = Browser::new(Router::new().route("/", get(show).post(show)));
    assert_eq!(browser.get("/?q").await?.body(), "localhost none /?q");
    let posted = browser.post("http://shop.example.com:8080", &[]).await?;
    assert_eq!(
        posted.body(),
        "shop.example.com:8080 http://shop.example.com:8080 /"
    );
    let foreign = Request::post("/").header("origin", "https://evil.example");
    let foreign = browser.send(foreign.body("")?).await?;
    assert_eq!(foreign.body(), "localhost https://evil.example /");
    for uri in ["not a path", "localhost:3000", "ftp://localhost/"] {
        let error = browser.get(uri).await.unwrap_err();
        assert!(error.source().is_some(), "{uri}");
    }
    Ok(())
}
