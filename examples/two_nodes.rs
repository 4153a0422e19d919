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
//! Two nodes that share their sessions. The example also shows how a node leaves. After a SIGTERM,
//! `/ready` fails, so that the load balancer does not send more requests. The node takes no more
//! connections `DRAIN_SECONDS` later, or at a second SIGTERM. It finishes the requests that are
//! under way, and ends.

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
use cloakroom::{Key, RedisStore, Session, SessionError, SessionLayer, SigningKeys};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const VISITS: Key<u64> = Key::new("visits");
const UPLOADED: Key<usize> = Key::new("uploaded");

/// The time that requests under way may take after the node takes no more connections.
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

/// Counts the bytes of an upload.
///
/// This handler is as slow as its client. The layer loads the session before the body comes, and
/// saves the session before the answer goes. Another node may write to the session between the two,
/// and its changes stay: the layer applies `update` to the stored value of that moment.
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

/// Says whether the load balancer may send requests here. This does not ask Redis. All nodes use
/// the same Redis, so without Redis another node could not do better.
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
    // All nodes need the same keys: one node signs a token, and another node verifies it.
    let layer = SessionLayer::builder(
        RedisStore::connect(&url).await?,
        SigningKeys::from_env("SESSION_KEYS")?,
    )
    .secure(false) // this example speaks plain HTTP, on this machine only
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
        // This route comes after the session layer, so it is outside of the layer. The load
        // balancer's question does not cost a store call.
        .route("/ready", get(ready))
        .with_state(node.clone());

    // The process catches signals from here on, even before it waits for one. A program that reads
    // the address below may send a signal at once.
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
    // The timeout may drop a request. Such a request has saved all of its changes or none.
    tokio::select! {
        ended = server.into_future() => ended?,
        () = too_late => eprintln!("some requests took too long and were dropped"),
    }
    Ok(())
}

/// The signals to stop: Ctrl-C, or the SIGTERM of a service manager.
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
