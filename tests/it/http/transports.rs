//! Cookies and bearer tokens on the same routes.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom::testing::{Browser, Fault, FaultyStore, TestClock};
use cloakroom::{
    MemoryStore, Session, SessionError, SessionLayer, SessionStore, Sessions, Transport,
};
use http::Request;
use support::{Reply, builder, routes, send};

/// The session cookie's name.
const NAME: &str = "__Host-session";

fn layer<S: SessionStore>(store: S) -> SessionLayer<S> {
    let layer = builder(store).transport(Transport::CookieOrBearer);
    layer.build().unwrap()
}

fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    async fn raise(session: Session) -> Result<(), SessionError> {
        session.require_recent_login(Duration::from_secs(60))
    }
    async fn level(session: Session) -> Result<(), SessionError> {
        session.require_level(&["aal2"])
    }
    async fn act(session: Session) -> Result<&'static str, SessionError> {
        session.act_as("bob")?;
        Ok("done")
    }
    async fn stop(session: Session) -> Result<String, SessionError> {
        Ok(session.stop_acting().await?.to_string())
    }
    routes()
        .route("/recent", get(raise))
        .route("/level", get(level))
        .route("/act", get(act))
        .route("/stop", get(stop))
        .layer(layer)
}

/// What one client sends.
#[derive(Clone, Copy, Default)]
struct Client<'a> {
    cookie: Option<&'a str>,
    bearer: Option<&'a str>,
    choice: Option<&'a str>,
}

impl<'a> Client<'a> {
    fn cookie(token: &'a str) -> Self {
        Self {
            cookie: Some(token),
            ..Self::default()
        }
    }

    fn bearer(token: &'a str) -> Self {
        Self {
            bearer: Some(token),
            ..Self::default()
        }
    }

    fn choosing(self, choice: &'a str) -> Self {
        Self {
            choice: Some(choice),
            ..self
        }
    }

    async fn get(self, app: &Router, path: &str) -> Reply {
        let mut request = Request::get(path);
        if let Some(token) = self.cookie {
            request = request.header("cookie", format!("{NAME}={token}"));
        }
        if let Some(token) = self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(choice) = self.choice {
            request = request.header(Transport::CHOICE_HEADER, choice);
        }
        send(app, request.body(Body::empty()).unwrap()).await
    }
}

/// A client that sends nothing.
const NEW: Client<'static> = Client {
    cookie: None,
    bearer: None,
    choice: None,
};

/// What an answer does with one way of sending a token.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Token(String),
    Forget,
}

impl Told {
    fn token(&self) -> &str {
        match self {
            Self::Token(token) => token,
            other => panic!("{other:?}"),
        }
    }
}

/// What an answer does with the cookie, and with the header.
fn told(reply: &Reply) -> (Told, Told) {
    let told = |values: Vec<String>| match &*values {
        [] => Told::Nothing,
        [empty] if empty.is_empty() => Told::Forget,
        [token] => Told::Token(token.clone()),
        several => panic!("{several:?}"),
    };
    let value = |cookie: &str| {
        let (name, rest) = cookie.split_once('=').unwrap();
        assert_eq!(name, NAME);
        rest.split(';').next().unwrap().to_owned()
    };
    let cookies = reply.cookies().into_iter().map(value).collect();
    let headers = reply.all("x-session-token");
    let headers = headers.into_iter().map(str::to_owned).collect();
    (told(cookies), told(headers))
}

/// The token that came in the cookie, and no other.
#[track_caller]
fn new_cookie(reply: &Reply) -> String {
    let (cookie, header) = told(reply);
    assert_eq!(header, Told::Nothing);
    cookie.token().to_owned()
}

/// The token that came in the header, and no other.
#[track_caller]
fn new_bearer(reply: &Reply) -> String {
    let (cookie, header) = told(reply);
    assert_eq!(cookie, Told::Nothing);
    header.token().to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    Malformed,
    /// It has the right length, and a bad signature.
    Bad,
    /// The signature is good, and the session has ended.
    Dead,
    /// The token of Ada's session.
    Ada,
    /// The token of Grace's session.
    Grace,
}

const ALL: [Sent; 6] = [
    Sent::Nothing,
    Sent::Malformed,
    Sent::Bad,
    Sent::Dead,
    Sent::Ada,
    Sent::Grace,
];

impl Sent {
    fn user(self) -> Option<&'static str> {
        match self {
            Self::Ada => Some("ada"),
            Self::Grace => Some("grace"),
            _ => None,
        }
    }
}

/// An application with two users who are logged in, and one whose session has ended.
struct Site {
    app: Router,
    sessions: Sessions<MemoryStore>,
    tokens: [String; 3],
}

impl Site {
    async fn new(is_lazy: bool) -> Self {
        let layer = builder(MemoryStore::new())
            .transport(Transport::CookieOrBearer)
            .lazy(is_lazy)
            .build()
            .unwrap();
        let sessions = layer.sessions();
        let app = app(layer);
        let mut tokens = [const { String::new() }; 3];
        for (token, user) in tokens.iter_mut().zip(["ada", "grace", "eve"]) {
            *token = new_cookie(&NEW.get(&app, &format!("/log_in/{user}")).await);
        }
        assert_eq!(sessions.revoke_user("eve").await.unwrap(), 1);
        Self {
            app,
            sessions,
            tokens,
        }
    }

    fn token(&self, sent: Sent) -> Option<String> {
        let [ada, grace, dead] = &self.tokens;
        match sent {
            Sent::Nothing => None,
            Sent::Malformed => Some("x".to_owned()),
            Sent::Bad => Some("A".repeat(ada.len())),
            Sent::Dead => Some(dead.clone()),
            Sent::Ada => Some(ada.clone()),
            Sent::Grace => Some(grace.clone()),
        }
    }

    async fn count(&self, user: &str) -> usize {
        self.sessions.list_for(user).await.unwrap().len()
    }

    /// Checks that the sessions of these users have ended, and no others.
    async fn assert_ended(&self, ended: [Option<&str>; 2], case: &str) {
        for user in ["ada", "grace"] {
            let expected = usize::from(!ended.contains(&Some(user)));
            assert_eq!(self.count(user).await, expected, "{user}: {case}");
        }
    }
}

/// Who the request comes from: with a bearer token, whoever that token belongs to, unless the
/// cookie belongs to somebody else. Without one, whoever the cookie belongs to.
fn user_of(cookie: Sent, bearer: Sent) -> Option<&'static str> {
    match (cookie.user(), bearer.user()) {
        (user, _) if bearer == Sent::Nothing => user,
        (None, user) => user,
        (user, other) => user.filter(|_| user == other),
    }
}

#[tokio::test]
async fn any_cookie_beside_any_bearer_token_reads_as_the_one_that_the_client_means() {
    for is_lazy in [false, true] {
        let site = Site::new(is_lazy).await;
        for (cookie, bearer) in ALL
            .iter()
            .flat_map(|cookie| ALL.map(|bearer| (*cookie, bearer)))
        {
            let case = format!("{cookie:?} {bearer:?}");
            let (with_cookie, with_bearer) = (site.token(cookie), site.token(bearer));
            let client = Client {
                cookie: with_cookie.as_deref(),
                bearer: with_bearer.as_deref(),
                choice: None,
            };
            let reply = client.get(&site.app, "/user").await;
            let user = user_of(cookie, bearer);
            let expected = user.map_or((401, ""), |user| (200, user));
            assert_eq!((reply.status.as_u16(), &*reply.body), expected, "{case}");
            assert_eq!(told(&reply), (Told::Nothing, Told::Nothing), "{case}");
            assert_eq!(reply.all("vary"), ["Cookie", "Authorization"], "{case}");
            let challenges: &[&str] = match (user, bearer) {
                (Some(_), _) => &[],
                (None, Sent::Nothing) => &["Cookie realm=\"__Host-session\"", "Bearer"],
                (None, _) => &[
                    "Cookie realm=\"__Host-session\"",
                    "Bearer error=\"invalid_token\"",
                ],
            };
            assert_eq!(reply.all("www-authenticate"), challenges, "{case}");
        }
        site.assert_ended([None, None], "a read ends nothing").await;
    }
}

#[tokio::test]
async fn a_login_with_any_tokens_leaves_the_client_with_one_token_and_one_session() {
    for is_lazy in [false, true] {
        for (cookie, bearer) in ALL
            .iter()
            .flat_map(|cookie| ALL.map(|bearer| (*cookie, bearer)))
        {
            for choice in [None, Some("cookie"), Some("bearer")] {
                let case = format!("{cookie:?} {bearer:?} {choice:?}");
                let site = Site::new(is_lazy).await;
                let (with_cookie, with_bearer) = (site.token(cookie), site.token(bearer));
                let client = Client {
                    cookie: with_cookie.as_deref(),
                    bearer: with_bearer.as_deref(),
                    choice,
                };
                let reply = client.get(&site.app, "/log_in/mary").await;
                reply.assert(200, "done");

                let (in_cookie, in_header) = told(&reply);
                let has_bearer = bearer != Sent::Nothing;
                let by_bearer = choice.map_or(has_bearer, |choice| choice == "bearer");
                let (token, other, has_sent_other) = match by_bearer {
                    true => (in_header, in_cookie, cookie != Sent::Nothing),
                    false => (in_cookie, in_header, has_bearer),
                };
                let other_expected = match has_sent_other {
                    true => Told::Forget,
                    false => Told::Nothing,
                };
                assert_eq!(other, other_expected, "{case}");
                let next = match by_bearer {
                    true => Client::bearer(token.token()),
                    false => Client::cookie(token.token()),
                };
                next.get(&site.app, "/user").await.assert(200, "mary");
                assert_eq!(reply.header("cache-control"), Some("no-store"), "{case}");
                let vary = ["Cookie", "Authorization", "X-Session-Transport"];
                assert_eq!(reply.all("vary"), vary, "{case}");

                assert_eq!(site.count("mary").await, 1, "{case}");
                let ended = [cookie.user(), bearer.user()];
                site.assert_ended(ended, &case).await;
            }
        }
    }
}

#[tokio::test]
async fn a_logout_ends_the_sessions_of_all_tokens_and_removes_each_of_them() {
    for is_lazy in [false, true] {
        for (cookie, bearer) in ALL
            .iter()
            .flat_map(|cookie| ALL.map(|bearer| (*cookie, bearer)))
        {
            let case = format!("{cookie:?} {bearer:?}");
            let site = Site::new(is_lazy).await;
            let (with_cookie, with_bearer) = (site.token(cookie), site.token(bearer));
            let client = Client {
                cookie: with_cookie.as_deref(),
                bearer: with_bearer.as_deref(),
                // A logout removes what was sent, whatever the client would like to get.
                choice: Some("bearer"),
            };
            let reply = client.get(&site.app, "/log_out").await;
            reply.assert(200, "done");
            let forget = |sent| match sent {
                Sent::Nothing => Told::Nothing,
                _ => Told::Forget,
            };
            assert_eq!(told(&reply), (forget(cookie), forget(bearer)), "{case}");
            site.assert_ended([cookie.user(), bearer.user()], &case)
                .await;
        }
    }
}

/// Otherwise the next request would come with two tokens, and so on for ever.
#[tokio::test]
async fn whoever_writes_as_a_visitor_ends_up_with_one_token() {
    let site = Site::new(false).await;
    let (ada, bad) = (
        site.token(Sent::Ada).unwrap(),
        site.token(Sent::Bad).unwrap(),
    );
    let client = Client {
        cookie: Some(&ada),
        bearer: Some(&bad),
        choice: None,
    };
    let reply = client.get(&site.app, "/update/visits").await;
    reply.assert(200, "1");
    let (cookie, header) = told(&reply);
    assert_eq!(cookie, Told::Forget);
    let next = Client::bearer(header.token());
    next.get(&site.app, "/update/visits").await.assert(200, "2");
    site.assert_ended([None, None], "nobody has logged out")
        .await;
}

#[tokio::test]
async fn a_login_takes_its_session_along_to_the_other_transport() {
    let app = app(layer(MemoryStore::new()));
    let cookie = new_cookie(&NEW.get(&app, "/insert/theme/dark").await);
    let reply = Client::cookie(&cookie)
        .choosing("bearer")
        .get(&app, "/log_in/ada")
        .await;
    let (removed, given) = told(&reply);
    assert_eq!(removed, Told::Forget);
    let bearer = Client::bearer(given.token());
    bearer.get(&app, "/get/theme").await.assert(200, "dark");
    Client::cookie(&cookie)
        .get(&app, "/user")
        .await
        .assert(409, "");

    let reply = bearer.choosing("cookie").get(&app, "/log_in/ada").await;
    let (given, removed) = told(&reply);
    assert_eq!(removed, Told::Forget);
    Client::cookie(given.token())
        .get(&app, "/get/theme")
        .await
        .assert(200, "dark");
    bearer.get(&app, "/user").await.assert(409, "");
}

/// A hostile script in a page can send any header. It must not get a token for the cookie, which it
/// cannot read.
#[tokio::test]
async fn a_live_session_keeps_its_transport_until_somebody_logs_in() {
    let app = app(layer(MemoryStore::new()));
    let mut token = new_cookie(&NEW.get(&app, "/log_in/ada").await);
    for path in ["/regenerate", "/act", "/stop", "/regenerate"] {
        let reply = Client::cookie(&token)
            .choosing("bearer")
            .get(&app, path)
            .await;
        token = new_cookie(&reply);
    }
    Client::cookie(&token)
        .get(&app, "/user")
        .await
        .assert(200, "ada");

    let mut token = new_bearer(&NEW.choosing("bearer").get(&app, "/log_in/ada").await);
    for path in ["/regenerate", "/act", "/stop"] {
        let reply = Client::bearer(&token)
            .choosing("cookie")
            .get(&app, path)
            .await;
        token = new_bearer(&reply);
    }
}

#[tokio::test]
async fn a_visitor_can_choose_and_a_choice_that_nobody_knows_is_none() {
    let app = app(layer(MemoryStore::new()));
    for choice in ["bearer", "Bearer", "BEARER"] {
        let reply = NEW.choosing(choice).get(&app, "/insert/theme/dark").await;
        let token = new_bearer(&reply);
        let reply = Client::bearer(&token).get(&app, "/get/theme").await;
        reply.assert(200, "dark");
    }
    for choice in ["cookie", "Cookie", "", "header", "bearer, cookie"] {
        new_cookie(&NEW.choosing(choice).get(&app, "/insert/theme/dark").await);
    }
    let token = new_bearer(&NEW.choosing("bearer").get(&app, "/log_in/ada").await);
    let reply = Client::bearer(&token)
        .choosing("header")
        .get(&app, "/log_in/ada")
        .await;
    new_bearer(&reply);
}

#[tokio::test]
async fn another_scheme_in_the_authorization_header_is_no_bearer_token() {
    let app = app(layer(MemoryStore::new()));
    let token = new_cookie(&NEW.get(&app, "/log_in/ada").await);
    let with = async |authorization: &str| {
        let request = Request::get("/user")
            .header("cookie", format!("{NAME}={token}"))
            .header("authorization", authorization);
        send(&app, request.body(Body::empty()).unwrap()).await
    };
    for other in ["Basic YWRhOmxvdmVsYWNl", "Bearerx", "Bear", "", "DPoP x"] {
        with(other).await.assert(200, "ada");
    }
    for bearer in ["Bearer", "bearer ", "BEARER x", "Bearer  "] {
        with(bearer).await.assert(401, "");
    }
    // Of several headers, one is enough.
    let request = Request::get("/user")
        .header("cookie", format!("{NAME}={token}"))
        .header("authorization", "Basic YWRhOmxvdmVsYWNl")
        .header("authorization", "Bearer x");
    let reply = send(&app, request.body(Body::empty()).unwrap()).await;
    reply.assert(401, "");
}

#[tokio::test]
async fn a_token_that_was_just_rotated_does_not_count_beside_a_good_one() {
    let app = app(layer(MemoryStore::new()));
    let old = new_cookie(&NEW.get(&app, "/log_in/ada").await);
    let reply = Client::cookie(&old)
        .choosing("bearer")
        .get(&app, "/log_in/ada")
        .await;
    let (_, given) = told(&reply);
    let new = given.token().to_owned();
    // This request was under way when the cookie was removed.
    let late = Client {
        cookie: Some(&old),
        bearer: Some(&new),
        choice: None,
    };
    late.get(&app, "/user").await.assert(200, "ada");

    // A rotated bearer token is a parallel request's, also beside a good cookie.
    let newer = new_bearer(&Client::bearer(&new).get(&app, "/regenerate").await);
    let other = new_cookie(&NEW.get(&app, "/log_in/grace").await);
    let late = Client {
        cookie: Some(&other),
        bearer: Some(&new),
        choice: None,
    };
    let reply = late.get(&app, "/insert/theme/dark").await;
    reply.assert(409, "");
    Client::bearer(&newer)
        .get(&app, "/user")
        .await
        .assert(200, "ada");
}

#[tokio::test]
async fn more_good_tokens_than_a_client_can_have_are_none() {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(layer(spy.clone()));
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(new_cookie(&NEW.get(&app, "/log_in/ada").await));
    }
    let with = async |cookies: &[String], bearers: &[String]| {
        let mut request = Request::get("/user");
        for cookie in cookies {
            request = request.header("cookie", format!("{NAME}={cookie}"));
        }
        for bearer in bearers {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        spy.take_calls();
        let reply = send(&app, request.body(Body::empty()).unwrap()).await;
        (reply.status.as_u16(), spy.take_calls().len())
    };
    assert_eq!(with(&tokens[..2], &tokens[2..4]).await, (401, 4));
    assert_eq!(with(&tokens[..3], &tokens[3..]).await, (401, 0));
    // The same token in both ways is one.
    assert_eq!(with(&tokens[..1], &tokens[..1]).await, (200, 1));
    let many = vec![tokens[0].clone(); 9];
    assert_eq!(with(&many, &many).await, (200, 1));
}

#[tokio::test]
async fn a_request_without_a_good_token_calls_no_store() {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(layer(spy.clone()));
    let bad = "A".repeat(70);
    for (cookie, bearer) in [("x", "y"), ("x", &*bad), (&*bad, "y"), (&*bad, &*bad)] {
        let client = Client {
            cookie: Some(cookie),
            bearer: Some(bearer),
            choice: None,
        };
        client.get(&app, "/user").await.assert(401, "");
    }
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn every_challenge_says_which_login_would_do() {
    let clock = TestClock::new();
    let layer = builder(MemoryStore::new())
        .transport(Transport::CookieOrBearer)
        .realm("people")
        .clock(clock.clone());
    let app = app(layer.build().unwrap());
    let cookie = new_cookie(&NEW.get(&app, "/log_in/ada").await);
    let bearer = new_bearer(&NEW.choosing("bearer").get(&app, "/log_in/ada").await);
    clock.advance(Duration::from_secs(61));
    let error = "error=\"insufficient_user_authentication\"";
    for client in [Client::cookie(&cookie), Client::bearer(&bearer)] {
        for (path, parameter) in [
            ("/recent", "max_age=\"60\""),
            ("/level", "acr_values=\"aal2\""),
        ] {
            let reply = client.get(&app, path).await;
            reply.assert(401, "");
            assert_eq!(
                reply.all("www-authenticate"),
                [
                    format!("Cookie realm=\"people\", {error}, {parameter}"),
                    format!("Bearer {error}, {parameter}"),
                ]
            );
        }
    }
}

/// The outer commit fails. Its 503 replaces the answer of the inner layers.
#[tokio::test]
async fn an_error_of_an_outer_layer_keeps_what_this_layer_says_in_both_ways() {
    async fn both(session: Session) -> Result<(), SessionError> {
        session
            .of_layer("outer")
            .await?
            .insert("place", "outside")?;
        session.log_in("ada")
    }
    async fn leave(session: Session) -> Result<(), SessionError> {
        session
            .of_layer("outer")
            .await?
            .insert("place", "outside")?;
        session.log_out()
    }
    let store = FaultyStore::new(MemoryStore::new());
    let outer = builder(store.clone()).cookie_name("outer").secure(false);
    let app = routes()
        .route("/both", get(both))
        .route("/leave", get(leave))
        .layer(layer(MemoryStore::new()))
        .layer(outer.build().unwrap());
    store.fail(Fault::Refused);
    let cookie = new_cookie(&NEW.get(&app, "/both").await);
    let reply = Client::cookie(&cookie)
        .choosing("bearer")
        .get(&app, "/both")
        .await;
    reply.assert(503, "");
    let (removed, given) = told(&reply);
    assert_eq!(removed, Told::Forget);
    let client = Client {
        cookie: Some("x"),
        bearer: Some(given.token()),
        choice: None,
    };
    client.get(&app, "/user").await.assert(200, "ada");
    let reply = client.get(&app, "/leave").await;
    reply.assert(503, "");
    assert_eq!(told(&reply), (Told::Forget, Told::Forget));
}

/// Each layer's error has the header of each layer once.
#[tokio::test]
async fn layers_with_and_without_bearer_tokens_keep_their_headers_apart() {
    async fn both(session: Session) -> Result<(), SessionError> {
        session.log_in("ada")?;
        session.of_layer("middle").await?.log_in("grace")?;
        session.of_layer("outer").await?.log_in("mary")
    }
    let store = FaultyStore::new(MemoryStore::new());
    let named = |name: &str| builder(MemoryStore::new()).cookie_name(name).secure(false);
    let inner = named("inner").transport(Transport::Bearer);
    let middle = named("middle").transport(Transport::CookieOrBearer);
    let outer = builder(store.clone()).cookie_name("outer").secure(false);
    let app = routes()
        .route("/both", get(both))
        .layer(inner.build().unwrap())
        .layer(middle.build().unwrap())
        .layer(outer.build().unwrap());
    store.fail(Fault::Refused);
    let reply = NEW.get(&app, "/both").await;
    reply.assert(503, "");
    assert_eq!(reply.all("x-session-token").len(), 1, "{reply:?}");
    let cookies = reply.cookies();
    assert_eq!(cookies.len(), 1, "{reply:?}");
    assert!(cookies[0].starts_with("middle="), "{reply:?}");
}

#[tokio::test]
async fn the_browser_for_tests_keeps_either_token() {
    let layer = layer(MemoryStore::new());
    let mut browser = Browser::new(app(layer.clone()));
    for choice in ["cookie", "bearer", "cookie"] {
        let request = Request::get("/log_in/ada").header(Transport::CHOICE_HEADER, choice);
        let answer = browser.send(request.body("").unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let is_by_cookie = browser.cookie(NAME).is_some();
        assert_eq!(is_by_cookie, choice == "cookie");
        assert_eq!(browser.get("/user").await.unwrap().body(), "ada");
        let inside = browser.with_session(&layer, |session| {
            session.regenerate()?;
            Ok(session.user().map(|user| user.to_string()))
        });
        assert_eq!(inside.await.unwrap().as_deref(), Some("ada"));
        assert_eq!(browser.cookie(NAME).is_some(), is_by_cookie);
        assert_eq!(browser.get("/user").await.unwrap().body(), "ada");
    }
}
