//! Run with `cargo run --example bearer`, then:
//!
//! ```sh
//! curl -i -X POST http://127.0.0.1:3000/login/ada    # the token is in the header x-session-token
//! curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:3000/me
//! ```
//!
//! For clients that do not keep cookies: the token travels in headers.

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Router, http::StatusCode};
use cloakroom::{
    CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SigningKey, Transport,
};
use tokio::net::TcpListener;

/// A real application checks a password first.
async fn log_in(session: Session, Path(user): Path<String>) -> Result<StatusCode, SessionError> {
    session.log_in(user)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn log_out(session: Session) -> Result<StatusCode, SessionError> {
    session.log_out()?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer is 401 if nobody is logged in.
async fn me(user: CurrentUser) -> String {
    format!("You are {}.\n", *user)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .transport(Transport::Bearer)
        .build()?;
    let app = Router::new()
        .route("/login/{user}", post(log_in))
        .route("/logout", post(log_out))
        .route("/me", get(me))
        .layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
