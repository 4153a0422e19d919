//! Tokens in the `Authorization` header.

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use cloakroom::testing::FaultyStore;
use cloakroom::{MemoryStore, Session, SessionError, Transport};
use http::Request;
use support::{Reply, app, builder, routes, send};

fn setup() -> (FaultyStore<MemoryStore>, Router) {
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .transport(Transport::Bearer)
        .build()
        .unwrap();
    (spy, app(layer))
}

async fn with(app: &Router, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(app, request.body(Body::empty()).unwrap()).await
}

async fn with_token(app: &Router, path: &str, token: &str) -> Reply {
    with(app, path, &[("authorization", &format!("Bearer {token}"))]).await
}

fn new_token(reply: &Reply) -> String {
    reply.assert_no_cookie();
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.header("x-session-token").unwrap().to_owned()
}

#[tokio::test]
async fn the_token_comes_in_a_header_and_goes_back_in_another() {
    let (_, app) = setup();
    let token = new_token(&with(&app, "/insert/theme/dark", &[]).await);
    let read = with_token(&app, "/get/theme", &token).await;
    read.assert(200, "dark");
    assert_eq!(read.header("x-session-token"), None);
    assert_eq!(read.header("vary"), Some("Authorization"));

    let regenerated = new_token(&with_token(&app, "/log_in/ada", &token).await);
    with_token(&app, "/user", &token).await.assert(409, "");
    with_token(&app, "/user", &regenerated)
        .await
        .assert(200, "ada");

    let ended = with_token(&app, "/log_out", &regenerated).await;
    assert_eq!(
        new_token(&ended),
        "",
        "an empty token says that the session has ended"
    );
    with_token(&app, "/user", &regenerated)
        .await
        .assert(401, "");
}

#[tokio::test]
async fn the_scheme_has_no_case_and_no_other_scheme_or_place_will_do() {
    let (spy, app) = setup();
    let token = new_token(&with(&app, "/insert/theme/dark", &[]).await);
    for value in [format!("bearer {token}"), format!("BEARER  {token} ")] {
        with(&app, "/get/theme", &[("authorization", &value)])
            .await
            .assert(200, "dark");
    }
    spy.take_calls();
    for (name, value) in [
        ("authorization", format!("Basic {token}")),
        ("authorization", token.clone()),
        ("authorization", format!("Bearer{token}")),
        ("authorization", "Bearer".to_owned()),
        ("authorization", String::new()),
        ("cookie", format!("__Host-session={token}")),
        ("x-session-token", token.clone()),
    ] {
        with(&app, "/get/theme", &[(name, &value)])
            .await
            .assert(200, "nothing");
    }
    with(&app, &format!("/get/theme?access_token={token}"), &[])
        .await
        .assert(200, "nothing");
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn a_token_in_a_form_is_no_session() {
    /// Answers with the form, so a test sees that the whole form arrived.
    async fn handler(session: Session, form: String) -> Result<String, SessionError> {
        let theme = session.get::<String>("theme")?;
        Ok(format!("{theme:?} and {} bytes", form.len()))
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone()).transport(Transport::Bearer);
    let app = routes()
        .route("/form", post(handler))
        .layer(layer.build().unwrap());
    let token = new_token(&with(&app, "/insert/theme/dark", &[]).await);
    spy.take_calls();
    // RFC 6750, section 2.2, allows a form to carry an `access_token`.
    let form = format!("access_token={token}");
    let posted = |authorization: &str| {
        Request::post("/form")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", authorization)
            .body(Body::from(form.clone()))
            .unwrap()
    };
    let length = form.len();
    send(&app, posted(""))
        .await
        .assert(200, &format!("None and {length} bytes"));
    assert_eq!(spy.take_calls(), []);
    send(&app, posted(&format!("Bearer {token}")))
        .await
        .assert(200, &format!("Some(\"dark\") and {length} bytes"));
}

#[tokio::test]
async fn two_different_good_tokens_are_an_anonymous_request() {
    let (_, app) = setup();
    let first = new_token(&with(&app, "/insert/theme/dark", &[]).await);
    let second = new_token(&with(&app, "/insert/theme/light", &[]).await);
    let (first, second) = (format!("Bearer {first}"), format!("Bearer {second}"));
    with(
        &app,
        "/get/theme",
        &[("authorization", &first), ("authorization", &second)],
    )
    .await
    .assert(200, "nothing");
    with(
        &app,
        "/get/theme",
        &[("authorization", &first), ("authorization", "Bearer x")],
    )
    .await
    .assert(200, "dark");
}
