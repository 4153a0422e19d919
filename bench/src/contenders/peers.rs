//! The other session layers. They sign their cookies. All other settings are the defaults.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use ruts::store::Ttl;
use ruts::store::moka::MokaStore;

use crate::ready::{Result, untouched};
use crate::scenario::{NONCE, Profile, THEME, cart};

tower_sessions!(newest, tower_sessions);
tower_sessions!(with_stores, tower_sessions_14);

pub(super) fn tower_sessions_in_memory() -> Router {
    newest::around(tower_sessions::MemoryStore::default())
}

pub(super) mod axum_session_routes {
    use super::*;
    use axum_session::{DatabasePool, Key, Session, SessionConfig, SessionLayer, SessionStore};

    pub(in super::super) async fn around<P>(pool: Option<P>) -> Result<Router>
    where
        P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let config = SessionConfig::default().with_key(Key::generate());
        let store = SessionStore::new(pool, config).await?;
        Ok(Router::new()
            .route("/untouched", get(untouched))
            .route("/fill", get(fill::<P>))
            .route("/read", get(read::<P>))
            .route("/count", get(count::<P>))
            .route("/create", get(create::<P>))
            .layer(SessionLayer::new(store)))
    }

    async fn fill<P>(session: Session<P>)
    where
        P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        session.set("profile", Profile::example());
        session.set("cart", cart());
        session.set("nonce", NONCE);
        session.set("theme", THEME);
        session.set("count", 0_u64);
    }

    async fn read<P>(session: Session<P>) -> &'static str
    where
        P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let theme: Option<String> = session.get("theme");
        assert_eq!(theme.as_deref(), Some(THEME));
        "ok"
    }

    async fn count<P>(session: Session<P>) -> &'static str
    where
        P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let count: u64 = session.get("count").unwrap_or(0);
        session.set("count", count + 1);
        "ok"
    }

    async fn create<P>(session: Session<P>) -> &'static str
    where
        P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        session.set("count", 1_u64);
        "ok"
    }
}

pub(super) async fn axum_session_in_memory() -> Result<Router> {
    axum_session_routes::around(None::<axum_session::SessionNullPool>).await
}

type RutsSession = ruts::Session<MokaStore>;

pub(super) fn ruts_in_memory() -> Router {
    let options = ruts::CookieOptions::build()
        .name("session")
        .path("/")
        .http_only(true)
        .secure(true)
        .same_site(tower_cookies::cookie::SameSite::Lax)
        .max_age(3600)
        .signing_key(tower_cookies::Key::generate());
    Router::new()
        .route("/untouched", get(untouched))
        .route("/fill", get(ruts_fill))
        .route("/read", get(ruts_read))
        .route("/count", get(ruts_count))
        .route("/create", get(ruts_create))
        .layer(
            ruts::SessionLayer::new(Arc::new(
                MokaStore::builder().max_capacity(4_000_000).build(),
            ))
            .with_cookie_options(options),
        )
        .layer(tower_cookies::CookieManagerLayer::new())
}

fn hour() -> Ttl {
    Ttl::new(3600).unwrap()
}

async fn ruts_fill(session: RutsSession) {
    let set = async || {
        session
            .set("profile", &Profile::example(), hour(), None)
            .await?;
        session.set("cart", &cart(), hour(), None).await?;
        session
            .set("nonce", &NONCE.to_owned(), hour(), None)
            .await?;
        session
            .set("theme", &THEME.to_owned(), hour(), None)
            .await?;
        session.set("count", &0_u64, hour(), None).await
    };
    set().await.unwrap();
}

async fn ruts_read(session: RutsSession) -> &'static str {
    let theme: Option<String> = session.get("theme").await.unwrap();
    assert_eq!(theme.as_deref(), Some(THEME));
    "ok"
}

async fn ruts_count(session: RutsSession) -> &'static str {
    let count: u64 = session.get("count").await.unwrap().unwrap_or(0);
    session
        .set("count", &(count + 1), hour(), None)
        .await
        .unwrap();
    "ok"
}

async fn ruts_create(session: RutsSession) -> &'static str {
    session.set("count", &1_u64, hour(), None).await.unwrap();
    "ok"
}
