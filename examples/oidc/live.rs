//! A socket that lives as long as its session. When the provider ends the session, the socket
//! closes.

use std::pin::pin;

use axum::extract::Extension;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header::ORIGIN};
use axum::response::{IntoResponse, Response};
use cloakroom::{CurrentUser, DetachedSession, Session};

/// The address of the site.
#[derive(Clone)]
pub(crate) struct Site(pub(crate) String);

/// `GET /live`. Only a page of this site may open a socket: see the example `chat`.
pub(crate) async fn open(
    Extension(Site(site)): Extension<Site>,
    _user: CurrentUser, // 401 without a login
    session: Session,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if headers.get(ORIGIN).is_none_or(|origin| *origin != site) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let session = session.detach();
    upgrade.on_upgrade(async move |socket| talk(socket, &session).await)
}

/// Returns when the client has left, or when the session has ended.
async fn talk(mut socket: WebSocket, session: &DetachedSession) {
    if socket.send("Welcome.".into()).await.is_err() {
        return;
    }
    let mut ended = pin!(session.ended());
    loop {
        tokio::select! {
            _ = &mut ended => {
                let frame = CloseFrame {
                    code: close_code::POLICY,
                    reason: "your session has ended".into(),
                };
                let _ = socket.send(Message::Close(Some(frame))).await;
                return;
            }
            received = socket.recv() => if !matches!(received, Some(Ok(_))) {
                return;
            },
        }
    }
}
