//! This crate.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cloakroom::{
    MemoryStore, Session, SessionError, SessionLayer, SessionLayerBuilder, SessionStore, SigningKey,
};

use crate::ready::{Result, untouched};
use crate::scenario::{NONCE, Profile, THEME, cart};

/// The benchmarks never make this many sessions.
const MAX_SESSIONS: usize = 4_000_000;

pub(super) fn in_memory(lazy: bool) -> Result<Router> {
    let mut builder = in_this_process()?;
    if lazy {
        builder = builder.lazy(true);
    }
    Ok(routes().layer(builder.build()?))
}

/// Tokens rotate, but none is due yet.
pub(super) fn rotating() -> Result<Router> {
    let layer = in_this_process()?.rotate_every(HOUR).build()?;
    Ok(routes().layer(layer))
}

const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) fn in_this_process() -> Result<SessionLayerBuilder<MemoryStore>> {
    builder(MemoryStore::new().with_max_sessions(MAX_SESSIONS))
}

pub(super) fn builder<S: SessionStore>(store: S) -> Result<SessionLayerBuilder<S>> {
    Ok(SessionLayer::builder(store, SigningKey::generate()?))
}

pub(super) fn routes() -> Router {
    Router::new()
        .route("/untouched", get(untouched))
        .route("/fill", get(fill))
        .route("/read", get(read))
        .route("/count", get(count))
        .route("/create", get(create))
}

pub async fn fill(session: Session) -> Result<(), SessionError> {
    session.insert("profile", Profile::example())?;
    session.insert("cart", cart())?;
    session.insert("nonce", NONCE)?;
    session.insert("theme", THEME)?;
    session.insert("count", 0_u64)
}

async fn read(session: Session) -> Result<&'static str, SessionError> {
    let theme: Option<String> = session.get("theme")?;
    assert_eq!(theme.as_deref(), Some(THEME));
    Ok("ok")
}

async fn count(session: Session) -> Result<&'static str, SessionError> {
    session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok("ok")
}

async fn create(session: Session) -> Result<&'static str, SessionError> {
    session.insert("count", 1_u64)?;
    Ok("ok")
}
