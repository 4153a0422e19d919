//! The headers of a response: Set-Cookie, Vary, Cache-Control, Clear-Site-Data.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::AppendHeaders;
use axum::routing::get;
use cloakroom::testing::FaultyStore;
use cloakroom::{
    Client, CurrentUser, MemoryStore, SameSite, Session, SessionError, SessionLayer, TestClock,
    Transport,
};
use http::StatusCode;
use http::header::{CACHE_CONTROL, SET_COOKIE, VARY};
use support::{Browser, app, builder, key, routes, send};

fn default_app() -> Router {
    app(SessionLayer::new(MemoryStore::new(), key()))
}

/// A Set-Cookie header without its token.
fn blotted(header: &str) -> String {
    let (name, rest) = header.split_once('=').unwrap();
    let (value, attributes) = rest.split_once(';').unwrap();
    let value = if value.len() == 70 { "<token>" } else { value };
    format!("{name}={value};{attributes}")
}

#[tokio::test]
async fn the_default_cookie_is_host_bound_secure_http_only_lax_and_ends_with_the_browser() {
    let reply = Browser::new(&default_app()).get("/insert/theme/dark").await;
    let cookies: Vec<_> = reply.cookies().into_iter().map(blotted).collect();
    assert_eq!(
        cookies,
        ["__Host-session=<token>; HttpOnly; SameSite=Lax; Secure; Path=/"]
    );
}

#[tokio::test]
async fn a_remembered_session_has_a_persistent_cookie() {
    // This clock stands still. Otherwise a new second could begin between the login and the answer.
    let layer = builder(MemoryStore::new()).clock(TestClock::new()).build();
    let reply = Browser::new(&app(layer.unwrap()))
        .get("/remember/ada")
        .await;
    let cookies: Vec<_> = reply.cookies().into_iter().map(blotted).collect();
    assert_eq!(
        cookies,
        ["__Host-session=<token>; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=7776000"]
    );
}

#[tokio::test]
async fn every_attribute_is_configurable_and_repeated_by_the_removal() {
    let layer = builder(MemoryStore::new())
        .cookie_name("__Secure-sid")
        .cookie_path("/app")
        .cookie_domain("example.com")
        .same_site(SameSite::None)
        .partitioned(true)
        .build()
        .unwrap();
    let mut browser = Browser::new(&Router::new().nest("/app", app(layer)));
    let set = browser.get("/app/insert/theme/dark").await;
    assert_eq!(
        set.cookies().into_iter().map(blotted).collect::<Vec<_>>(),
        [
            "__Secure-sid=<token>; HttpOnly; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.com"
        ]
    );
    let removed = browser.get("/app/destroy").await;
    assert_eq!(
        removed.cookies(),
        [
            "__Secure-sid=; HttpOnly; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.com; \
          Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        ]
    );
}

#[tokio::test]
async fn a_removal_leaves_the_browsers_jar_empty() {
    let mut browser = Browser::new(&default_app());
    browser.get("/insert/theme/dark").await;
    assert_eq!(browser.cookies().len(), 1);
    let reply = browser.get("/log_out").await;
    assert_eq!(
        reply.cookies(),
        [
            "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        ]
    );
    assert!(browser.cookies().is_empty());
}

#[tokio::test]
async fn a_removal_leaves_the_jar_empty_for_every_path_domain_and_partition() {
    let kinds = [
        (true, false, SameSite::Lax),
        (true, false, SameSite::Strict),
        (true, true, SameSite::None),
        (false, false, SameSite::Lax),
    ];
    for (secure, partitioned, same_site) in kinds {
        for path in ["/", "/app", "/app/"] {
            for domain in [None, Some("example.com")] {
                let mut layer = builder(MemoryStore::new())
                    .cookie_name("sid")
                    .secure(secure)
                    .partitioned(partitioned)
                    .same_site(same_site)
                    .cookie_path(path);
                if let Some(domain) = domain {
                    layer = layer.cookie_domain(domain);
                }
                let app = Router::new().nest("/app", app(layer.build().unwrap()));
                for end in ["/app/log_out", "/app/destroy"] {
                    let mut browser = Browser::new(&app);
                    let set = browser.get("/app/insert/theme/dark").await;
                    assert_eq!(browser.kept(), ["sid"], "{set:?}");
                    browser.get("/app/get/theme").await.assert(200, "dark");
                    let removed = browser.get(end).await;
                    assert!(browser.kept().is_empty(), "{set:?}, then {removed:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_does_not_ask_for_the_end_of_a_session_removes_no_cookie() {
    let app = default_app();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let mut second_window = browser.clone();
    browser.get("/log_out").await;
    second_window.get("/get/theme").await.assert_no_cookie();
    // A visitor without a cookie has none to remove.
    Browser::new(&app).get("/log_out").await.assert_no_cookie();
}

#[tokio::test]
async fn who_logs_out_has_no_cookie_afterwards_whatever_the_cookie_was() {
    for lazy in [false, true] {
        let mut layer = builder(MemoryStore::new());
        if lazy {
            layer = layer.lazy(true);
        }
        let app = app(layer.build().unwrap());
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        let mut ended = browser.clone();
        let token = browser.token();
        browser.get("/log_out").await;
        let forged = format!(
            "{}{}",
            &token[..63],
            if token.ends_with('A') { "E" } else { "A" }
        );
        for end in ["/log_out", "/destroy"] {
            let mut dead = ended.clone();
            dead.get(end).await.assert(200, "done");
            assert_eq!(dead.kept(), Vec::<&str>::new());
            for value in [&*forged, "", "garbage", "\"\""] {
                let cookie = format!("__Host-session={value}");
                let reply = Browser::new(&app).send(end, &[("cookie", &cookie)]).await;
                assert!(
                    reply.cookies()[0].contains("Max-Age=0"),
                    "{value}: {reply:?}"
                );
            }
            let other = [("cookie", "other=1")];
            Browser::new(&app)
                .send(end, &other)
                .await
                .assert_no_cookie();
        }
        // A value that is stored after the end makes a new session. A failed request removes no
        // cookie.
        ended.get("/fail/destroy").await.assert_no_cookie();
        assert_eq!(ended.kept(), ["__Host-session"]);
    }
}

#[tokio::test]
async fn a_read_or_a_write_of_a_session_that_is_there_sets_no_cookie() {
    let mut browser = Browser::new(&default_app());
    browser.get("/insert/theme/dark").await;
    for path in [
        "/get/theme",
        "/insert/theme/light",
        "/update/visits",
        "/remove/theme",
        "/clear",
    ] {
        browser.get(path).await.assert_no_cookie();
    }
}

#[tokio::test]
async fn a_secure_cookie_stays_secure_over_plain_http_and_whatever_a_proxy_says() {
    let app = default_app();
    let headers = [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "proto=http"),
    ];
    let reply = Browser::new(&app)
        .get_with("/insert/theme/dark", &headers)
        .await;
    assert_eq!(
        reply.cookies().into_iter().map(blotted).collect::<Vec<_>>(),
        ["__Host-session=<token>; HttpOnly; SameSite=Lax; Secure; Path=/"]
    );
}

#[tokio::test]
async fn vary_and_cache_control_follow_what_the_handler_did() {
    let asks = |ask: fn(&Session) -> Result<(), SessionError>| {
        get(move |session: Session| async move { ask(&session) })
    };
    let app = routes()
        .route("/extract", asks(|_| Ok(())))
        .route("/maybe_user", get(|_: Option<CurrentUser>| async {}))
        .route(
            "/logged_in_at",
            asks(|session| {
                let _ = session.logged_in_at();
                Ok(())
            }),
        )
        .route(
            "/require_recent_login",
            asks(|session| session.require_recent_login(Duration::from_secs(60))),
        )
        .route(
            "/expires_at",
            asks(|session| {
                let _ = session.expires_at();
                Ok(())
            }),
        )
        .route(
            "/detach",
            asks(|session| {
                drop(session.detach());
                Ok(())
            }),
        )
        .route(
            "/set_client",
            asks(|session| session.set_client(Client::new())),
        )
        .route(
            "/set_remember",
            asks(|session| session.set_remembered(true)),
        )
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    // What the handler does. Then, for a visitor and for somebody with a session: whether the
    // response varies, and whether caches must not store it.
    let table = [
        ("/", (false, false), (false, false)),
        ("/extract", (false, false), (false, false)),
        ("/get/theme", (true, false), (true, false)),
        ("/keys", (true, false), (true, false)),
        ("/id", (true, false), (true, false)),
        ("/user", (true, true), (true, true)),
        ("/maybe_user", (true, false), (true, false)),
        ("/logged_in_at", (true, false), (true, false)),
        ("/require_recent_login", (true, true), (true, true)),
        ("/expires_at", (true, false), (true, false)),
        ("/detach", (true, false), (true, false)),
        ("/set_client", (true, false), (true, false)),
        ("/set_remember", (true, false), (true, true)),
        ("/insert/theme/light", (true, true), (true, false)),
        ("/update/visits", (true, true), (true, false)),
        ("/remove/nothing", (true, false), (true, false)),
        ("/clear", (true, false), (true, false)),
        ("/passive", (true, false), (true, false)),
        ("/regenerate", (true, false), (true, true)),
        ("/log_in/ada", (true, true), (true, true)),
        ("/log_out", (true, false), (true, true)),
        ("/destroy", (true, false), (true, true)),
    ];
    for (path, visitor, owner) in table {
        let mut browser = Browser::new(&app);
        let as_visitor = browser.clone().get(path).await;
        browser.get("/insert/theme/dark").await;
        let as_owner = browser.get(path).await;
        for (who, reply, (varies, is_private)) in
            [("visitor", as_visitor, visitor), ("owner", as_owner, owner)]
        {
            assert_eq!(
                reply.all("vary"),
                if varies { vec!["Cookie"] } else { vec![] },
                "{path} as {who}"
            );
            let expected = if is_private { vec!["no-store"] } else { vec![] };
            assert_eq!(reply.all("cache-control"), expected, "{path} as {who}");
        }
    }
}

#[tokio::test]
async fn what_the_handler_says_of_caching_and_varying_is_kept() {
    async fn handler(session: Session) -> Result<(HeaderMap, &'static str), SessionError> {
        session.insert("theme", "dark")?;
        let mut headers = HeaderMap::new();
        headers.append(VARY, "accept-encoding, COOKIE".parse().unwrap());
        headers.append(CACHE_CONTROL, "private, max-age=60".parse().unwrap());
        Ok((headers, ""))
    }
    let app = Router::new()
        .route("/", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let reply = Browser::new(&app).get("/").await;
    assert_eq!(reply.all("vary"), ["accept-encoding, COOKIE"]);
    assert_eq!(reply.all("cache-control"), ["private, max-age=60"]);
}

#[tokio::test]
async fn a_response_that_varies_by_everything_needs_no_names() {
    async fn handler(
        session: Session,
    ) -> Result<[(http::HeaderName, &'static str); 1], SessionError> {
        session.insert("theme", "dark")?;
        Ok([(VARY, "*")])
    }
    let app = Router::new()
        .route("/", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    assert_eq!(Browser::new(&app).get("/").await.all("vary"), ["*"]);
}

/// A sensitive header is one that HTTP/2 does not index, and that loggers leave out.
#[tokio::test]
async fn a_header_with_a_token_is_sensitive() {
    for (transport, name) in [
        (Transport::Cookie, "set-cookie"),
        (Transport::Bearer, "x-session-token"),
    ] {
        let layer = builder(MemoryStore::new()).transport(transport);
        let handler = |session: Session| async move { session.insert("theme", "dark") };
        let app = Router::new()
            .route("/", get(handler))
            .layer(layer.build().unwrap());
        let mut browser = cloakroom::testing::Browser::new(app);
        let answer = browser.get("/").await.unwrap();
        assert!(answer.headers()[name].is_sensitive(), "{name}");
    }
}

#[tokio::test]
async fn a_new_token_is_kept_out_of_caches_whatever_else_the_handler_says() {
    async fn handler(
        session: Session,
        Path(caching): Path<String>,
    ) -> Result<AppendHeaders<Vec<(http::HeaderName, String)>>, SessionError> {
        session.regenerate()?;
        session.insert("caching", &caching)?;
        let values = caching.split(';').filter(|value| !value.is_empty());
        let header = |value: &str| (CACHE_CONTROL, value.to_owned());
        Ok(AppendHeaders(values.map(header).collect()))
    }
    let app = Router::new()
        .route("/{caching}", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    for (of_handler, sent) in [
        ("public, max-age=60", &["no-store"][..]),
        ("public;max-age=60", &["no-store"]),
        ("private=\"x-name\", max-age=60", &["no-store"]),
        ("no-cache", &["no-store"]),
        ("max-age=60, Private", &["max-age=60, Private"]),
        ("no-store;max-age=0", &["no-store", "max-age=0"]),
    ] {
        let path = format!("/{}", of_handler.replace(' ', "%20").replace('"', "%22"));
        let reply = Browser::new(&app).get(&path).await;
        assert_eq!(reply.cookies().len(), 1);
        assert_eq!(reply.all("cache-control"), sent, "{of_handler}");
    }
}

#[tokio::test]
async fn other_cookies_of_the_response_are_kept_and_there_is_one_session_cookie() {
    async fn handler(
        session: Session,
    ) -> Result<AppendHeaders<[(http::HeaderName, &'static str); 3]>, SessionError> {
        session.insert("theme", "dark")?;
        Ok(AppendHeaders([
            (SET_COOKIE, "first=1"),
            (SET_COOKIE, "__Host-session=of the handler; Path=/"),
            (SET_COOKIE, "second=2; Path=/"),
        ]))
    }
    let app = Router::new()
        .route("/", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let reply = Browser::new(&app).get("/").await;
    let cookies: Vec<_> = reply
        .cookies()
        .into_iter()
        .map(|cookie| cookie.split('=').next().unwrap())
        .collect();
    assert_eq!(cookies, ["first", "second", "__Host-session"]);
    assert!(reply.cookies()[2].contains("; HttpOnly"));
}

#[tokio::test]
async fn log_out_clears_site_data_where_the_layer_says_so_and_destroy_does_not() {
    let quiet = default_app();
    let clearing = app(builder(MemoryStore::new())
        .clear_site_data(true)
        .build()
        .unwrap());
    for (app, path, expected) in [
        (&quiet, "/log_out", None),
        (&clearing, "/log_out", Some("\"cache\", \"storage\"")),
        (&clearing, "/destroy", None),
        (&clearing, "/get/theme", None),
    ] {
        let mut browser = Browser::new(app);
        browser.get("/insert/theme/dark").await;
        assert_eq!(
            browser.get(path).await.header("clear-site-data"),
            expected,
            "{path}"
        );
    }
}

#[tokio::test]
async fn ten_thousand_visitors_without_a_cookie_cost_no_store_call_and_get_no_cookie() {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(SessionLayer::new(spy.clone(), key()));
    for n in 0..10_000 {
        let path = [
            "/",
            "/get/theme",
            "/remove/notice",
            "/log_out",
            "/regenerate",
        ][n % 5];
        send(&app, support::request(path)).await.assert_no_cookie();
    }
    assert_eq!(spy.take_calls(), []);
    assert_eq!(spy.inner().len(), 0);
}

#[tokio::test]
async fn a_session_with_nothing_in_it_is_not_stored() {
    async fn emptied(session: Session) -> Result<(), SessionError> {
        session.insert("theme", "dark")?;
        session.set_remembered(true)?;
        session.set_client(cloakroom::Client::new().with_user_agent("bot"))?;
        session.remove::<String>("theme")?;
        Ok(())
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let app = Router::new()
        .route("/", get(emptied))
        .layer(SessionLayer::new(spy.clone(), key()));
    Browser::new(&app).get("/").await.assert_no_cookie();
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn calls_of_the_store_are_as_few_as_can_be() {
    use cloakroom::testing::StoreCall::{Insert, Load, Remove, Replace};

    let spy = FaultyStore::new(MemoryStore::new());
    let mut browser = Browser::new(&app(SessionLayer::new(spy.clone(), key())));
    for (path, expected) in [
        ("/insert/theme/dark", &[Insert][..]),
        ("/get/theme", &[Load]),
        ("/", &[Load]),
        ("/insert/theme/dark", &[Load]),
        ("/insert/theme/light", &[Load, Replace]),
        ("/update/visits", &[Load, Replace]),
        ("/log_in/ada", &[Load, Replace]),
        ("/log_out", &[Load, Remove]),
        ("/get/theme", &[]),
    ] {
        browser.get(path).await;
        assert_eq!(spy.take_calls(), expected, "{path}");
    }
}

/// A shared cache would give a session cookie to somebody else.
#[tokio::test]
async fn no_header_for_single_caches_is_left_beside_a_new_token() {
    let names = [
        "cdn-cache-control",
        "cloudflare-cdn-cache-control",
        "edge-control",
        "netlify-cdn-cache-control",
        "surrogate-control",
        "vercel-cdn-cache-control",
        "x-accel-expires",
    ];
    let handler = move |what: Path<String>, session: Session| async move {
        match &*what.0 {
            "write" => session.log_in("ada")?,
            "end" => session.log_out()?,
            _ => drop(session.get::<String>("theme")?),
        }
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(name, "max-age=600".parse().unwrap());
            headers.append(name, "public".parse().unwrap());
        }
        Ok::<_, SessionError>(headers)
    };
    let app = routes()
        .route("/cached/{what}", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    for what in ["write", "end"] {
        let reply = browser.get(&format!("/cached/{what}")).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        for name in names {
            assert_eq!(reply.all(name), Vec::<&str>::new(), "{name}");
        }
    }
    let reply = browser.get("/cached/read").await;
    assert_eq!(reply.all("surrogate-control").len(), 2);
}

#[tokio::test]
async fn the_handlers_own_clear_site_data_and_token_header_survive() {
    let handler = |what: Path<String>, session: Session| async move {
        match &*what.0 {
            "in" => session.log_in("ada")?,
            _ => session.log_out()?,
        }
        let own = [
            ("clear-site-data", "\"cookies\""),
            ("x-session-token", "own"),
        ];
        Ok::<_, SessionError>(AppendHeaders(own))
    };
    for transport in [Transport::Cookie, Transport::Bearer] {
        let layer = builder(MemoryStore::new())
            .transport(transport)
            .clear_site_data(true)
            .build()
            .unwrap();
        let app = routes().route("/log/{what}", get(handler)).layer(layer);
        let mut browser = Browser::new(&app);
        let reply = browser.get("/log/in").await;
        assert_eq!(reply.all("clear-site-data"), ["\"cookies\""]);
        assert!(reply.all("x-session-token").contains(&"own"));
        let mut token = String::new();
        if transport == Transport::Bearer {
            // The client reads the first of these headers.
            token = format!("Bearer {}", reply.header("x-session-token").unwrap());
            let with_token = [("authorization", &*token)];
            browser
                .get_with("/user", &with_token)
                .await
                .assert(200, "ada");
        }
        let reply = browser
            .get_with("/log/out", &[("authorization", &token)])
            .await;
        assert_eq!(
            reply.all("clear-site-data"),
            ["\"cookies\"", "\"cache\", \"storage\""]
        );
        assert!(reply.all("x-session-token").contains(&"own"));
    }
}

#[tokio::test]
async fn a_401_says_what_the_client_has_to_present() {
    let fresh =
        get(
            |session: Session| async move { session.require_recent_login(Duration::from_secs(60)) },
        );
    let own = get(|| async { (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic")]) });
    let build = |transport, realm: Option<&str>| {
        let clock = TestClock::new();
        let mut layer = builder(MemoryStore::new())
            .transport(transport)
            .clock(clock.clone());
        if let Some(realm) = realm {
            layer = layer.realm(realm);
        }
        let app = routes()
            .route("/fresh", fresh.clone())
            .route("/own", own.clone())
            .layer(layer.build().unwrap());
        (clock, app)
    };
    for (realm, challenge) in [
        (None, "Cookie realm=\"__Host-session\""),
        (Some("people"), "Cookie realm=\"people\""),
    ] {
        let (clock, app) = build(Transport::Cookie, realm);
        let mut browser = Browser::new(&app);
        for path in ["/user", "/fresh"] {
            let reply = browser.get(path).await;
            reply.assert(401, "");
            assert_eq!(reply.all("www-authenticate"), [challenge]);
        }
        browser.get("/log_in/ada").await;
        clock.advance(Duration::from_secs(61));
        let reply = browser.get("/fresh").await;
        reply.assert(401, "");
        let step_up = "error=\"insufficient_user_authentication\", max_age=\"60\"";
        assert_eq!(
            reply.all("www-authenticate"),
            [format!("{challenge}, {step_up}")]
        );
        let own = browser.get("/own").await;
        assert_eq!(own.all("www-authenticate"), ["Basic"]);
    }

    let (clock, app) = build(Transport::Bearer, None);
    let with = async |path: &str, token: &str| {
        let header = [("authorization", token)];
        let headers = if token.is_empty() { &[][..] } else { &header };
        Browser::new(&app).get_with(path, headers).await
    };
    let token = with("/log_in/ada", "").await;
    let token = format!("Bearer {}", token.header("x-session-token").unwrap());
    let visitor = with("/insert/theme/dark", "").await;
    let visitor = format!("Bearer {}", visitor.header("x-session-token").unwrap());
    clock.advance(Duration::from_secs(61));
    for (path, token, challenge) in [
        ("/user", "", "Bearer"),
        ("/user", &*visitor, "Bearer"),
        ("/user", "Bearer garbage", "Bearer error=\"invalid_token\""),
        ("/fresh", "", "Bearer"),
        (
            "/fresh",
            &*token,
            "Bearer error=\"insufficient_user_authentication\", max_age=\"60\"",
        ),
    ] {
        let reply = with(path, token).await;
        reply.assert(401, "");
        assert_eq!(reply.all("www-authenticate"), [challenge], "{path} {token}");
    }

    // There are two layers. The inner one knows how its client sends the token.
    let api = builder(MemoryStore::new()).transport(Transport::Bearer);
    let app = routes()
        .layer(api.build().unwrap())
        .layer(builder(MemoryStore::new()).build().unwrap());
    let reply = Browser::new(&app).get("/user").await;
    assert_eq!(reply.all("www-authenticate"), ["Bearer"]);
    // An error that never meets a layer also has a challenge.
    let error = SessionError::from(cloakroom::SessionErrorKind::NotLoggedIn);
    let response = error.to_response::<String>();
    assert!(response.headers().contains_key("www-authenticate"));
}

#[tokio::test]
async fn log_out_everywhere_ends_all_sessions_of_the_user_and_removes_this_cookie() {
    let layer = SessionLayer::new(MemoryStore::new(), key());
    let sessions = layer.sessions();
    let everywhere = {
        let sessions = sessions.clone();
        get(move |session: Session| async move {
            let ended = sessions.log_out_everywhere(&session).await?;
            session.insert("notice", "You are logged out on all devices.")?;
            Ok::<_, SessionError>(ended.to_string())
        })
    };
    let bare = {
        let sessions = sessions.clone();
        get(move |session: Session| async move {
            Ok::<_, SessionError>(sessions.log_out_everywhere(&session).await?.to_string())
        })
    };
    let app = routes()
        .route("/everywhere", everywhere)
        .route("/bare", bare)
        .layer(layer);
    let mut devices = [Browser::new(&app), Browser::new(&app), Browser::new(&app)];
    for device in &mut devices {
        device.get("/log_in/ada").await;
    }
    let mut other = Browser::new(&app);
    other.get("/log_in/grace").await;
    let [mut here, mut there, mut elsewhere] = devices;
    here.get("/everywhere").await.assert(200, "3");
    there.get("/user").await.assert(401, "");
    elsewhere.get("/user").await.assert(401, "");
    here.get("/user").await.assert(401, "");
    here.get("/get/notice")
        .await
        .assert(200, "You are logged out on all devices.");
    other.get("/user").await.assert(200, "grace");
    other.get("/bare").await.assert(200, "1");
    assert!(other.kept().is_empty());
    Browser::new(&app).get("/bare").await.assert(200, "0");
}
