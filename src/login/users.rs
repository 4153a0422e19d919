//! [`Users`]: how the application finds its users.

use std::error::Error;
use std::future::{Future, ready};

use crate::record::login::{Account, Stamp};
use crate::record::user::{IntoUserId, UserId};

/// The error of a look-up: that of the application's database.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Where the application keeps its users. It is what an application writes to use
/// [this module](super).
///
/// Implement it for what finds a user by their id, such as a database pool in a type of your own.
/// Then hand it to the layer with [`users`](crate::SessionLayerBuilder::users).
///
/// ```
/// use cloakroom::login::{BoxError, Users};
/// use cloakroom::{IntoUserId, Stamp, UserId};
///
/// #[derive(Clone)]
/// struct User { id: i64, name: String, password_hash: String, is_staff: bool }
///
/// #[derive(Clone)]
/// struct Db { /* a pool */ }
///
/// impl Users for Db {
///     type User = User;
///
///     async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
///         let id: i64 = id.parse()?;
///         // … "SELECT * FROM users WHERE id = $1" …
/// #       let _ = id;
///         Ok(None)
///     }
///
///     fn id(user: &User) -> impl IntoUserId {
///         user.id
///     }
///
///     fn credentials(user: &User) -> Stamp {
///         Stamp::of(&user.password_hash)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not find users",
    label = "does not implement `cloakroom::login::Users`",
    note = "implement `Users` for the type that finds the application's users, such as its database"
)]
pub trait Users: Clone + Send + Sync + 'static {
    /// A user of the application. Whoever asks for the user gets a clone, so put what is large
    /// behind an `Arc`.
    type User: Clone + Send + Sync + 'static;

    /// The user of this id, or `None` if there is no such user, or no longer.
    ///
    /// A user who must not enter any more, such as one who is banned, is `None` as well.
    ///
    /// Ask a database that knows of the last write, and no replica that may be late. To a late
    /// replica, a user who has just registered is not there, and a new password is the old one.
    ///
    /// When the future is dropped, the next who asks for the user starts again.
    ///
    /// # Errors
    ///
    /// The look-up failed. The answer is a 503, and nobody is logged out. An id that is none of the
    /// application's may be an error or `None`. The error is logged, so it must hold no secret.
    fn find(
        &self,
        id: &UserId,
    ) -> impl Future<Output = Result<Option<Self::User>, BoxError>> + Send;

    /// The id of a user: what [`find`](Self::find) finds the user by.
    fn id(user: &Self::User) -> impl IntoUserId;

    /// A stamp of what the user logs in with, usually [`Stamp::of`] the password's hash. The
    /// default is no stamp.
    ///
    /// A login keeps the stamp of its moment. Whenever the user is looked up, the two are compared.
    /// If they differ, nobody is logged in from then on, and the session ends within a minute. So a
    /// new password ends all sessions of before. The session that sets the new password calls
    /// [`log_in`](crate::Session::log_in) again, with the [`account`](Self::account) of the user as
    /// it is now, and stays.
    ///
    /// A login may have no stamp, because it was made without [`account`](Self::account), or before
    /// the user had a password. If the user has a stamp now, such a login counts for nobody, and a
    /// warning says so once. Its session stays, without a user.
    fn credentials(user: &Self::User) -> Stamp {
        let _ = user;
        Stamp::none()
    }

    /// Whether a user has a permission. [`permission`](super::Guard::permission) asks for it. By
    /// default nobody has any.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn has_permission(
        &self,
        user: &Self::User,
        permission: &str,
    ) -> impl Future<Output = Result<bool, BoxError>> + Send {
        let _ = (user, permission);
        ready(Ok(false))
    }

    /// What to log in: the user's id and stamp.
    ///
    /// ```
    /// # use cloakroom::login::Users;
    /// # use cloakroom::{Session, SessionError};
    /// # fn show<Db: Users>(session: &Session, user: Db::User) -> Result<(), SessionError> {
    /// session.log_in(Db::account(&user))
    /// # }
    /// ```
    fn account(user: &Self::User) -> Account {
        Account::new(Self::id(user)).with_stamp(Self::credentials(user))
    }
}
