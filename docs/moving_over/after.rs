//! A small shop with `cloakroom`: a cart, a login, a page for the logged-in, one for the staff, and messages that are
//! shown once.

use axum::extract::{Form, FromRequestParts};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{RequestPartsExt, Router};
use cloakroom::{CurrentUser, Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use serde::Deserialize;
use tokio::net::TcpListener;

const CART: Key<Vec<String>> = Key::new("cart");
const NOTICE: Key<String> = Key::new("notice");

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

/// Who is logged in, as an extractor: 401 where nobody is.
impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let id: CurrentUser = parts.extract().await.map_err(SessionError::into_response)?;
        find_user(id.as_str()).ok_or_else(|| StatusCode::UNAUTHORIZED.into_response())
    }
}

/// A user who has a permission: 403 for the others.
struct Staff(User);

impl<S: Sync> FromRequestParts<S> for Staff {
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

async fn home(session: Session) -> Result<String, SessionError> {
    let notice = session.remove(NOTICE)?.unwrap_or_default();
    let cart = session.get(CART)?.unwrap_or_default();
    Ok(format!("{notice}\nIn your cart: {}.\n", cart.join(", ")))
}

#[derive(Deserialize)]
struct Item {
    item: String,
}

async fn add(session: Session, Form(new): Form<Item>) -> Result<Redirect, SessionError> {
    session.insert(NOTICE, format!("Added {}.", new.item))?;
    session.update(CART, move |cart: Option<Vec<String>>| {
        let mut cart = cart.unwrap_or_default();
        cart.push(new.item.clone());
        cart
    })?;
    Ok(Redirect::to("/"))
}

async fn log_in(
    session: Session,
    Form(credentials): Form<Credentials>,
) -> Result<Response, SessionError> {
    let Some(user) = authenticate(&credentials) else {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    };
    session.log_in(user.name)?;
    session.insert(NOTICE, format!("Hello, {}.", user.name))?;
    Ok(Redirect::to("/").into_response())
}

async fn log_out(session: Session) -> Result<Redirect, SessionError> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

async fn account(user: User) -> String {
    format!("You are {}.\n", user.name)
}

async fn stock(Staff(user): Staff) -> String {
    format!("{} may change the stock.\n", user.name)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        // For plain HTTP on this machine. Behind TLS, leave both out and have `__Host-session`.
        .cookie_name("session")
        .secure(false)
        .build()?;
    let app = Router::new()
        .route("/", get(home))
        .route("/cart", post(add))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/account", get(account))
        .route("/stock", get(stock))
        .layer(sessions);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
