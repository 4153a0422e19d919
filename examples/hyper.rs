//! Run with `cargo run --example hyper`, then open http://127.0.0.1:3000 and reload.
//!
//! Sessions without Axum: the layer is around a Tower service, and the server is plain hyper.

use std::convert::Infallible;
use std::time::Duration;

use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
use http::{Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

async fn count<B>(request: Request<B>) -> Result<Response<String>, SessionError> {
    // The layer is lazy, so this line loads the session. Axum's extractors load it by themselves.
    let session = Session::load_from(request.extensions()).await?;
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(Response::new(format!(
        "This is your visit number {visits}.\n"
    )))
}

async fn handle<B>(request: Request<B>) -> Result<Response<String>, Infallible> {
    let response = match request.uri().path() {
        // hyper closes the connection if a service fails. So every error becomes a response.
        "/" => count(request)
            .await
            .unwrap_or_else(|error| error.to_response()),
        // This route does not use the session, so the lazy layer does not ask the store for it.
        "/health" => Response::new("well\n".into()),
        _ => {
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .lazy(true)
        .build()?;
    let service = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(handle));

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // For example, too many files are open. There is room again when a connection ends.
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // All connections share the layer's store and keys, which are behind an `Arc`.
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new()) // ends a connection that sends no request
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("a connection broke: {error}");
            }
        });
    }
}
