//! An application with a route for each action on a session.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use cloakroom::{
    AnswerBody, CurrentUser, RecordId, Session, SessionError, SessionLayer, SessionLayerBuilder,
    SessionStore, SigningKey,
};
use http::StatusCode;

use crate::base64;

/// The key for all tests that do not need their own key.
pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 64]).unwrap()
}

pub fn builder<S: SessionStore>(store: S) -> SessionLayerBuilder<S> {
    SessionLayer::builder(store, key())
}

/// The record id that a token begins with.
pub fn id_of(token: &str) -> RecordId {
    RecordId::from_bytes(*base64::decode(token).first_chunk().unwrap())
}

/// An application with a route for each action on a session.
pub fn app<S: SessionStore, D: AnswerBody<Body>>(layer: SessionLayer<S, D>) -> Router {
    routes().layer(layer)
}

type Answer = Result<String, SessionError>;

pub fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "untouched" }))
        .route("/keys", get(|session: Session| async move { Ok::<_, SessionError>(session.keys().join(",")) }))
        .route("/get/{key}", get(read))
        .route("/insert/{key}/{value}", get(insert))
        .route("/update/{key}", get(update))
        .route("/visit/{key}", get(visit))
        .route("/remove/{key}", get(remove))
        .route("/clear", get(|session: Session| async move { done(session.clear()) }))
        .route("/regenerate", get(|session: Session| async move { done(session.regenerate()) }))
        .route("/log_in/{user}", get(log_in))
        .route("/remember/{user}", get(remember))
        .route("/log_out", get(|session: Session| async move { done(session.log_out()) }))
        .route("/destroy", get(|session: Session| async move { done(session.destroy()) }))
        .route("/passive", get(|session: Session| async move { done(session.skip_touch()) }))
        .route("/user", get(|user: CurrentUser| async move { user.to_string() }))
        .route("/id", get(|session: Session| async move { Ok::<_, SessionError>(format!("{:?}", session.id())) }))
        .route("/fail/{operation}", get(fail))
}

fn done(result: Result<(), SessionError>) -> Answer {
    result.map(|()| "done".to_owned())
}

async fn read(session: Session, Path(key): Path<String>) -> Answer {
    Ok(match session.get::<serde_json::Value>(key)? {
        Some(serde_json::Value::String(text)) => text,
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    })
}

async fn insert(session: Session, Path((key, value)): Path<(String, String)>) -> Answer {
    done(session.insert(key, value))
}

async fn update(session: Session, Path(key): Path<String>) -> Answer {
    let value = session.update(key, |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(value.to_string())
}

/// Increments the counter, and inserts the key in the path.
async fn visit(session: Session, Path(key): Path<String>) -> Answer {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    session.insert(key, "was here")?;
    Ok(visits.to_string())
}

async fn remove(session: Session, Path(key): Path<String>) -> Answer {
    Ok(session
        .remove::<String>(key)?
        .unwrap_or_else(|| "nothing".to_owned()))
}

async fn log_in(session: Session, Path(user): Path<String>) -> Answer {
    done(session.log_in(user))
}

async fn remember(session: Session, Path(user): Path<String>) -> Answer {
    session.set_remembered(true)?;
    done(session.log_in(user))
}

/// Changes the session, and then answers with an error.
async fn fail(
    session: Session,
    Path(operation): Path<String>,
) -> Result<impl IntoResponse, SessionError> {
    match &*operation {
        "insert" => session.insert("key", "of a failed request")?,
        "regenerate" => session.regenerate()?,
        "log_in" => session.log_in("eve")?,
        "destroy" => session.destroy()?,
        "destroy_and_insert" => {
            session.destroy()?;
            session.insert("key", "of a failed request")?;
        }
        "read" => drop(session.get::<String>("key")?),
        other => panic!("{other}"),
    }
    Ok((StatusCode::INTERNAL_SERVER_ERROR, "failed"))
}
