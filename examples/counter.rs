//! Run with `cargo run --example counter`, then open http://127.0.0.1:3000 and reload.
//!
//! The smallest application with a session: it counts the visits of each browser.

use axum::{Router, routing::get};
use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use tokio::net::TcpListener;

async fn home(session: Session) -> Result<String, SessionError> {
    // Parallel requests may change this number, so it needs `update`: no visit is lost.
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("This is your visit number {visits}.\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        // For plain HTTP on this machine. Behind TLS, leave this out.
        .secure(false)
        .build()?;
    let app = Router::new().route("/", get(home)).layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
