//! Tests of an application with axum-test.

use axum_test::TestServer;
use cloakroom::{MemoryStore, SessionLayer, SigningKey};

#[tokio::test]
async fn axum_test_keeps_the_session_cookie() {
    let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
    let (app, _) = crate::utoipa::app(layer);

    let server = TestServer::builder().save_cookies().build(app);
    server.post("/login/ada").await.assert_status_ok();
    server.get("/me").await.assert_text("ada");
}
