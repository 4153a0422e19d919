//! The old layer and the new one around the same routes. Who is still logged in by the old cookie is logged in by the new
//! one with the next request, and the old session is ended once the new one is stored.

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

/// Stands inside of both layers.
async fn carry_over(
    old: tower_sessions::Session,
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    let user = session.user().map_err(SessionError::into_response)?;
    if user.is_none()
        && let Some(user) = user_of(&old).await?
    {
        session.log_in(user).map_err(SessionError::into_response)?;
        // What shall come along is copied, key by key.
        if let Some(cart) = old.get::<Vec<String>>("cart").await.map_err(unavailable)? {
            session
                .insert("cart", cart)
                .map_err(SessionError::into_response)?;
        }
    }
    Ok(next.run(request).await)
}

/// Stands between the layers, where the new session has been stored when the answer comes. After a 5xx it has not, and the
/// old one is still needed.
async fn end_old(
    old: tower_sessions::Session,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    let response = next.run(request).await;
    if !response.status().is_server_error() && user_of(&old).await?.is_some() {
        old.flush().await.map_err(unavailable)?;
    }
    Ok(response)
}

async fn user_of(old: &tower_sessions::Session) -> Result<Option<String>, Response> {
    old.get("user").await.map_err(unavailable)
}

fn unavailable(error: tower_sessions::session::Error) -> Response {
    eprintln!("{error}");
    StatusCode::SERVICE_UNAVAILABLE.into_response()
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
) -> Result<(), Response> {
    old.insert("cart", ["tea"]).await.map_err(unavailable)?;
    old.insert("user", user).await.map_err(unavailable)
}

/// Both layers around these routes. The old cookie is called `id`, and each layer looks at its own.
pub fn with_both_layers<St: SessionStore>(routes: Router, new: SessionLayer<St>) -> Router {
    let old = tower_sessions::SessionManagerLayer::new(tower_sessions::MemoryStore::default())
        .with_secure(false);
    routes
        .layer(from_fn(carry_over))
        .layer(new)
        .layer(from_fn(end_old))
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
    // A key of this run alone: see `Keys::from_env` for one that stays.
    let new = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .cookie_name("session")
        .secure(false)
        .build()?;
    let app = with_both_layers(routes(), new);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
