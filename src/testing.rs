//! Help for the tests of an application: a [`Browser`] that keeps cookies, [sessions](session) to
//! call handlers with, a [`FaultyStore`] that fails on demand, and a [`TestClock`].
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::routing::get;
//! use cloakroom::testing::{Browser, Fault, FaultyStore, TestClock};
//! use cloakroom::{CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SigningKey};
//! use http::StatusCode;
//!
//! async fn account(user: CurrentUser, session: Session) -> Result<String, SessionError> {
//!     let visits = session.update("visits", |n: Option<u32>| n.unwrap_or(0) + 1)?;
//!     Ok(format!("{}: visit {visits}", *user))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = FaultyStore::new(MemoryStore::new());
//! let clock = TestClock::new();
//! let layer = SessionLayer::builder(store.clone(), SigningKey::generate()?)
//!     .clock(clock.clone())
//!     .build()?;
//! let app: Router = Router::new().route("/account", get(account)).layer(layer.clone());
//!
//! // A page that needs a login.
//! let mut browser = Browser::new(app);
//! assert_eq!(browser.get("/account").await?.status(), StatusCode::UNAUTHORIZED);
//! assert_eq!(store.take_calls(), [], "a visitor costs no call");
//! browser.with_session(&layer, |session| session.log_in("ada")).await?;
//! assert_eq!(browser.get("/account").await?.body(), "ada: visit 1");
//!
//! // An outage is no logout.
//! store.fail(Fault::Refused);
//! assert_eq!(browser.get("/account").await?.status(), StatusCode::SERVICE_UNAVAILABLE);
//! store.recover();
//! assert_eq!(browser.get("/account").await?.body(), "ada: visit 2");
//!
//! // Half an hour later.
//! clock.advance(Duration::from_secs(30 * 60));
//! assert_eq!(browser.get("/account").await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(()) }
//! ```
//!
//! The module comes with the feature `testing`, which belongs among the `dev-dependencies`:
//!
//! ```toml
//! [dev-dependencies]
//! cloakroom = { version = "0.1", features = ["testing"] }
//! ```

use crate::commit::commit;
use crate::commit::lookup::InitialState;
use crate::error::{SessionError, SessionErrorKind};
use crate::layer::SessionLayer;
use crate::session::lazy::SessionSlot;
use crate::session::{ClientFacts, Session};
use crate::store::memory::MemoryStore;
use crate::token::keys::SigningKey;

mod browser;
mod faulty;

pub use self::browser::{Browser, BrowserError, RequestBody};
pub use self::faulty::{Fault, FaultyStore, Hold, StoreCall};
pub use crate::clock::TestClock;

/// Returns a stored session that you can pass to a handler directly, without a router.
///
/// First, this commits the changes that `make` made, as if an earlier request had made them. The
/// session has a store of its own.
///
/// To see what the handler did, the test looks into the same session. Nothing writes the handler's
/// changes to the store. All settings are the defaults, and the clock is the system's. If a test
/// needs other settings, use a [`Browser`].
///
/// ```
/// use cloakroom::testing;
/// # use cloakroom::{Session, SessionError};
///
/// async fn add_to_cart(session: Session) -> Result<(), SessionError> {
///     session.update("cart", |items: Option<u32>| items.unwrap_or(0) + 1)?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let session = testing::session(|session| {
///     session.log_in("ada")?;
///     session.insert("cart", 2)
/// }).await?;
/// add_to_cart(session.clone()).await?;
/// assert_eq!(session.get("cart")?, Some(3));
///
/// let visitor = testing::session(|_| Ok(())).await?;
/// assert_eq!(visitor.user(), None);
/// # Ok(()) }
/// ```
///
/// When the future is dropped, there is no session.
///
/// # Errors
///
/// The error of `make`, or [`SessionErrorKind::Random`] if the operating system's random generator
/// failed.
pub async fn session(
    make: impl FnOnce(&Session) -> Result<(), SessionError>,
) -> Result<Session, SessionError> {
    let key = SigningKey::generate();
    let key =
        key.map_err(|error| SessionError::new(SessionErrorKind::Random).with_source(error))?;
    let layer = SessionLayer::new(MemoryStore::new(), key);
    let context = layer.context();
    let session = |base| Session::new(context.clone(), None, ClientFacts::default(), base);
    let earlier = session(InitialState::Visitor);
    make(&earlier)?;
    let written = match earlier.seal().request {
        Some(mut request) => commit(context, &mut request).await?.into_session(),
        None => None,
    };
    Ok(session(written.into()))
}

/// Puts a session into the extensions of a request, as a layer does. A test can then call an
/// extractor or a middleware without a layer.
///
/// ```
/// use axum::extract::FromRequestParts;
/// use cloakroom::{CurrentUser, testing};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let session = testing::session(|session| session.log_in("ada")).await?;
/// let (mut parts, _) = http::Request::new(()).into_parts();
/// testing::attach(&session, &mut parts.extensions);
/// let user = CurrentUser::from_request_parts(&mut parts, &()).await?;
/// assert_eq!(user.as_str(), "ada");
/// # Ok(()) }
/// ```
pub fn attach(session: &Session, extensions: &mut http::Extensions) {
    extensions.insert(SessionSlot::Loaded(session.clone()));
}
