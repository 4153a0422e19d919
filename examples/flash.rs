//! Run with `cargo run --example flash`, then open http://127.0.0.1:3000 and press the button.
//!
//! A flash message: the session keeps it over a redirect, and the next page shows it once.

use axum::response::{Html, Redirect};
use axum::{Router, routing::get};
use cloakroom::{Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use tokio::net::TcpListener;

const NOTICE: Key<String> = Key::new("notice");

async fn form(session: Session) -> Result<Html<String>, SessionError> {
    // `remove` takes the message out of the session, so that a reload does not show it again.
    let notice = session.remove(NOTICE)?.unwrap_or_default();
    Ok(Html(format!(
        "<p>{notice}</p><form method=post><button>Save</button></form>"
    )))
}

async fn save(session: Session) -> Result<Redirect, SessionError> {
    session.insert(NOTICE, "Your changes are saved.".to_owned())?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let app = Router::new().route("/", get(form).post(save)).layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
