//! [`Auth`]: the user who is logged in.

use std::fmt;
use std::ops::Deref;

use http::Extensions;

use super::lookup::{Start, Visit};
use super::users::Users;
use crate::error::SessionError;
use crate::session::lazy::SessionSlot;

/// The user who is logged in, as the application knows them.
///
/// As an extractor, it answers 401 if nobody is logged in, and 409 if a parallel request has just
/// rotated the client's token: see [`Session::require_user`](crate::Session::require_user).
/// `Option<Auth<U>>` is `None` in both cases. If the look-up fails, both answer 503.
///
/// Nobody is logged in as well if
///
/// - the user is gone: [`find`](Users::find) gives `None`;
/// - the user's [`credentials`](Users::credentials) have changed since the login;
/// - the session acts as another user, and one of these two is true of the user who really acts.
///
/// A request makes one look-up, however many guards, middlewares and handlers ask. It makes a
/// second one only if it has logged in another user, or the same user again with a new password.
///
/// ```
/// # use cloakroom::login::{BoxError, Users};
/// # use cloakroom::{IntoUserId, UserId};
/// # #[derive(Clone)]
/// # struct User { name: String }
/// # #[derive(Clone)]
/// # struct Db;
/// # impl Users for Db {
/// #     type User = User;
/// #     async fn find(&self, _: &UserId) -> Result<Option<User>, BoxError> { Ok(None) }
/// #     fn id(user: &User) -> impl IntoUserId { user.name.clone() }
/// # }
/// use cloakroom::login::Auth;
///
/// async fn account(Auth(user): Auth<Db>) -> String {
///     format!("This is the account of {}.", user.name)
/// }
///
/// async fn home(user: Option<Auth<Db>>) -> String {
///     match user {
///         Some(user) => format!("Hello, {}.", user.name),
///         None => "Please log in.".to_owned(),
///     }
/// }
/// ```
pub struct Auth<U: Users>(pub U::User);

impl<U: Users> Auth<U> {
    /// The user who is logged in, for a service without Axum. If the layer is lazy and nobody has
    /// loaded the session yet, this loads it.
    ///
    /// When the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`NotLoggedIn`](crate::SessionErrorKind::NotLoggedIn) if nobody is logged in.
    /// [`TokenRotated`](crate::SessionErrorKind::TokenRotated) if a parallel request has just
    /// rotated the token. [`Users`](crate::SessionErrorKind::Users) if the look-up fails.
    /// [`NoUsers`](crate::SessionErrorKind::NoUsers) if no layer around the service has the users
    /// `U`. Others as [`Session::load_from`](crate::Session::load_from).
    ///
    /// ```
    /// use cloakroom::SessionError;
    /// use cloakroom::login::{Auth, Users};
    ///
    /// async fn service<Db: Users<User = String>>(
    ///     request: http::Request<Vec<u8>>,
    /// ) -> Result<http::Response<String>, SessionError> {
    ///     let Auth(name) = Auth::<Db>::load_from(request.extensions()).await?;
    ///     Ok(http::Response::new(format!("Hello, {name}.")))
    /// }
    /// ```
    pub async fn load_from(extensions: &Extensions) -> Result<Self, SessionError> {
        let visit = Self::visit(extensions).await?;
        visit.require_user().cloned().map(Self)
    }

    async fn visit(extensions: &Extensions) -> Result<Visit<U>, SessionError> {
        let slot = SessionSlot::from_extensions(extensions)?;
        match Start::at(slot) {
            Start::Known(visit) => Ok(visit),
            // Boxed, because a guard has often found the user, and the future of each handler has
            // room for those of its extractors.
            start => Box::pin(start.finish()).await,
        }
    }
}

impl<U: Users> Clone for Auth<U> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<U: Users<User: fmt::Debug>> fmt::Debug for Auth<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Auth").field(&self.0).finish()
    }
}

impl<U: Users> Deref for Auth<U> {
    type Target = U::User;

    fn deref(&self) -> &U::User {
        &self.0
    }
}

#[cfg(feature = "axum")]
mod extract {
    use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
    use http::request::Parts;

    use super::*;

    impl<U: Users, S: Sync> FromRequestParts<S> for Auth<U> {
        type Rejection = SessionError;

        async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionError> {
            Self::load_from(&parts.extensions).await
        }
    }

    /// `None` if nobody is logged in. A missing layer is an error.
    impl<U: Users, S: Sync> OptionalFromRequestParts<S> for Auth<U> {
        type Rejection = SessionError;

        async fn from_request_parts(
            parts: &mut Parts,
            _state: &S,
        ) -> Result<Option<Self>, SessionError> {
            let visit = Self::visit(&parts.extensions).await?;
            Ok(visit.user().cloned().map(Self))
        }
    }
}
