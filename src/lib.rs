//! Server-side sessions for Axum and any other Tower service: no write is lost, no ended session
//! comes back, and a leaked store logs nobody in.
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
//! // A restart loses this key, and with it all sessions: see `SigningKeys::from_env`.
//! let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
//! let app: Router = Router::new().route("/", get(home)).layer(layer);
//! # Ok(()) }
//! ```
//!
//! # The life of a request
//!
//! ```text
//! Cookie: __Host-session=…
//!   │ parse every cookie of that name, verify the signature
//!   │ none, or a bad one: a visitor, without a store call
//!   ▼
//! store.load(record id)    missing, expired, or another secret: a visitor
//!   │                      down or too slow: 503, and never "logged out"
//!   ▼
//! Session ──► extractor ──► handler: get, insert, update, log_in, log_out … none of them waits
//!   ▼
//! nothing changed? no store call, or a touch now and then, which moves the expiry
//!   ▼
//! commit: insert, or replace of the expected version, or remove
//!   │     conflict: load again, apply the changes to the newer record, try again
//!   │     missing:  somebody has ended the session, and it stays ended
//!   ▼
//! Set-Cookie, only if the token is new or the session has ended
//! ```
//!
//! A token is a *record id* and a *secret*, signed. The record id is the store's key. It stays the
//! same for the session's life, and is not a credential. The store keeps a hash of the secret. A
//! rotation of the token is one compare-and-set of the record, and therefore atomic on every store.
//!
//! # Map
//!
//! | to | see |
//! | --- | --- |
//! | set up | [`SessionLayer`], [`SessionLayerBuilder`], [`SigningKeys`], [`SigningKey`], [`WatchedKeys`], [`Transport`], [`SameSite`] |
//! | use it in a handler | [`Session`], [`CurrentUser`], [`UserId`], [`Account`], [`Authentication`], [`Key`], [`SessionError`] |
//! | find the user, guard routes, lead back after a login | [`login`]: [`Users`](login::Users), [`Auth`](login::Auth), [`required`](login::required), [`Next`](login::Next) |
//! | show a message after a redirect | [`Flash`], [`flash`] |
//! | go on after the response | [`DetachedSession`] |
//! | close sockets and streams with their session | [`ended`](DetachedSession::ended), [`until_ended`](DetachedSession::until_ended), [`Ended`] |
//! | bind sessions to the device of their browser | [`bind_to_device`](SessionLayerBuilder::bind_to_device), [`DeviceBinding`], [`WhenUnbound`], [`Session::device`], [`Device`] |
//! | make stolen tokens worth little | [`rotate_every`](SessionLayerBuilder::rotate_every), [`client_from`](SessionLayerBuilder::client_from), [stolen cookies](docs::stolen_cookies) |
//! | hear of logins and ends, keep an audit trail | [`on_event`](SessionLayerBuilder::on_event), [`SessionEvent`], [`EndCause`] |
//! | list, revoke, limit and purge sessions | [`Sessions`], [`SessionInfo`], [`Client`], [`AtLimit`] |
//! | page, count and end all sessions, or those of an external id | [`SessionFilter`], [`SessionPage`], [`Cursor`], [`Session::set_external_id`] |
//! | tell services behind who the user is | [`assertion`]: [`Session::assertion`], [`Asserted`](assertion::Asserted), [its page](docs::assertions) |
//! | choose a store | [`MemoryStore`], [`SqliteStore`], [`PostgresStore`], [`MySqlStore`], [`RedisStore`], [`MemcachedStore`], [`DynamoDbStore`], [`AnyStore`] |
//! | read a shared store without a round trip | [`NearCache`] |
//! | encrypt what a store keeps | [`EncryptedStore`], [`EncryptionKeys`], [`EncryptionKey`], [`UserHashKey`], [`Plaintext`] |
//! | write a store | [`SessionStore`], [`UserIndex`], [`SessionCatalog`], [`SessionFeed`], [`Feed`], [`Record`], [`conformance`] |
//! | test an application | [`testing`], [`TestClock`] |
//! | understand it | [`docs`]: [login](docs::login), [how it works](docs::how_it_works), [concurrency](docs::concurrency), [security](docs::security), [stolen cookies](docs::stolen_cookies), [design](docs::design) |
//! | run it | [order of layers](docs::layer_order), [several nodes](docs::several_nodes), [operations](docs::operations), [for auditors](docs::audit), [integrations](docs::integrations), [writing a store](docs::writing_a_store), [questions](docs::faq) |
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
//! | `dynamodb` | | [`DynamoDbStore`] |
//! | `near-cache` | | [`NearCache`]: reads without a round trip |
//! | `encryption` | | [`EncryptedStore`]: records are encrypted before any store gets them |
//! | `tls` | | TLS to PostgreSQL, MySQL and Redis |
//! | `login` | | the users, guards for routes, permissions, the way back to a page: [`login`] |
//! | `dbsc` | | sessions that are bound to the device of their browser: [`bind_to_device`](SessionLayerBuilder::bind_to_device) |
//! | `jwt` | | short-lived tokens that say to services behind who the user is: [`assertion`] |
//! | `uuid` | | `Uuid` as a [`UserId`] |
//! | `metrics` | | counts of the events below, and store latencies |
//! | `testing` | | a browser, sessions and a failing store for an application's tests: [`testing`] |
//! | `conformance` | | the store contract as tests: [`conformance`] |
//!
//! # Events and metrics
//!
//! The crate reports events through `tracing`, with the target `cloakroom`. Each has a field
//! `event`: `created`, `loaded`, `logged_in`, `rotated`, `retired`, `ended` (and why), `expired`,
//! `rejected` (and why), `login_refused`, `conflict`, `dropped_write` (and why), `acting`,
//! `stopped_acting`, `bound`, `unbound` (and why), `device_refreshed`, `device_rejected` (and why),
//! `reuse`, `rotation_failed`, `corrupt_record`, `store_error`, `users_error`, `unopened_record`
//! (and why), `login_without_stamp`, `keys_accepted`, `keys_rejected` (and why), `refused`,
//! `evicted`, `insecure_origin`, `rival_layer`, `hook_panicked`, `feed_lost`, `feed_restored`,
//! `feed_ignored`, `near_cache_emptied`, `asserted`, `assertion_rejected` (and why),
//! `jwks_fetched`, `jwks_failed`. The fields `user`, `actor` and `asked_by` say whose session it
//! is, who acts in the session, and who asked for its end, if the layer knows that without a store
//! call. The spans are `session_load` and `session_commit`.
//!
//! With the feature `metrics`, the counter `cloakroom_events_total` counts the events by the label
//! `event`, and `ended` also by the label `cause`. The histogram `cloakroom_store_seconds` has the
//! store calls by the label `operation`. Events may show a record id and a user id, and metrics
//! show neither. Neither events nor metrics show a token, its secret or session data.
//!
//! To have the application itself hear of its sessions, give the layer a hook with
//! [`on_event`](SessionLayerBuilder::on_event). The hook gets each [`SessionEvent`].
//!
//! # What it does not do
//!
//! It checks no passwords. It does not protect from CSRF: check the `Origin` header, and let
//! `SameSite` be the second line of defence. Without an [`EncryptedStore`], data in the store is
//! not encrypted, and the layer trusts whoever can write to the store. It needs a Tokio runtime,
//! for the timeouts of store calls.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "jwt")]
pub mod assertion;
mod binding;
mod clock;
mod commit;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
#[cfg(any(doc, doctest))]
pub mod docs;
mod error;
mod events;
pub mod flash;
mod hooks;
mod id;
#[cfg(any(feature = "dbsc", feature = "jwt"))]
mod jose;
mod layer;
mod live;
#[cfg(feature = "login")]
pub mod login;
mod record;
mod registry;
mod secret;
mod session;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

#[cfg(feature = "dbsc")]
pub use binding::device::Device;
#[cfg(feature = "dbsc")]
pub use binding::device::settings::{DeviceBinding, WhenUnbound};
pub use clock::{Clock, SystemClock, TestClock, Timestamp};
pub use context::session_limit::AtLimit;
pub use error::{ConfigError, SessionError, SessionErrorKind, StoreError};
pub use flash::Flash;
pub use hooks::cause::EndCause;
pub use hooks::event::{SessionEvent, SessionEventKind};
pub use id::{InvalidRecordId, RecordId};
pub use layer::SessionLayer;
#[cfg(feature = "dbsc")]
pub use layer::answer::WithDevices;
pub use layer::answer::{AnswerBody, NoDevices};
pub use layer::builder::SessionLayerBuilder;
#[cfg(feature = "axum")]
pub use layer::extract::CurrentUser;
pub use layer::future::ResponseFuture;
pub use layer::service::SessionService;
pub use live::Ended;
pub use live::until_ended::UntilEnded;
pub use record::client::Client;
pub use record::login::{Account, Authentication, IntoAccount, Stamp};
pub use record::user::{IntoUserId, InvalidUserId, UserId};
pub use record::{Record, Version};
pub use registry::catalog::SessionPage;
pub use registry::filter::SessionFilter;
pub use registry::info::SessionInfo;
pub use registry::{PurgeTask, Sessions};
pub use secret::KeySource;
pub use secret::watched::WatchedKeys;
pub use session::Session;
pub use session::detached::DetachedSession;
pub use session::key::{Key, SessionKey};
pub use store::any::AnyStore;
pub use store::catalog::{Accept, Cursor, Scan, SessionCatalog};
#[cfg(feature = "dynamodb")]
pub use store::dynamodb::DynamoDbStore;
#[cfg(feature = "encryption")]
pub use store::encrypted::keys::{EncryptionKey, EncryptionKeys, UserHashKey};
#[cfg(feature = "encryption")]
pub use store::encrypted::{EncryptedStore, Plaintext};
pub use store::feed::{Feed, FeedSender, Notice, SessionFeed};
#[cfg(feature = "memcached")]
pub use store::memcached::MemcachedStore;
#[cfg(feature = "memory")]
pub use store::memory::MemoryStore;
#[cfg(feature = "near-cache")]
pub use store::near::{NearCache, NearCacheBuilder, NearCacheStats};
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
#[cfg(feature = "mysql")]
pub use store::sql::mysql::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::sql::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use store::sql::sqlite::SqliteStore;
pub use store::{Replaced, SessionStore, UserIndex};
pub use token::cookie::SameSite;
pub use token::keys::{SigningKey, SigningKeys};
pub use token::transport::Transport;

/// The README's example is compiled like the others.
#[cfg(all(doctest, feature = "axum", feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;
