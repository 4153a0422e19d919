//! The routes with axum_session, and a database for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::{Router, routing::get};

use super::{AxumApp, Gate, KEYS, show};

pub async fn axum_session(database: Option<Database>) -> (AxumApp, Gate) {
    axum_session_of(database, axum_session::SessionConfig::default()).await
}

pub async fn axum_session_with_key() -> (AxumApp, Gate) {
    let key = axum_session::Key::generate();
    axum_session_of(None, axum_session::SessionConfig::default().with_key(key)).await
}

async fn axum_session_of(
    database: Option<Database>,
    config: axum_session::SessionConfig,
) -> (AxumApp, Gate) {
    type Session = axum_session::Session<Database>;

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| {
                session.renew();
                session.set("user", "ada");
            }),
        )
        .route("/log_out", get(async |session: Session| session.destroy()))
        .route(
            "/show",
            get(async |session: Session| show(session.get("user"), session.get("count"))),
        )
        .route(
            "/count",
            get(async move |session: Session| {
                let count: Option<u64> = session.get("count");
                at_gate.pass().await;
                session.set("count", count.unwrap_or(0) + 1);
                "counted"
            }),
        )
        .route(
            "/set/{key}",
            get(async move |session: Session, Path(key): Path<String>| {
                let _: Option<bool> = session.get(&key);
                before_set.pass().await;
                session.set(&key, true);
                "set"
            }),
        )
        .route(
            "/keys",
            get(async |session: Session| {
                let has = |key: &usize| session.get::<bool>(&key.to_string()).is_some();
                (0..KEYS).filter(has).count().to_string()
            }),
        )
        .route(
            "/fail",
            get(async |session: Session| {
                session.set("count", 100_u64);
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        );
    let store = axum_session::SessionStore::new(database, config)
        .await
        .unwrap();
    (
        AxumApp(routes.layer(axum_session::SessionLayer::new(store))),
        gate,
    )
}

/// A database table that several processes share.
#[derive(Clone, Debug, Default)]
pub struct Database(Arc<Mutex<HashMap<String, String>>>);

type Done<T> = Result<T, axum_session::DatabaseError>;

#[async_trait]
impl axum_session::DatabasePool for Database {
    async fn initiate(&self, _table: &str) -> Done<()> {
        Ok(())
    }

    async fn count(&self, _table: &str) -> Done<i64> {
        Ok(self.0.lock().unwrap().len().try_into().unwrap())
    }

    async fn store(&self, id: &str, session: &str, _expires: i64, _table: &str) -> Done<()> {
        let mut sessions = self.0.lock().unwrap();
        sessions.insert(id.to_owned(), session.to_owned());
        Ok(())
    }

    async fn load(&self, id: &str, _table: &str) -> Done<Option<String>> {
        Ok(self.0.lock().unwrap().get(id).cloned())
    }

    async fn delete_one_by_id(&self, id: &str, _table: &str) -> Done<()> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }

    async fn exists(&self, id: &str, _table: &str) -> Done<bool> {
        Ok(self.0.lock().unwrap().contains_key(id))
    }

    async fn delete_by_expiry(&self, _table: &str) -> Done<Vec<String>> {
        Ok(Vec::new())
    }

    async fn delete_all(&self, _table: &str) -> Done<()> {
        self.0.lock().unwrap().clear();
        Ok(())
    }

    async fn get_ids(&self, _table: &str) -> Done<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn auto_handles_expiry(&self) -> bool {
        false
    }
}
