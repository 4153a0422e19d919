//! The shop with `axum_session`.

use axum::extract::{Form, FromRequestParts};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{RequestPartsExt, Router};
use axum_session::{Key, SessionConfig, SessionLayer, SessionNullPool, SessionStore};
use serde::Deserialize;
use tokio::net::TcpListener;

type Session = axum_session::Session<SessionNullPool>;

#[derive(Clone, Debug)]
struct User {
    name: &'static str,
    password: &'static str, // hashed, in a real application
    is_staff: bool,
}

const USERS: [User; 2] = [
    User {
        name: "ada",
        password: "lovelace",
        is_staff: true,
    },
    User {
        name: "bob",
        password: "hunter2",
        is_staff: false,
    },
];

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

fn authenticate(credentials: &Credentials) -> Option<User> {
    let user = find_user(&credentials.name)?;
    (user.password == credentials.password).then_some(user)
}

fn find_user(name: &str) -> Option<User> {
    USERS.into_iter().find(|user| user.name == name)
}

/// The user who is logged in, as an extractor. Visitors get a 401.
impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let session: Session = parts.extract().await.map_err(IntoResponse::into_response)?;
        let name: Option<String> = session.get("user");
        name.and_then(|name| find_user(&name))
            .ok_or_else(|| StatusCode::UNAUTHORIZED.into_response())
    }
}

/// A user who may change the stock. Other users get a 403.
struct Staff(User);

impl<S: Send + Sync> FromRequestParts<S> for Staff {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let user: User = parts.extract().await?;
        if user.is_staff {
            Ok(Self(user))
        } else {
            Err(StatusCode::FORBIDDEN.into_response())
        }
    }
}

async fn home(session: Session) -> String {
    let notice: String = session.get_remove("notice").unwrap_or_default();
    let cart: Vec<String> = session.get("cart").unwrap_or_default();
    format!("{notice}\nIn your cart: {}.\n", cart.join(", "))
}

#[derive(Deserialize)]
struct Item {
    item: String,
}

async fn add(session: Session, Form(new): Form<Item>) -> Redirect {
    session.set("notice", format!("Added {}.", new.item));
    let mut cart: Vec<String> = session.get("cart").unwrap_or_default();
    cart.push(new.item);
    session.set("cart", cart);
    Redirect::to("/")
}

async fn log_in(session: Session, Form(credentials): Form<Credentials>) -> Response {
    let Some(user) = authenticate(&credentials) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    session.renew();
    session.set("user", user.name);
    session.set("notice", format!("Hello, {}.", user.name));
    Redirect::to("/").into_response()
}

async fn log_out(session: Session) -> Redirect {
    session.destroy();
    Redirect::to("/")
}

async fn account(user: User) -> String {
    format!("You are {}.\n", user.name)
}

async fn stock(Staff(user): Staff) -> String {
    format!("{} may change the stock.\n", user.name)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Behind TLS, call `with_secure(true)`.
    let config = SessionConfig::default().with_key(Key::generate());
    let sessions = SessionStore::<SessionNullPool>::new(None, config).await?;
    let app = Router::new()
        .route("/", get(home))
        .route("/cart", post(add))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/account", get(account))
        .route("/stock", get(stock))
        .layer(SessionLayer::new(sessions));

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
