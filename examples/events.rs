//! Run with `cargo run --example events`, then open http://127.0.0.1:3000 in two tabs and press the
//! buttons.
//!
//! Server-sent events: each tab shows what another tab puts into the cart, and that another tab has
//! logged out. The stream outlives its request, so it follows the session with a detached handle.
//! The store reports each change, and the stream reads the session only then. Such a read does not
//! count as a use of the session: without other requests, the session ends after `IDLE_MS`
//! milliseconds, and the stream ends with it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use cloakroom::{
    CurrentUser, DetachedSession, Key, MemoryStore, Session, SessionError, SessionErrorKind,
    SessionLayer, SigningKey,
};
use futures_util::stream::{self, Stream};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_http::csrf::CsrfLayer;

const CART: Key<u32> = Key::new("cart");

const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A browser connects again when a stream ends. It gives up at any status except 200 (HTML, 9.2.2).
/// So after a logout, the answer 401 stops the browser. After another login, the browser comes back
/// with the new token.
///
/// A page of another site may ask for the stream, but cannot read it. The same-origin policy holds
/// for a stream, and does not hold for a socket.
async fn events(
    session: Session,
    _user: CurrentUser,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, SessionError> {
    // Browsers connect again by themselves. If that were use of the session, a forgotten tab would
    // keep the session alive for ever.
    session.skip_touch()?;
    let follower = Follower {
        // The layer seals the request's session when the response's head leaves. So the stream
        // needs a handle.
        session: session.detach(),
        shown: None,
    };
    let events = stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    // Without the keep-alive, the server does not notice a client that went away while nothing
    // changes.
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Follower {
    session: DetachedSession,
    shown: Option<u32>,
}

impl Follower {
    /// Returns the next change of the cart, or `None` after the end of the session.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.shown.is_some() && self.session.changed().await.is_err() {
                return None;
            }
            // A reload only reads. `save` would count as use of the session, even without changes.
            match self.session.reload().await {
                Ok(()) => {}
                // An outage is not a logout.
                Err(error) if error.kind() == SessionErrorKind::Store => {
                    eprintln!("{error}; trying again");
                    sleep(RETRY_AFTER).await;
                    continue;
                }
                // The session has ended, or it has another token.
                Err(_) => return None,
            }
            let items = self.session.get(CART).ok()?.unwrap_or(0);
            if self.shown.replace(items) != Some(items) {
                return Some(Event::default().data(items.to_string()));
            }
        }
    }
}

async fn home(user: Option<CurrentUser>) -> Html<&'static str> {
    Html(match user {
        None => "<form method=post action=/login><button>Log in</button></form>",
        Some(_) => {
            "<p>In your cart: <output id=items></output></p>
            <form method=post action=/add><button>Add one</button></form>
            <form method=post action=/logout><button>Log out</button></form>
            <script>
            const events = new EventSource('/events');
            events.onmessage = ({ data }) => { document.getElementById('items').value = data; };
            events.onerror = () => { if (events.readyState === EventSource.CLOSED) location.reload(); };
            </script>"
        }
    })
}

/// A real application checks a password first.
async fn log_in(session: Session) -> Result<Redirect, SessionError> {
    session.log_in("ada")?;
    Ok(Redirect::to("/"))
}

async fn log_out(session: Session) -> Result<Redirect, SessionError> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

async fn add(session: Session, _user: CurrentUser) -> Result<Redirect, SessionError> {
    session.update(CART, |items| items.unwrap_or(0) + 1)?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .idle_timeout(Duration::from_millis(setting("IDLE_MS", "600000").parse()?))
        .build()?;
    let app = Router::new()
        .route("/", get(home))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/add", post(add))
        .route("/events", get(events))
        .layer(layer)
        .layer(CsrfLayer::new());

    let port = setting("PORT", "3000");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
