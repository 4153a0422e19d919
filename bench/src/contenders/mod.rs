//! The layers that are measured, each around the same routes.

mod cloakroom;
#[cfg(feature = "peers")]
mod peers;

use std::error::Error;
use std::fmt;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::middleware::AddExtension;
use axum::routing::get;
use tower::{Layer, Service, layer::layer_fn};

use crate::scenario::{GOOD, Scenario};

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// A layer with its store in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// Axum alone.
    Bare,
    /// Axum and a layer that inserts one extension.
    Noop,
    Cloakroom,
    /// The same, loading in the first extractor.
    CloakroomLazy,
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
            #[cfg(feature = "peers")]
            Self::TowerSessions => "tower-sessions",
            #[cfg(feature = "peers")]
            Self::AxumSession => "axum_session",
            #[cfg(feature = "peers")]
            Self::Ruts => "ruts",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.name() == name)
    }

    pub fn has_sessions(self) -> bool {
        !matches!(self, Self::Bare | Self::Noop)
    }

    /// Its routes, and the cookie of a session that holds the payload.
    pub async fn ready(self) -> Result<Ready> {
        let router = self.router().await?;
        if self.has_sessions() {
            return Ready::of(router).await;
        }
        let cookie = HeaderValue::from_static("session=none");
        Ok(Ready { router, cookie })
    }

    pub async fn router(self) -> Result<Router> {
        Ok(match self {
            Self::Bare => plain_routes(),
            Self::Noop => plain_routes().layer(layer_fn(extension)),
            Self::Cloakroom => cloakroom::in_memory(false)?,
            Self::CloakroomLazy => cloakroom::in_memory(true)?,
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

/// This crate over any store.
#[cfg(feature = "peers")]
pub async fn over(store: ::cloakroom::AnyStore) -> Result<Ready> {
    let layer = cloakroom::builder(store)?.build()?;
    Ready::of(cloakroom::routes().layer(layer)).await
}

/// No layer, and a handler that does nothing but ask Redis: the least that a session over it can cost.
#[cfg(feature = "peers")]
pub async fn around_get(client: redis::aio::ConnectionManager, key: &'static str) -> Result<Ready> {
    let read = async move || {
        let mut client = client.clone();
        let value: Vec<u8> = redis::cmd("GET")
            .arg(key)
            .query_async(&mut client)
            .await
            .unwrap();
        assert!(!value.is_empty());
        "ok"
    };
    let cookie = HeaderValue::from_static("session=none");
    Ok(Ready {
        router: Router::new().route("/read", get(read)),
        cookie,
    })
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

/// Routes that take requests, and a session's cookie.
#[derive(Clone)]
pub struct Ready {
    pub router: Router,
    pub cookie: HeaderValue,
}

impl Ready {
    pub async fn of(router: Router) -> Result<Self> {
        let cookie = session_cookie(&router).await?;
        Ok(Self { router, cookie })
    }

    /// The same routes, with so many sessions.
    #[cfg(feature = "peers")]
    pub async fn sessions(&self, count: u32) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Self::of(self.router.clone()).await?);
        }
        Ok(all)
    }

    /// Sends one request, and throws the answer away once it is known to be good.
    pub async fn send(&mut self, scenario: Scenario) {
        let request = scenario.request(&self.cookie);
        let response = match self.router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        assert_eq!(response.status(), GOOD, "{scenario}");
    }
}

/// The cookies that `/fill` answers with, as a browser sends them.
pub async fn session_cookie(router: &Router) -> Result<HeaderValue> {
    let mut request = Request::new(axum::body::Body::empty());
    *request.uri_mut() = "/fill".parse()?;
    let response = router.clone().call(request).await?;
    assert_eq!(response.status(), GOOD);
    let cookies: Vec<&str> = response
        .headers()
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .collect();
    assert!(!cookies.is_empty(), "no session was made");
    Ok(cookies.join("; ").parse()?)
}

async fn untouched() -> &'static str {
    "ok"
}

/// Every path, and no session behind any.
fn plain_routes() -> Router {
    Router::new()
        .route("/untouched", get(untouched))
        .route("/read", get(untouched))
        .route("/count", get(untouched))
        .route("/create", get(untouched))
}

/// As large as a session handle.
#[derive(Clone)]
struct Marker(#[expect(dead_code)] usize);

fn extension<S>(inner: S) -> AddExtension<S, Marker> {
    axum::Extension(Marker(0)).layer(inner)
}
