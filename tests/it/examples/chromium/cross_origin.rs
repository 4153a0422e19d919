//! What a browser lets the pages of other origins do with an API that has
//! `Transport::CookieOrBearer`. Scripts are on in these pages.
//!
//! The API is at 127.0.0.1. A page at another port of 127.0.0.1 is of another origin and of the
//! same site. A page at localhost is of another site. Chromium keeps the `Secure` cookie of both.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::from_fn;
use axum::response::Html;
use axum::routing::{get, post};
use cloakroom::{CurrentUser, MemoryStore, SameSite, Session, SessionError, Transport};
use support::builder;
use support::program::{Program, binary};
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_http::csrf::CsrfLayer;

use super::*;

/// The pages of the other origins, and the sessions that all nodes of the API share. The nodes
/// differ in what they allow to the pages.
struct Site {
    store: MemoryStore,
    /// Of the API's site.
    sibling: String,
    /// Of another site.
    stranger: String,
}

/// One node of the API.
struct Node {
    url: String,
    handled: Arc<AtomicUsize>,
}

async fn serve(app: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

fn page() -> Router {
    Router::new().route("/", get(Html("<!doctype html><title>A page</title>")))
}

impl Site {
    async fn start() -> Self {
        let port = serve(page()).await;
        Self {
            store: MemoryStore::new(),
            sibling: format!("http://127.0.0.1:{port}"),
            stranger: format!("http://localhost:{port}"),
        }
    }

    async fn node(&self, around: impl FnOnce(Router) -> Router) -> Node {
        self.node_with(SameSite::Lax, around).await
    }

    /// Starts a node with these layers around its routes.
    async fn node_with(&self, same_site: SameSite, around: impl FnOnce(Router) -> Router) -> Node {
        let layer = builder(self.store.clone())
            .transport(Transport::CookieOrBearer)
            .same_site(same_site)
            .build()
            .unwrap();
        let handled = Arc::new(AtomicUsize::new(0));
        let counter = handled.clone();
        let routes = routes().layer(from_fn(move |request, next: axum::middleware::Next| {
            counter.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        }));
        let port = serve(around(routes.layer(layer)).merge(page())).await;
        Node {
            url: format!("http://127.0.0.1:{port}"),
            handled,
        }
    }
}

impl Node {
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// How many requests the handlers have got since the last call.
    fn handled(&self) -> usize {
        self.handled.swap(0, Ordering::Relaxed)
    }
}

fn routes() -> Router {
    type Answer<T> = Result<T, SessionError>;
    async fn log_in(session: Session, Path(user): Path<String>) -> Answer<()> {
        session.log_in(user)
    }
    async fn me(user: Option<CurrentUser>) -> String {
        user.map_or_else(|| "a visitor".to_owned(), |user| user.to_string())
    }
    async fn write(session: Session, Path(note): Path<String>) -> Answer<()> {
        session.insert("note", note)
    }
    async fn read(session: Session) -> Answer<String> {
        Ok(session.get("note")?.unwrap_or_default())
    }
    async fn cached(user: Option<CurrentUser>) -> ([(HeaderName, &'static str); 1], String) {
        ([(CACHE_CONTROL, "private, max-age=60")], me(user).await)
    }
    async fn given(session: Session) -> Answer<[(HeaderName, &'static str); 1]> {
        session.insert("note", "a first visit")?;
        Ok([(CACHE_CONTROL, "max-age=60")])
    }
    Router::new()
        .route("/login/{user}", post(log_in))
        .route(
            "/logout",
            post(|session: Session| async move { session.log_out() }),
        )
        .route(
            "/renew",
            post(|session: Session| async move { session.regenerate() }),
        )
        .route("/me", get(me))
        .route("/note", get(read))
        .route("/note/{note}", post(write))
        .route("/cached", get(cached))
        .route("/given", get(given))
        .route("/plain", get(|| async { [(CACHE_CONTROL, "max-age=60")] }))
}

/// The settings of docs/transports.md for a page of this origin.
fn cors(origin: &str) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origin.parse::<HeaderValue>().unwrap())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, Transport::CHOICE_HEADER])
        .expose_headers([Transport::TOKEN_HEADER])
}

fn trusting(origin: &str) -> CsrfLayer {
    CsrfLayer::new().add_trusted_origin(origin).unwrap()
}

/// What a script gets of an answer.
#[derive(Debug)]
struct Seen {
    status: u64,
    token: Option<String>,
    body: String,
}

impl Seen {
    fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }
}

const FETCH: &str = r#"
    const [url, options, done] = arguments;
    fetch(url, options)
        .then(async (answer) => done([
            answer.status, answer.headers.get("x-session-token"), await answer.text(),
        ]))
        .catch(() => done(null));
"#;

impl Chromium {
    /// Sends a request by a script of the current page. Returns `None` if the browser does not let
    /// the script have the answer.
    async fn fetch(&self, url: String, options: Value) -> Result<Option<Seen>, CmdError> {
        let answer = self
            .0
            .execute_async(FETCH, vec![json!(url), options])
            .await?;
        Ok(answer.as_array().map(|parts| Seen {
            status: parts[0].as_u64().unwrap(),
            token: parts[1].as_str().map(str::to_owned),
            body: parts[2].as_str().unwrap().to_owned(),
        }))
    }

    /// Does the same for a request that the browser must let through.
    async fn ask(&self, url: String, options: Value) -> Result<Seen, CmdError> {
        Ok(self
            .fetch(url, options)
            .await?
            .expect("the browser refused"))
    }

    /// Clicks a button of the example's pages, and waits until the page shows the user.
    async fn press(&self, button: &str, user: &str) -> Result<(), CmdError> {
        self.0.find(Locator::Css(button)).await?.click().await?;
        self.shows(user).await
    }

    async fn shows(&self, user: &str) -> Result<(), CmdError> {
        for _ in 0..400 {
            if self.text("#user").await? == user {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the page does not show {user}");
    }
}

fn with_cookie(method: &str) -> Value {
    json!({ "method": method, "credentials": "include" })
}

fn with_bearer(method: &str, token: &str) -> Value {
    json!({ "method": method, "headers": { "authorization": format!("Bearer {token}") } })
}

/// A login that asks for a bearer token.
fn choosing_bearer() -> Value {
    json!({ "method": "POST", "headers": { "x-session-transport": "bearer" } })
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn both_pages_of_the_example_log_in_and_out_each_in_their_own_way() {
    tell_without_demo(|driver| async move {
        let mut example = Program::start(binary("cross_origin"), &[]);
        let other = example.next_line();
        let browser = driver.browser_with_scripts().await;
        let log_in = async |name: &str| {
            let field = browser.0.find(Locator::Css("[name=name]")).await?;
            field.send_keys(name).await?;
            browser.press("#login button", name).await
        };
        browser.0.goto(&other).await?;
        browser.shows("a visitor").await?;
        log_in("ada").await?;
        assert!(browser.0.get_all_cookies().await?.is_empty());
        let token = async || browser.0.execute("return token", vec![]).await;
        let old = token().await?;
        browser
            .0
            .find(Locator::Css("#renew"))
            .await?
            .click()
            .await?;
        browser.shows("ada").await?;
        for _ in 0..400 {
            if token().await? != old {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert_ne!(token().await?, old);
        browser.shows("ada").await?;

        // Nobody is logged in on the other page, nor after a reload of this one.
        browser.0.goto(example.page("/").as_str()).await?;
        browser.shows("a visitor").await?;
        log_in("grace").await?;
        assert!(browser.cookie().await?.http_only().unwrap());
        browser.0.refresh().await?;
        browser.shows("grace").await?;
        browser.press("#logout", "a visitor").await?;
        browser.0.goto(&other).await?;
        browser.shows("a visitor").await?;
        log_in("mary").await?;
        browser.press("#logout", "a visitor").await?;
        assert_eq!(token().await?, "");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_script_of_another_origin_sends_and_reads_a_token_only_if_cors_allows_it() {
    tell_without_demo(|driver| async move {
        let site = Site::start().await;
        let origin = &site.stranger;
        let node = site
            .node(|app| app.layer(trusting(origin)).layer(cors(origin)))
            .await;
        let silent = site
            .node(|app| {
                let cors = cors(origin).expose_headers([CONTENT_TYPE]);
                app.layer(trusting(origin)).layer(cors)
            })
            .await;
        let narrow = site
            .node(|app| {
                let cors = cors(origin).allow_headers([CONTENT_TYPE]);
                app.layer(trusting(origin)).layer(cors)
            })
            .await;
        let closed = site
            .node(|app| {
                let cors = cors("https://app.example.com");
                app.layer(trusting(origin)).layer(cors)
            })
            .await;
        let browser = driver.browser_with_scripts().await;
        browser.0.goto(origin).await?;

        let seen = browser
            .ask(silent.at("/login/ada"), choosing_bearer())
            .await?;
        assert_eq!((seen.status, seen.token), (200, None));
        assert_eq!(silent.handled(), 1);

        let seen = browser
            .ask(node.at("/login/ada"), choosing_bearer())
            .await?;
        let old = seen.token();
        let me = |token: &str| browser.ask(node.at("/me"), with_bearer("GET", token));
        assert_eq!(me(old).await?.body, "ada");
        let seen = browser
            .ask(node.at("/renew"), with_bearer("POST", old))
            .await?;
        let new = seen.token();
        assert_eq!(me(old).await?.body, "a visitor");
        assert_eq!(me(new).await?.body, "ada");

        for node in [&closed, &narrow] {
            for (path, options) in [
                ("/login/ada", choosing_bearer()),
                ("/me", with_bearer("GET", new)),
            ] {
                assert!(browser.fetch(node.at(path), options).await?.is_none());
                assert_eq!(node.handled(), 0, "{path}");
            }
            // Without these headers, the request comes through.
            let seen = browser.fetch(node.at("/me"), json!({})).await?;
            assert_eq!(seen.is_some(), node.url == narrow.url);
            assert_eq!(node.handled(), 1);
        }

        let seen = browser
            .ask(node.at("/logout"), with_bearer("POST", new))
            .await?;
        assert_eq!(seen.token(), "");
        assert_eq!(me(new).await?.body, "a visitor");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn the_cookie_works_for_another_origin_of_the_same_site_and_not_for_another_site() {
    tell_without_demo(|driver| async move {
        let site = Site::start().await;
        let around = |origin: &str, app: Router| {
            let cors = cors(origin).allow_credentials(true);
            app.layer(trusting(origin)).layer(cors)
        };
        let for_stranger = site.node(|app| around(&site.stranger, app)).await;
        let for_sibling = site.node(|app| around(&site.sibling, app)).await;
        let without_credentials = site
            .node(|app| {
                app.layer(trusting(&site.sibling))
                    .layer(cors(&site.sibling))
            })
            .await;
        let browser = driver.browser_with_scripts().await;
        let log_in = |node: &Node| browser.ask(node.at("/login/ada"), with_cookie("POST"));
        let me = async |node: &Node| {
            let seen = browser.ask(node.at("/me"), with_cookie("GET")).await?;
            Ok::<_, CmdError>(seen.body)
        };

        browser.0.goto(&site.stranger).await?;
        assert_eq!(log_in(&for_stranger).await?.status, 200);
        assert_eq!(me(&for_stranger).await?, "a visitor");

        browser.0.goto(&site.sibling).await?;
        assert!(browser.0.get_all_cookies().await?.is_empty());
        // By default, a request to another origin neither sends a cookie nor keeps one.
        let post = json!({ "method": "POST" });
        let seen = browser.ask(for_sibling.at("/login/ada"), post).await?;
        assert_eq!(seen.status, 200);
        assert_eq!(me(&for_sibling).await?, "a visitor");
        assert_eq!(log_in(&for_sibling).await?.status, 200);
        assert_eq!(me(&for_sibling).await?, "ada");
        let url = without_credentials.at("/me");
        assert!(browser.fetch(url, with_cookie("GET")).await?.is_none());
        assert_eq!(without_credentials.handled(), 1);

        browser.0.goto(&site.stranger).await?;
        assert_eq!(me(&for_stranger).await?, "a visitor");
        // It is SameSite that keeps the cookie back.
        let open = site
            .node_with(SameSite::None, |app| around(&site.stranger, app))
            .await;
        assert_eq!(log_in(&open).await?.status, 200);
        assert_eq!(me(&open).await?, "ada");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_post_of_another_origin_changes_nothing_unless_the_origin_is_trusted() {
    tell_without_demo(|driver| async move {
        let site = Site::start().await;
        let origin = &site.sibling;
        let cors = || cors(origin).allow_credentials(true);
        let trusting = site
            .node(|app| app.layer(trusting(origin)).layer(cors()))
            .await;
        let wary = site
            .node(|app| app.layer(CsrfLayer::new()).layer(cors()))
            .await;
        let careless = site.node(|app| app).await;
        let browser = driver.browser_with_scripts().await;
        browser.0.goto(origin).await?;
        let post = |node: &Node, note: &str| {
            let url = node.at(&format!("/note/{note}"));
            browser.ask(url, with_cookie("POST"))
        };
        let note = async |options: Value| {
            let seen = browser.ask(trusting.at("/note"), options).await?;
            Ok::<_, CmdError>(seen.body)
        };
        browser
            .ask(trusting.at("/login/ada"), with_cookie("POST"))
            .await?;

        assert_eq!(post(&wary, "hostile").await?.status, 403);
        assert_eq!(note(with_cookie("GET")).await?, "");
        assert_eq!(post(&trusting, "friendly").await?.status, 200);
        assert_eq!(note(with_cookie("GET")).await?, "friendly");

        // CORS does not stop what a form could send as well. The guard against CSRF does.
        let blind = json!({ "method": "POST", "credentials": "include", "mode": "no-cors" });
        let hostile = |node: &Node| browser.ask(node.at("/note/hostile"), blind.clone());
        hostile(&wary).await?;
        assert_eq!(wary.handled(), 0);
        assert_eq!(note(with_cookie("GET")).await?, "friendly");
        hostile(&careless).await?;
        assert_eq!(note(with_cookie("GET")).await?, "hostile");

        let seen = browser
            .ask(trusting.at("/login/grace"), choosing_bearer())
            .await?;
        let bearer = |method| with_bearer(method, seen.token());
        let written = browser
            .ask(trusting.at("/note/friendly"), bearer("POST"))
            .await?;
        assert_eq!(written.status, 200);
        assert_eq!(note(bearer("GET")).await?, "friendly");
        let refused = browser
            .ask(wary.at("/note/refused"), bearer("POST"))
            .await?;
        assert_eq!(refused.status, 403);
        assert_eq!(wary.handled(), 0);
        assert_eq!(note(bearer("GET")).await?, "friendly");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_cached_answer_is_for_its_token_only_and_an_answer_with_a_token_is_not_cached() {
    tell_without_demo(|driver| async move {
        let site = Site::start().await;
        let node = site.node(|app| app.layer(CsrfLayer::new())).await;
        let browser = driver.browser_with_scripts().await;
        browser.0.goto(&node.url).await?;
        let post = json!({ "method": "POST" });
        let log_in = |user: &str| browser.ask(node.at(&format!("/login/{user}")), post.clone());
        let mut bearer = json!({ "method": "POST", "credentials": "omit" });
        bearer["headers"] = json!({ "x-session-transport": "bearer" });
        let mut tokens = Vec::new();
        for user in ["grace", "mary"] {
            let url = node.at(&format!("/login/{user}"));
            tokens.push(browser.ask(url, bearer.clone()).await?.token().to_owned());
        }
        log_in("ada").await?;
        node.handled();

        let cookie = json!({});
        // A bearer token beside the cookie of another user would be nobody.
        let without_cookie = |mut options: Value| {
            options["credentials"] = json!("omit");
            options
        };
        for (options, user) in [
            (cookie.clone(), "ada"),
            (without_cookie(with_bearer("GET", &tokens[0])), "grace"),
            (without_cookie(with_bearer("GET", &tokens[1])), "mary"),
            (without_cookie(json!({})), "a visitor"),
            (cookie.clone(), "ada"),
        ] {
            for handled in [1, 0] {
                let seen = browser.ask(node.at("/cached"), options.clone()).await?;
                assert_eq!(seen.body, user);
                assert_eq!(node.handled(), handled, "{user}");
            }
        }
        log_in("eve").await?;
        node.handled();
        assert_eq!(browser.ask(node.at("/cached"), cookie).await?.body, "eve");
        assert_eq!(node.handled(), 1);

        bearer["method"] = json!("GET");
        let mut given = Vec::new();
        for handled in [1, 1] {
            let seen = browser.ask(node.at("/given"), bearer.clone()).await?;
            given.push(seen.token().to_owned());
            assert_eq!(node.handled(), handled);
        }
        assert_ne!(given[0], given[1]);
        // Without a token, the handler's word counts.
        for handled in [1, 0] {
            browser.ask(node.at("/plain"), bearer.clone()).await?;
            assert_eq!(node.handled(), handled);
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_hostile_script_of_the_own_page_gets_no_token_for_the_cookie() {
    tell_without_demo(|driver| async move {
        let site = Site::start().await;
        let node = site.node(|app| app.layer(CsrfLayer::new())).await;
        let browser = driver.browser_with_scripts().await;
        browser.0.goto(&node.url).await?;
        let post = json!({ "method": "POST" });
        browser.ask(node.at("/login/ada"), post).await?;
        let cookie = browser.0.get_named_cookie("__Host-session").await?;
        let script = "return document.cookie";
        assert_eq!(browser.0.execute(script, vec![]).await?, "");
        for (method, path) in [
            ("GET", "/me"),
            ("POST", "/note/hostile"),
            ("POST", "/renew"),
            ("GET", "/given"),
        ] {
            let mut options = choosing_bearer();
            options["method"] = json!(method);
            let seen = browser.ask(node.at(path), options).await?;
            assert_eq!((seen.status, seen.token), (200, None), "{path}");
        }
        assert_eq!(browser.ask(node.at("/me"), json!({})).await?.body, "ada");
        let renewed = browser.0.get_named_cookie("__Host-session").await?;
        assert_ne!(renewed.value(), cookie.value());
        Ok(())
    })
    .await;
}
