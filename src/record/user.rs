//! [`UserId`]: who a session belongs to.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::realm::Realm;
use crate::error::{SessionError, SessionErrorKind};

/// The application's own id of a user: text of 1 to 255 bytes without NUL.
///
/// Any integer is a user id, and so is a `Uuid` with the feature `uuid`. A text becomes one by
/// [`new`](Self::new). [`parse`](Self::parse) gives the application its own type back.
///
/// A store gets the id behind the realm of the layer, as `realm:user`. To the store it is one text
/// of at most [`STORED_LEN`](Self::STORED_LEN) bytes.
///
/// ```
/// use cloakroom::UserId;
///
/// let ada = UserId::new("ada")?;
/// let seven = UserId::from(7_i64);
/// assert_eq!(ada.as_str(), "ada");
/// assert_eq!(seven.parse::<i64>(), Ok(7));
/// assert!(UserId::new("").is_err());
/// # Ok::<(), cloakroom::InvalidUserId>(())
/// ```
#[derive(Clone)]
pub struct UserId {
    text: Arc<str>,
    /// Where the id begins. A clone without its realm shares the text with the id that has it.
    start: usize,
}

/// A text that cannot be a [`UserId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUserId(());

impl fmt::Display for InvalidUserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a user id must have 1 to 255 bytes and no NUL")
    }
}

impl Error for InvalidUserId {}

impl From<InvalidUserId> for SessionError {
    fn from(_: InvalidUserId) -> Self {
        SessionErrorKind::InvalidUserId.into()
    }
}

impl UserId {
    const MAX_LEN: usize = 255;

    /// The most bytes that a store must keep of one: the realm, a colon and the id.
    pub const STORED_LEN: usize = Realm::MAX_LEN + 1 + Self::MAX_LEN;

    /// The user id of this text.
    ///
    /// # Errors
    ///
    /// The text is empty, has more than 255 bytes, or has a NUL in it.
    ///
    /// ```
    /// use cloakroom::UserId;
    ///
    /// let id = UserId::new("ada@example.com")?;
    /// # Ok::<(), cloakroom::InvalidUserId>(())
    /// ```
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidUserId> {
        let text = text.into();
        // PostgreSQL has no NUL in a text.
        match text.len() {
            1..=Self::MAX_LEN if !text.contains('\0') => Ok(Self::stored(text)),
            _ => Err(InvalidUserId(())),
        }
    }

    /// A user id as a store has it, with its realm.
    pub(crate) fn stored(text: Arc<str>) -> Self {
        Self { text, start: 0 }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(self.start..).unwrap_or_default()
    }

    /// The id in the application's own type: an integer, a `Uuid`, or whatever can be read from
    /// text.
    ///
    /// # Errors
    ///
    /// The error of `T`, if the text is not one.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(user) = session.user() {
    ///     let id: i64 = user.parse()?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn parse<T: FromStr>(&self) -> Result<T, T::Err> {
        self.as_str().parse()
    }

    /// The text of the id that the application knows.
    pub(crate) fn name(&self) -> &str {
        let text = self.as_str();
        text.split_once(':').map_or(text, |(_, name)| name)
    }

    /// The id that the application knows.
    pub(crate) fn without_realm(&self) -> Self {
        let realm = self.as_str().find(':').map_or(0, |colon| colon + 1);
        Self {
            text: self.text.clone(),
            start: self.start + realm,
        }
    }
}

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        let is_clone = Arc::ptr_eq(&self.text, &other.text) && self.start == other.start;
        is_clone || self.as_str() == other.as_str()
    }
}

impl Eq for UserId {}

impl PartialOrd for UserId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UserId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({:?})", self.as_str())
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for UserId {
    type Err = InvalidUserId;

    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        Self::new(text)
    }
}

/// What can name a user: a text, an integer, a `Uuid` (feature `uuid`), or a [`UserId`].
///
/// A text is checked: see [`UserId::new`]. Implement this for an id type of your own, or hand in
/// `id.to_string()`.
///
/// ```
/// use cloakroom::{IntoUserId, InvalidUserId, Session, SessionError, UserId};
///
/// struct MemberNumber(u32);
///
/// impl IntoUserId for MemberNumber {
///     fn into_user_id(self) -> Result<UserId, InvalidUserId> {
///         Ok(UserId::from(self.0))
///     }
/// }
///
/// fn log_in(session: &Session, member: MemberNumber) -> Result<(), SessionError> {
///     session.log_in(member)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a user id",
    label = "not a user id",
    note = "a text, an integer, a `Uuid` (feature `uuid`) and a `UserId` are user ids",
    note = "hand in `id.to_string()`, or implement `IntoUserId` for `{Self}`"
)]
pub trait IntoUserId {
    /// The user id.
    ///
    /// # Errors
    ///
    /// A text is empty, too long, or has a NUL in it.
    fn into_user_id(self) -> Result<UserId, InvalidUserId>;
}

impl IntoUserId for UserId {
    fn into_user_id(self) -> Result<UserId, InvalidUserId> {
        Ok(self)
    }
}

impl IntoUserId for &UserId {
    fn into_user_id(self) -> Result<UserId, InvalidUserId> {
        Ok(self.clone())
    }
}

macro_rules! texts {
    ($($text:ty),*) => {
        $(impl IntoUserId for $text {
            fn into_user_id(self) -> Result<UserId, InvalidUserId> {
                UserId::new(self)
            }
        }

        impl TryFrom<$text> for UserId {
            type Error = InvalidUserId;

            fn try_from(text: $text) -> Result<Self, InvalidUserId> {
                Self::new(text)
            }
        })*
    };
}
texts!(&str, String, Box<str>, Arc<str>, Cow<'_, str>);

impl IntoUserId for &String {
    fn into_user_id(self) -> Result<UserId, InvalidUserId> {
        UserId::new(self.as_str())
    }
}

macro_rules! displayed {
    ($($id:ty),*) => {
        $(impl From<$id> for UserId {
            fn from(id: $id) -> Self {
                Self::stored(id.to_string().into())
            }
        }

        impl From<&$id> for UserId {
            fn from(id: &$id) -> Self {
                Self::from(*id)
            }
        }

        impl IntoUserId for $id {
            fn into_user_id(self) -> Result<UserId, InvalidUserId> {
                Ok(self.into())
            }
        }

        impl IntoUserId for &$id {
            fn into_user_id(self) -> Result<UserId, InvalidUserId> {
                Ok(self.into())
            }
        })*
    };
}
displayed!(
    i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize
);
#[cfg(feature = "uuid")]
displayed!(uuid::Uuid);
