//! Run with `cargo run --example chat`, then open http://127.0.0.1:3000 in two browsers and log in with a name in each.
//!
//! A chat over WebSockets. A socket outlives its request, so it has a detached handle of the session: with that it counts what
//! its user has sent, and sees names that another tab changes. A logout closes all sockets of the session, within the
//! milliseconds that `CHECK_MS` says. `STORE` takes the URL of a store in place of memory.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header::ORIGIN};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use cloakroom::{
    AnyStore, CurrentUser, DetachedSession, ErrorKind, Key, Session, SessionError, SessionLayer,
    SigningKey,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tower_http::csrf::CsrfLayer;

/// How many messages the user has sent.
const SENT: Key<u64> = Key::new("sent");
/// What the user is called here.
const NAME: Key<String> = Key::new("name");

const MAX_MESSAGE: usize = 4096;
/// How long a socket waits for a client that takes nothing.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Chat {
    /// To all sockets.
    messages: broadcast::Sender<Utf8Bytes>,
    /// The pages that may open a socket.
    origins: Arc<[String]>,
    check_every: Duration,
}

/// Browsers send the cookie with an upgrade that a page of another site asks for, unless SameSite stops it, and no same-origin
/// policy keeps that page from the answers: cross-site WebSocket hijacking. Other ports and subdomains are the same site, so
/// SameSite does not stop them. The Origin tells (RFC 6455, section 10.2; ASVS 5.0, 4.4.2). What guards forms against CSRF lets
/// an upgrade through, since it is a GET.
async fn open_socket(
    State(chat): State<Chat>,
    session: Session,
    _user: CurrentUser, // 401 without a login
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, SessionError> {
    let is_own = |origin| chat.origins.iter().any(|own| own.as_str() == origin);
    if !headers.get(ORIGIN).is_some_and(is_own) {
        return Ok(StatusCode::FORBIDDEN.into_response());
    }
    // The request's own session is sealed when the upgrade is answered.
    let mut session = session.detach()?;
    Ok(upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(async move |mut socket| {
            if let Err(error) = talk(&mut socket, &mut session, &chat).await {
                close(&mut socket, error.kind()).await;
            }
        }))
}

/// Returns when the client leaves, and fails when the session is over.
async fn talk(
    socket: &mut WebSocket,
    session: &mut DetachedSession,
    chat: &Chat,
) -> Result<(), SessionError> {
    let mut messages = chat.messages.subscribe();
    // The handle has the session as it was before the upgrade.
    while let Err(error) = session.reload().await {
        wait_out(error).await?;
    }
    let welcome = describe(name(session)?, session.get(SENT)?);
    if !send(socket, welcome.into()).await {
        return Ok(());
    }
    // A reload is no use of the session: who only listens is logged out after the idle timeout, and then the socket closes.
    let mut checks = interval_at(Instant::now() + chat.check_every, chat.check_every);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => {
                    session.update(SENT, |n| n.unwrap_or(0) + 1)?;
                    // Before the others get the message, so that nothing is said in a session that is over. It may be counted
                    // twice where the store's answer was lost.
                    while let Err(error) = session.save().await {
                        wait_out(error).await?;
                    }
                    // What was saved is what is stored, and so the name is the one that it has now.
                    let message = format!("{}: {text}", name(session)?);
                    // It fails without a receiver, and this socket is one.
                    let _ = chat.messages.send(message.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            // Until the next check, they also reach a socket whose session is over. If that is too long, reload here as well.
            message = messages.recv() => match message {
                Ok(message) => if !send(socket, message).await {
                    return Ok(());
                },
                Err(RecvError::Lagged(_)) => {} // a slow client misses some
                Err(RecvError::Closed) => return Ok(()),
            },
            // The end of a session reaches an idle socket here: a logout in another tab, a revocation, an expiry. While the store
            // fails, nobody knows, and nothing is sent.
            _ = checks.tick() => while let Err(error) = session.reload().await {
                wait_out(error).await?;
            },
        }
    }
}

/// Waits a while where the store failed, so that it can be tried again: an outage logs nobody out. Other errors are returned.
async fn wait_out(error: SessionError) -> Result<(), SessionError> {
    if !matches!(error.kind(), ErrorKind::Store | ErrorKind::Contended) {
        return Err(error);
    }
    eprintln!("{error}; trying again");
    sleep(RETRY_AFTER).await;
    Ok(())
}

/// The page tells by the code whether it should load anew: either to the form for the login, or to a socket with the new token.
async fn close(socket: &mut WebSocket, why: ErrorKind) {
    let (code, reason) = match why {
        ErrorKind::Ended => (close_code::POLICY, "the session has ended"),
        ErrorKind::Superseded => (close_code::POLICY, "the session has another token"),
        _ => (close_code::ERROR, "the server is at fault"),
    };
    let reason = reason.into();
    let goodbye = async {
        let frame = Message::Close(Some(CloseFrame { code, reason }));
        if socket.send(frame).await.is_ok() {
            // The connection stays until the client has answered (RFC 6455, section 7.1.1).
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = timeout(PATIENCE, goodbye).await;
}

/// Whether the client is still there.
async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> bool {
    matches!(
        timeout(PATIENCE, socket.send(Message::Text(text))).await,
        Ok(Ok(()))
    )
}

fn name(session: &DetachedSession) -> Result<String, SessionError> {
    let user = session.user()?.map(|user| user.to_string());
    Ok(session.get(NAME)?.or(user).unwrap_or_default())
}

fn describe(name: String, sent: Option<u64>) -> String {
    format!("You are {name}. Messages sent: {}.", sent.unwrap_or(0))
}

#[derive(Deserialize)]
struct NameForm {
    name: String,
}

/// A real application checks a password first.
async fn log_in(session: Session, Form(form): Form<NameForm>) -> Result<Redirect, SessionError> {
    session.log_in(form.name)?;
    Ok(Redirect::to("/"))
}

async fn log_out(session: Session) -> Result<Redirect, SessionError> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

/// Changes the session in a request, while sockets write to it: all keep what they changed.
async fn rename(
    session: Session,
    _user: CurrentUser,
    Form(form): Form<NameForm>,
) -> Result<StatusCode, SessionError> {
    session.insert(NAME, form.name)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(session: Session, user: CurrentUser) -> Result<String, SessionError> {
    let name = session.get(NAME)?.unwrap_or_else(|| user.to_string());
    Ok(describe(name, session.get(SENT)?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let port = setting("PORT", "3000");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let port = listener.local_addr()?.port();
    let chat = Chat {
        messages: broadcast::Sender::new(256),
        // Yours is https://chat.example.com, say.
        origins: ["127.0.0.1", "localhost"]
            .map(|host| format!("http://{host}:{port}"))
            .into(),
        check_every: Duration::from_millis(setting("CHECK_MS", "5000").parse()?),
    };

    let store = AnyStore::open(&setting("STORE", "memory:")).await?;
    let layer = SessionLayer::builder(store, SigningKey::generate()?)
        .cookie_name("session") // for plain HTTP on this machine, like the next line
        .secure(false)
        .build()?;
    let app = Router::new()
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/name", post(rename))
        .route("/me", get(me))
        .route("/socket", get(open_socket))
        .with_state(chat)
        .layer(layer)
        .layer(CsrfLayer::new())
        .route("/", get(Html(include_str!("page.html"))));

    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
