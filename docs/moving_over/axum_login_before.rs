//! The shop with `tower-sessions` and `axum-login`.

use std::collections::HashSet;
use std::convert::Infallible;

use axum::Router;
use axum::extract::Form;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum_login::tower_sessions::{MemoryStore, Session, SessionManagerLayer};
use axum_login::{AuthManagerLayerBuilder, AuthUser, AuthnBackend, AuthzBackend, UserId};
use axum_login::{login_required, permission_required};
use serde::Deserialize;
use tokio::net::TcpListener;

type AuthSession = axum_login::AuthSession<Users>;

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

impl AuthUser for User {
    type Id = String;

    fn id(&self) -> String {
        self.name.to_owned()
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

#[derive(Clone)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;

    async fn authenticate(&self, credentials: Credentials) -> Result<Option<User>, Infallible> {
        let user = self.get_user(&credentials.name).await?;
        Ok(user.filter(|user| user.password == credentials.password))
    }

    async fn get_user(&self, name: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(USERS.into_iter().find(|user| user.name == name))
    }
}

impl AuthzBackend for Users {
    type Permission = &'static str;

    async fn get_user_permissions(&self, user: &User) -> Result<HashSet<&'static str>, Infallible> {
        Ok(HashSet::from_iter(user.is_staff.then_some("stock")))
    }
}

type SessionError = axum_login::tower_sessions::session::Error;

async fn home(session: Session) -> Result<String, Failed> {
    let notice: String = session.remove("notice").await?.unwrap_or_default();
    let cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    Ok(format!("{notice}\nIn your cart: {}.\n", cart.join(", ")))
}

#[derive(Deserialize)]
struct Item {
    item: String,
}

async fn add(session: Session, Form(new): Form<Item>) -> Result<Redirect, Failed> {
    let notice = format!("Added {}.", new.item);
    session.insert("notice", notice).await?;
    let mut cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    cart.push(new.item);
    session.insert("cart", cart).await?;
    Ok(Redirect::to("/"))
}

async fn log_in(
    mut auth: AuthSession,
    Form(credentials): Form<Credentials>,
) -> Result<Response, Failed> {
    let Some(user) = auth.authenticate(credentials).await? else {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    };
    auth.login(&user).await?;
    let notice = format!("Hello, {}.", user.name);
    auth.session.insert("notice", notice).await?;
    Ok(Redirect::to("/").into_response())
}

async fn log_out(mut auth: AuthSession) -> Result<Redirect, Failed> {
    auth.logout().await?;
    Ok(Redirect::to("/"))
}

async fn account(auth: AuthSession) -> Result<String, StatusCode> {
    let user = auth.user.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(format!("You are {}.\n", user.name))
}

async fn stock(auth: AuthSession) -> Result<String, StatusCode> {
    let user = auth.user.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(format!("{} may change the stock.\n", user.name))
}

/// The application has to turn the errors into a response.
struct Failed;

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        eprintln!("{error}");
        Self
    }
}

impl From<axum_login::Error<Users>> for Failed {
    fn from(error: axum_login::Error<Users>) -> Self {
        eprintln!("{error}");
        Self
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = SessionManagerLayer::new(MemoryStore::default())
        // For plain HTTP on this machine.
        .with_secure(false);
    let auth = AuthManagerLayerBuilder::new(Users, sessions).build();
    let app = Router::new()
        .route("/stock", get(stock))
        .route_layer(permission_required!(Users, "stock"))
        .route("/account", get(account))
        .route_layer(login_required!(Users))
        .route("/", get(home))
        .route("/cart", post(add))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .layer(auth);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
