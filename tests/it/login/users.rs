//! The look-up of the user: once for each request, and what its answer means for the session.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use cloakroom::login::{Auth, Users, required};
use cloakroom::testing::Browser;
use cloakroom::{CurrentUser, IntoUserId, MemoryStore, Session, SessionError, SessionErrorKind};
use http::{Extensions, Request};
use tokio::task::JoinSet;

use super::site::{Db, Site, request};

const MINUTE: Duration = Duration::from_secs(60);

async fn name(user: Option<Auth<Db>>) -> String {
    user.map_or("nobody".to_owned(), |user| user.name.clone())
}

async fn id(user: Option<CurrentUser>) -> String {
    user.map_or("nobody".to_owned(), |user| user.to_string())
}

/// A new password, as an application sets it.
async fn set_password(
    State(db): State<Db>,
    Auth(user): Auth<Db>,
    session: Session,
) -> Result<String, SessionError> {
    let user = db.set_password(&user.name, "the second");
    session.log_in(Db::account(&user))?;
    Ok("changed".to_owned())
}

async fn insert(session: Session) -> Result<(), SessionError> {
    session.insert("cart", 3)
}

async fn cart(session: Session) -> Result<String, SessionError> {
    Ok(format!("{:?}", session.get::<u32>("cart")?))
}

fn app(site: &Site) -> Router {
    Router::new()
        .route("/name", get(name))
        .route(
            "/must",
            get(|Auth(user): Auth<Db>| async move { user.name }),
        )
        .route("/id", get(id))
        .route("/set_password", get(set_password))
        .route("/insert", get(insert))
        .route("/cart", get(cart))
        .layer(site.layer.clone())
        .with_state(site.db.clone())
}

async fn text(browser: &mut Browser<Router>, path: &str) -> String {
    let answer = browser.get(path).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    String::from_utf8(answer.body().to_vec()).unwrap()
}

#[tokio::test]
async fn a_user_is_found_and_a_visitor_is_nobody_without_a_look_up() {
    let site = Site::new();
    let app = app(&site);
    let mut visitor = site.visitor(&app);
    assert_eq!(text(&mut visitor, "/name").await, "nobody");
    assert_eq!(visitor.get("/must").await.unwrap().status(), 401);
    assert_eq!(site.db.look_ups(), 0);
    let mut carol = site.member(&app, "carol").await;
    assert_eq!(text(&mut carol, "/name").await, "carol");
    assert_eq!(text(&mut carol, "/must").await, "carol");
    assert_eq!(site.db.look_ups(), 2);
}

#[tokio::test]
async fn a_request_that_asks_for_no_user_makes_no_look_up() {
    let site = Site::new();
    let app = app(&site);
    let mut ada = site.member(&app, "ada").await;
    assert_eq!(text(&mut ada, "/id").await, "ada");
    assert_eq!(site.db.look_ups(), 0);
}

#[tokio::test]
async fn a_deleted_user_is_nobody() {
    let site = Site::new();
    let app = app(&site);
    let mut ada = site.member(&app, "ada").await;
    site.db.delete("ada");
    assert_eq!(text(&mut ada, "/name").await, "nobody");
    let refused = ada.get("/must").await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.extensions().get(),
        Some(&SessionErrorKind::NotLoggedIn)
    );
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_keeps_the_one_that_set_it() {
    let site = Site::new();
    let app = app(&site);
    let mut own = site.member(&app, "ada").await;
    let mut other = site.member(&app, "ada").await;
    text(&mut own, "/insert").await;
    text(&mut other, "/insert").await;
    assert_eq!(text(&mut own, "/set_password").await, "changed");

    assert_eq!(text(&mut own, "/name").await, "ada");
    assert_eq!(text(&mut own, "/cart").await, "Some(3)");
    assert_eq!(text(&mut other, "/name").await, "nobody");
    assert_eq!(site.store.inner().len(), 2);

    // The other session itself is over as well, however often somebody uses it.
    for _ in 0..4 {
        site.clock.advance(MINUTE / 4);
        text(&mut other, "/name").await;
    }
    site.clock.advance(Duration::from_secs(1));
    assert_eq!(text(&mut other, "/id").await, "nobody");
    assert_eq!(text(&mut other, "/cart").await, "None");
    site.clock.advance(5 * MINUTE);
    assert_eq!(text(&mut own, "/name").await, "ada");
    assert_eq!(text(&mut own, "/cart").await, "Some(3)");
}

/// The page that sets a password may ask for parts of itself at the same time. One of them sees the
/// new password before the session has the new login.
#[tokio::test]
async fn a_request_between_the_new_password_and_the_new_login_ends_nothing() {
    let site = Site::new();
    let app = app(&site);
    let mut own = site.member(&app, "ada").await;
    text(&mut own, "/insert").await;
    let user = site.db.set_password("ada", "the second");
    assert_eq!(text(&mut own.clone(), "/name").await, "nobody");
    let login = own.with_session(&site.layer, |session| session.log_in(Db::account(&user)));
    login.await.unwrap();
    site.clock.advance(2 * MINUTE);
    assert_eq!(text(&mut own, "/name").await, "ada");
    assert_eq!(text(&mut own, "/cart").await, "Some(3)");
}

#[tokio::test]
async fn a_login_without_a_stamp_is_nobodys_if_the_user_has_one() {
    let site = Site::new();
    let app = app(&site);
    let mut ada = site.visitor(&app);
    let login = ada.with_session(&site.layer, |session| session.log_in("ada"));
    login.await.unwrap();
    let name = text(&mut ada, "/name").await;
    assert_eq!(name, "nobody");
    // It is a mistake of the program. So the session is kept.
    site.clock.advance(2 * MINUTE);
    assert_eq!(text(&mut ada, "/id").await, "ada");
}

#[tokio::test]
async fn an_outage_of_the_users_ends_no_session() {
    let site = Site::new();
    let app = app(&site);
    let mut ada = site.member(&app, "ada").await;
    text(&mut ada, "/insert").await;
    site.db.set_down(true);
    for path in ["/name", "/must"] {
        let answer = ada.get(path).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.extensions().get(), Some(&SessionErrorKind::Users));
    }
    assert_eq!(text(&mut ada, "/cart").await, "Some(3)");
    site.db.set_down(false);
    assert_eq!(text(&mut ada, "/must").await, "ada");
}

#[tokio::test]
async fn the_error_of_a_look_up_has_its_source() {
    let site = Site::new();
    async fn source(extensions: Extensions) -> String {
        let error = Auth::<Db>::load_from(&extensions).await.unwrap_err();
        assert_eq!(error.to_string(), "the look-up of the user failed");
        std::error::Error::source(&error).unwrap().to_string()
    }
    let app = Router::new()
        .route(
            "/",
            get(|request: Request<axum::body::Body>| source(request.into_parts().0.extensions)),
        )
        .layer(site.layer.clone());
    let mut ada = site.member(&app, "ada").await;
    site.db.set_down(true);
    assert_eq!(text(&mut ada, "/").await, "connection refused");
}

#[tokio::test]
async fn parallel_tasks_of_a_request_share_one_look_up() {
    let site = Site::new();
    let db = site.db.clone();
    let ask_often = move |request: Request<axum::body::Body>| async move {
        let extensions = Arc::new(request.into_parts().0.extensions);
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let extensions = extensions.clone();
            tasks.spawn(async move { Auth::<Db>::load_from(&extensions).await.unwrap().0.name });
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        db.let_through(20);
        let names = tasks.join_all().await;
        assert_eq!(names, vec!["ada"; 20]);
        db.look_ups().to_string()
    };
    let app = Router::new()
        .route("/", get(ask_often))
        .layer(site.layer.clone());
    let mut ada = site.member(&app, "ada").await;
    site.db.hold();
    assert_eq!(text(&mut ada, "/").await, "1");
}

#[tokio::test]
async fn a_look_up_that_is_given_up_is_made_again() {
    let site = Site::new();
    let db = site.db.clone();
    let give_up = move |request: Request<axum::body::Body>| async move {
        let extensions = request.into_parts().0.extensions;
        let first = Auth::<Db>::load_from(&extensions);
        let gave_up = tokio::time::timeout(Duration::from_millis(1), first).await;
        assert!(gave_up.is_err());
        db.let_through(1);
        Auth::<Db>::load_from(&extensions).await.unwrap().0.name
    };
    let app = Router::new()
        .route("/", get(give_up))
        .layer(site.layer.clone());
    let mut ada = site.member(&app, "ada").await;
    site.db.hold();
    assert_eq!(text(&mut ada, "/").await, "ada");
    assert_eq!(site.db.look_ups(), 2);
}

#[tokio::test]
async fn a_login_in_the_request_is_looked_up_again() {
    let site = Site::new();
    let db = site.db.clone();
    let switch = move |request: Request<axum::body::Body>| async move {
        let extensions = request.into_parts().0.extensions;
        let session = Session::from_extensions(&extensions).unwrap();
        let mut names = Vec::new();
        for name in ["ada", "ada", "bob"] {
            session
                .log_in(Db::account(&db.user(name).unwrap()))
                .unwrap();
            names.push(Auth::<Db>::load_from(&extensions).await.unwrap().0.name);
        }
        session.log_out().unwrap();
        let error = Auth::<Db>::load_from(&extensions).await.unwrap_err();
        names.push(error.kind().to_string());
        names.join(",")
    };
    let app = Router::new()
        .route("/", get(switch))
        .layer(site.layer.clone());
    let mut visitor = site.visitor(&app);
    assert_eq!(
        text(&mut visitor, "/").await,
        "ada,ada,bob,nobody is logged in"
    );
    assert_eq!(site.db.look_ups(), 2);
}

#[tokio::test]
async fn who_acts_must_be_there_too_with_the_stamp_of_the_login() {
    async fn acting() -> (Site, Browser<Router>) {
        let site = Site::new();
        let mut ada = site.member(&app(&site), "ada").await;
        let bob = Db::account(&site.db.user("bob").unwrap());
        ada.with_session(&site.layer, |session| session.act_as(bob))
            .await
            .unwrap();
        assert_eq!(text(&mut ada, "/name").await, "bob");
        assert_eq!(site.db.look_ups(), 2);
        (site, ada)
    }
    let (site, mut ada) = acting().await;
    site.db.delete("ada");
    assert_eq!(text(&mut ada, "/name").await, "nobody");

    let (site, mut ada) = acting().await;
    site.db.set_password("ada", "the second");
    assert_eq!(text(&mut ada, "/name").await, "nobody");
    site.clock.advance(MINUTE + Duration::from_secs(1));
    assert_eq!(text(&mut ada, "/id").await, "nobody");

    let (site, mut ada) = acting().await;
    site.db.delete("bob");
    assert_eq!(text(&mut ada, "/name").await, "nobody");
}

/// Users of whom the application says nothing but who they are.
#[derive(Clone)]
struct Operators;

impl Users for Operators {
    type User = String;

    async fn find(
        &self,
        id: &cloakroom::UserId,
    ) -> Result<Option<String>, cloakroom::login::BoxError> {
        Ok(Some(format!("operator {id}")))
    }

    fn id(user: &String) -> impl IntoUserId {
        user
    }
}

#[tokio::test]
async fn nobody_has_a_permission_that_the_application_does_not_give() {
    let operators = support::builder(MemoryStore::new())
        .users(Operators)
        .build()
        .unwrap();
    let app = Router::new()
        .route("/stock", get(|| async { "stock" }))
        .route_layer(required::<Operators>().permission("stock.write"))
        .layer(operators.clone());
    let mut browser = Browser::new(app);
    let login = browser.with_session(&operators, |session| session.log_in("7"));
    login.await.unwrap();
    assert_eq!(browser.get("/stock").await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_missing_layer_is_an_error_and_no_visitor() {
    let app = Router::new().route("/name", get(name));
    let answer = Browser::new(app).get("/name").await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(
        answer.extensions().get(),
        Some(&SessionErrorKind::MissingLayer)
    );
}

#[tokio::test]
async fn each_of_two_layers_has_its_own_users() {
    async fn both(customer: Option<Auth<Db>>, operator: Option<Auth<Operators>>) -> String {
        let operator = operator.map_or("nobody".to_owned(), |operator| operator.0);
        format!("{}, {operator}", name(customer).await)
    }
    let site = Site::new();
    let operators = support::builder(site.store.clone())
        .cookie_name("__Host-operator")
        .users(Operators)
        .build()
        .unwrap();
    let app = Router::new()
        .route("/", get(both))
        .layer(site.layer.clone())
        .layer(operators.clone());
    let mut browser = site.member(&app, "ada").await;
    assert_eq!(text(&mut browser, "/").await, "ada, nobody");
    browser
        .with_session(&operators, |session| session.log_in("7"))
        .await
        .unwrap();
    assert_eq!(text(&mut browser, "/").await, "ada, operator 7");
}

#[tokio::test]
async fn a_lazy_layer_loads_the_session_for_the_user() {
    let site = Site::with(|builder| builder.lazy(true));
    let app = app(&site);
    let mut ada = site.member(&app, "ada").await;
    assert_eq!(text(&mut ada, "/name").await, "ada");
    let refused = ada
        .send(request("GET", "/must", &[("cookie", "")]))
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
}
