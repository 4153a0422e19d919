//! Several layers around one handler, and services that do not come from Axum.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    AtLimit, MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer,
    SessionLayerBuilder, SessionStore, SigningKey, Transport,
};
use http::{Request, Response};
use http_body_util::Full;
use support::{Browser, app, builder, key, routes};
use tower::{Layer, ServiceExt, service_fn};

/// A layer whose cookie has this name.
fn named<S: SessionStore>(name: &str, store: S) -> SessionLayer<S> {
    builder(store)
        .cookie_name(name)
        .secure(false)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_second_time_the_same_layer_uses_the_session_that_is_there() {
    let store = FaultyStore::new(MemoryStore::new());
    let layer = SessionLayer::new(store.clone(), key());
    let nested = routes().layer(layer.clone());
    let app = Router::new()
        .nest("/nested", nested)
        .merge(routes())
        .layer(layer);
    let mut browser = Browser::new(&app);
    let reply = browser.get("/nested/insert/theme/dark").await;
    assert_eq!(reply.cookies().len(), 1);
    browser.get("/get/theme").await.assert(200, "dark");
    store.take_calls();
    browser.get("/nested/update/visits").await.assert(200, "1");
    assert_eq!(store.take_calls(), [StoreCall::Load, StoreCall::Replace]);
}

/// The two layers have the same name, but another transport, store or key.
#[tokio::test]
async fn another_layer_inside_of_one_has_a_session_of_its_own() {
    let site = || FaultyStore::new(MemoryStore::new());
    let named =
        |layer: SessionLayerBuilder<FaultyStore<MemoryStore>>| layer.cookie_name("__Host-sid");
    let other_key = SigningKey::from_bytes(&[8; 64]).unwrap();
    let inner_layers = [
        named(builder(site())).transport(Transport::Bearer),
        named(builder(site())),
        named(SessionLayer::builder(site(), other_key)),
    ];
    for inner in inner_layers {
        let outer = named(builder(site())).build().unwrap();
        let inner = inner.build().unwrap();
        let app = Router::new()
            .nest("/api", routes().layer(inner))
            .merge(routes())
            .layer(outer);
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await;
        browser.get("/user").await.assert(200, "ada");
        assert_eq!(
            browser.get("/api/user").await.status.as_u16(),
            401,
            "the cookie of the site is a login of the API"
        );
    }
}

#[tokio::test]
async fn a_bearer_api_inside_of_a_cookie_site_answers_to_its_own_token_alone() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let api = builder(store.clone())
        .transport(Transport::Bearer)
        .build()
        .unwrap();
    let app = Router::new()
        .nest("/api", routes().layer(api))
        .merge(routes())
        .layer(builder(store).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let reply = browser.get("/api/log_in/grace").await;
    reply.assert_no_cookie();
    let token = format!("Bearer {}", reply.header("x-session-token").unwrap());
    let with_token = [("authorization", &*token)];
    browser
        .get_with("/api/user", &with_token)
        .await
        .assert(200, "grace");
    browser
        .get_with("/user", &with_token)
        .await
        .assert(200, "ada");
    browser
        .get_with("/api/log_out", &with_token)
        .await
        .assert(200, "done");
    browser.get("/user").await.assert(200, "ada");
}

/// The outer commit fails. Its 503 replaces the answer of the inner layers.
#[tokio::test]
async fn an_error_of_an_outer_layer_keeps_what_inner_layers_say_to_their_clients() {
    async fn both(inner: Session) -> Result<impl axum::response::IntoResponse, SessionError> {
        inner.log_in("ada")?;
        inner.of_layer("outer").await?.insert("place", "outside")?;
        let own = [
            ("location", "/welcome"),
            ("hx-redirect", "/welcome"),
            ("etag", "\"1\""),
            ("set-cookie", "greeting=welcome"),
            ("content-type", "text/html"),
            ("access-control-allow-origin", "https://app.example"),
        ];
        Ok((own, "Welcome."))
    }
    for bearer in [false, true] {
        let outer = FaultyStore::new(MemoryStore::new());
        let layer = |name: &str| builder(outer.clone()).cookie_name(name).secure(false);
        let mut inner = builder(FaultyStore::new(MemoryStore::new()))
            .cookie_name("inner")
            .secure(false);
        if bearer {
            inner = inner.transport(Transport::Bearer);
        }
        let middle = builder(MemoryStore::new())
            .cookie_name("middle")
            .secure(false);
        let app = routes()
            .route("/both", get(both))
            .layer(inner.build().unwrap())
            .layer(middle.build().unwrap())
            .layer(layer("outer").build().unwrap())
            .layer(layer("outermost").build().unwrap());
        outer.fail(Fault::Refused);
        let mut browser = Browser::new(&app);
        let reply = browser.get("/both").await;
        reply.assert(503, "");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://app.example")
        );
        for gone in ["location", "hx-redirect", "etag", "content-type"] {
            assert_eq!(reply.header(gone), None);
        }
        outer.recover();
        let token = match bearer {
            true => {
                reply.assert_no_cookie();
                format!("Bearer {}", reply.header("x-session-token").unwrap())
            }
            false => {
                assert_eq!(reply.cookies().len(), 1, "{reply:?}");
                "none".to_owned()
            }
        };
        browser
            .get_with("/user", &[("authorization", &token)])
            .await
            .assert(200, "ada");
    }
}

/// Customers and operators share a store. The limit is one session.
#[tokio::test]
async fn users_of_different_realms_do_not_touch_each_others_sessions() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let layer = |name: &str| {
        builder(store.clone())
            .cookie_name(name)
            .secure(false)
            .session_limit(1, AtLimit::EndOldest)
    };
    let (shop, office) = (
        layer("shop").build().unwrap(),
        layer("office").build().unwrap(),
    );
    let (customers, operators) = (shop.sessions(), office.sessions());
    let (shop, office) = (app(shop), app(office));
    let mut operator = Browser::new(&office);
    operator.get("/log_in/7").await;
    let mut customer = Browser::new(&shop);
    customer.get("/log_in/7").await;
    Browser::new(&shop).get("/log_in/7").await;
    operator.get("/user").await.assert(200, "7");
    customer.get("/user").await.assert(401, "");

    let listed = operators.list_for("7").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].user().unwrap().as_str(), "7");
    let theirs = customers.list_for("7").await.unwrap()[0].id();
    assert!(!operators.revoke_owned("7", theirs).await.unwrap());
    assert_eq!(customers.revoke_user("7").await.unwrap(), 1);
    operator.get("/user").await.assert(200, "7");
    let own = operators.list_for("7").await.unwrap()[0].id();
    assert_eq!(customers.revoke_others("7", own).await.unwrap(), 0);
    assert_eq!(operators.revoke_user("7").await.unwrap(), 1);
    operator.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn layers_of_one_realm_have_the_same_users() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let site = builder(store.clone()).realm("people").build().unwrap();
    let api = builder(store.clone())
        .cookie_name("__Host-api")
        .transport(Transport::Bearer)
        .realm("people")
        .build()
        .unwrap();
    let sessions = site.sessions();
    let (site, api) = (app(site), app(api));
    let mut browser = Browser::new(&site);
    browser.get("/log_in/ada").await;
    Browser::new(&api).get("/log_in/ada").await;
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 2);
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 2);
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn another_realm_takes_no_user_over_from_the_last_one() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let layer = |realm: &str| app(builder(store.clone()).realm(realm).build().unwrap());
    let mut browser = Browser::new(&layer("first"));
    browser.get("/log_in/ada").await;
    let mut newer = Browser::new(&layer("first-and-second"));
    newer.adopt(&browser);
    newer.get("/user").await.assert(401, "");
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_layer_of_another_name_is_a_second_session_and_both_can_be_had() {
    async fn both(inner: Session) -> Result<String, SessionError> {
        let outer = inner.of_layer("outer").await?;
        let missing = inner.of_layer("missing").await.unwrap_err();
        assert_eq!(missing.kind(), SessionErrorKind::MissingLayer);
        inner.insert("place", "inside")?;
        outer.insert("place", "outside")?;
        let again = inner.of_layer("inner").await?;
        Ok(format!(
            "{:?} {:?}",
            again.get::<String>("place")?,
            outer.get::<String>("place")?
        ))
    }
    let layer = |name: &str| named(name, MemoryStore::new());
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
    let layer = |name: &str| named(name, store.clone());
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

/// A service without Axum. It has another body type, and its errors pass through the layer.
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
        match response.extensions().get::<SessionErrorKind>() {
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
    late.await.assert(409, "TokenRotated");
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

/// The service that is ready must take the request. A clone of it is perhaps not ready.
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

/// The operator's layer is outside, and the customer's layer is inside. Both users have the id 7.
#[tokio::test]
async fn log_out_everywhere_ends_the_sessions_of_its_own_realm_and_no_others() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let layer = |name: &str| named(name, store.clone());
    let (shop, office, other) = (layer("shop"), layer("office"), layer("other"));
    let everywhere = |sessions: cloakroom::Sessions<_>| {
        get(move |session: Session| async move {
            let ended = sessions.log_out_everywhere(&session).await?;
            Ok::<_, SessionError>(ended.to_string())
        })
    };
    let app = routes()
        .route("/shop/leave", everywhere(shop.sessions()))
        .route("/office/leave", everywhere(office.sessions()))
        .route("/other/leave", everywhere(other.sessions()))
        .layer(shop.clone())
        .layer(office.clone());
    let office_app = routes().layer(office);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/7").await;
    let mut operator = Browser::new(&office_app);
    operator.get("/log_in/7").await;
    browser.get("/other/leave").await.assert(500, "");
    browser.get("/user").await.assert(200, "7");
    browser.get("/office/leave").await.assert(200, "0");
    browser.get("/user").await.assert(200, "7");
    operator.get("/user").await.assert(200, "7");
    browser.get("/shop/leave").await.assert(200, "1");
    browser.get("/user").await.assert(401, "");
    operator.get("/user").await.assert(200, "7");
}

/// An Axum router works when its future is polled. Another Tower service may work when it is
/// called.
#[tokio::test]
async fn a_service_that_panics_when_it_is_called_leaves_no_session_that_takes_changes() {
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::http::{Request, Response};
    use tower::{Layer as _, Service as _, ServiceExt as _};

    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        *keep.lock().unwrap() = Some(Session::from_extensions(request.extensions()).unwrap());
        assert!(request.uri() != "/panics", "as the test wants it");
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(
            Body::empty(),
        )))
    });
    let layer = SessionLayer::new(MemoryStore::new(), key());
    let mut browser = Browser::new(&routes().layer(layer.clone()));
    browser.get("/insert/theme/dark").await;
    let cookie = browser.cookies().pop().unwrap();
    for cookie in [Some(cookie), None] {
        let mut service = layer.layer(service.clone());
        let mut request = Request::get("/panics");
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let request = request.body(Body::empty()).unwrap();
        let call = tokio::spawn(async move {
            let response = service.ready().await.unwrap().call(request).await;
            response.map(drop)
        });
        assert!(call.await.unwrap_err().is_panic());
        let session: Session = kept.lock().unwrap().take().unwrap();
        let error = session.insert("late", 1).unwrap_err();
        assert_eq!(error.kind(), SessionErrorKind::Sealed);
    }
}
