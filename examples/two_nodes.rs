//! Run with `cargo run --example two_nodes`, twice, with the same keys and the same Redis:
//!
//! ```sh
//! redis-server --port 6379 &
//! export SESSION_KEYS=$(openssl rand -hex 64) REDIS_URL=redis://127.0.0.1:6379/
//! PORT=3001 cargo run --example two_nodes &
//! PORT=3002 cargo run --example two_nodes &
//! curl -c jar -b jar http://127.0.0.1:3001/ http://127.0.0.1:3002/
//! ```
//!
//! Two nodes that share their sessions, and how one leaves: after a SIGTERM `/ready` fails, so that a balancer sends nothing
//! more; `DRAIN_SECONDS` later, or at a second SIGTERM, it takes no more connections, finishes what is under way and ends.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use cloakroom::{Key, Keys, RedisStore, Session, SessionError, SessionLayer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const VISITS: Key<u64> = Key::new("visits");
const UPLOADED: Key<usize> = Key::new("uploaded");

/// How long requests that are under way may take once no more are taken.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Node {
    name: Arc<str>,
    is_leaving: Arc<AtomicBool>,
}

async fn home(State(node): State<Node>, session: Session) -> Result<String, SessionError> {
    let visits = session.update(VISITS, |visits| visits.unwrap_or(0) + 1)?;
    let uploaded = session.get(UPLOADED)?.unwrap_or(0);
    let name = node.name;
    Ok(format!(
        "visit {visits}, {uploaded} bytes uploaded, says {name}\n"
    ))
}

/// As slow as its client. The session is loaded before the body comes, and saved before the answer goes: what another node
/// writes meanwhile stays, since `update` is applied to what is there then.
async fn upload(
    State(node): State<Node>,
    session: Session,
    body: Bytes,
) -> Result<String, SessionError> {
    let length = body.len();
    let uploaded = session.update(UPLOADED, move |bytes| bytes.unwrap_or(0) + length)?;
    let name = node.name;
    Ok(format!("{uploaded} bytes uploaded, says {name}\n"))
}

/// Whether to send requests here. It does not ask for Redis: all nodes have the same, so without it no other would do better.
async fn ready(State(node): State<Node>) -> (StatusCode, &'static str) {
    match node.is_leaving.load(Ordering::SeqCst) {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379/".into());
    let drain = env::var("DRAIN_SECONDS").unwrap_or_else(|_| "5".into());
    let drain = Duration::from_secs(drain.parse()?);
    // The same keys on every node: what one has signed, the other has to verify.
    let layer = SessionLayer::builder(
        RedisStore::open(&url).await?,
        Keys::from_env("SESSION_KEYS")?,
    )
    .cookie_name("session") // for plain HTTP on this machine, like the next line
    .secure(false)
    .build()?;

    let port = env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let address = listener.local_addr()?;
    let node = Node {
        name: format!("node {address}").into(),
        is_leaving: Arc::default(),
    };
    let app = Router::new()
        .route("/", get(home))
        .route("/upload", post(upload))
        .layer(layer)
        // After the session layer, and so outside of it: the balancer's question costs no store call.
        .route("/ready", get(ready))
        .with_state(node.clone());

    // Heeded from here on, and not only when it is waited for: who reads the address may send a signal at once.
    let mut signals = Signals::new()?;
    println!("http://{address}");
    let (stop, stopped) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        signals.next().await;
        node.is_leaving.store(true, Ordering::SeqCst);
        tokio::select! {
            () = tokio::time::sleep(drain) => {}
            () = signals.next() => {}
        }
        let _ = stop.send(());
    });
    let too_late = async {
        let _ = stopped.await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    // A request that is dropped by the timeout has saved its changes whole or not at all.
    tokio::select! {
        ended = server.into_future() => ended?,
        () = too_late => eprintln!("some requests took too long and were dropped"),
    }
    Ok(())
}

/// The wishes to stop: Ctrl-C, or the SIGTERM of a service manager.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
