//! Run with `cargo run --example form`, then open <http://127.0.0.1:3000> and send the form half
//! filled in.
//!
//! A form that keeps its errors and entries over a redirect: post, redirect, get. A reload does not
//! send the form again. With JavaScript, htmx swaps the form in place, and the form does not need
//! the session. Without JavaScript, the form works too.

use askama::Template;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Form, Router, routing::get};
use cloakroom::flash::Message;
use cloakroom::{Flash, Key, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

/// The user's entries, for the next page. Two tabs share them: the next page shows the form that
/// was sent last.
const ENTRIES: Key<Entries> = Key::new("entries");

/// The form as the browser sends it. It has no `Debug` and no `Serialize`, since it holds a
/// password.
#[derive(Deserialize)]
struct SignUp {
    name: String,
    email: String,
    password: String,
}

/// The form as the page shows it. The password is not a part of it, so the password is never in the
/// session and never in a page. The user has to enter it again.
#[derive(Default, Serialize, Deserialize, Template)]
#[template(
    ext = "html",
    source = r#"<form method="post" action="/" hx-post="/" hx-swap="outerHTML" novalidate>
<p><label>Name <input name="name" value="{{ name }}" autocomplete="name"></label>
{% if let Some(error) = errors.name %}<strong id="name-error">{{ error }}</strong>{% endif %}</p>
<p><label>Mail address <input name="email" type="email" value="{{ email }}" autocomplete="email"></label>
{% if let Some(error) = errors.email %}<strong id="email-error">{{ error }}</strong>{% endif %}</p>
<p><label>Password <input name="password" type="password" autocomplete="new-password"></label>
{% if let Some(error) = errors.password %}<strong id="password-error">{{ error }}</strong>{% endif %}</p>
<button>Sign up</button>
</form>"#
)]
struct Entries {
    name: String,
    email: String,
    errors: Errors,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Errors {
    name: Option<String>,
    email: Option<String>,
    password: Option<String>,
}

// By default, htmx does not change the page after a 4xx. This configuration makes htmx show the
// form that comes with a 422.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<title>Sign up</title>
<meta name="htmx-config" content='{"responseHandling": [{"code": "204", "swap": false}, {"code": "[23]..", "swap": true},
  {"code": "422", "swap": true}, {"code": "[45]..", "swap": false, "error": true}]}'>
<script src="https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js" crossorigin="anonymous"
  integrity="sha384-2OatzQy1H+Zd/IIrjr1TcuDGqLXeHhbooAyJY1KdQMKnr4LZ22k31GBLdYKHmVjg"></script>
<h1>Sign up</h1>
{% for message in messages %}<p role="status">{{ message }}</p>{% endfor %}
{{ form|safe }}"#
)]
struct Page {
    messages: Vec<Message>,
    /// The form is a template as well, and escapes what it shows.
    form: Entries,
}

fn check(form: &SignUp) -> Errors {
    let unless = |good: bool, problem: &str| (!good).then(|| problem.to_owned());
    Errors {
        name: unless(!form.name.trim().is_empty(), "Please enter your name."),
        email: unless(form.email.contains('@'), "A mail address has an @ in it."),
        password: unless(
            form.password.chars().count() >= 8,
            "A password needs 8 characters or more.",
        ),
    }
}

async fn show(session: Session, flash: Flash) -> Result<Response, SessionError> {
    // Both calls take out of the session what they return: a reload shows the empty form.
    let page = Page {
        messages: flash.take()?,
        form: session.remove(ENTRIES)?.unwrap_or_default(),
    };
    Ok(html(StatusCode::OK, &page))
}

async fn send(
    session: Session,
    flash: Flash,
    headers: HeaderMap,
    Form(form): Form<SignUp>,
) -> Result<Response, SessionError> {
    let is_htmx = headers.contains_key("hx-request");
    let errors = check(&form);
    if errors == Errors::default() {
        // A real site makes the account here. Both ways lead to the page that shows the message.
        flash.success(format!("Welcome, {}.", form.name))?;
        return Ok(if is_htmx {
            [("hx-redirect", "/")].into_response()
        } else {
            Redirect::to("/").into_response()
        });
    }
    let entries = Entries {
        name: form.name,
        email: form.email,
        errors,
    };
    if is_htmx {
        return Ok(html(StatusCode::UNPROCESSABLE_ENTITY, &entries));
    }
    session.insert(ENTRIES, entries)?;
    Ok(Redirect::to("/").into_response())
}

/// Makes a page that caches must not keep: the back button must not show the old entries.
fn html(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, [(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
        Err(error) => {
            eprintln!("cannot make a page: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let app = Router::new()
        .route("/", get(show).post(send))
        // The entries go into the session, so they must fit there: a session has 64 KiB.
        .layer(DefaultBodyLimit::max(8 * 1024))
        .layer(layer)
        .layer(CsrfLayer::new());

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
