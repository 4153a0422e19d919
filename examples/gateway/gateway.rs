//! The gateway: it has the sessions, and the keys that sign assertions.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{BoxError, Router};
use cloakroom::assertion::{AssertionKeys, Assertions, JwksRoute};
use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};

use crate::{AUDIENCE, HttpClient, ISSUER};

/// How long an assertion is good. The service gets it at once, so it may be short.
const TTL: Duration = Duration::from_secs(30);

/// Where requests for the orders go.
#[derive(Clone)]
struct Orders {
    url: String,
    http: HttpClient,
}

/// A real gateway checks a password first.
async fn log_in(session: Session, Path(user): Path<String>) -> Result<StatusCode, SessionError> {
    session.log_in(user)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn log_out(session: Session) -> Result<StatusCode, SessionError> {
    session.log_out()?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a request on to the service, and its answer back.
///
/// The service gets a new request, with the headers that it needs. Neither the cookie of the
/// session nor an `Authorization` of the client gets there.
async fn hand_on(
    State(orders): State<Orders>,
    session: Session,
    request: Request,
) -> Result<Response, Response> {
    let assertion = session.assertion(AUDIENCE, TTL);
    let assertion = assertion.map_err(IntoResponse::into_response)?;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::builder()
        .method(parts.method)
        .uri(format!("{}{path}", orders.url))
        .header(AUTHORIZATION, format!("Bearer {assertion}"));
    if let Some(accept) = parts.headers.get(ACCEPT) {
        onward = onward.header(ACCEPT, accept);
    }
    let onward = onward
        .body(body)
        .map_err(|_| StatusCode::BAD_REQUEST.into_response())?;
    match orders.http.request(onward).await {
        // The service trusts no keys yet, or the clocks are wrong. The user can do nothing about
        // it.
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            Err(StatusCode::BAD_GATEWAY.into_response())
        }
        // No other header: a service must not set the cookie of the gateway.
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            let content_type = head.headers.get(CONTENT_TYPE).cloned();
            let mut response = (head.status, Body::new(body)).into_response();
            response
                .headers_mut()
                .extend(content_type.map(|it| (CONTENT_TYPE, it)));
            Ok(response)
        }
        Err(_) => Err(StatusCode::BAD_GATEWAY.into_response()),
    }
}

pub(crate) fn app(keys: AssertionKeys, orders: &str, http: HttpClient) -> Result<Router, BoxError> {
    let jwks = keys.jwks_route();
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .assertions(Assertions::new(ISSUER, keys).max_ttl(TTL))
        .build()?;
    let orders = Orders {
        url: orders.to_owned(),
        http,
    };
    Ok(Router::new()
        .route("/login/{user}", post(log_in))
        .route("/logout", post(log_out))
        .route("/orders", any(hand_on))
        .with_state(orders)
        .layer(layer)
        // This route is outside of the session layer, because a service has no session here.
        .route(JwksRoute::PATH, get(jwks)))
}
