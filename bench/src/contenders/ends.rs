//! This crate, with sessions that end.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use cloakroom::{DetachedSession, Session, SessionError, SessionLayer, SessionStore};
use tower::Service;

use super::cloakroom::routes;
use crate::ready::Result;

/// Routes that say whether there is a session, and that end it.
pub(super) fn routes_of_ends() -> Router {
    async fn who(session: Session) -> Result<StatusCode, SessionError> {
        let theme: Option<String> = session.get("theme")?;
        Ok(theme.map_or(StatusCode::UNAUTHORIZED, |_| StatusCode::OK))
    }
    async fn end(session: Session) -> Result<(), SessionError> {
        session.destroy()
    }
    routes().route("/who", get(who)).route("/end", get(end))
}

/// Sessions with handles that outlive their requests.
pub struct Sockets {
    router: Router,
    kept: Arc<Mutex<Vec<DetachedSession>>>,
}

impl Sockets {
    pub fn on<S: SessionStore>(layer: &SessionLayer<S>) -> Self {
        let kept = Arc::<Mutex<Vec<DetachedSession>>>::default();
        let keep = kept.clone();
        let open = move |session: Session| async move {
            session.log_in("ada")?;
            if let Ok(mut kept) = keep.lock() {
                kept.push(session.detach());
            }
            Ok::<_, SessionError>(())
        };
        let router = Router::new().route("/open", get(open)).layer(layer.clone());
        Self { router, kept }
    }

    /// Logs somebody in, and opens a socket in the same request.
    pub async fn open(&self) -> Result<DetachedSession> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/open".parse()?;
        let status = self.router.clone().call(request).await?.status();
        let session = self.kept.lock().map_err(|_| "poisoned")?.pop();
        session.ok_or_else(|| format!("no session: {status}").into())
    }
}
