//! Run with `cargo run --example two_nodes`, twice, with the same keys and the same Redis:
//!
//! ```sh
//! redis-server --port 6379 &
//! export SESSION_KEYS=$(openssl rand -hex 64) REDIS_URL=redis://127.0.0.1:6379/
//! PORT=3001 OTHER=http://127.0.0.1:3002 cargo run --example two_nodes &
//! PORT=3002 OTHER=http://127.0.0.1:3001 cargo run --example two_nodes &
//! ```
//!
//! Then open <http://127.0.0.1:3001>. The page has a socket to each of the two nodes. A logout on
//! one node closes both, and the page shows how long that took.
//!
//! The nodes share their sessions. Each has a near cache, so that most reads cost no round trip to
//! Redis. The example also shows how a node leaves. After a SIGTERM, `/ready` fails, so that the
//! load balancer does not send more requests. The node takes no more connections `DRAIN_SECONDS`
//! later, or at a second SIGTERM. It finishes the requests that are under way, and ends.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header::ORIGIN};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use cloakroom::{
    CurrentUser, DetachedSession, Ended, Key, NearCache, RedisStore, Session, SessionError,
    SessionLayer, SigningKeys,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::csrf::CsrfLayer;

const VISITS: Key<u64> = Key::new("visits");
const UPLOADED: Key<usize> = Key::new("uploaded");

/// The time that a client has to answer the close of its socket.
const GOODBYE: Duration = Duration::from_secs(5);

/// The time that requests under way may take after the node takes no more connections.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Node {
    name: Arc<str>,
    /// The addresses of both nodes, whose pages may open a socket.
    origins: Arc<[String]>,
    /// How many sockets are open.
    sockets: Arc<AtomicUsize>,
    is_leaving: Arc<AtomicBool>,
}

/// The page, which opens a socket to each node.
async fn page(State(node): State<Node>) -> Html<String> {
    let page = include_str!("page.html");
    Html(page.replace("NODES", &node.origins.join(" ")))
}

/// A real application checks a password first.
async fn log_in(session: Session) -> Result<StatusCode, SessionError> {
    session.log_in("ada")?;
    Ok(StatusCode::NO_CONTENT)
}

async fn log_out(session: Session) -> Result<StatusCode, SessionError> {
    session.log_out()?;
    Ok(StatusCode::NO_CONTENT)
}

/// Opens a socket for a page of either node. The example `chat` says why this checks the origin.
async fn open_socket(
    State(node): State<Node>,
    session: Session,
    _user: CurrentUser, // 401 without a login
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let is_own = |origin| node.origins.iter().any(|own| own.as_str() == origin);
    if !headers.get(ORIGIN).is_some_and(is_own) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let session = session.detach();
    upgrade.on_upgrade(async move |socket| {
        node.sockets.fetch_add(1, Ordering::SeqCst);
        serve_socket(socket, session, &node.name).await;
        node.sockets.fetch_sub(1, Ordering::SeqCst);
    })
}

/// Keeps the socket open until the client leaves, or until the session ends on any node.
async fn serve_socket(mut socket: WebSocket, session: DetachedSession, name: &str) {
    let mut ended = std::pin::pin!(session.ended());
    if socket.send(Message::text(name)).await.is_err() {
        return;
    }
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended,
            received = socket.recv() => if !matches!(received, Some(Ok(_))) {
                return;
            },
        }
    };
    let reason = match ended {
        Ended::Here(_) => "ended by this node",
        Ended::Elsewhere => "ended by another node",
        Ended::Expired => "expired",
        _ => "another token",
    };
    let frame = CloseFrame {
        code: close_code::POLICY,
        reason: reason.into(),
    };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// How many sockets are open here.
async fn sockets(State(node): State<Node>) -> String {
    node.sockets.load(Ordering::SeqCst).to_string()
}

async fn visit(State(node): State<Node>, session: Session) -> Result<String, SessionError> {
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
    let store = NearCache::open(RedisStore::connect(&url).await?).await?;
    let layer = SessionLayer::builder(store, SigningKeys::from_env("SESSION_KEYS")?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;

    let port = env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let address = listener.local_addr()?;
    let other = env::var("OTHER").ok();
    let origins: Vec<_> = [format!("http://{address}")]
        .into_iter()
        .chain(other)
        .collect();
    let node = Node {
        name: format!("node {address}").into(),
        origins: origins.into(),
        sockets: Arc::default(),
        is_leaving: Arc::default(),
    };
    let app = Router::new()
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/socket", get(open_socket))
        .route("/visit", get(visit))
        .route("/upload", post(upload))
        .layer(layer)
        // A page of another site can send no form here.
        .layer(CsrfLayer::new())
        .route("/", get(page))
        .route("/sockets", get(sockets))
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
