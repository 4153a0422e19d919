//! [`AnyStore`]: a store that is chosen at run time, by a URL.

mod options;

use std::fmt;
use std::sync::Arc;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::{Record, Version};
use crate::store::catalog::SessionCatalog;
use crate::store::feed::SessionFeed;
use crate::store::forward::forward_session_store;
use crate::store::{Replaced, SessionStore, UserIndex};

/// A store that is chosen at run time, by a URL as in `DATABASE_URL`.
///
/// | URL | store | feature |
/// | --- | --- | --- |
/// | `memory:` | `MemoryStore` | `memory` |
/// | `sqlite:path`, `sqlite::memory:` | `SqliteStore` | `sqlite` |
/// | `postgres://user:password@host/database`, with its feed: `…?feed=true` | `PostgresStore` | `postgres` |
/// | `mysql://user:password@host/database` | `MySqlStore` | `mysql` |
/// | `redis://host`, `redis+cluster://host,host`, `redis+sentinel://host,host/master` | `RedisStore` | `redis` |
/// | `memcache://host,host` | `MemcachedStore` | `memcached` |
///
/// The option `near` puts a [`NearCache`](crate::NearCache) of this size around the store:
/// `redis://host?near=64MiB`. The size is a number of bytes, or has the unit `KiB`, `MiB` or `GiB`.
/// The option needs the feature `near-cache` and a store with a [feed](SessionFeed), so MySQL and
/// Memcached do not take it. For PostgreSQL, both `near` and `feed=true` make the triggers of the
/// feed: see [operations](crate::docs::operations#feeds) for their cost.
///
/// DynamoDB has no URL, because its client needs credentials, a region and an HTTP client from the
/// application. For a `DynamoDbStore` of your own, there is [`from_catalog`](Self::from_catalog).
///
/// An `AnyStore` is a [`SessionStore`]. Some of these stores also find sessions by their user, and
/// some can list all sessions. If the store is such a store, [`user_index`](Self::user_index) and
/// [`session_catalog`](Self::session_catalog) give it as one.
///
/// ```
/// use cloakroom::{AnyStore, AtLimit, SessionLayer, SigningKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::generate()?;
/// let store = AnyStore::connect("memory:").await?;
/// match store.user_index() {
///     Some(store) => {
///         let layer = SessionLayer::builder(store, key)
///             .session_limit(5, AtLimit::EndOldest)
///             .build()?;
///         let devices = layer.sessions().list_for("ada").await?;
///     }
///     None => {
///         let layer = SessionLayer::new(store, key);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "DATABASE_URL")]
pub struct AnyStore {
    store: Arc<dyn SessionStore>,
    /// The same store, if it has this ability.
    user_index: Option<Arc<dyn UserIndex>>,
    /// The same store, if it has this ability.
    catalog: Option<Arc<dyn SessionCatalog>>,
}

impl AnyStore {
    /// Opens the store of a URL, and makes its table if there is none.
    ///
    /// # Errors
    ///
    /// No store has such a URL, the store's feature is not turned on, or the store cannot be
    /// opened. A server that does not answer within ten seconds is an error, and so is a migration
    /// that takes longer than a minute. It is also an error if the URL asks for a near cache that
    /// the store cannot have.
    #[doc(alias("open", "from_url"))]
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        #[cfg_attr(
            not(any(
                feature = "memcached",
                feature = "memory",
                feature = "mysql",
                feature = "postgres",
                feature = "redis",
                feature = "sqlite"
            )),
            expect(unused_variables, reason = "there is no store")
        )]
        let (url, near) = options::take_near(url)?;
        let url = &*url;
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        match scheme {
            #[cfg(feature = "memory")]
            "memory" if rest.is_empty() => {
                Self::with_near(super::memory::MemoryStore::new(), near).await
            }
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(StoreError::new(
                        "the SQLite URL must name a file, sqlite:path, or be sqlite::memory:",
                    ));
                }
                if has_escape(path) {
                    return Err(StoreError::new(
                        "the SQLite URL takes the path as it is, without percent signs such as \
                         %20: write the characters themselves",
                    ));
                }
                if path.contains('?') {
                    return Err(StoreError::new(
                        "the SQLite URL takes no options: leave out the question mark and what \
                         follows it",
                    ));
                }
                let store = super::sql::sqlite::SqliteStore::open(path).await?;
                Self::with_near(store, near).await
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let (url, has_feed) = options::take_feed(url)?;
                let store = super::sql::postgres::PostgresStore::connect(&url).await?;
                if lacks_table(&store).await? {
                    store.migrate().await?;
                }
                if !has_feed && near.is_none() {
                    return Ok(Self::from_catalog(store));
                }
                store.migrate_feed().await?;
                Self::with_near(store.with_feed(), near).await
            }
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => {
                has_no_feed("MySQL", near)?;
                let store = super::sql::mysql::MySqlStore::connect(url).await?;
                if lacks_table(&store).await? {
                    store.migrate().await?;
                }
                Ok(Self::from_catalog(store))
            }
            #[cfg(feature = "redis")]
            _ if feature_of(scheme) == Some("redis") => {
                let store = super::redis::RedisStore::connect(url).await?;
                Self::with_near(store, near).await
            }
            #[cfg(feature = "memcached")]
            "memcache" | "memcached" => {
                has_no_feed("Memcached", near)?;
                let store = super::memcached::MemcachedStore::connect(url).await?;
                Ok(Self::new(store))
            }
            _ => Err(not_opened(scheme, rest)),
        }
    }

    /// The store, with a near cache of so many bytes around it, if the URL asks for one.
    #[cfg(any(
        feature = "memory",
        feature = "postgres",
        feature = "redis",
        feature = "sqlite"
    ))]
    async fn with_near<S>(store: S, near: Option<u64>) -> Result<Self, StoreError>
    where
        S: SessionCatalog + SessionFeed,
    {
        let Some(bytes) = near else {
            return Ok(Self::from_catalog(store));
        };
        #[cfg(feature = "near-cache")]
        {
            let near = super::near::NearCache::builder(store).max_bytes(bytes);
            Ok(Self::from_catalog(near.open().await?))
        }
        #[cfg(not(feature = "near-cache"))]
        Err(StoreError::new(format!(
            "the near cache of {bytes} bytes in the store's URL is not compiled in; turn on the \
             feature `near-cache` of cloakroom"
        )))
    }

    /// A store that the application has made.
    ///
    /// It has no [`user_index`](Self::user_index) and no
    /// [`session_catalog`](Self::session_catalog), even if the store has them: see
    /// [`from_user_index`](Self::from_user_index) and [`from_catalog`](Self::from_catalog).
    #[must_use]
    pub fn new(store: impl SessionStore) -> Self {
        Self {
            store: Arc::new(store),
            user_index: None,
            catalog: None,
        }
    }

    /// A store that the application has made, and that finds sessions by their user.
    #[must_use]
    pub fn from_user_index(store: impl UserIndex) -> Self {
        let store = Arc::new(store);
        Self {
            store: store.clone(),
            user_index: Some(store),
            catalog: None,
        }
    }

    /// A store that the application has made, and that can list all its sessions.
    #[must_use]
    pub fn from_catalog(store: impl SessionCatalog) -> Self {
        let store = Arc::new(store);
        Self {
            store: store.clone(),
            user_index: Some(store.clone()),
            catalog: Some(store),
        }
    }

    /// The store as one that finds sessions by their user. `None` if it cannot find them, as
    /// Memcached.
    ///
    /// The answer is the same store. You can give it to a [`SessionLayer`](crate::SessionLayer) as
    /// well.
    #[must_use]
    pub fn user_index(&self) -> Option<Arc<dyn UserIndex>> {
        self.user_index.clone()
    }

    /// The store as one that can list all its sessions. `None` if it is a Memcached, or if the
    /// `AnyStore` comes from [`new`](Self::new) or [`from_user_index`](Self::from_user_index).
    ///
    /// ```
    /// # use cloakroom::{AnyStore, SessionFilter, SessionLayer, SigningKey};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = AnyStore::connect("memory:").await?;
    /// let store = store.session_catalog().ok_or("this store cannot list its sessions")?;
    /// let layer = SessionLayer::new(store, SigningKey::generate()?);
    /// let sessions = layer.sessions().count(&SessionFilter::new()).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn session_catalog(&self) -> Option<Arc<dyn SessionCatalog>> {
        self.catalog.clone()
    }
}

/// Refuses a near cache around a store that does not tell of changes.
#[cfg(any(feature = "memcached", feature = "mysql"))]
fn has_no_feed(store: &str, near: Option<u64>) -> Result<(), StoreError> {
    match near {
        None => Ok(()),
        Some(_) => Err(StoreError::new(format!(
            "{store} cannot tell of changes, so there is no near cache for it: leave the option \
             `near` out of the URL"
        ))),
    }
}

/// How long a database may take to say whether there is a table.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const TABLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether there is no table. The store asks before it makes one: a database user without the right
/// to make tables may use a table that is there.
#[cfg(any(feature = "mysql", feature = "postgres"))]
async fn lacks_table(store: &dyn SessionStore) -> Result<bool, StoreError> {
    let id = RecordId::from_bytes([0; 16]);
    match tokio::time::timeout(TABLE_TIMEOUT, store.load(id)).await {
        Ok(answer) => Ok(answer.is_err()),
        Err(elapsed) => {
            let what = format!(
                "could not read the session table within {TABLE_TIMEOUT:?}: the database is too \
                 slow, or another session of it has locked the table; try again"
            );
            Err(StoreError::new(what).with_source(elapsed))
        }
    }
}

/// Whether a path has a percent sign and two digits. sqlx decodes them in a URL, so that one text
/// could mean two files.
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

/// The error for a URL that no store takes. It does not show the URL, which may hold a password.
fn not_opened(scheme: &str, rest: &str) -> StoreError {
    StoreError::new(match feature_of(scheme) {
        Some("memory") if cfg!(feature = "memory") && !rest.is_empty() => {
            "the URL of a store in memory is `memory:`, and nothing more".to_owned()
        }
        Some(feature) => format!(
            "the store of `{scheme}:` is not compiled in; turn on the feature `{feature}` of \
             cloakroom"
        ),
        None => format!(
            "no session store has a URL with {}; there are memory:, sqlite:, postgres:, mysql:, \
             redis:, redis+cluster:, redis+sentinel: and memcache:",
            if is_scheme(scheme) {
                format!("the scheme {scheme:?}")
            } else {
                "no scheme".to_owned()
            }
        ),
    })
}

/// Whether a text is a scheme by RFC 3986, section 3.1. If the scheme is missing, the text before
/// the first colon may be a password.
fn is_scheme(text: &str) -> bool {
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_scheme_byte)
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStore")
            .field("store", &self.store)
            .field("has_user_index", &self.user_index.is_some())
            .field("has_catalog", &self.catalog.is_some())
            .finish()
    }
}

forward_session_store! { [] AnyStore, |any| any.store }
