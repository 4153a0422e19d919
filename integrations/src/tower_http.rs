//! The layers of tower-http around sessions. The first one is the outermost.

use std::time::Duration;

use axum::Router;
use cloakroom::{MemoryStore, SessionLayer};
use http::{HeaderValue, StatusCode};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

pub fn with_layers(routes: Router, sessions: SessionLayer<MemoryStore>) -> Router {
    // Pages of this other origin may send the cookie.
    let cors = CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_credentials(true);
    let timeout = Duration::from_secs(10);
    routes.layer(
        ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(CompressionLayer::new())
            .layer(cors)
            .layer(CsrfLayer::new())
            .layer(TimeoutLayer::with_status_code(
                StatusCode::SERVICE_UNAVAILABLE,
                timeout,
            ))
            .layer(CatchPanicLayer::new())
            .layer(sessions),
    )
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::{get, post};
    use bytes::Bytes;
    use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
    use http::{Request, Response, header};
    use tower::ServiceExt;

    async fn visit(session: Session) -> Result<String, SessionError> {
        session.insert("visited", true)?;
        Ok("hello ".repeat(100))
    }

    async fn broken(session: Session) -> Result<(), SessionError> {
        session.insert("visited", true)?;
        panic!("a mistake in a handler");
    }

    async fn send(request: http::request::Builder) -> Response<Body> {
        let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
        let routes = Router::new()
            .route("/", get(visit))
            .route("/broken", post(broken));
        let request: Request<Body> = request.body(Bytes::new().into()).unwrap();
        super::with_layers(routes, layer)
            .oneshot(request)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_compressed_answer_varies_by_the_cookie_and_the_encoding() {
        let answer = send(Request::get("/").header("accept-encoding", "gzip")).await;
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(answer.headers().contains_key(header::SET_COOKIE));
        let vary: Vec<_> = answer.headers().get_all(header::VARY).iter().collect();
        let vary = format!("{vary:?}").to_lowercase();
        assert!(
            vary.contains("cookie") && vary.contains("accept-encoding"),
            "{vary}"
        );
    }

    #[tokio::test]
    async fn a_preflight_makes_no_session() {
        let answer = send(
            Request::options("/")
                .header(header::ORIGIN, "https://app.example")
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET"),
        )
        .await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key(header::SET_COOKIE));
    }

    #[tokio::test]
    async fn a_form_of_another_site_is_refused() {
        let answer = send(Request::post("/").header(header::ORIGIN, "https://evil.example")).await;
        assert_eq!(answer.status(), 403);
    }

    #[tokio::test]
    async fn a_panic_is_a_500_and_makes_no_session() {
        let answer = send(Request::post("/broken")).await;
        assert_eq!(answer.status(), 500);
        assert!(!answer.headers().contains_key(header::SET_COOKIE));
    }
}
