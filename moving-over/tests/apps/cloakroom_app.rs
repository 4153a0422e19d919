//! The routes with cloakroom.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::{Router, routing::get};

use super::{AxumApp, Gate};

pub fn cloakroom() -> (AxumApp, Gate) {
    let key = cloakroom::SigningKey::generate().unwrap();
    cloakroom_over(Arc::new(cloakroom::MemoryStore::new()), key)
}

pub fn cloakroom_over(
    store: impl cloakroom::SessionStore,
    key: cloakroom::SigningKey,
) -> (AxumApp, Gate) {
    use cloakroom::{Session, SessionError};

    type Answer<T = &'static str> = Result<T, SessionError>;

    let gate = Gate::new();
    let (at_gate, before_insert, before_set) = (gate.clone(), gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| -> Answer {
                session.log_in("ada")?;
                Ok("logged in")
            }),
        )
        .route(
            "/log_out",
            get(async |session: Session| -> Answer {
                session.log_out()?;
                Ok("logged out")
            }),
        )
        .route(
            "/show",
            get(async |session: Session| -> Answer<String> {
                let count = session.get::<u64>("count")?.unwrap_or(0);
                Ok(match session.user() {
                    Some(user) => format!("{user} {count}"),
                    None => format!("nobody {count}"),
                })
            }),
        )
        .route(
            "/count",
            get(async move |session: Session| -> Answer {
                session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
                at_gate.pass().await;
                Ok("counted")
            }),
        )
        .route(
            "/count_by_insert",
            get(async move |session: Session| -> Answer {
                let count = session.get::<u64>("count")?.unwrap_or(0);
                before_insert.pass().await;
                session.insert("count", count + 1)?;
                Ok("counted")
            }),
        )
        .route(
            "/set/{key}",
            get(
                async move |session: Session, Path(key): Path<String>| -> Answer {
                    before_set.pass().await;
                    session.insert(key, true)?;
                    Ok("set")
                },
            ),
        )
        .route(
            "/keys",
            get(async |session: Session| -> Answer<String> {
                Ok(session.keys().len().to_string())
            }),
        )
        .route(
            "/fail",
            get(async |session: Session| -> Answer<StatusCode> {
                session.insert("count", 100_u64)?;
                Ok(StatusCode::INTERNAL_SERVER_ERROR)
            }),
        )
        .route(
            "/renew_and_fail",
            get(async |session: Session| -> Answer<StatusCode> {
                session.regenerate()?;
                Ok(StatusCode::INTERNAL_SERVER_ERROR)
            }),
        );
    let layer = cloakroom::SessionLayer::new(store, key);
    (AxumApp(routes.layer(layer)), gate)
}
