//! Run with `cargo run --example messages`, then open <http://127.0.0.1:3000> and press a button.
//!
//! Messages with levels, which replace the crate axum-messages: any handler can add some, and the
//! next page shows them once. They survive a redirect, and parallel requests lose none.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{Html, Redirect};
use axum::{Router, routing::get, routing::post};
use cloakroom::{Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Level {
    Info,
    Success,
    Warning,
    Error,
}

#[derive(Clone, Serialize, Deserialize)]
struct Message {
    level: Level,
    text: String,
}

/// The messages of a session, as an extractor.
struct Messages(Session);

const MESSAGES: Key<Vec<Message>> = Key::new("messages");

impl Messages {
    fn add(&self, level: Level, text: impl Into<String>) -> Result<&Self, SessionError> {
        let text = text.into();
        // An update, since a parallel request may add a message as well.
        let new = Message { level, text };
        self.0.update_with(MESSAGES, new, |messages, new| {
            let mut messages = messages.unwrap_or_default();
            messages.push(new);
            messages
        })?;
        Ok(self)
    }

    /// Takes the messages out, so that no other page shows them again.
    fn take(&self) -> Result<Vec<Message>, SessionError> {
        Ok(self.0.remove(MESSAGES)?.unwrap_or_default())
    }
}

impl<S: Sync> FromRequestParts<S> for Messages {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionError> {
        Ok(Self(Session::from_request_parts(parts, state).await?))
    }
}

// From here on, the application.

async fn show(messages: Messages) -> Result<Html<String>, SessionError> {
    let messages = messages.take()?.into_iter();
    // A text from a user has to be escaped here. A template engine does it.
    let list: String = messages
        .map(|Message { level, text }| format!("<li class={level:?}>{level:?}: {text}</li>"))
        .collect();
    Ok(Html(format!(
        "<ul>{list}</ul><form method=post><button formaction=/save>Save</button>\
         <button formaction=/delete>Delete</button></form>"
    )))
}

async fn save(messages: Messages) -> Result<Redirect, SessionError> {
    messages
        .add(Level::Success, "Your changes are saved.")?
        .add(Level::Info, "Others see them in a minute.")?;
    Ok(Redirect::to("/"))
}

async fn delete(messages: Messages) -> Result<Redirect, SessionError> {
    messages
        .add(Level::Warning, "The bin is nearly full.")?
        .add(Level::Error, "Nothing was deleted.")?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let app = Router::new()
        .route("/", get(show))
        .route("/save", post(save))
        .route("/delete", post(delete))
        .layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
