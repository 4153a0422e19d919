//! The routes with ruts.

use std::sync::Arc;

use axum::extract::Path;
use axum::{Router, routing::get};

use super::{AxumApp, Gate, KEYS, show};

pub fn ruts() -> (AxumApp, Gate) {
    use ruts::store::{Ttl, moka::MokaStore};

    type Session = ruts::Session<MokaStore>;

    fn hour() -> Ttl {
        Ttl::new(3600).unwrap()
    }

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| {
                session.prepare_regenerate();
                session.set("user", &"ada", hour(), None).await.unwrap();
            }),
        )
        .route(
            "/log_out",
            get(async |session: Session| {
                session.delete().await.unwrap();
            }),
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
                let count = count.unwrap_or(0) + 1;
                session.set("count", &count, hour(), None).await.unwrap();
                "counted"
            }),
        )
        .route(
            "/set/{key}",
            get(async move |session: Session, Path(key): Path<String>| {
                let _: Option<bool> = session.get(&key).await.unwrap();
                before_set.pass().await;
                session.set(&key, &true, hour(), None).await.unwrap();
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
        );
    let cookie = ruts::CookieOptions::build().name("session").path("/");
    let store = MokaStore::builder().max_capacity(1_000).build();
    let layer = ruts::SessionLayer::new(Arc::new(store)).with_cookie_options(cookie);
    // ruts needs the layer of tower-cookies around its own.
    let routes = routes.layer(layer);
    let app = routes.layer(tower_cookies::CookieManagerLayer::new());
    (AxumApp(app), gate)
}
