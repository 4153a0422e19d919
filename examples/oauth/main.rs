//! Run with `cargo run --example oauth`, then open <http://127.0.0.1:3000/orders>.
//!
//! A login with a provider: OAuth 2.0 with an authorization code and PKCE. The session keeps the
//! data that the flow needs between its two redirects.
//!
//! The example brings its own small provider, on another port. So you do not need an account
//! anywhere. OAuth alone does not say who a user is. This provider has a page that says it, as most
//! providers have. If your provider speaks OpenID Connect, use the crate `openidconnect`, and keep
//! its nonce beside the state.
//!
//! - `login.rs`: the login, and the data that the session keeps for it
//! - `provider.rs`: the other side. A session library has nothing to do with it.

mod login;
mod provider;

use std::error::Error;

use askama::Template;
use axum::Router;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use cloakroom::{MemoryStore, SameSite, Session, SessionLayer, SigningKey};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

use login::{Failure, Login, Member, NAME};

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html><title>Shop</title>
{% match name %}
{% when Some with (name) %}<p>You are <b id="name">{{ name }}</b>. <a href="/orders">Your orders</a></p>
<form method="post" action="/logout"><button>Log out</button></form>
{% when None %}<p>You are not logged in. <a href="/login">Log in</a>, or go to <a href="/orders">your orders</a>.</p>
{% endmatch %}"#
)]
struct Home {
    name: Option<String>,
}

async fn home(session: Session) -> Result<Html<String>, Failure> {
    let name = session.get(NAME)?;
    Ok(Html(Home { name }.render()?))
}

/// A page for members. Everybody else goes to the provider first, and comes back here.
async fn orders(Member(user): Member) -> String {
    format!("The orders of user {user}.\n")
}

async fn log_out(session: Session) -> Result<Redirect, Failure> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let address = listener.local_addr()?;
    let redirect_uri = format!("http://{address}/callback");
    let provider = provider::start(redirect_uri.clone()).await?;

    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        // Lax is the default, and this example needs it. The way back from the provider is a
        // navigation from another site. Browsers send a Lax cookie with it. They would not send a
        // Strict cookie, and then each login would fail, because the session with its state would
        // be missing.
        .same_site(SameSite::Lax)
        .build()?;
    let app = Router::new()
        .route("/", get(home))
        .route("/orders", get(orders))
        .route("/login", get(login::start))
        .route("/callback", get(login::callback))
        .route("/logout", post(log_out))
        .with_state(Login::new(&provider, redirect_uri)?)
        .layer(layer)
        .layer(CsrfLayer::new());

    println!("http://{address}");
    Ok(axum::serve(listener, app).await?)
}
