//! The old layer and the new one around the same routes. Who is still logged in by the old cookie is logged in by the new
//! one with the next request, and the old session is ended.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::Path};
use cloakroom::{CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use tokio::net::TcpListener;

/// Stands inside of both layers.
async fn carry_over(
    old: tower_sessions::Session,
    session: Session,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    if session
        .user()
        .map_err(IntoResponse::into_response)?
        .is_none()
    {
        let user: Option<String> = old.get("user").await.map_err(unavailable)?;
        if let Some(user) = user {
            old.flush().await.map_err(unavailable)?;
            session.log_in(user).map_err(IntoResponse::into_response)?;
        }
    }
    Ok(next.run(request).await)
}

fn unavailable(error: tower_sessions::session::Error) -> Response {
    eprintln!("{error}");
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

async fn account(user: CurrentUser) -> String {
    format!("You are {}.\n", *user)
}

async fn log_out(session: Session) -> Result<(), SessionError> {
    session.log_out()
}

/// How the version before this one logged users in.
async fn log_in_as_before(old: tower_sessions::Session, Path(user): Path<String>) -> Response {
    match old.insert("user", user).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => unavailable(error),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The old cookie is called `id`. Each layer looks at its own.
    let old = tower_sessions::SessionManagerLayer::new(tower_sessions::MemoryStore::default())
        .with_secure(false);
    let new = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .cookie_name("session")
        .secure(false)
        .build()?;
    let app = Router::new()
        .route("/account", get(account))
        .route("/logout", post(log_out))
        .layer(from_fn(carry_over))
        .layer(new)
        .route("/login_as_before/{user}", post(log_in_as_before))
        .layer(old);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
