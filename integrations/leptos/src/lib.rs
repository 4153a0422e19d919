//! Leptos server functions with a session.

use axum::{Router, routing::post};
use cloakroom::{CurrentUser, MemoryStore, Session, SessionLayer};
use leptos::prelude::{ServerFnError, server};

#[server(endpoint = "log_in")]
pub async fn log_in(name: String) -> Result<(), ServerFnError> {
    let session = leptos_axum::extract::<Session>().await?;
    session.log_in(name)?;
    Ok(())
}

#[server(endpoint = "me")]
pub async fn me() -> Result<Option<String>, ServerFnError> {
    let user = leptos_axum::extract::<Option<CurrentUser>>().await?;
    Ok(user.map(|user| user.to_string()))
}

pub fn app(layer: SessionLayer<MemoryStore>) -> Router {
    Router::new()
        .route("/api/{*name}", post(leptos_axum::handle_server_fns))
        .layer(layer)
}

#[cfg(test)]
mod tests {
    use cloakroom::testing::Browser;
    use cloakroom::{MemoryStore, SessionLayer, SigningKey};

    #[tokio::test]
    async fn a_server_function_logs_in_and_another_one_knows_the_user() {
        let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
        let mut browser = Browser::new(super::app(layer));
        let answer = browser.post("/api/me", &[]).await.unwrap();
        assert_eq!(&answer.body()[..], b"null");

        let answer = browser.post("/api/log_in", &[("name", "ada")]).await.unwrap();
        assert!(answer.status().is_success() || answer.status().is_redirection());
        let answer = browser.post("/api/me", &[]).await.unwrap();
        assert_eq!(&answer.body()[..], b"\"ada\"");
    }
}
