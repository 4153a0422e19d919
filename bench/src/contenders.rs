//! The measured layers. All of them are around the same routes.

#[cfg(feature = "dbsc")]
mod bound;
mod cloakroom;
#[cfg(feature = "peers")]
mod ends;
#[cfg(feature = "peers")]
#[macro_use]
mod tower_sessions;
#[cfg(feature = "peers")]
mod peers;

use std::fmt;

use axum::Router;
use axum::http::header::HeaderValue;
use axum::middleware::AddExtension;
use axum::routing::get;
use tower::{Layer, layer::layer_fn};

use crate::ready::{Ready, Result, untouched};

/// A layer with its store in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// Axum alone.
    Bare,
    /// Axum and a layer that inserts one extension.
    Noop,
    Cloakroom,
    /// This crate, but the first extractor loads the session.
    CloakroomLazy,
    /// This crate, and tokens rotate.
    CloakroomRotating,
    /// This crate, and sessions are bound to devices.
    #[cfg(feature = "dbsc")]
    CloakroomBound,
    #[cfg(feature = "peers")]
    TowerSessions,
    #[cfg(feature = "peers")]
    AxumSession,
    #[cfg(feature = "peers")]
    Ruts,
}

impl Contender {
    pub const ALL: &[Self] = &[
        Self::Bare,
        Self::Noop,
        Self::Cloakroom,
        Self::CloakroomLazy,
        #[cfg(feature = "peers")]
        Self::TowerSessions,
        #[cfg(feature = "peers")]
        Self::AxumSession,
        #[cfg(feature = "peers")]
        Self::Ruts,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Noop => "noop",
            Self::Cloakroom => "cloakroom",
            Self::CloakroomLazy => "cloakroom-lazy",
            Self::CloakroomRotating => "cloakroom-rotating",
            #[cfg(feature = "dbsc")]
            Self::CloakroomBound => "cloakroom-bound",
            #[cfg(feature = "peers")]
            Self::TowerSessions => "tower-sessions",
            #[cfg(feature = "peers")]
            Self::AxumSession => "axum_session",
            #[cfg(feature = "peers")]
            Self::Ruts => "ruts",
        }
    }

    /// What only the gate measures.
    const GATED: &[Self] = &[
        Self::CloakroomRotating,
        #[cfg(feature = "dbsc")]
        Self::CloakroomBound,
    ];

    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().chain(Self::GATED).copied();
        all.find(|it| it.name() == name)
    }

    pub fn has_sessions(self) -> bool {
        !matches!(self, Self::Bare | Self::Noop)
    }

    /// The contender's routes, and the cookie of a session that holds the payload.
    pub async fn ready(self) -> Result<Ready> {
        #[cfg(feature = "dbsc")]
        if self == Self::CloakroomBound {
            return bound::ready().await;
        }
        let router = self.router().await?;
        if self.has_sessions() {
            return Ready::of(router).await;
        }
        let cookie = HeaderValue::from_static("session=none");
        Ok(Ready { router, cookie })
    }

    async fn router(self) -> Result<Router> {
        Ok(match self {
            Self::Bare => plain_routes(),
            Self::Noop => plain_routes().layer(layer_fn(extension)),
            Self::Cloakroom => cloakroom::in_memory(false)?,
            Self::CloakroomLazy => cloakroom::in_memory(true)?,
            Self::CloakroomRotating => cloakroom::rotating()?,
            #[cfg(feature = "dbsc")]
            Self::CloakroomBound => return Err("a bound session is made at once".into()),
            #[cfg(feature = "peers")]
            Self::TowerSessions => peers::tower_sessions_in_memory(),
            #[cfg(feature = "peers")]
            Self::AxumSession => peers::axum_session_in_memory().await?,
            #[cfg(feature = "peers")]
            Self::Ruts => peers::ruts_in_memory(),
        })
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// This crate with any store.
#[cfg(feature = "peers")]
pub async fn over(store: impl ::cloakroom::SessionStore) -> Result<Ready> {
    let layer = cloakroom::builder(store)?.build()?;
    Ready::of(cloakroom::routes().layer(layer)).await
}

/// Puts the payload into a session of this crate.
#[cfg(feature = "peers")]
pub use self::cloakroom::fill;

/// This crate's routes with this layer, and routes that end a session.
#[cfg(feature = "peers")]
pub fn with_ends<S: ::cloakroom::SessionStore>(layer: ::cloakroom::SessionLayer<S>) -> Router {
    ends::routes_of_ends().layer(layer)
}

#[cfg(feature = "peers")]
pub use self::ends::Sockets;

/// There is no layer. The handlers only send commands to Redis. So this is the least that a read
/// and a write of a session in Redis can cost. The write is safe against other writes, because a
/// script compares the old value.
#[cfg(feature = "peers")]
pub fn around_redis(
    client: redis::aio::ConnectionManager,
    key: &'static str,
    value: &'static [u8],
) -> Ready {
    async fn ask(client: &mut redis::aio::ConnectionManager, key: &str) {
        let value: Vec<u8> = redis::cmd("GET")
            .arg(key)
            .query_async(client)
            .await
            .unwrap();
        assert!(!value.is_empty());
    }
    let script = redis::Script::new(
        "if redis.call('GETRANGE', KEYS[1], '0', '0') ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[2])
        return 1",
    );
    let clients = (client.clone(), client);
    let read = async move || {
        ask(&mut clients.0.clone(), key).await;
        "ok"
    };
    let count = async move || {
        let mut client = clients.1.clone();
        ask(&mut client, key).await;
        let mut call = script.key(key);
        let call = call.arg(value.get(..1)).arg(value);
        let done: u8 = call.invoke_async(&mut client).await.unwrap();
        assert_eq!(done, 1);
        "ok"
    };
    let cookie = HeaderValue::from_static("session=none");
    Ready {
        router: Router::new()
            .route("/read", get(read))
            .route("/count", get(count)),
        cookie,
    }
}

#[cfg(feature = "peers")]
pub async fn tower_sessions_over_redis(pool: fred::prelude::Pool) -> Result<Ready> {
    let store = tower_sessions_redis_store::RedisStore::new(pool);
    Ready::of(peers::with_stores::around(store)).await
}

#[cfg(feature = "peers")]
pub async fn axum_session_over_redis(pool: redis_pool::SingleRedisPool) -> Result<Ready> {
    let pool = axum_session_redispool::SessionRedisPool::from(pool);
    Ready::of(peers::axum_session_routes::around(Some(pool)).await?).await
}

/// The same paths, without a session.
fn plain_routes() -> Router {
    Router::new()
        .route("/untouched", get(untouched))
        .route("/read", get(untouched))
        .route("/count", get(untouched))
        .route("/create", get(untouched))
}

/// It is as large as a session handle.
#[derive(Clone)]
struct Marker(#[expect(dead_code)] usize);

fn extension<S>(inner: S) -> AddExtension<S, Marker> {
    axum::Extension(Marker(0)).layer(inner)
}
