//! Routes that are ready for requests, and requests to them.

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::{HeaderValue, SET_COOKIE};
use tower::Service;

use crate::scenario::{GOOD, Scenario};

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Routes, and the cookie of a session.
#[derive(Clone)]
pub struct Ready {
    pub router: Router,
    pub cookie: HeaderValue,
}

impl Ready {
    /// These routes, with a new session that holds the payload.
    pub async fn of(router: Router) -> Result<Self> {
        let cookie = session_cookie(&router).await?;
        Ok(Self { router, cookie })
    }

    /// Sends one request.
    pub async fn send(&mut self, scenario: Scenario) {
        let request = scenario.request(&self.cookie);
        self.answer(request).await;
    }

    /// Sends a request. Checks that the answer is good, and drops it.
    pub async fn answer(&mut self, request: Request<Body>) {
        let response = match self.router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        assert_eq!(response.status(), GOOD);
    }
}

/// The cookies in the answer to `/fill`, in the form that a browser sends.
pub async fn session_cookie(router: &Router) -> Result<HeaderValue> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/fill".parse()?;
    let response = router.clone().call(request).await?;
    let cookies: Vec<&str> = response
        .headers()
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .collect();
    if response.status() != GOOD || cookies.is_empty() {
        return Err("no session was made".into());
    }
    Ok(cookies.join("; ").parse()?)
}

pub async fn untouched() -> &'static str {
    "ok"
}
