//! Typed keys.

use std::fmt;
use std::marker::PhantomData;

/// A key that knows the type of its value, so that a misspelt key or a wrong type does not compile.
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

/// What names a value of type `T` in a session: a [`Key<T>`](Key), or plain text, which may name a value of any type.
pub trait SessionKey<T> {
    /// The name that the value is kept under.
    fn name(&self) -> &str;
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
