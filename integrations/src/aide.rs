//! An API with a session that aide describes.

use aide::NoApi;
use aide::axum::ApiRouter;
use aide::axum::routing::{get, post};
use aide::openapi::OpenApi;
use axum::Router;
use axum::extract::Path;
use cloakroom::{CurrentUser, MemoryStore, Session, SessionError, SessionLayer};

async fn log_in(
    NoApi(session): NoApi<Session>,
    Path(name): Path<String>,
) -> Result<String, NoApi<SessionError>> {
    session.log_in(&name)?;
    Ok(format!("Hello, {name}."))
}

async fn me(NoApi(user): NoApi<Option<CurrentUser>>) -> String {
    user.map_or("nobody".to_owned(), |user| user.to_string())
}

pub fn app(layer: SessionLayer<MemoryStore>) -> (Router, OpenApi) {
    let mut api = OpenApi::default();
    let router = ApiRouter::new()
        .api_route("/login/{name}", post(log_in))
        .api_route("/me", get(me))
        .finish_api(&mut api)
        .layer(layer);
    (router, api)
}

#[cfg(test)]
mod tests {
    use cloakroom::testing::Browser;
    use cloakroom::{MemoryStore, SessionLayer, SigningKey};

    #[tokio::test]
    async fn the_api_is_described_and_has_a_session() {
        let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
        let (app, api) = super::app(layer);
        let api = serde_json::to_value(api).unwrap();
        assert!(api["paths"]["/me"]["get"].is_object(), "{api}");
        assert!(api["paths"]["/login/{name}"]["post"].is_object(), "{api}");

        let mut browser = Browser::new(app);
        assert_eq!(&browser.get("/me").await.unwrap().body()[..], b"nobody");
        browser.post("/login/ada", &[]).await.unwrap();
        assert_eq!(&browser.get("/me").await.unwrap().body()[..], b"ada");
    }
}
