//! Server-side sessions for Axum and any other Tower service: no write is lost, no session comes back, and a leaked store
//! logs nobody in.
//!
//! ```
//! use axum::{Router, routing::get};
//! use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
//!
//! async fn home(session: Session) -> Result<String, SessionError> {
//!     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
//!     Ok(format!("visit {visits}"))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // This key ends all sessions at a restart; see `Keys::from_env`.
//! let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
//! let app: Router = Router::new().route("/", get(home)).layer(layer);
//! # Ok(()) }
//! ```
//!
//! # The way of a request
//!
//! ```text
//! Cookie: __Host-session=…
//!   │ parse every cookie of that name, verify the signature
//!   │ none, or a bad one: a visitor, and the store is not asked
//!   ▼
//! store.load(record id)    missing, expired, or another secret: a visitor
//!   │                      down or too slow: 503, and never "logged out"
//!   ▼
//! Session ──► extractor ──► handler: get, insert, update, log_in, log_out … none of them waits
//!   ▼
//! nothing changed? no store call, or a touch once in a while
//!   ▼
//! commit: insert, or replace of the expected version, or remove
//!   │     conflict: load again, apply the changes to the newer record, try again
//!   │     missing:  somebody ended the session, and it stays so
//!   ▼
//! Set-Cookie, only where the token is new or ended
//! ```
//!
//! A token is a *record id* and a *secret*, signed. The record id is the store's key: the same for the session's life, and
//! no credential. The store keeps a hash of the secret. A new token is one compare-and-set of the record, so it is atomic
//! on every store.
//!
//! # Map
//!
//! | to | see |
//! | --- | --- |
//! | set up | [`SessionLayer`], [`SessionLayerBuilder`], [`Keys`], [`SigningKey`], [`Transport`] |
//! | use it in a handler | [`Session`], [`CurrentUser`], [`Key`], [`SessionError`] |
//! | go on after the response | [`DetachedSession`] |
//! | list, revoke, limit and purge sessions | [`Sessions`], [`SessionInfo`], [`Client`] |
//! | choose a store | [`MemoryStore`], [`SqliteStore`], [`PostgresStore`], [`MySqlStore`], [`RedisStore`], [`MemcachedStore`], [`AnyStore`] |
//! | write a store | [`SessionStore`], [`UserIndex`], [`Record`], [`conformance`] |
//! | test an application | [`testing`], [`TestClock`] |
//! | understand it | [`docs`]: [how it works](docs::how_it_works), [concurrency](docs::concurrency), [security](docs::security), [operations](docs::operations), [writing a store](docs::writing_a_store), [questions](docs::faq) |
//! | come from another crate, or choose one | [moving over](docs::moving_over) from tower-sessions with axum-login, axum_session or actix-session, [comparison](docs::comparison) with them |
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `axum` | yes | the extractors, and errors as responses, through `axum-core` |
//! | `memory` | yes | [`MemoryStore`] |
//! | `sqlite` | | [`SqliteStore`] |
//! | `postgres` | | [`PostgresStore`] |
//! | `mysql` | | [`MySqlStore`] |
//! | `redis` | | [`RedisStore`] |
//! | `memcached` | | [`MemcachedStore`] |
//! | `tls` | | TLS to PostgreSQL, MySQL and Redis |
//! | `metrics` | | the events below as counters, and store latencies |
//! | `testing` | | a browser, sessions and a failing store for an application's tests: [`testing`] |
//! | `conformance` | | the store contract as tests: [`conformance`] |
//!
//! # What it says
//!
//! Events through `tracing`, target `cloakroom`, each with a field `event`: `created`, `loaded`, `regenerated`, `destroyed`,
//! `expired`, `rejected` (and why), `conflict`, `dropped_write` (and why), `corrupt_record`, `store_error`, `refused`, `evicted`,
//! `insecure_origin`, `rival_layer`. The spans are `session_load` and `session_commit`. With the feature `metrics`, the counter `cloakroom_events_total` has them by the label
//! `event`, and the histogram `cloakroom_store_seconds` has the store's calls by `operation`. A record id may stand in them; a
//! token, its secret or session data never does.
//!
//! # What it does not do
//!
//! It checks no passwords and protects from no CSRF: `SameSite` is a second line there, and an Origin check the first. It
//! does not encrypt data in the store, and trusts who can write to it. It needs a Tokio runtime, for the timeouts of store
//! calls.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod change;
mod clock;
mod commit;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cookie;
mod data;
#[cfg(any(doc, doctest))]
pub mod docs;
mod engine;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod key;
mod layer;
mod lifetime;
mod outcome;
mod record;
mod report;
mod service;
mod session;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod transport;
mod users;

pub use ::cookie::SameSite;

pub use clock::{Clock, SystemClock, TestClock, Timestamp};
pub use engine::WhenFull;
pub use error::{ConfigError, ErrorKind, SessionError, StoreError};
#[cfg(feature = "axum")]
pub use extract::CurrentUser;
pub use key::{Key, SessionKey};
pub use layer::{SessionLayer, SessionLayerBuilder};
pub use record::{Client, Record, UserId, Version};
pub use service::{ResponseFuture, SessionService};
pub use session::{DetachedSession, Session};
pub use store::any::AnyStore;
#[cfg(feature = "memcached")]
pub use store::memcached::MemcachedStore;
#[cfg(feature = "memory")]
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
#[cfg(feature = "mysql")]
pub use store::sql::mysql::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::sql::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use store::sql::sqlite::SqliteStore;
pub use store::{Replaced, SessionStore, UserIndex};
pub use token::{InvalidRecordId, Keys, RecordId, SigningKey};
pub use transport::Transport;
pub use users::{PurgeTask, SessionInfo, Sessions};

/// The README's example is compiled like the others.
#[cfg(all(doctest, feature = "axum", feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;
