//! Code that the tests, the benchmarks and the programs of the moving-over guide share.
//!
//! [`servers`], [`program`] and [`base64`] do not use cloakroom. The feature `stores` adds a store
//! of each kind, and the feature `dynamodb` one more. The feature `app` adds an application, a
//! browser for it, and a watch over the log.

pub mod base64;
pub mod processes;
pub mod program;
pub mod servers;

#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "stores")]
pub mod stores;

#[cfg(feature = "app")]
mod app;
#[cfg(feature = "app")]
mod browser;
#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "app")]
mod forward;
#[cfg(feature = "app")]
pub mod log;

#[cfg(feature = "app")]
pub use app::{app, builder, id_of, key, routes};
#[cfg(feature = "app")]
pub use browser::{Browser, Reply, request, send, send_unwatched};
// The macro `forward_store` uses this.
#[cfg(feature = "app")]
#[doc(hidden)]
pub use cloakroom;
