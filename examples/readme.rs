//! Run with `cargo run --example readme`, then open <http://127.0.0.1:3000> and reload.
//!
//! The program of the README, word for word. A test compares the two.

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Router, serve};
use cloakroom::{CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use tokio::net::TcpListener;

async fn home(session: Session) -> Result<String, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("This is your visit number {visits}.\n"))
}

// A real application checks a password first.
async fn log_in(session: Session, Path(user): Path<String>) -> Result<(), SessionError> {
    session.log_in(user) // The browser gets a new token, and the old one is dead.
}

async fn log_out(session: Session) -> Result<(), SessionError> {
    session.log_out()
}

// Without a login, the answer is a 401.
async fn me(user: CurrentUser) -> String {
    format!("You are {user}.\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A new key ends all sessions at a restart. `SigningKeys::from_env` reads one that stays.
    let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
    let app = Router::new()
        .route("/", get(home))
        .route("/me", get(me))
        .route("/login/{user}", post(log_in))
        .route("/logout", post(log_out))
        .layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(serve(listener, app).await?)
}
