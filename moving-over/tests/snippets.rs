//! The small programs in the text of `docs/moving_over.md`.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, extract::Path};
use axum_login::{AuthManagerLayerBuilder, AuthUser, AuthnBackend};
use cloakroom::testing::Browser;
use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use serde::Deserialize;

async fn remember(
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, SessionError> {
    session.set_remembered(true)?;
    Ok(next.run(request).await)
}

#[tokio::test]
async fn one_middleware_remembers_all_sessions_and_makes_none() {
    let add = async |session: Session| session.insert("cart", ["tea"]);
    let routes = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/cart", post(add));
    let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
    let mut browser = Browser::new(routes.layer(from_fn(remember)).layer(layer));

    let answer = browser.get("/").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("set-cookie"));

    let answer = browser.post("/cart", &[]).await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("Max-Age="), "{cookie}");
    // The browser sends the cookie once.
    let answer = browser.post("/cart", &[]).await.unwrap();
    assert!(!answer.headers().contains_key("set-cookie"));
}

#[derive(Clone, Debug)]
struct User(i64);

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.0
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"a hash of the password"
    }
}

#[derive(Clone)]
struct Backend;

impl AuthnBackend for Backend {
    type User = User;
    type Credentials = i64;
    type Error = std::convert::Infallible;

    async fn authenticate(&self, id: i64) -> Result<Option<User>, Self::Error> {
        Ok(Some(User(id)))
    }

    async fn get_user(&self, id: &i64) -> Result<Option<User>, Self::Error> {
        Ok(Some(User(*id)))
    }
}

#[derive(Deserialize)]
struct AxumLogin {
    user_id: Option<i64>, // the type of `AuthUser::Id`
    auth_hash: Option<Vec<u8>>,
}

#[tokio::test]
async fn tower_sessions_alone_reads_the_user_of_axum_login() {
    use tower_sessions_14::{MemoryStore, Session, SessionManagerLayer};

    let log_in = async |mut auth: axum_login::AuthSession<Backend>, Path(id): Path<i64>| {
        auth.login(&User(id)).await.unwrap();
    };
    let user = async |old: Session| {
        let data: Option<AxumLogin> = old.get("axum-login.data").await.unwrap();
        let data = data.unwrap();
        assert_eq!(data.auth_hash.unwrap(), b"a hash of the password");
        data.user_id.unwrap().to_string()
    };
    // One process has axum-login, and the next process does not. Both have the same store.
    let layer = SessionManagerLayer::new(MemoryStore::default());
    let before = AuthManagerLayerBuilder::new(Backend, layer.clone()).build();
    let before = Router::new()
        .route("/login/{id}", post(log_in))
        .layer(before);
    let after = Router::new().route("/user", get(user)).layer(layer);

    let mut browser = Browser::new(before.merge(after));
    browser.post("/login/42", &[]).await.unwrap();
    assert_eq!(&browser.get("/user").await.unwrap().body()[..], b"42");
}
