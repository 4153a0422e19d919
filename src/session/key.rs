//! [`Key`]: the name of a value, which knows the value's type.

use std::fmt;
use std::marker::PhantomData;

/// The name of a value in a session. It knows the type of the value, so that a wrong name or a
/// wrong type does not compile.
///
/// ```
/// use cloakroom::{Key, Session, SessionError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Cart { items: Vec<u32> }
///
/// const CART: Key<Cart> = Key::new("cart");
///
/// fn count(session: &Session) -> Result<usize, SessionError> {
///     Ok(session.get(CART)?.map_or(0, |cart| cart.items.len()))
/// }
/// ```
pub struct Key<T> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The key of this name, for values of type `T`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            value: PhantomData,
        }
    }

    /// The name that the value is kept under.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

/// What names a value of type `T` in a session: a [`Key<T>`](Key), or plain text. A text may name a
/// value of any type.
///
/// The trait is sealed, so that a later version can add a method.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a value of type `{T}` in a session",
    label = "not a key of `{T}`",
    note = "use a text, or a constant `const NAME: Key<{T}> = Key::new(\"name\")`"
)]
pub trait SessionKey<T>: sealed::Sealed {
    /// The name that the value is kept under.
    fn name(&self) -> &str;
}

mod sealed {
    pub trait Sealed {}

    impl<T> Sealed for super::Key<T> {}
    impl Sealed for &str {}
    impl Sealed for &String {}
    impl Sealed for String {}
}

impl<T> SessionKey<T> for Key<T> {
    fn name(&self) -> &str {
        self.name
    }
}

impl<T> SessionKey<T> for &str {
    fn name(&self) -> &str {
        self
    }
}

impl<T> SessionKey<T> for &String {
    fn name(&self) -> &str {
        self
    }
}

impl<T> SessionKey<T> for String {
    fn name(&self) -> &str {
        self
    }
}
