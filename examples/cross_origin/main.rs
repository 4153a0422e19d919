//! Run with `cargo run --example cross_origin`, then open both addresses that it prints.
//!
//! One API for two pages, on the same routes. The API's own page uses the cookie. The page of
//! another origin uses a bearer token. For that page, CORS opens the API, and the guard against
//! CSRF trusts its origin.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Form, Router};
use cloakroom::{
    CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SigningKey, Transport,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::{cors::CorsLayer, csrf::CsrfLayer};

#[derive(Deserialize)]
struct Login {
    name: String,
}

/// A real application checks a password first. The request says in which way it wants its token.
async fn log_in(session: Session, Form(login): Form<Login>) -> Result<StatusCode, SessionError> {
    session.log_in(login.name)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer has a new token, and the old token is dead.
async fn renew(session: Session, _user: CurrentUser) -> Result<StatusCode, SessionError> {
    session.regenerate()?;
    Ok(StatusCode::NO_CONTENT)
}

async fn log_out(session: Session) -> Result<StatusCode, SessionError> {
    session.log_out()?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer is 401 if nobody is logged in.
async fn me(user: CurrentUser) -> String {
    user.to_string()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let other = TcpListener::bind("127.0.0.1:0").await?;
    // For a browser, this name is another site. So the cookie never travels from there.
    let origin = format!("http://localhost:{}", other.local_addr()?.port());

    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .transport(Transport::CookieOrBearer)
        .build()?;
    let cors = CorsLayer::new()
        .allow_origin(origin.parse::<HeaderValue>()?)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, Transport::CHOICE_HEADER])
        .expose_headers([Transport::TOKEN_HEADER]);
    let api = Router::new()
        .route("/login", post(log_in))
        .route("/renew", post(renew))
        .route("/logout", post(log_out))
        .route("/me", get(me))
        .layer(layer)
        .layer(CsrfLayer::new().add_trusted_origin(&origin)?)
        .layer(cors)
        .route("/", get(Html(include_str!("own.html"))));
    let page = include_str!("other.html").replace("{api}", &address);
    let page = Router::new().route("/", get(Html(page)));

    println!("{address}\n{origin}");
    tokio::try_join!(axum::serve(listener, api), axum::serve(other, page))?;
    Ok(())
}
