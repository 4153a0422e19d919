//! The routes, and the layers around them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use cloakroom::{SessionLayer, SessionStore, Sessions, UserIndex, WithDevices, login};
use tower_http::csrf::CsrfLayer;

use crate::error::Error;
use crate::users::{Db, User};
use crate::{account, devices, home, pages, staff};

/// The forms of this site are much smaller.
const MAX_BODY: usize = 8 * 1024;

/// The state that handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) devices: Devices,
}

/// The sessions of a user.
#[derive(Clone, Debug)]
pub(crate) enum Devices {
    Listed(Sessions<Arc<dyn UserIndex>>),
    /// The store does not find sessions by user.
    Unknown,
}

pub(crate) fn router<S: SessionStore>(
    app: App,
    sessions: SessionLayer<S, WithDevices>,
    fresh_for: Duration,
) -> Router {
    Router::new()
        .route("/", get(home::home))
        .route("/theme", post(home::set_theme))
        .route(
            "/register",
            get(account::register_form).post(account::register),
        )
        .route("/login", get(account::log_in_form).post(account::log_in))
        .route("/logout", post(account::log_out))
        .route("/stop-acting", post(staff::stop_acting))
        // These handlers begin with `Auth`, which answers 401 to visitors.
        .route("/devices/revoke", post(devices::revoke))
        .route("/devices/revoke-others", post(devices::revoke_others))
        .merge(guarded(fresh_for))
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

/// The routes that not everybody may use.
fn guarded(fresh_for: Duration) -> Router<App> {
    // Pages send visitors to the login, and the login sends them back. A redirect would lose a form
    // that was sent. So forms get a 401, and `show_errors` makes a page of it.
    let pages = login::required::<Db>().redirect_to("/login");
    let forms = login::required::<Db>();
    let recent = login::required::<Db>()
        .recent(fresh_for)
        .redirect_to("/confirm");
    let is_staff = |user: &User| user.is_staff;

    let members = Router::new()
        .route("/private", get(home::private))
        .route("/devices", get(devices::list))
        .route_layer(pages.clone());
    // Whoever acts as another user may not do this for them.
    let account_pages = Router::new()
        .route("/password", get(account::password_form))
        .route_layer(recent.clone())
        .route("/confirm", get(account::confirm_form))
        .route_layer(pages.clone().refuse_acting());
    let account_forms = Router::new()
        .route("/password", post(account::change_password))
        .route("/delete", post(account::delete))
        .route_layer(recent)
        .route("/confirm", post(account::confirm))
        .route_layer(forms.clone().refuse_acting());
    let staff_pages = Router::new()
        .route("/users", get(staff::list))
        .route_layer(pages.when(is_staff));
    let staff_forms = Router::new()
        .route("/users/act-as", post(staff::act_as))
        .route_layer(forms.when(is_staff));
    Router::new()
        .merge(members)
        .merge(account_pages)
        .merge(account_forms)
        .merge(staff_pages)
        .merge(staff_forms)
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
