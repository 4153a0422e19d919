//! Users, guards for routes, and the way back to a page: what most applications build on top of a
//! session. It comes with the feature `login`.
//!
//! Implement [`Users`] once, and hand it to the layer. Then [`Auth`] is the user in a handler,
//! [`required`] guards routes, and [`Next`] leads back to the page that a visitor asked for. A
//! request makes one look-up of the user, whoever asks first. The module checks no passwords.
//!
//! ```
//! use axum::extract::State;
//! use axum::response::{Html, Redirect};
//! use axum::routing::{get, post};
//! use axum::{Form, Router};
//! use cloakroom::login::{self, Auth, BoxError, Next, Users};
//! use cloakroom::{
//!     IntoUserId, MemoryStore, Session, SessionError, SessionLayer, SigningKey, Stamp, UserId,
//! };
//!
//! #[derive(Clone)]
//! struct User { name: String, password_hash: String, is_staff: bool }
//!
//! #[derive(Clone)]
//! struct Db(Vec<User>); // in a real application, a pool of the database
//!
//! impl Users for Db {
//!     type User = User;
//!
//!     async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
//!         Ok(self.0.iter().find(|user| user.name == id.as_str()).cloned())
//!     }
//!
//!     fn id(user: &User) -> impl IntoUserId {
//!         user.name.as_str()
//!     }
//!
//!     // After a new password, the sessions of before end by themselves.
//!     fn credentials(user: &User) -> Stamp {
//!         Stamp::of(&user.password_hash)
//!     }
//! }
//!
//! #[derive(serde::Deserialize)]
//! struct Login { name: String, password: String }
//!
//! async fn log_in(
//!     State(db): State<Db>,
//!     session: Session,
//!     next: Next,
//!     Form(login): Form<Login>,
//! ) -> Result<Redirect, SessionError> {
//!     match check_password(&db, &login).await {
//!         Some(user) => {
//!             session.log_in(Db::account(&user))?;
//!             Ok(Redirect::to(next.path()))
//!         }
//!         None => Ok(Redirect::to(&next.link_to("/login"))),
//!     }
//! }
//! # async fn check_password(_: &Db, _: &Login) -> Option<User> { None }
//!
//! async fn account(Auth(user): Auth<Db>) -> String {
//!     format!("This is the account of {}.", user.name)
//! }
//!
//! fn app(db: Db) -> Result<Router, Box<dyn std::error::Error>> {
//!     let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
//!         .users(db.clone())
//!         .build()?;
//!     let members = login::required::<Db>().redirect_to("/login");
//!     let staff = members.clone().when(|user| user.is_staff);
//!     Ok(Router::new()
//!         .route("/reports", get("for the staff"))
//!         .route_layer(staff)
//!         .route("/account", get(account))
//!         .route_layer(members)
//!         .route("/login", get(Html("<form method=post>…</form>")).post(log_in))
//!         .layer(layer)
//!         .with_state(db))
//! }
//! # app(Db(Vec::new())).unwrap();
//! ```
//!
//! The page [login](crate::docs::login) goes through all of it. [`Guard`] has the table of what
//! pages, forms, htmx and APIs get.

mod answer;
mod auth;
mod guard;
mod lookup;
mod next;
mod users;

pub use self::auth::Auth;
pub use self::guard::{Guard, GuardFuture, GuardService, required};
pub use self::next::Next;
pub use self::users::{BoxError, Users};
