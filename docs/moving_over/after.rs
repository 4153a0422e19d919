//! A small shop with `cloakroom`: a cart, a login, a page for users who are logged in, one for the
//! staff, and messages that are shown once.

use axum::Router;
use axum::extract::{Form, FromRef, FromRequestParts, State};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
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

/// The users: in a real application, a pool of its database.
#[derive(Clone)]
struct Users;

impl Users {
    async fn authenticate(&self, credentials: &Credentials) -> Option<User> {
        let user = self.find(&credentials.name).await?;
        (user.password == credentials.password).then_some(user)
    }

    async fn find(&self, name: &str) -> Option<User> {
        USERS.into_iter().find(|user| user.name == name)
    }
}

/// The user who is logged in, as an extractor. It answers 401 if nobody is logged in, or if the
/// user was deleted.
impl<S> FromRequestParts<S> for User
where
    Users: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let id = CurrentUser::from_request_parts(parts, state)
            .await
            .map_err(SessionError::into_response)?;
        let user = Users::from_ref(state).find(id.as_str()).await;
        user.ok_or_else(|| StatusCode::UNAUTHORIZED.into_response())
    }
}

/// A user who may change the stock. Other users get a 403.
struct Staff(User);

impl<S> FromRequestParts<S> for Staff
where
    Users: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let user = User::from_request_parts(parts, state).await?;
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
    session.update_with(CART, new.item, |cart, item| {
        let mut cart = cart.unwrap_or_default();
        cart.push(item);
        cart
    })?;
    Ok(Redirect::to("/"))
}

async fn log_in(
    State(users): State<Users>,
    session: Session,
    Form(credentials): Form<Credentials>,
) -> Result<Response, SessionError> {
    let Some(user) = users.authenticate(&credentials).await else {
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
    // A key of this run only: all sessions end with it. See `SigningKeys::from_env` for one that
    // stays.
    let sessions = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // for plain HTTP on this machine; leave it out behind TLS
        .build()?;
    let app = Router::new()
        .route("/", get(home))
        .route("/cart", post(add))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/account", get(account))
        .route("/stock", get(stock))
        .layer(sessions)
        .with_state(Users);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
