//! What the page on transports says of CSRF and CORS: tower-http's layers around a layer with both
//! transports. `examples/chromium/cross_origin.rs` shows what a browser makes of it.

use axum::Router;
use axum::body::Body;
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{MemoryStore, SessionStore, Transport};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use support::{Reply, builder, routes, send};
use tower_http::cors::CorsLayer;
use tower_http::csrf::CsrfLayer;

const SITE: &str = "https://example.com";
const TRUSTED: &str = "https://app.example.com";
const HOSTILE: &str = "https://evil.example";

/// The layers in the order and with the settings of the page. Their routes also take a POST.
fn app<S: SessionStore>(store: S) -> Router {
    let layer = builder(store).transport(Transport::CookieOrBearer);
    let cors = CorsLayer::new()
        .allow_origin(TRUSTED.parse::<HeaderValue>().unwrap())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, Transport::CHOICE_HEADER])
        .expose_headers([Transport::TOKEN_HEADER]);
    let any_method = axum::middleware::from_fn(
        |mut request: Request<Body>, next: axum::middleware::Next| async move {
            *request.method_mut() = Method::GET;
            next.run(request).await
        },
    );
    Router::new()
        .fallback_service(routes())
        .layer(any_method)
        .layer(layer.build().unwrap())
        .layer(CsrfLayer::new().add_trusted_origin(TRUSTED).unwrap())
        .layer(cors)
}

async fn ask(app: &Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "example.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(app, request.body(Body::empty()).unwrap()).await
}

/// What a browser says of the page that sends a request.
fn from(origin: &'static str) -> [(&'static str, &'static str); 2] {
    let site = match origin {
        SITE => "same-origin",
        TRUSTED => "same-site",
        _ => "cross-site",
    };
    [("origin", origin), ("sec-fetch-site", site)]
}

/// The headers of a client with a cookie, and of a client with a bearer token. Both are Ada's.
async fn clients(app: &Router) -> [(&'static str, String); 2] {
    let log_in = async |choice| {
        let headers = [("x-session-transport", choice)];
        ask(app, Method::POST, "/log_in/ada", &headers).await
    };
    let cookie = log_in("cookie").await.token().unwrap();
    let bearer = log_in("bearer").await;
    let bearer = bearer.header("x-session-token").unwrap();
    [
        ("cookie", format!("__Host-session={cookie}")),
        ("authorization", format!("Bearer {bearer}")),
    ]
}

#[tokio::test]
async fn a_post_of_an_origin_that_is_not_trusted_is_refused_with_a_cookie_and_with_a_bearer_token()
{
    let store = FaultyStore::new(MemoryStore::new());
    let app = app(store.clone());
    for (name, token) in clients(&app).await {
        let token = (name, &*token);
        let post = async |path: &str, from: &[(&str, &str)]| {
            ask(&app, Method::POST, path, &[from, &[token]].concat()).await
        };
        for (from, place) in [
            (&from(SITE)[..], "the site itself"),
            (&from(TRUSTED), "a trusted origin"),
            (&[], "no browser"),
            // Browsers that do not know `Sec-Fetch-Site`.
            (&from(SITE)[..1], "the site itself"),
            (&from(TRUSTED)[..1], "a trusted origin"),
        ] {
            let reply = post("/insert/theme/dark", from).await;
            assert_eq!(reply.status, 200, "{name}, {place}");
        }
        store.take_calls();
        for from in [&from(HOSTILE)[..], &from(HOSTILE)[..1], &from(HOSTILE)[1..]] {
            for path in ["/insert/theme/light", "/log_out", "/log_in/eve"] {
                let reply = post(path, from).await;
                reply.assert(403, "");
                reply.assert_no_cookie();
                assert_eq!(reply.all("x-session-token"), Vec::<&str>::new());
            }
        }
        assert_eq!(store.take_calls(), [], "the session layer is inside");
        // A GET passes. Only CORS and SameSite keep its answer from the page.
        let headers = [&from(HOSTILE)[..], &[token]].concat();
        let reply = ask(&app, Method::GET, "/get/theme", &headers).await;
        reply.assert(200, "dark");
        assert_eq!(reply.header("access-control-allow-origin"), Some(TRUSTED));
    }
}

#[tokio::test]
async fn a_preflight_allows_the_choice_and_the_token_and_makes_no_session() {
    let store = FaultyStore::new(MemoryStore::new());
    let app = app(store.clone());
    let (method, headers) = (
        "access-control-request-method",
        "access-control-request-headers",
    );
    let asked = [
        (method, "POST"),
        (headers, "authorization,x-session-transport"),
    ];
    let preflight = [&from(TRUSTED)[..], &asked].concat();
    let reply = ask(&app, Method::OPTIONS, "/log_in/ada", &preflight).await;
    reply.assert(200, "");
    assert_eq!(reply.header("access-control-allow-origin"), Some(TRUSTED));
    let allowed = reply.header("access-control-allow-headers").unwrap();
    assert_eq!(allowed, "authorization,content-type,x-session-transport");
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    assert_eq!(store.take_calls(), []);
}

/// Otherwise a script could not tell a refusal from a broken network.
#[tokio::test]
async fn the_trusted_page_can_read_every_answer_and_its_token() {
    let store = FaultyStore::new(MemoryStore::new());
    let app = app(store.clone());
    let [_, (_, bearer)] = clients(&app).await;
    let post = async |path: &str, headers: &[(&str, &str)]| {
        let headers = [&from(TRUSTED)[..], headers].concat();
        let reply = ask(&app, Method::POST, path, &headers).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(TRUSTED));
        let exposed = reply.header("access-control-expose-headers");
        assert_eq!(exposed, Some("x-session-token"), "{path}");
        reply
    };
    let bearer = ("authorization", &*bearer);
    post("/user", &[]).await.assert(401, "");
    let choice = ("x-session-transport", "bearer");
    let reply = post("/log_in/ada", &[choice]).await;
    assert_eq!(reply.all("x-session-token").len(), 1);
    post("/user", &[bearer]).await.assert(200, "ada");
    store.fail(Fault::Refused);
    post("/insert/theme/dark", &[bearer]).await.assert(503, "");
    store.recover();
    let reply = post("/log_out", &[bearer]).await;
    assert_eq!(reply.all("x-session-token"), [""]);
    // The guard refuses inside of CORS, so that its refusal can be read too.
    let reply = ask(&app, Method::POST, "/log_out", &from(HOSTILE)).await;
    reply.assert(403, "");
    assert_eq!(reply.header("access-control-allow-origin"), Some(TRUSTED));
}
