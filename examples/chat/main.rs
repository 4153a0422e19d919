//! Run with `cargo run --example chat`, then open http://127.0.0.1:3000 in two browsers and log in
//! with a name in each.
//!
//! A chat over WebSockets. A socket outlives its request, so it has a detached handle of the
//! session. With the handle, the socket counts the messages of its user, and sees a name that
//! another tab changes. A logout on any node closes all sockets of the session: at once if the
//! store has a feed, and otherwise within two seconds. `STORE` takes the URL of a store, which
//! replaces the memory store.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header::ORIGIN};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use cloakroom::{
    AnyStore, CurrentUser, DetachedSession, Ended, Key, Session, SessionError, SessionErrorKind,
    SessionLayer, SigningKey,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{sleep, timeout};
use tower_http::csrf::CsrfLayer;

/// How many messages the user has sent.
const SENT: Key<u64> = Key::new("sent");
/// The user's name in the chat.
const NAME: Key<String> = Key::new("name");

const MAX_MESSAGE: usize = 4096;
/// The time that a socket waits for a client that reads nothing.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Chat {
    /// The way to all sockets.
    messages: broadcast::Sender<Utf8Bytes>,
    /// The origins whose pages may open a socket.
    origins: Arc<[String]>,
}

/// Opens a socket, for pages of this site only: otherwise, cross-site WebSocket hijacking is
/// possible.
///
/// A page of another site can ask the browser for an upgrade. The browser sends the cookie with the
/// upgrade, unless SameSite stops the cookie. The same-origin policy does not keep the answers from
/// that page. SameSite does not stop other ports and subdomains, since they are the same site. So
/// this handler checks the Origin (RFC 6455, section 10.2; ASVS 5.0, 4.4.2). A guard of forms
/// against CSRF lets an upgrade through, since an upgrade is a GET.
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
    // The layer seals the request's session when the response to the upgrade leaves. So the socket
    // needs a handle.
    let mut session = session.detach();
    Ok(upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(async move |mut socket| {
            if let Err(why) = talk(&mut socket, &mut session, &chat).await {
                close(&mut socket, why).await;
            }
        }))
}

/// Why the server closes a socket.
enum Close {
    Ended(Ended),
    /// The session was over before the socket said something.
    Failed(SessionErrorKind),
}

impl From<SessionError> for Close {
    fn from(error: SessionError) -> Self {
        Self::Failed(error.kind())
    }
}

/// Returns when the client leaves, and fails when the session is over.
async fn talk(
    socket: &mut WebSocket,
    session: &mut DetachedSession,
    chat: &Chat,
) -> Result<(), Close> {
    let mut messages = chat.messages.subscribe();
    // This is ready after a logout in another tab or on another node, a revocation or an expiry.
    // Waiting does not count as a use of the session. So the idle timeout ends the session of a
    // user who only listens, and then the socket closes.
    let mut ended = std::pin::pin!(session.ended());
    // Before the reload, the handle has the session as it was before the upgrade.
    while let Err(error) = session.reload().await {
        wait_out(error).await?;
    }
    let welcome = describe(name(session)?, session.get(SENT)?);
    if !send(socket, welcome.into()).await {
        return Ok(());
    }
    loop {
        tokio::select! {
            // The end comes first, so that a socket whose session is over gets no more messages.
            biased;
            ended = &mut ended => return Err(Close::Ended(ended)),
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => {
                    session.update(SENT, |n| n.unwrap_or(0) + 1)?;
                    // The save comes before the others get the message, so that a user whose
                    // session is over cannot say anything. If the store's answer was lost, the
                    // message may count twice.
                    while let Err(error) = session.save().await {
                        wait_out(error).await?;
                    }
                    // After the save, the handle has the session as the store has it. So the name
                    // is the current one.
                    let message = format!("{}: {text}", name(session)?);
                    // `send` fails only without a receiver, and this socket is a receiver.
                    let _ = chat.messages.send(message.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            message = messages.recv() => match message {
                Ok(message) => if !send(socket, message).await {
                    return Ok(());
                },
                Err(RecvError::Lagged(_)) => {} // a slow client misses some
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

/// Waits a while if the store failed, so that the caller can try again: an outage must not log
/// anybody out. Returns all other errors.
async fn wait_out(error: SessionError) -> Result<(), SessionError> {
    if !matches!(
        error.kind(),
        SessionErrorKind::Store | SessionErrorKind::Contended
    ) {
        return Err(error);
    }
    eprintln!("{error}; trying again");
    sleep(RETRY_AFTER).await;
    Ok(())
}

/// Closes the socket with a code. The code tells the page whether to load again. The page then
/// shows the login form, or opens a socket with the new token.
async fn close(socket: &mut WebSocket, why: Close) {
    let (code, reason) = match why {
        Close::Ended(Ended::Superseded) | Close::Failed(SessionErrorKind::TokenRotated) => {
            (close_code::POLICY, "the session has another token")
        }
        Close::Ended(_) | Close::Failed(SessionErrorKind::Ended) => {
            (close_code::POLICY, "the session has ended")
        }
        Close::Failed(_) => (close_code::ERROR, "the server is at fault"),
    };
    let reason = reason.into();
    let goodbye = async {
        let frame = Message::Close(Some(CloseFrame { code, reason }));
        if socket.send(frame).await.is_ok() {
            // The connection stays open until the client has answered (RFC 6455, section 7.1.1).
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = timeout(PATIENCE, goodbye).await;
}

/// Returns whether the client is still there.
async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> bool {
    matches!(
        timeout(PATIENCE, socket.send(Message::Text(text))).await,
        Ok(Ok(()))
    )
}

fn name(session: &DetachedSession) -> Result<String, SessionError> {
    let user = session.user().map(|user| user.to_string());
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

/// A request changes the session here while sockets write to it. All of them keep their changes.
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
        // Yours could be https://chat.example.com.
        origins: ["127.0.0.1", "localhost"]
            .map(|host| format!("http://{host}:{port}"))
            .into(),
    };

    let store = AnyStore::connect(&setting("STORE", "memory:")).await?;
    let layer = SessionLayer::builder(store, SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
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
