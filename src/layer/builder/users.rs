//! The setting of who the users are.

use std::sync::Arc;

use super::SessionLayerBuilder;
use crate::login::Users;
use crate::store::SessionStore;

/// # Users
impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// Where the application keeps its users. The guards and extractors of
    /// [`login`](crate::login) ask there, inside of this layer.
    ///
    /// It costs a request nothing until somebody asks for the user.
    ///
    /// ```
    /// # use cloakroom::login::{BoxError, Users};
    /// # use cloakroom::{IntoUserId, MemoryStore, SessionLayer, SigningKey, UserId};
    /// # #[derive(Clone)]
    /// # struct Db;
    /// # impl Users for Db {
    /// #     type User = String;
    /// #     async fn find(&self, _: &UserId) -> Result<Option<String>, BoxError> { Ok(None) }
    /// #     fn id(user: &String) -> impl IntoUserId { user }
    /// # }
    /// # fn show(db: Db) -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .users(db)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn users(mut self, users: impl Users) -> Self {
        self.users = Some(Arc::new(users));
        self
    }
}
