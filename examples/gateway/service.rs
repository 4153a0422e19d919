//! The service: it has no sessions, no store, and no secret. It trusts what the gateway signs.

use std::io;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::routing::get;
use cloakroom::assertion::{Asserted, AssertionVerifier, JwksRoute};
use http_body_util::{BodyExt, Limited};

use crate::{AUDIENCE, HttpClient, ISSUER};

async fn orders(user: Asserted) -> String {
    let orders = match user.user().as_str() {
        "ada" => "ada has 2 orders: lamp, chair",
        _ => "no orders",
    };
    format!("{orders}\n")
}

/// The public keys of the gateway. In a real system, this is HTTPS.
async fn fetch_keys(http: HttpClient, url: String) -> Result<Bytes, io::Error> {
    let request = Request::get(url).body(Body::empty());
    let answer = http.request(request.map_err(io::Error::other)?).await;
    let answer = answer.map_err(io::Error::other)?;
    if !answer.status().is_success() {
        return Err(io::Error::other(format!(
            "the gateway says {}",
            answer.status()
        )));
    }
    let body = Limited::new(answer.into_body(), 64 * 1024).collect().await;
    Ok(body.map_err(io::Error::other)?.to_bytes())
}

pub(crate) fn app(gateway: &str, http: HttpClient) -> Router {
    let url = format!("{gateway}{}", JwksRoute::PATH);
    let verifier = AssertionVerifier::fetching(ISSUER, AUDIENCE, move || {
        fetch_keys(http.clone(), url.clone())
    });
    Router::new()
        .route("/orders", get(orders))
        .with_state(verifier)
}
