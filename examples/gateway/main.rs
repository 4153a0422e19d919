//! Run with `cargo run --example gateway`, then:
//!
//! ```sh
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/login/ada
//! curl -c jar -b jar http://127.0.0.1:3000/orders      # ada has 2 orders: lamp, chair
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/logout
//! ```
//!
//! A gateway with sessions, and a service behind it that knows nothing of them. The gateway sends
//! each request on with an assertion: a JWT that is good for this service, for half a minute.
//!
//! - `gateway.rs`: the login, the way to the service, and the public keys
//! - `service.rs`: the orders of the user who is asserted
//!
//! Both run in this program, on two ports. In a real system, nobody but the gateway can reach the
//! service. `ASSERTION_KEYS` names a file with the keys that sign: see the page on assertions in
//! the documentation for how to rotate them.

mod gateway;
mod service;

use std::env;

use axum::BoxError;
use axum::body::Body;
use cloakroom::assertion::{AssertionKey, AssertionKeys};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// The HTTP client of this program.
type HttpClient = Client<HttpConnector, Body>;

/// The name of the gateway in its assertions. The service knows it as well.
const ISSUER: &str = "https://shop.example";

/// The name of the service in the assertions for it.
const AUDIENCE: &str = "orders";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let keys = match env::var_os("ASSERTION_KEYS") {
        Some(file) => AssertionKeys::from_file(file)?,
        None => AssertionKeys::new(AssertionKey::generate()?),
    };
    let port = env::var("PORT").unwrap_or_else(|_| "3000".into());
    let for_gateway = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let for_service = TcpListener::bind("127.0.0.1:0").await?;
    let gateway = for_gateway.local_addr()?;
    let service = for_service.local_addr()?;

    let orders = service::app(&format!("http://{gateway}"), http.clone());
    let front = gateway::app(keys, &format!("http://{service}"), http)?;
    println!("http://{gateway}");
    println!("The service listens on http://{service}");
    tokio::select! {
        ended = axum::serve(for_gateway, front).into_future() => ended?,
        ended = axum::serve(for_service, orders).into_future() => ended?,
    }
    Ok(())
}
