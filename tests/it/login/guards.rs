//! What each kind of client gets from a guard, and that a guard costs one look-up.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next as Rest, from_fn};
use axum::response::Response;
use axum::routing::get;
use cloakroom::login::{Auth, Guard, Users as _, required};
use cloakroom::testing::{Browser, Fault};
use cloakroom::{Authentication, Session, SessionErrorKind};
use http::header::{CACHE_CONTROL, VARY};
use tower::ServiceExt as _;

use super::site::{Db, Site, request, seen};

type Headers = &'static [(&'static str, &'static str)];

const MINUTE: Duration = Duration::from_secs(60);
const STOCK: &str = "/stock?page=2&q=a%20b";
/// The page above, as the parameter of another page.
const NEXT: &str = "next=%2Fstock%3Fpage%3D2%26q%3Da%2520b";
const CHALLENGE: &str = "Cookie realm=\"__Host-session\"";

/// Whoever may send a request, and how. Each row of the table below has an answer for each of them.
const CLIENTS: [(&str, &str, Headers); 13] = [
    ("page", "GET", &[("sec-fetch-mode", "navigate")]),
    (
        "page of an old browser",
        "GET",
        &[("accept", "text/html,*/*;q=0.8")],
    ),
    ("head", "HEAD", &[("sec-fetch-mode", "navigate")]),
    (
        "form",
        "POST",
        &[("sec-fetch-mode", "navigate"), ("accept", "text/html")],
    ),
    (
        "form of an old browser",
        "POST",
        &[("accept", "application/xml, Text/HTML")],
    ),
    ("htmx", "GET", HTMX),
    ("htmx form", "POST", HTMX),
    (
        "fetch",
        "GET",
        &[("sec-fetch-mode", "cors"), ("accept", "text/html")],
    ),
    ("json", "GET", &[("accept", "application/json")]),
    (
        "json and no page",
        "GET",
        &[("accept", "application/json, text/html;charset=utf-8; Q=0.0")],
    ),
    (
        "jquery",
        "GET",
        &[
            ("x-requested-with", "XMLHttpRequest"),
            ("accept", "text/html"),
        ],
    ),
    (
        "socket",
        "GET",
        &[("sec-fetch-mode", "websocket"), ("upgrade", "websocket")],
    ),
    (
        "socket of an old browser",
        "GET",
        &[("accept", "text/html"), ("upgrade", "websocket")],
    ),
];

const HTMX: Headers = &[
    ("hx-request", "true"),
    ("hx-current-url", "https://localhost/shelf?row=3"),
    ("sec-fetch-mode", "cors"),
];

fn stock(guard: Guard<Db>, layer: super::site::Layer) -> Router {
    Router::new()
        .route(
            "/stock",
            get(|| async { "stock" }).post(|| async { "ordered" }),
        )
        .route_layer(guard)
        .layer(layer)
}

fn members() -> Guard<Db> {
    required().redirect_to("/login")
}

/// Sends the request of each client, and compares with what each kind should get.
async fn check(
    browser: &Browser<Router>,
    what: &str,
    pages: [&str; 3],
    htmx: [&str; 2],
    api: &str,
) {
    let [page, head, form] = pages;
    let [htmx, htmx_form] = htmx;
    let expected = [
        page, page, head, form, form, htmx, htmx_form, api, api, api, api, api, api,
    ];
    for ((client, method, headers), expected) in CLIENTS.into_iter().zip(expected) {
        let answer = browser
            .clone()
            .send(request(method, STOCK, headers))
            .await
            .unwrap();
        assert_eq!(seen(&answer), expected, "{what}, {client}");
        if answer.status() != 200 {
            assert_eq!(
                answer.headers()[CACHE_CONTROL],
                "no-store",
                "{what}, {client}"
            );
            assert!(answer.body().is_empty());
        }
    }
}

/// The same answer for all clients.
async fn check_all(browser: &Browser<Router>, what: &str, expected: &str) {
    check(browser, what, [expected; 3], [expected; 2], expected).await;
}

/// Those who must log in, or log in again, go to the login.
async fn check_sent_to_login(browser: &Browser<Router>, what: &str, challenge: &str) {
    let shown = format!("303 /login?{NEXT}");
    let api = format!("401 {challenge}");
    let htmx = format!("401 hx /login?next=%2Fshelf%3Frow%3D3 {challenge}");
    check(
        browser,
        what,
        [&shown, &shown, "303 /login"],
        [&htmx, &htmx],
        &api,
    )
    .await;
}

#[tokio::test]
async fn who_may_enter_does() {
    let site = Site::new();
    let strict = members()
        .when(|user| user.is_staff)
        .permission("stock.write")
        .recent(5 * MINUTE)
        .refuse_acting()
        .or_redirect_to("/upgrade");
    let app = stock(strict, site.layer.clone());
    let ada = site.member(&app, "ada").await;
    check_all(&ada, "allowed", "200").await;
}

#[tokio::test]
async fn a_visitor_is_sent_to_the_login_and_nothing_is_written() {
    let site = Site::new();
    let app = stock(members(), site.layer.clone());
    check_sent_to_login(&site.visitor(&app), "visitor", CHALLENGE).await;
    assert_eq!(site.store.take_calls(), []);
    assert_eq!(site.db.look_ups(), 0);
}

#[tokio::test]
async fn a_guard_without_a_login_page_answers_401() {
    let site = Site::new();
    let app = stock(required(), site.layer.clone());
    let challenge = format!("401 {CHALLENGE}");
    check_all(&site.visitor(&app), "visitor", &challenge).await;
}

/// A browser that is logged in, and is refused by the guard called `what`.
async fn refused_by(what: &str, guard: Guard<Db>) -> Browser<Router> {
    let site = Site::new();
    let app = stock(guard, site.layer.clone());
    if what != "acting" {
        return site.member(&app, "bob").await;
    }
    let mut ada = site.member(&app, "ada").await;
    let bob = Db::account(&site.db.user("bob").unwrap());
    let acting = ada.with_session(&site.layer, |session| session.act_as(bob));
    acting.await.unwrap();
    ada
}

#[tokio::test]
async fn the_wrong_role_a_missing_permission_and_acting_are_refused() {
    let guards = || {
        [
            ("wrong role", members().when(|user| user.is_staff)),
            ("missing permission", members().permission("stock.write")),
            ("acting", members().refuse_acting()),
        ]
    };
    for (what, guard) in guards() {
        check_all(&refused_by(what, guard).await, what, "403").await;
    }
    for (what, guard) in guards() {
        let browser = refused_by(what, guard.or_redirect_to("/upgrade?from=stock")).await;
        let (page, htmx) = ("303 /upgrade?from=stock", "403 hx /upgrade?from=stock");
        check(&browser, what, [page; 3], [htmx; 2], "403").await;
    }
}

#[tokio::test]
async fn who_needs_a_better_login_is_sent_to_the_login_or_gets_the_challenge() {
    let challenge =
        |needs| format!("{CHALLENGE}, error=\"insufficient_user_authentication\", {needs}");

    let site = Site::new();
    let app = stock(members().recent(5 * MINUTE), site.layer.clone());
    let browser = site.member(&app, "ada").await;
    check_all(&browser, "recent", "200").await;
    site.clock.advance(6 * MINUTE);
    check_sent_to_login(&browser, "too old", &challenge("max_age=\"300\"")).await;

    let site = Site::new();
    let app = stock(members().level(&["aal2", "aal3"]), site.layer.clone());
    let mut browser = site.member(&app, "ada").await;
    let needs = "acr_values=\"aal2 aal3\"";
    check_sent_to_login(&browser, "level too low", &challenge(needs)).await;
    let ada = Db::account(&site.db.user("ada").unwrap());
    let how = Authentication::now().with_level("aal3");
    let login = browser.with_session(&site.layer, |session| session.log_in_with(ada, how));
    login.await.unwrap();
    check_all(&browser, "level reached", "200").await;
}

#[tokio::test]
async fn a_token_that_was_just_rotated_is_a_409() {
    let site = Site::new();
    let app = stock(members(), site.layer.clone());
    let browser = site.member(&app, "ada").await;
    let rotating = browser
        .clone()
        .with_session(&site.layer, Session::regenerate)
        .await;
    rotating.unwrap();
    check_all(&browser, "rotated", "409").await;
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_and_no_logout() {
    for is_lazy in [false, true] {
        let site = Site::with(|builder| builder.lazy(is_lazy));
        let app = stock(members(), site.layer.clone());
        let browser = site.member(&app, "ada").await;
        site.store.fail(Fault::Refused);
        check_all(&browser, "store down", "503 after 1").await;
        site.store.recover();
        check_all(&browser, "store up", "200").await;
    }
}

#[tokio::test]
async fn a_look_up_that_fails_is_a_503_and_no_logout() {
    let site = Site::new();
    let app = stock(members().permission("stock.write"), site.layer.clone());
    let browser = site.member(&app, "ada").await;
    site.db.set_down(true);
    check_all(&browser, "users down", "503 after 1").await;
    site.db.set_down(false);
    check_all(&browser, "users up", "200").await;

    let app = stock(members().permission("breaks"), site.layer.clone());
    let browser = site.member(&app, "ada").await;
    check_all(&browser, "permissions down", "503 after 1").await;
}

#[tokio::test]
async fn a_guard_inside_of_a_layer_without_users_says_so() {
    let layer = support::builder(cloakroom::MemoryStore::new())
        .build()
        .unwrap();
    let app = Router::new()
        .route("/stock", get(|| async { "stock" }))
        .route_layer(members())
        .layer(layer);
    let answer = Browser::new(app).get("/stock").await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.extensions().get(), Some(&SessionErrorKind::NoUsers));
}

#[tokio::test]
async fn answers_that_depend_on_the_kind_of_client_say_so_to_caches() {
    let site = Site::new();
    let app = stock(members(), site.layer.clone());
    for (client, method, headers) in CLIENTS {
        let answer = site
            .visitor(&app)
            .send(request(method, STOCK, headers))
            .await
            .unwrap();
        let vary: Vec<_> = answer.headers().get_all(VARY).iter().collect();
        let vary: Vec<_> = vary.iter().map(|value| value.to_str().unwrap()).collect();
        let vary = vary.join(", ").to_lowercase();
        let names: Vec<_> = vary.split(", ").collect();
        for name in [
            "cookie",
            "accept",
            "sec-fetch-mode",
            "hx-request",
            "hx-boosted",
            "upgrade",
        ] {
            assert!(names.contains(&name), "{client}: {vary}");
        }
    }
}

/// The page that a visitor is sent to.
async fn sent_to(app: &Router, uri: &str) -> String {
    let page = request("GET", uri, &[("sec-fetch-mode", "navigate")]);
    seen(&Browser::new(app.clone()).send(page).await.unwrap())
}

#[tokio::test]
async fn next_has_the_whole_path_inside_of_nested_routers() {
    for is_lazy in [false, true] {
        let site = Site::with(|builder| builder.lazy(is_lazy));
        let books = Router::new()
            .route("/{id}", get("book"))
            .route_layer(members());
        let app = Router::new()
            .nest("/shop", Router::new().nest("/books", books))
            .layer(site.layer.clone());
        let expected = "303 /login?next=%2Fshop%2Fbooks%2F7%3Fpage%3D1";
        assert_eq!(sent_to(&app, "/shop/books/7?page=1").await, expected);
    }
}

#[tokio::test]
async fn the_login_page_is_never_redirected_to_itself() {
    let site = Site::new();
    let refused = format!("401 {CHALLENGE}");
    let guarded = |guard: Guard<Db>| {
        Router::new()
            .route("/account/login", get("login"))
            .route("/{other}", get("other"))
            .layer(guard)
    };
    let guard = || required().redirect_to("/account/login?lang=de#form");
    let app = guarded(guard()).layer(site.layer.clone());
    let expected = "303 /account/login?lang=de&next=%2Fhome#form";
    assert_eq!(sent_to(&app, "/home").await, expected);
    for page in [
        "/account/login",
        "/account/login?next=%2F",
        "/account/login?lang=de",
    ] {
        assert_eq!(sent_to(&app, page).await, refused);
    }
    // Here the session layer does not see the beginning of the path.
    let inner = Router::new().route("/login", get("login")).layer(guard());
    let app = Router::new().nest("/account", inner.layer(site.layer.clone()));
    assert_eq!(sent_to(&app, "/account/login").await, refused);
}

#[tokio::test]
async fn next_is_left_out_if_it_leads_nowhere() {
    let site = Site::new();
    let app = Router::new()
        .fallback(get("page"))
        .layer(members())
        .layer(site.layer.clone());
    assert_eq!(sent_to(&app, "//evil.example/x").await, "303 /login");
    assert_eq!(
        sent_to(&app, &format!("/{}", "x".repeat(2500))).await,
        "303 /login"
    );

    let pages = [
        (
            "https://localhost/shelf",
            "same-origin",
            "hx /login?next=%2Fshelf",
        ),
        (
            "https://public.example/shelf#top",
            "same-origin",
            "hx /login?next=%2Fshelf",
        ),
        ("https://LOCALHOST/shelf", "none", "hx /login?next=%2Fshelf"),
        ("https://evil.example/shelf", "cross-site", "hx /login"),
        ("https://www.localhost/shelf", "same-site", "hx /login"),
        (
            "https://localhost//evil.example",
            "same-origin",
            "hx /login",
        ),
        (
            "https://localhost/login?next=%2Fshelf",
            "same-origin",
            "hx /login",
        ),
        ("data:text/html,x", "same-origin", "hx /login"),
        ("/shelf", "cross-site", "hx /login"),
    ];
    for (page, fetch_site, expected) in pages {
        let headers = [
            ("hx-request", "true"),
            ("hx-current-url", page),
            ("sec-fetch-site", fetch_site),
        ];
        let answer = site
            .visitor(&app)
            .send(request("GET", "/part", &headers))
            .await
            .unwrap();
        assert_eq!(
            seen(&answer),
            format!("401 {expected} {CHALLENGE}"),
            "{page}"
        );
    }
}

/// Over HTTP/2, the address of a request has the host, and no header has it.
#[tokio::test]
async fn the_host_of_an_address_shows_where_htmx_is() {
    let site = Site::new();
    let app = stock(members(), site.layer.clone());
    for (page, login) in [
        ("https://Shop.example:8443/shelf", "/login?next=%2Fshelf"),
        ("https://shop.example/shelf", "/login"),
    ] {
        let headers = [("hx-request", "true"), ("hx-current-url", page)];
        let request = request("GET", "https://shop.example:8443/stock", &headers);
        let request = request.map(axum::body::Body::from);
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            seen(&answer),
            format!("401 hx {login} {CHALLENGE}"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_link_that_htmx_follows_leads_back_to_its_own_page() {
    let site = Site::new();
    let app = stock(members(), site.layer.clone());
    for (method, boosted, next) in [
        ("GET", "true", NEXT),
        ("GET", "false", "next=%2Fshelf%3Frow%3D3"),
        ("POST", "true", "next=%2Fshelf%3Frow%3D3"),
    ] {
        let headers = [HTMX, &[("hx-boosted", boosted)]].concat();
        let answer = site
            .visitor(&app)
            .send(request(method, STOCK, &headers))
            .await
            .unwrap();
        assert_eq!(
            seen(&answer),
            format!("401 hx /login?{next} {CHALLENGE}"),
            "{method} {boosted}"
        );
    }
}

#[tokio::test]
async fn a_login_page_whose_address_no_header_may_have_is_encoded() {
    let site = Site::new();
    let app = Router::new()
        .fallback(get("page"))
        .layer(required::<Db>().redirect_to("/anmelden/für alle\r\nx: y"))
        .layer(site.layer.clone());
    let expected = "303 /anmelden/f%C3%BCr%20alle%0D%0Ax:%20y?next=%2Fa";
    assert_eq!(sent_to(&app, "/a").await, expected);
}

#[tokio::test]
async fn guards_middlewares_and_a_handler_make_one_look_up() {
    async fn middleware(Auth(user): Auth<Db>, request: Request, rest: Rest) -> Response {
        assert_eq!(user.name, "ada");
        rest.run(request).await
    }
    async fn handler(Auth(user): Auth<Db>, again: Option<Auth<Db>>) -> String {
        assert_eq!(again.unwrap().name, user.name);
        user.name
    }
    let site = Site::new();
    let app = Router::new()
        .route("/", get(handler))
        .route_layer(
            members()
                .when(|user| user.is_staff)
                .permission("stock.write"),
        )
        .layer(from_fn(middleware))
        .layer(members())
        .layer(site.layer.clone());
    let mut ada = site.member(&app, "ada").await;
    assert_eq!(ada.get("/").await.unwrap().body(), "ada");
    assert_eq!(site.db.look_ups(), 1);
    assert_eq!(ada.get("/").await.unwrap().body(), "ada");
    assert_eq!(site.db.look_ups(), 1);
}

#[tokio::test]
async fn the_checks_run_in_the_order_of_their_calls() {
    let site = Site::new();
    let stale = |guard: Guard<Db>| stock(guard, site.layer.clone());
    let role_first = stale(members().when(|user| user.is_staff).recent(MINUTE));
    let age_first = stale(members().recent(MINUTE).when(|user| user.is_staff));
    let browsers = [
        site.member(&role_first, "bob").await,
        site.member(&age_first, "bob").await,
    ];
    site.clock.advance(2 * MINUTE);
    let [mut role_first, mut age_first] = browsers;
    assert_eq!(role_first.get("/stock").await.unwrap().status(), 403);
    assert_eq!(age_first.get("/stock").await.unwrap().status(), 401);
}
