//! Run with `cargo run --example plain_tower`.
//!
//! Sessions for any Tower service, without Axum: this one has no server either, and sends itself requests.

use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use tower::{ServiceBuilder, ServiceExt, service_fn};

async fn handle(request: Request<String>) -> Result<Response<String>, SessionError> {
    let session = Session::from_extensions(request.extensions())?;
    // Where the layer may be lazy, the session has to be loaded first. The extractors of Axum do it by themselves.
    session.load().await?;
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(Response::new(format!("visit {visits}")))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .lazy()
        .build()?;
    let service = ServiceBuilder::new()
        .layer(layer)
        // A service's errors stay its own; most servers want a response for each.
        .service(service_fn(async |request| {
            handle(request)
                .await
                .or_else(|error| Ok::<_, std::convert::Infallible>(error.to_response()))
        }));

    let mut cookie: Option<HeaderValue> = None;
    for _ in 0..3 {
        let mut request = Request::new(String::new());
        if let Some(cookie) = &cookie {
            request.headers_mut().insert(COOKIE, cookie.clone());
        }
        let response = service.clone().oneshot(request).await?;
        if let Some(set) = response.headers().get(SET_COOKIE) {
            let pair = set.to_str()?.split(';').next().unwrap_or_default();
            cookie = Some(pair.parse()?);
        }
        println!("{}", response.body());
    }
    Ok(())
}
