//! An API with a session that utoipa describes.

use axum::Router;
use axum::extract::Path;
use cloakroom::{CurrentUser, MemoryStore, Session, SessionError, SessionLayer};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[utoipa::path(
    post,
    path = "/login/{name}",
    params(("name" = String, Path)),
    responses((status = OK, description = "The cookie is set."))
)]
async fn log_in(session: Session, Path(name): Path<String>) -> Result<(), SessionError> {
    session.log_in(name)
}

#[utoipa::path(
    get,
    path = "/me",
    responses((status = OK, body = String), (status = UNAUTHORIZED))
)]
async fn me(user: CurrentUser) -> String {
    user.to_string()
}

pub fn app(layer: SessionLayer<MemoryStore>) -> (Router, OpenApi) {
    let (router, api) = OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(me))
        .split_for_parts();
    (router.layer(layer), api)
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
        let me = &api["paths"]["/me"]["get"];
        assert!(me["responses"]["401"].is_object(), "{api}");
        // The session is not a parameter of the API.
        assert!(me["parameters"].is_null(), "{api}");

        let mut browser = Browser::new(app);
        assert_eq!(browser.get("/me").await.unwrap().status(), 401);
        browser.post("/login/ada", &[]).await.unwrap();
        assert_eq!(&browser.get("/me").await.unwrap().body()[..], b"ada");
    }
}
