//! Several layers around one handler, and services that are not Axum's.

#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use cloakroom::testing::{FaultyStore, StoreCall};
use cloakroom::{ErrorKind, MemoryStore, Session, SessionError, SessionLayer};
use http::{Request, Response};
use http_body_util::Full;
use support::{Browser, app, builder, key, routes};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test]
async fn a_second_layer_of_the_same_name_uses_the_session_that_is_there() {
    let (outer, inner) = (
        FaultyStore::new(MemoryStore::new()),
        FaultyStore::new(MemoryStore::new()),
    );
    let nested = routes().layer(SessionLayer::new(inner.clone(), key()));
    let app = Router::new()
        .nest("/nested", nested)
        .merge(routes())
        .layer(SessionLayer::new(outer.clone(), key()));
    let mut browser = Browser::new(&app);
    let reply = browser.get("/nested/insert/theme/dark").await;
    assert_eq!(reply.cookies().len(), 1);
    browser.get("/get/theme").await.assert(200, "dark");
    outer.take_calls();
    browser.get("/nested/update/visits").await.assert(200, "1");
    assert_eq!(outer.take_calls(), [StoreCall::Load, StoreCall::Replace]);
    assert_eq!(inner.take_calls(), []);
}

#[tokio::test]
async fn a_layer_of_another_name_is_a_second_session_and_both_can_be_had() {
    async fn both(inner: Session) -> Result<String, SessionError> {
        let outer = inner.named("outer").unwrap();
        assert!(inner.named("missing").is_none());
        inner.insert("place", "inside")?;
        outer.insert("place", "outside")?;
        let again = inner.named("inner").unwrap();
        Ok(format!(
            "{:?} {:?}",
            again.get::<String>("place")?,
            outer.get::<String>("place")?
        ))
    }
    let layer = |name: &str| {
        builder(MemoryStore::new())
            .cookie_name(name)
            .secure(false)
            .build()
            .unwrap()
    };
    let inside = routes().route("/both", get(both)).layer(layer("inner"));
    let app = Router::new()
        .nest("/inside", inside)
        .merge(routes())
        .layer(layer("outer"));
    let mut browser = Browser::new(&app);
    let reply = browser.get("/inside/both").await;
    reply.assert(200, "Some(\"inside\") Some(\"outside\")");
    assert_eq!(reply.cookies().len(), 2);
    assert_eq!(reply.all("vary"), ["Cookie"]);
    browser.get("/inside/get/place").await.assert(200, "inside");
    browser.get("/get/place").await.assert(200, "outside");
    browser.get("/inside/log_out").await;
    browser
        .get("/inside/get/place")
        .await
        .assert(200, "nothing");
    browser.get("/get/place").await.assert(200, "outside");
}

#[tokio::test]
async fn the_outer_name_again_further_in_is_the_outer_session() {
    let store = MemoryStore::new();
    let layer = |name: &str| {
        builder(store.clone())
            .cookie_name(name)
            .secure(false)
            .build()
            .unwrap()
    };
    let app = routes()
        .layer(layer("a"))
        .layer(layer("b"))
        .layer(layer("a"));
    let mut browser = Browser::new(&app);
    let reply = browser.get("/insert/theme/dark").await;
    assert_eq!(reply.cookies().len(), 1);
    assert!(reply.cookies()[0].starts_with("a="));
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn layers_that_share_a_store_see_one_anothers_sessions() {
    let layer = SessionLayer::new(std::sync::Arc::new(MemoryStore::new()), key());
    let (first, second) = (app(layer.clone()), app(layer));
    let reply = Browser::new(&first).get("/insert/theme/dark").await;
    let mut browser = Browser::new(&second);
    browser.keep(&reply);
    browser.get("/get/theme").await.assert(200, "dark");
}

/// A service without Axum, with another body, whose errors pass through.
#[tokio::test]
async fn a_plain_tower_service_has_sessions_and_its_own_errors() {
    async fn handle(
        request: Request<&'static str>,
    ) -> Result<Response<Full<&'static [u8]>>, &'static str> {
        if *request.body() == "fail" {
            return Err("the service's own error");
        }
        let session = Session::from_extensions(request.extensions()).unwrap();
        session.insert("theme", "dark").unwrap();
        Ok(Response::new(Full::new(b"ok")))
    }
    let service = SessionLayer::new(MemoryStore::new(), key()).layer(service_fn(handle));
    let response = service.clone().oneshot(Request::new("work")).await.unwrap();
    assert!(response.headers().contains_key("set-cookie"));
    assert_eq!(
        service.oneshot(Request::new("fail")).await.unwrap_err(),
        "the service's own error"
    );
}

#[tokio::test]
async fn a_request_without_the_layer_is_an_error_that_says_what_to_do() {
    async fn optional(session: Option<Session>) -> String {
        session.is_some().to_string()
    }
    let app = routes().route("/optional", get(optional));
    let mut browser = Browser::new(&app);
    browser.get("/get/theme").await.assert(500, "");
    browser.get("/user").await.assert(500, "");
    browser.get("/optional").await.assert(200, "false");
    let error = Session::from_extensions(&http::Extensions::new()).unwrap_err();
    assert!(error.to_string().contains("SessionLayer"), "{error}");

    let app = app.layer(SessionLayer::new(MemoryStore::new(), key()));
    Browser::new(&app)
        .get("/optional")
        .await
        .assert(200, "true");
}

#[tokio::test]
async fn an_application_can_make_a_page_of_an_error() {
    async fn page(response: Response<Body>) -> Response<Body> {
        match response.extensions().get::<ErrorKind>() {
            Some(kind) => (response.status(), format!("{kind:?}")).into_response(),
            None => response,
        }
    }
    let app = app(SessionLayer::new(MemoryStore::new(), key()));
    let app = app.layer(axum::middleware::map_response(page));
    let mut browser = Browser::new(&app);
    browser.get("/user").await.assert(401, "NotLoggedIn");
    browser.get("/log_in/ada").await.assert(200, "done");
    let late = browser.send("/insert/theme/dark", &[]);
    browser.get("/regenerate").await;
    late.await.assert(409, "Superseded");
}

#[tokio::test]
async fn the_current_user_is_an_extractor_that_may_be_optional() {
    use cloakroom::CurrentUser;
    async fn optional(user: Option<CurrentUser>) -> String {
        user.map_or("nobody".to_owned(), |user| user.to_string())
    }
    let app = routes()
        .route("/optional", get(optional))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    let refused = browser.get("/user").await;
    refused.assert(401, "");
    assert_eq!(refused.header("vary"), Some("Cookie"));
    browser.get("/optional").await.assert(200, "nobody");
    browser.get("/log_in/ada").await;
    browser.get("/user").await.assert(200, "ada");
    browser.get("/optional").await.assert(200, "ada");
}

/// The service that is ready must take the request, not a clone of it that never was.
#[tokio::test]
async fn the_inner_service_is_ready_when_it_is_called() {
    #[derive(Debug)]
    struct NeedsReady(bool);

    impl Clone for NeedsReady {
        fn clone(&self) -> Self {
            Self(false)
        }
    }

    impl tower::Service<Request<Body>> for NeedsReady {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            self.0 = true;
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "called without being ready");
            std::future::ready(Ok(Response::default()))
        }
    }

    let store = MemoryStore::new();
    let token = Browser::new(&app(SessionLayer::new(store.clone(), key())))
        .get("/insert/a/b")
        .await
        .token()
        .unwrap();
    let mut service = SessionLayer::new(store, key()).layer(NeedsReady(false));
    for _ in 0..3 {
        let request = Request::get("/")
            .header("cookie", format!("__Host-session={token}"))
            .body(Body::empty())
            .unwrap();
        ServiceExt::<Request<Body>>::ready(&mut service)
            .await
            .unwrap();
        tower::Service::call(&mut service, request).await.unwrap();
    }
}
