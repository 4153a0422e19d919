//! The old layer and the new one around the same routes. The first request with an old login makes
//! a new one. The old session ends when the browser sends the new cookie.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::Path};
use cloakroom::{
    CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SessionStore, SigningKey,
};
use tokio::net::TcpListener;

/// Runs inside both layers.
async fn carry_over(
    old: tower_sessions::Session,
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, Failed> {
    let old_user: Option<String> = old.get("user").await?;
    let was_logged_in = old_user.is_some();
    match (session.user(), old_user) {
        // The browser has the new cookie, so nobody needs the old session any more.
        (Some(_), Some(_)) => old.flush().await?,
        (None, Some(user)) => {
            session.log_in(user)?;
            // Copy what users should keep, key by key.
            if let Some(cart) = old.get::<Vec<String>>("cart").await? {
                session.insert("cart", cart)?;
            }
        }
        _ => {}
    }
    let response = next.run(request).await;
    // The handler logged the user out: the old session must not log the user in again.
    if was_logged_in && session.user().is_none() {
        old.flush().await?;
    }
    Ok(response)
}

/// What either session layer may answer.
enum Failed {
    Old(tower_sessions::session::Error),
    New(SessionError),
}

impl From<tower_sessions::session::Error> for Failed {
    fn from(error: tower_sessions::session::Error) -> Self {
        Self::Old(error)
    }
}

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        Self::New(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Old(error) => {
                eprintln!("{error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
            Self::New(error) => error.into_response(),
        }
    }
}

async fn account(user: CurrentUser, session: Session) -> Result<String, SessionError> {
    let cart: Vec<String> = session.get("cart")?.unwrap_or_default();
    Ok(format!("You are {}, with {}.\n", *user, cart.join(", ")))
}

async fn log_out(session: Session) -> Result<(), SessionError> {
    session.log_out()
}

/// How the version before this one logged users in.
async fn log_in_as_before(
    old: tower_sessions::Session,
    Path(user): Path<String>,
) -> Result<(), Failed> {
    old.insert("cart", ["tea"]).await?;
    Ok(old.insert("user", user).await?)
}

/// Both layers around these routes. The old cookie is `id`, and each layer reads only its own.
pub fn with_both_layers<St: SessionStore>(routes: Router, new: SessionLayer<St>) -> Router {
    let old = tower_sessions::SessionManagerLayer::new(tower_sessions::MemoryStore::default())
        .with_secure(false);
    routes
        .layer(from_fn(carry_over))
        .layer(new)
        .route("/login_as_before/{user}", post(log_in_as_before))
        .layer(old)
}

pub fn routes() -> Router {
    Router::new()
        .route("/account", get(account))
        .route("/logout", post(log_out))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A key of this run only: see `SigningKeys::from_env` for one that stays.
    let new = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // for plain HTTP on this machine
        .build()?;
    let app = with_both_layers(routes(), new);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
