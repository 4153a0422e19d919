//! The routes, and the layers around them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use cloakroom::{SessionLayer, SessionStore, Sessions, UserIndex};
use tower_http::csrf::CsrfLayer;

use crate::error::Error;
use crate::users::Users;
use crate::{account, devices, home, pages};

/// The forms of this site are much smaller.
const MAX_BODY: usize = 8 * 1024;

/// The state that handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) users: Users,
    pub(crate) devices: Devices,
    pub(crate) fresh_for: Duration,
}

/// The sessions of a user.
#[derive(Clone, Debug)]
pub(crate) enum Devices {
    Listed(Sessions<Arc<dyn UserIndex>>),
    /// The store does not find sessions by user.
    Unknown,
}

impl App {
    pub(crate) fn new(users: Users, devices: Devices, fresh_for: Duration) -> Self {
        Self {
            users,
            devices,
            fresh_for,
        }
    }
}

pub(crate) fn router<S: SessionStore>(app: App, sessions: SessionLayer<S>) -> Router {
    Router::new()
        .route("/", get(home::home))
        .route("/theme", post(home::set_theme))
        .route("/private", get(home::private))
        .route(
            "/register",
            get(account::register_form).post(account::register),
        )
        .route("/login", get(account::log_in_form).post(account::log_in))
        .route("/logout", post(account::log_out))
        .route(
            "/confirm",
            get(account::confirm_form).post(account::confirm),
        )
        .route(
            "/password",
            get(account::password_form).post(account::change_password),
        )
        .route("/devices", get(devices::list))
        .route("/devices/revoke", post(devices::revoke))
        .route("/devices/revoke-others", post(devices::revoke_others))
        .fallback(async || Error::NotFound)
        .with_state(app)
        // From here on, each layer is around the layers above it. This one makes pages of the
        // handlers' errors, in the theme of the session.
        .layer(from_fn(pages::show_errors))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(sessions)
        // SameSite=Lax keeps the cookie out of POSTs from other sites. It does not keep the cookie
        // out of POSTs from another port or subdomain. `CsrfLayer` refuses both before the session
        // layer loads a session.
        .layer(CsrfLayer::new())
        // Routes that come after the session layer do not cost a store call.
        .route("/style.css", get(pages::style))
        .route("/icon.svg", get(pages::icon))
        // This one makes pages of the layers' errors: a refused origin, or a session store that is
        // down.
        .layer(from_fn(pages::show_errors))
        .layer(from_fn(security_headers))
}

async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
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
