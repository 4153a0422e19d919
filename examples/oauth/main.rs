//! Run with `cargo run --example oauth`, then open <http://127.0.0.1:3000/orders>.
//!
//! A login with a provider: OAuth 2.0 with an authorization code and PKCE. What the flow has to remember between the two
//! redirects is kept in the session. The provider is a small one of the example's own, on another port, so that you need no
//! account anywhere. OAuth alone says nothing of who somebody is; the provider has a page for that, as most have. Where yours
//! speaks OpenID Connect, take the crate `openidconnect`, and keep its nonce beside the state.
//!
//! - `login.rs`: the login, and what it keeps in the session
//! - `provider.rs`: the other side, which is no business of a session library

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

/// For members: everybody else is sent to the provider, and comes back here.
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
        .cookie_name("session") // for plain HTTP on this machine, like the next line
        .secure(false)
        // The default, and what this needs: the way back from the provider is a navigation from another site, with which
        // browsers send a Lax cookie. They would keep back a Strict one, and each login would fail for want of its state.
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
