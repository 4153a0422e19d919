//! [`AnyStore`]: a store that is chosen at run time, by a URL.

use std::sync::Arc;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::record::{Record, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

/// A store that is chosen at run time, by a URL as in `DATABASE_URL`.
///
/// | URL | store | feature |
/// | --- | --- | --- |
/// | `memory:` | `MemoryStore` | `memory` |
/// | `sqlite:path`, `sqlite::memory:` | `SqliteStore` | `sqlite` |
/// | `postgres://user:password@host/database` | `PostgresStore` | `postgres` |
/// | `mysql://user:password@host/database` | `MySqlStore` | `mysql` |
/// | `redis://host`, `redis+cluster://host,host`, `redis+sentinel://host,host/master` | `RedisStore` | `redis` |
/// | `memcache://host,host` | `MemcachedStore` | `memcached` |
///
/// It is a [`SessionStore`]. What needs to find sessions by user takes the store from inside, where it has an index:
///
/// ```
/// use cloakroom::{AnyStore, SessionLayer, SigningKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::generate()?;
/// match AnyStore::open("memory:").await? {
///     AnyStore::WithIndex(store) => {
///         let layer = SessionLayer::new(store, key);
///         let devices = layer.sessions().list("ada").await?;
///     }
///     AnyStore::WithoutIndex(store) => {
///         let layer = SessionLayer::new(store, key);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub enum AnyStore {
    /// A store that finds sessions by their user.
    WithIndex(Arc<dyn UserIndex>),
    /// A store that does not, such as Memcached.
    WithoutIndex(Arc<dyn SessionStore>),
}

impl AnyStore {
    /// Opens the store of a URL, and makes its table where it has none.
    ///
    /// # Errors
    ///
    /// No store has such a URL, the store's feature is not turned on, or the store cannot be
    /// opened: a server that does not answer within ten seconds is an error, and so is a migration
    /// that takes longer than a minute.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        match scheme {
            #[cfg(feature = "memory")]
            "memory" if rest.is_empty() => Ok(Self::with_index(super::memory::MemoryStore::new())),
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(StoreError::message(
                        "the SQLite URL must name a file, sqlite:path, or be sqlite::memory:",
                    ));
                }
                if has_escape(path) {
                    return Err(StoreError::message(
                        "the SQLite URL takes the path as it is, without percent signs such as %20: \
                         write the characters themselves",
                    ));
                }
                if path.contains('?') {
                    return Err(StoreError::message(
                        "the SQLite URL takes no options: leave out the question mark and what follows it",
                    ));
                }
                let store = super::sql::sqlite::SqliteStore::open(path).await?;
                Ok(Self::with_index(store))
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let store = super::sql::postgres::PostgresStore::open(url).await?;
                if lacks_table(&store).await? {
                    store.migrate().await?;
                }
                Ok(Self::with_index(store))
            }
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => {
                let store = super::sql::mysql::MySqlStore::open(url).await?;
                if lacks_table(&store).await? {
                    store.migrate().await?;
                }
                Ok(Self::with_index(store))
            }
            #[cfg(feature = "redis")]
            _ if feature_of(scheme) == Some("redis") => {
                let store = super::redis::RedisStore::open(url).await?;
                Ok(Self::with_index(store))
            }
            #[cfg(feature = "memcached")]
            "memcache" | "memcached" => {
                let store = super::memcached::MemcachedStore::open(url).await?;
                Ok(Self::WithoutIndex(Arc::new(store)))
            }
            _ => Err(not_opened(scheme, rest)),
        }
    }

    #[cfg(any(
        feature = "memory",
        feature = "mysql",
        feature = "postgres",
        feature = "redis",
        feature = "sqlite"
    ))]
    fn with_index(store: impl UserIndex) -> Self {
        Self::WithIndex(Arc::new(store))
    }

    fn store(&self) -> &dyn SessionStore {
        match self {
            Self::WithIndex(store) => &**store,
            Self::WithoutIndex(store) => &**store,
        }
    }
}

/// How long a database may take to say whether there is a table.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const TABLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A user who may not make tables may use one that is there, so that the table is asked for first.
#[cfg(any(feature = "mysql", feature = "postgres"))]
async fn lacks_table(store: &dyn SessionStore) -> Result<bool, StoreError> {
    let id = RecordId::from_bytes([0; 16]);
    match tokio::time::timeout(TABLE_TIMEOUT, store.load(id)).await {
        Ok(answer) => Ok(answer.is_err()),
        Err(elapsed) => {
            let what = format!(
                "could not read the session table within {TABLE_TIMEOUT:?}: the database is too slow, \
                 or another session of it has locked the table; try again"
            );
            Err(StoreError::new(what, elapsed))
        }
    }
}

/// sqlx decodes a percent sign and two digits in the path of such a URL: it would mean two files.
#[cfg(feature = "sqlite")]
fn has_escape(path: &str) -> bool {
    let is_escape = |three: &[u8]| match three {
        [b'%', high, low] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    };
    path.as_bytes().windows(3).any(is_escape)
}

/// The feature that a URL scheme needs.
fn feature_of(scheme: &str) -> Option<&'static str> {
    Some(match scheme {
        "memory" => "memory",
        "sqlite" => "sqlite",
        "postgres" | "postgresql" => "postgres",
        "mysql" | "mariadb" => "mysql",
        "redis" | "rediss" | "redis+unix" | "redis+cluster" | "rediss+cluster"
        | "redis+sentinel" | "rediss+sentinel" | "valkey" | "valkeys" => "redis",
        "memcache" | "memcached" => "memcached",
        _ => return None,
    })
}

/// Says what is wrong, without the URL itself, which may hold a password.
fn not_opened(scheme: &str, rest: &str) -> StoreError {
    StoreError::message(match feature_of(scheme) {
        Some("memory") if cfg!(feature = "memory") && !rest.is_empty() => {
            "the URL of a store in memory is `memory:`, and nothing more".to_owned()
        }
        Some(feature) => format!(
            "the store of `{scheme}:` is not compiled in; turn on the feature `{feature}` of cloakroom"
        ),
        None => format!(
            "no session store has a URL with {}; there are memory:, sqlite:, postgres:, mysql:, redis:, redis+cluster:, \
             redis+sentinel: and memcache:",
            if is_scheme(scheme) {
                format!("the scheme {scheme:?}")
            } else {
                "no scheme".to_owned()
            }
        ),
    })
}

/// RFC 3986, section 3.1. What else stands before a colon may be a password, as where the scheme is missing.
fn is_scheme(text: &str) -> bool {
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_scheme_byte)
}

#[async_trait]
impl SessionStore for AnyStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.store().load(id).await
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.store().insert(id, record).await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        self.store().replace(id, expected, record).await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.store().touch(id, record).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.store().remove(id).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.store().purge_expired(now).await
    }
}
