//! gRPC with a session.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::Router;
use cloakroom::{MemoryStore, Session, SessionError, SessionLayer};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::Service;

// What a method of your service does with its request.
fn count<T>(request: &tonic::Request<T>) -> Result<u64, tonic::Status> {
    let failed = |error: SessionError| tonic::Status::internal(error.to_string());
    let session = Session::from_extensions(request.extensions()).map_err(failed)?;
    session
        .update("count", |n: Option<u64>| n.unwrap_or(0) + 1)
        .map_err(failed)
}

/// A service like the ones that tonic's code generator writes. It has only the parts that this
/// example needs.
#[derive(Clone)]
pub struct Counter;

impl NamedService for Counter {
    const NAME: &'static str = "shop.Counter";
}

impl Service<http::Request<Body>> for Counter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut response = http::Response::new(Body::default());
        match count(&tonic::Request::from_http(request)) {
            Ok(count) => {
                response.headers_mut().insert("x-count", count.into());
            }
            Err(status) => response = status.into_http(),
        }
        ready(Ok(response))
    }
}

// It runs on tonic's own server.
pub async fn serve(
    layer: SessionLayer<MemoryStore>,
    address: SocketAddr,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .layer(layer)
        .add_service(Counter)
        .serve(address)
        .await
}

// It is a part of an Axum application.
pub fn app(layer: SessionLayer<MemoryStore>) -> Router {
    Routes::new(Counter).into_axum_router().layer(layer)
}

#[cfg(test)]
mod tests {
    use cloakroom::testing::Browser;
    use cloakroom::{MemoryStore, SessionLayer, SigningKey};

    #[tokio::test]
    async fn a_service_counts_the_calls_of_a_session() {
        let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
        let mut client = Browser::new(super::app(layer));
        for n in ["1", "2"] {
            let answer = client.post("/shop.Counter/Count", &[]).await.unwrap();
            assert_eq!(answer.headers()["x-count"], n);
        }
    }

    #[tokio::test]
    async fn tonics_own_server_takes_the_layer() {
        let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
        let server = super::serve(layer, ([127, 0, 0, 1], 0).into());
        // Otherwise the server would run until the process ends.
        drop(server);
    }
}
