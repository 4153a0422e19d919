//! Run with `cargo run --example flash`, then open <http://127.0.0.1:3000> and press a button.
//!
//! Flash messages: a form answers with a redirect, and the next page shows once what came of it.
//! Each message has a level, which is its CSS class. The template escapes the text.

use askama::Template;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use axum::{Form, Router};
use cloakroom::flash::Message;
use cloakroom::{Flash, MemoryStore, SessionError, SessionLayer, SigningKey};
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<title>Notes</title>
<style>.success { color: green } .warning { color: orange } .error { color: red }</style>
<ul>{% for message in messages %}<li class="{{ message.level }}">{{ message.text }}</li>{% endfor %}</ul>
<form method="post" action="/save"><input name="note"> <button>Save</button></form>
<form method="post" action="/delete"><button>Delete</button></form>"#
)]
struct Page {
    messages: Vec<Message>,
}

async fn show(flash: Flash) -> Result<Html<String>, SessionError> {
    // `take` takes the messages out of the session, so that a reload does not show them again.
    let page = Page {
        messages: flash.take()?,
    };
    Ok(Html(page.to_string()))
}

#[derive(Deserialize)]
struct New {
    note: String,
}

async fn save(flash: Flash, Form(new): Form<New>) -> Result<Redirect, SessionError> {
    if new.note.trim().is_empty() {
        flash.error("A note needs a text.")?;
    } else {
        flash.success(format!("The note {} is saved.", new.note))?;
        flash.info("Others see it in a minute.")?;
    }
    Ok(Redirect::to("/"))
}

async fn delete(flash: Flash) -> Result<Redirect, SessionError> {
    flash.warning("The bin is nearly full.")?;
    flash.error("Nothing was deleted.")?;
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
