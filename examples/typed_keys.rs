//! Run with `cargo run --example typed_keys`, then open http://127.0.0.1:3000/add/7 and reload.
//!
//! A shopping cart under a typed key. A misspelt key or a wrong type does not compile.

use axum::{Router, extract::Path, routing::get};
use cloakroom::{Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Default, Serialize, Deserialize)]
struct Cart {
    items: Vec<u32>,
}

const CART: Key<Cart> = Key::new("cart");

async fn show(session: Session) -> Result<String, SessionError> {
    let cart = session.get(CART)?.unwrap_or_default();
    Ok(format!("In your cart: {:?}\n", cart.items))
}

async fn add(session: Session, Path(item): Path<u32>) -> Result<String, SessionError> {
    // Two tabs may add an item at once. The cart then has both items.
    let cart = session.update(CART, move |cart| {
        let mut cart = cart.unwrap_or_default();
        cart.items.push(item);
        cart
    })?;
    Ok(format!("In your cart now: {:?}\n", cart.items))
}

async fn empty(session: Session) -> Result<String, SessionError> {
    let cart = session.remove(CART)?.unwrap_or_default();
    Ok(format!("Out of your cart: {:?}\n", cart.items))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let app = Router::new()
        .route("/", get(show))
        .route("/add/{item}", get(add))
        .route("/empty", get(empty))
        .layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
