//! Run with `cargo run --example permissions`, then open <http://127.0.0.1:3000>.
//!
//! Users, groups and permissions in SQLite. The guards ask for permissions by name. Log in as
//! ferris, who may read `/`, or as admin, who may read `/restricted` too. The password of both is
//! hunter42.
//!
//! axum-login has an example of the same name, which does the same.

mod db;

use std::io::stderr;

use askama::Template;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{Html, Redirect, Result};
use axum::routing::{get, post};
use axum::{Router, serve};
use cloakroom::login::{self, Auth, Next, Users};
use cloakroom::{MemoryStore, Session, SessionLayer, SigningKey};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use tracing_subscriber::EnvFilter;

use crate::db::Db;

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

// Without an `action`, a browser sends the form to the address of the page, with its `next`.
const LOGIN_FORM: &str = "<!doctype html><title>Login</title><form method=post>\
    <p><label>Name <input name=name value=ferris autocomplete=username></label>\
    <p><label>Password <input name=password type=password value=hunter42></label>\
    <p><button>Log in</button></form>";

async fn log_in(
    State(db): State<Db>,
    session: Session,
    next: Next,
    Form(login): Form<Login>,
) -> Result<Redirect> {
    let user = db.check(&login.name, login.password).await;
    let user = user.map_err(|error| {
        tracing::error!(%error, "the password cannot be checked");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    let Some(user) = user else {
        let page = format!("{LOGIN_FORM}<p>The name or the password is wrong.");
        return Err((StatusCode::UNAUTHORIZED, Html(page)).into());
    };
    session.log_in(Db::account(&user))?;
    Ok(Redirect::to(next.path()))
}

async fn log_out(session: Session) -> Result<Redirect> {
    session.log_out()?;
    Ok(Redirect::to("/login"))
}

#[derive(Template)]
#[template(
    ext = "html",
    source = "<!doctype html><title>{{ permission }}</title>
<p>Logged in as {{ name }}, who has the permission {{ permission }}.
<form method=post action=/logout><button>Log out</button></form>"
)]
struct Page<'a> {
    name: &'a str,
    permission: &'a str,
}

impl Page<'_> {
    fn to_html(&self) -> Result<Html<String>, StatusCode> {
        let page = self.render();
        page.map(Html)
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    }
}

async fn protected(Auth(user): Auth<Db>) -> Result<Html<String>, StatusCode> {
    let (name, permission) = (&user.name, "protected.read");
    Page { name, permission }.to_html()
}

async fn restricted(Auth(user): Auth<Db>) -> Result<Html<String>, StatusCode> {
    let (name, permission) = (&user.name, "restricted.read");
    Page { name, permission }.to_html()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `RUST_LOG=sqlx=debug` shows the statements: one look-up of the user for each request.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "cloakroom=debug".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .init();

    let db = Db::open().await?;
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .users(db.clone())
        .build()?;
    let members = login::required::<Db>().redirect_to("/login");
    let app = Router::new()
        .route("/restricted", get(restricted))
        .route_layer(login::required::<Db>().permission("restricted.read"))
        .route("/", get(protected))
        .route_layer(members.permission("protected.read")) // around /restricted too
        .route("/login", get(|| async { Html(LOGIN_FORM) }).post(log_in))
        .route("/logout", post(log_out))
        .layer(layer)
        .layer(CsrfLayer::new()) // refuses a form that another site sends
        .with_state(db);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(serve(listener, app).await?)
}
