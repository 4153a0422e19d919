//! What a handler does with the values of its session.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Session;
use super::key::SessionKey;
use crate::commit::changes::{self, DataChange};
use crate::error::SessionError;
#[cfg(doc)]
use crate::error::SessionErrorKind;
use crate::record::data::{Entry, EntryRef};

/// # Values
impl Session {
    /// The value under a key, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::WrongType`] if the value is not a `T`. The value stays as it is.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// let theme: Option<String> = session.get("theme")?;
    /// # Ok(()) }
    /// ```
    pub fn get<T: DeserializeOwned>(
        &self,
        key: impl SessionKey<T>,
    ) -> Result<Option<T>, SessionError> {
        // Deserializing runs code of the application. So no lock is held while it runs.
        let data = self.read().data().cloned();
        let entry = data.as_ref().and_then(|data| data.get(key.name()));
        entry.map(EntryRef::value).transpose()
    }

    /// Puts a value under a key, in place of an earlier value. An equal value is not a change, and
    /// the layer does not write it.
    ///
    /// The order of a map's keys does not count, so an equal `HashMap` is not a change. If the
    /// order matters, use a list. A `HashSet` becomes a list, and the order of a list counts. So
    /// the layer may write an equal `HashSet` again: use a `BTreeSet`. JSON has only one `null`, so
    /// `Some(None)` and `Some(())` come back as `None`.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::TooLarge`] if the session's data would exceed the layer's limit.
    /// [`SessionErrorKind::Unserializable`] if the value cannot be JSON, or nobody could read it
    /// back: it has a NaN or an infinity in it, or more than 127 levels of lists and maps.
    /// [`SessionErrorKind::Sealed`] after the response. In all cases the session stays as it was.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn set(session: &Session) -> Result<(), SessionError> {
    /// session.insert("theme", "dark")?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "set")]
    pub fn insert<T: Serialize>(
        &self,
        key: impl SessionKey<T>,
        value: T,
    ) -> Result<(), SessionError> {
        let entry = Entry::new(key.name(), &value)?;
        // If this request has called `update` on the key, an equal value is a change as well:
        // otherwise a conflict would run the closure of `update` again.
        self.write()?
            .change_data(DataChange::Insert(entry), self.0.context.data_limit())
    }

    /// Computes a key's new value from its old one, and returns the new one.
    ///
    /// It is for values that parallel requests change. If another request changes the session
    /// first, `compute` runs again on the newer value when the layer writes the session. So no
    /// change is lost. Because `compute` may run several times, it should do nothing except
    /// compute. `update` returns the value that this request saw.
    ///
    /// `compute` may run after the handler has returned, and therefore must own what it uses. If
    /// `compute` needs a value of the handler, hand the value to
    /// [`update_with`](Self::update_with).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert).
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn count(session: &Session) -> Result<(), SessionError> {
    /// let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    /// # Ok(()) }
    /// ```
    pub fn update<T, F>(&self, key: impl SessionKey<T>, compute: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        self.update_and(key.name(), compute, |_| None)
    }

    /// As [`update`](Self::update). What `follow` gives is a change of the same moment.
    pub(crate) fn update_and<T, F>(
        &self,
        key: &str,
        compute: F,
        follow: impl FnOnce(&str) -> Option<DataChange>,
    ) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        loop {
            let (data, revision) = {
                let state = self.write()?;
                (state.data().cloned(), state.revision())
            };
            let old = data.as_ref().and_then(|data| data.get(key));
            // The closure is the application's. So no lock is held while it runs.
            let (new, value) = changes::compute(key, old, &compute)?;
            let mut state = self.write()?;
            // Another task of the request may have changed the data since.
            if state.revision() == revision {
                let change = DataChange::update(new, compute);
                let limit = self.0.context.data_limit();
                state.change_data(change, limit)?;
                if let Some(change) = follow(key) {
                    state.change_data(change, limit)?;
                }
                return Ok(value);
            }
        }
    }

    /// As [`update`](Self::update), with a value that `compute` uses. Each run of `compute` gets a
    /// clone.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    ///
    /// ```
    /// # use cloakroom::{Key, Session, SessionError};
    /// const TODOS: Key<Vec<String>> = Key::new("todos");
    ///
    /// fn add(session: &Session, todo: String) -> Result<usize, SessionError> {
    ///     let todos = session.update_with(TODOS, todo, |todos, todo| {
    ///         let mut todos = todos.unwrap_or_default();
    ///         todos.push(todo);
    ///         todos
    ///     })?;
    ///     Ok(todos.len())
    /// }
    /// ```
    pub fn update_with<T, V, F>(
        &self,
        key: impl SessionKey<T>,
        value: V,
        compute: F,
    ) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        V: Clone + Send + Sync + 'static,
        F: Fn(Option<T>, V) -> T + Send + Sync + 'static,
    {
        self.update(key, move |old| compute(old, value.clone()))
    }

    /// Takes a value out of the session. For messages that a page shows once, see
    /// [`Flash`](crate::Flash).
    ///
    /// A removal is a change even if there is no value. If a parallel request puts a newer value in
    /// first, the layer removes that value too, although this request has not seen it.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::WrongType`] if the value is not a `T`. Then it stays.
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// let notice = session.remove::<String>("notice")?;
    /// # Ok(()) }
    /// ```
    pub fn remove<T: DeserializeOwned>(
        &self,
        key: impl SessionKey<T>,
    ) -> Result<Option<T>, SessionError> {
        let key = key.name();
        loop {
            let (data, revision) = {
                let state = self.write()?;
                (state.data().cloned(), state.revision())
            };
            let old = data.as_ref().and_then(|data| data.get(key));
            // Deserializing runs code of the application. So no lock is held here.
            let value = old.map(EntryRef::value).transpose()?;
            let mut state = self.write()?;
            // Another task of the request may have changed the data since.
            if state.revision() == revision {
                let change = DataChange::Remove(key.into());
                state.change_data(change, self.0.context.data_limit())?;
                return Ok(value);
            }
        }
    }

    /// Removes all values. The session stays, and its user stays logged in.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// session.clear()?; // the cart, the filters and everything else; the user stays logged in
    /// # Ok(()) }
    /// ```
    pub fn clear(&self) -> Result<(), SessionError> {
        self.write()?
            .change_data(DataChange::Clear, self.0.context.data_limit())
    }

    /// The names of all values, in no particular order.
    ///
    /// ```
    /// # use cloakroom::Session;
    /// # fn show(session: &Session) {
    /// for key in session.keys() {
    ///     println!("{key}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let state = self.read();
        let keys = state.data().into_iter().flat_map(|data| data.keys());
        keys.map(str::to_owned).collect()
    }

    /// Whether there is a value under this name. The value may have any type.
    ///
    /// ```
    /// # use cloakroom::Session;
    /// # fn show(session: &Session) -> bool {
    /// session.contains_key("cart")
    /// # }
    /// ```
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        let state = self.read();
        state.data().is_some_and(|data| data.get(key).is_some())
    }

    /// Whether there is no value. A user may be logged in even so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().data().is_none_or(|data| data.is_empty())
    }
}
