//! Run with `cargo run --example oidc`, then open <http://127.0.0.1:3000/orders>.
//!
//! A login with a provider: OpenID Connect with an authorization code, PKCE and a nonce. The
//! session keeps the data that the flow needs between its two redirects, and when and how the user
//! logged in. One page needs a recent login, and another one needs a second factor. They send the
//! user to the provider once more.
//!
//! A user who logs out at the provider is logged out here too: the provider says so by a
//! back-channel logout, which ends the sessions and closes their sockets.
//!
//! The example brings its own small provider, on another port. So you do not need an account
//! anywhere. Set `ISSUER`, `CLIENT_ID` and `CLIENT_SECRET` for a provider of your own that speaks
//! plain HTTP on this machine, such as Keycloak in a container.
//!
//! - `main.rs`: the pages
//! - `login.rs`: the login, and the data that the session keeps for it
//! - `back_channel.rs`: logouts that the provider tells the site
//! - `endings.rs`: what the provider has ended, for a login that was on its way
//! - `live.rs`: a socket that ends with its session
//! - `client.rs`: what the site asks the provider, with the crate `openidconnect`
//! - `failure.rs`: what a user sees if a login fails
//! - `provider.rs` and `token.rs`: the provider. A real application has no such files.

mod back_channel;
mod client;
mod endings;
mod failure;
mod live;
mod login;
mod provider;
mod token;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::Extension;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{BoxError, Router};
use cloakroom::{MemoryStore, SameSite, Session, SessionLayer, SigningKey};
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

use back_channel::BackChannel;
use client::{Client, Registration};
use endings::Endings;
use failure::Failure;
use live::Site;
use login::{Login, NAME, Needs, Visit};

/// How old a login may be where it must be a recent one.
const RECENT: Duration = Duration::from_secs(5 * 60);

/// The provider's name for a login with a second factor.
const TWO_FACTORS: &str = "aal2";

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html><title>Shop</title>
{% match name %}
{% when Some with (name) %}<p>You are <b id="name">{{ name }}</b>. The provider asked you at
<span id="time">{{ time }}</span> for <span id="methods">{{ methods }}</span>.</p>
<ul><li><a href="/orders">Your orders</a>
<li><a href="/address">Your address</a>, after a recent login
<li><a href="/cards">Your cards</a>, with a second factor</ul>
<form method="post" action="/logout"><button>Log out</button></form>
{% when None %}<p>You are not logged in.
<a href="/login">Log in</a>, or go to <a href="/orders">your orders</a>.</p>
{% endmatch %}"#
)]
struct Home {
    name: Option<String>,
    time: String,
    methods: String,
}

async fn home(session: Session) -> Result<Html<String>, Failure> {
    let how = session.authentication().unwrap_or_default();
    let page = Home {
        name: session.get(NAME)?,
        time: how.time().map(|time| time.to_string()).unwrap_or_default(),
        methods: how.methods().join(" and "),
    };
    Ok(Html(page.render()?))
}

/// A page for users. Everybody else goes to the provider first, and comes back here.
async fn orders(visit: Visit) -> Result<String, Failure> {
    let user = visit.user(Needs::default())?;
    Ok(format!("The orders of user {user}.\n"))
}

/// A page that needs a recent login. A user who logged in long ago goes to the provider once more.
async fn address(visit: Visit) -> Result<String, Failure> {
    let user = visit.user(Needs::max_age(RECENT))?;
    Ok(format!("The address of user {user}.\n"))
}

/// A page that needs a second factor.
async fn cards(visit: Visit) -> Result<String, Failure> {
    let user = visit.user(Needs::level(TWO_FACTORS))?;
    Ok(format!("The cards of user {user}.\n"))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{}", setting("PORT", "3000"))).await?;
    let site = format!("http://{}", listener.local_addr()?);
    let issuer = match env::var("ISSUER") {
        Ok(issuer) => issuer,
        Err(_) => provider::start(&site).await?,
    };
    let registration = Registration {
        issuer,
        client_id: setting("CLIENT_ID", provider::CLIENT_ID),
        client_secret: setting("CLIENT_SECRET", provider::CLIENT_SECRET),
        site: site.clone(),
    };
    let login = Login {
        client: Arc::new(Client::discover(registration).await?),
        patience: Duration::from_secs(setting("LOGIN_SECONDS", "600").parse()?),
        endings: Endings::default(),
    };

    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        // Lax is the default, and this example needs it. The way back from the provider is a
        // navigation from another site. Browsers send a Lax cookie with it. They would not send a
        // Strict cookie, and then each login would fail, because the session with its state would
        // be missing.
        .same_site(SameSite::Lax)
        .build()?;
    let back_channel = BackChannel::new(
        login.client.clone(),
        layer.sessions(),
        login.endings.clone(),
    );
    let app = Router::new()
        .route("/", get(home))
        .route("/orders", get(orders))
        .route("/address", get(address).post(address))
        .route("/cards", get(cards).post(cards))
        .route("/login", get(login::start))
        .route("/callback", get(login::callback))
        .route("/logout", post(login::log_out))
        .route("/live", get(live::open))
        .with_state(login)
        .layer(Extension(Site(site.clone())))
        .layer(layer)
        .layer(CsrfLayer::new())
        // The provider has no session here. What it sends is signed.
        .merge(
            Router::new()
                .route("/backchannel_logout", post(back_channel::log_out))
                .with_state(back_channel),
        );

    println!("{site}");
    Ok(axum::serve(listener, app).await?)
}
