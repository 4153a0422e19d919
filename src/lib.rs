//! placeholder
#![cfg_attr(docsrs, feature(doc_cfg))]

mod change;
mod clock;
mod commit;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cookie;
mod engine;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod key;
mod layer;
mod lifetime;
mod record;
mod report;
mod service;
mod session;
mod store;
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
#[cfg(feature = "memory")]
pub use store::memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteStore;
pub use store::{Replaced, SessionStore, UserIndex};
pub use token::{InvalidRecordId, Keys, RecordId, SigningKey};
pub use transport::Transport;
pub use users::{SessionInfo, Sessions};
