//! This crate, and a session that is bound to a device.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use cloakroom::{Device, DeviceBinding, Session, SessionError};
use support::device::Device as SoftwareDevice;
use tower::Service as _;

use super::cloakroom::{fill, in_this_process, routes};
use crate::ready::{Ready, Result};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn ready() -> Result<Ready> {
    let binding = DeviceBinding::default()
        .grace_period(Duration::ZERO)
        .cookie_lifetime(DAY);
    let layer = in_this_process()?.bind_to_device(binding).build()?;
    let mut router = routes()
        .route("/log_in", get(log_in))
        .route("/device", get(device))
        .layer(layer);
    let answer = send(&mut router, Request::get("/log_in").body(Body::empty())?).await?;
    let session = cookie(answer.headers())?;
    let offer = answer.headers().get("secure-session-registration");
    let offer = offer.ok_or("no offer to bind the session")?.to_str()?;
    let challenge = offer
        .split("challenge=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .ok_or("no challenge")?;
    let proof = SoftwareDevice::es256(7).registration(challenge);
    let request = Request::post("/session/bind")
        .header(COOKIE, &session)
        .header("secure-session-response", format!("\"{proof}\""))
        .body(Body::empty())?;
    let answer = send(&mut router, request).await?;
    let bound = cookie(answer.headers())?;
    let cookie = HeaderValue::try_from(format!("{session}; {bound}"))?;
    let request = Request::get("/device").header(COOKIE, &cookie);
    send(&mut router, request.body(Body::empty())?).await?;
    Ok(Ready { router, cookie })
}

async fn log_in(session: Session) -> Result<(), SessionError> {
    session.log_in("ada")?;
    fill(session).await
}

/// Fails unless the session is bound, and the request proves its device.
async fn device(session: Session) -> StatusCode {
    match session.device() {
        Device::Bound => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    }
}

async fn send(router: &mut Router, request: Request<Body>) -> Result<Response<Body>> {
    let answer = router.call(request).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 16).await?;
    Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
}

/// The first cookie of an answer, in the form that a browser sends.
fn cookie(headers: &HeaderMap) -> Result<String> {
    let cookie = headers.get(SET_COOKIE).ok_or("no cookie")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}
