//! The routes with tower-sessions.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::{Router, routing::get};

use super::{AxumApp, Gate, KEYS, show};

pub fn tower_sessions(store: tower_sessions::MemoryStore) -> (AxumApp, Gate) {
    use tower_sessions::Session;

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| {
                session.cycle_id().await.unwrap();
                session.insert("user", "ada").await.unwrap();
            }),
        )
        .route(
            "/log_out",
            get(async |session: Session| session.flush().await.unwrap()),
        )
        .route(
            "/show",
            get(async |session: Session| {
                let user: Option<String> = session.get("user").await.unwrap();
                let count: Option<u64> = session.get("count").await.unwrap();
                show(user, count)
            }),
        )
        .route(
            "/count",
            get(async move |session: Session| {
                let count: Option<u64> = session.get("count").await.unwrap();
                at_gate.pass().await;
                session
                    .insert("count", count.unwrap_or(0) + 1)
                    .await
                    .unwrap();
                "counted"
            }),
        )
        .route(
            "/set/{key}",
            get(async move |session: Session, Path(key): Path<String>| {
                let _: Option<bool> = session.get(&key).await.unwrap();
                before_set.pass().await;
                session.insert(&key, true).await.unwrap();
                "set"
            }),
        )
        .route(
            "/keys",
            get(async |session: Session| {
                let mut keys = 0;
                for key in 0..KEYS {
                    let value: Option<bool> = session.get(&key.to_string()).await.unwrap();
                    keys += usize::from(value.is_some());
                }
                keys.to_string()
            }),
        )
        .route(
            "/fail",
            get(async |session: Session| {
                session.insert("count", 100_u64).await.unwrap();
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        )
        .route(
            "/renew_and_fail",
            get(async |session: Session| {
                session.cycle_id().await.unwrap();
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        );
    let layer = tower_sessions::SessionManagerLayer::new(store).with_expiry(
        tower_sessions::Expiry::OnInactivity(tower_sessions::cookie::time::Duration::hours(1)),
    );
    (AxumApp(routes.layer(layer)), gate)
}
