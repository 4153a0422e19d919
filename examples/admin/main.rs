//! Run with `cargo run --example admin`, then open <http://127.0.0.1:3000> and log in as ada, and
//! as grace in another browser.
//!
//! A page for administrators. It shows the sessions of all users and of visitors, page by page, and
//! finds them by user, client and time. It ends one session, or all sessions that match a filter.
//! Only an administrator who has logged in a short while ago gets the page (`FRESH_SECONDS`, 300 by
//! default). The application refuses forms that other sites send. While the page is open, it shows
//! which sessions have come or gone, until the administrator's own session ends. Without
//! JavaScript, a reload does the same.
//!
//! `STORE` names another store by its URL, in place of the memory store. It must be one that can
//! list its sessions.
//!
//! - `users.rs`: the users, their login, and who is an administrator
//! - `filter.rs`: the form with which an administrator finds sessions
//! - `list.rs`: the list, and how sessions end
//! - `live.rs`, `live.js`: what the open page learns of changes
//! - `pages.rs`: the HTML, and pages for errors

mod filter;
mod list;
mod live;
mod pages;
mod users;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use cloakroom::{AnyStore, SessionCatalog, SessionLayer, Sessions, SigningKey};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

/// The forms of this site are much smaller.
const MAX_BODY: usize = 16 * 1024;

const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

#[derive(Clone)]
struct App {
    sessions: Sessions<Arc<dyn SessionCatalog>>,
    /// The store tells of changes, if it has a feed.
    store: Arc<dyn SessionCatalog>,
    fresh_for: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("STORE").unwrap_or_else(|_| "memory:".into());
    let store = AnyStore::connect(&url).await?.session_catalog();
    let store = store.ok_or("this store cannot list its sessions")?;
    let layer = SessionLayer::builder(store.clone(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .client_from(users::client_of)
        .build()?;
    // The layer refuses expired sessions in any case. This task removes them from the store.
    layer.sessions().spawn_purge(PURGE_INTERVAL);
    let fresh_for = std::env::var("FRESH_SECONDS").unwrap_or_else(|_| "300".into());
    let app = App {
        sessions: layer.sessions(),
        store,
        fresh_for: Duration::from_secs(fresh_for.parse()?),
    };
    let app = Router::new()
        .route("/", get(users::home))
        .route("/login", post(users::log_in))
        .route("/logout", post(users::log_out))
        .route("/confirm", get(users::confirm_form).post(users::confirm))
        .route("/admin", get(list::show))
        .route("/admin/changes", get(live::changes))
        .route("/admin/revoke", post(list::revoke))
        .route("/admin/end", get(list::preview).post(list::end))
        .route("/admin/purge", post(list::purge))
        .with_state(app)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(layer)
        // `CsrfLayer` refuses forms of other sites, and also of other ports and subdomains, before
        // the session layer loads a session. SameSite does not stop other ports and subdomains.
        .layer(CsrfLayer::new())
        // Routes that come after the session layer do not cost a store call.
        .route("/style.css", get(pages::style))
        .route("/live.js", get(pages::script))
        .layer(from_fn(security_headers));

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, app).await?)
}

async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            ),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // Not `no-referrer`: with that policy, browsers send `Origin: null` with this site's forms.
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("same-origin"),
        ),
    ];
    response.headers_mut().extend(HEADERS);
    response
}
