//! A small shop with `cloakroom`: a cart, a login, a page for users who are logged in, one for the
//! staff, and messages that are shown once.

use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use cloakroom::login::{self, Auth, BoxError, Users};
use cloakroom::{
    IntoUserId, Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey, Stamp, UserId,
};
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
struct Db;

impl Db {
    fn authenticate(&self, credentials: &Credentials) -> Option<User> {
        let user = self.by_name(&credentials.name)?;
        (user.password == credentials.password).then_some(user)
    }

    fn by_name(&self, name: &str) -> Option<User> {
        USERS.into_iter().find(|user| user.name == name)
    }
}

impl Users for Db {
    type User = User;

    async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
        Ok(self.by_name(id.as_str()))
    }

    fn id(user: &User) -> impl IntoUserId {
        user.name
    }

    fn credentials(user: &User) -> Stamp {
        Stamp::of(user.password)
    }

    async fn has_permission(&self, user: &User, permission: &str) -> Result<bool, BoxError> {
        Ok(permission == "stock" && user.is_staff)
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
    State(db): State<Db>,
    session: Session,
    Form(credentials): Form<Credentials>,
) -> Result<Response, SessionError> {
    let Some(user) = db.authenticate(&credentials) else {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    };
    session.log_in(Db::account(&user))?;
    session.insert(NOTICE, format!("Hello, {}.", user.name))?;
    Ok(Redirect::to("/").into_response())
}

async fn log_out(session: Session) -> Result<Redirect, SessionError> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

async fn account(Auth(user): Auth<Db>) -> String {
    format!("You are {}.\n", user.name)
}

async fn stock(Auth(user): Auth<Db>) -> String {
    format!("{} may change the stock.\n", user.name)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A key of this run only: all sessions end with it. See `SigningKeys::from_env` for one that
    // stays.
    let sessions = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // for plain HTTP on this machine; leave it out behind TLS
        .users(Db)
        .build()?;
    let app = Router::new()
        .route("/stock", get(stock))
        .route_layer(login::required::<Db>().permission("stock"))
        .route("/account", get(account))
        .route_layer(login::required::<Db>())
        .route("/", get(home))
        .route("/cart", post(add))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .layer(sessions)
        .with_state(Db);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
