//! tower-sessions, in several versions.

/// The newest stores of tower-sessions need an older version of it than the newest layer.
macro_rules! tower_sessions {
    ($name:ident, $package:ident) => {
        pub mod $name {
            use axum::Router;
            use axum::routing::get;
            use $package::cookie::Key;
            use $package::service::SignedCookie;
            use $package::session::Error;
            use $package::{Session, SessionManagerLayer, SessionStore};

            use crate::ready::untouched;
            use crate::scenario::{NONCE, Profile, THEME, cart};

            pub fn around<S: SessionStore + Clone>(store: S) -> Router {
                let layer: SessionManagerLayer<S, SignedCookie> =
                    SessionManagerLayer::new(store).with_signed(Key::generate());
                Router::new()
                    .route("/untouched", get(untouched))
                    .route("/fill", get(fill))
                    .route("/read", get(read))
                    .route("/count", get(count))
                    .route("/create", get(create))
                    .layer(layer)
            }

            async fn fill(session: Session) -> Result<(), &'static str> {
                let filled: Result<(), Error> = async {
                    session.insert("profile", Profile::example()).await?;
                    session.insert("cart", cart()).await?;
                    session.insert("nonce", NONCE).await?;
                    session.insert("theme", THEME).await?;
                    session.insert("count", 0_u64).await
                }
                .await;
                filled.map_err(|_| "no store")
            }

            async fn read(session: Session) -> &'static str {
                let theme: Option<String> = session.get("theme").await.unwrap();
                assert_eq!(theme.as_deref(), Some(THEME));
                "ok"
            }

            async fn count(session: Session) -> &'static str {
                let count: u64 = session.get("count").await.unwrap().unwrap_or(0);
                session.insert("count", count + 1).await.unwrap();
                "ok"
            }

            async fn create(session: Session) -> &'static str {
                session.insert("count", 1_u64).await.unwrap();
                "ok"
            }
        }
    };
}
