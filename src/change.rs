//! [`ChangeSet`]: what a request did to its session, as a list that can be applied again to a newer record.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::{Data, Entry};
use crate::error::{ErrorKind, SessionError};
use crate::record::{Client, Content, Login, Record};

/// Computes a key's new entry from its old one.
type Compute = dyn Fn(Option<&Entry>) -> Result<Entry, SessionError> + Send + Sync;

/// One change of the data.
#[derive(Clone)]
enum Change {
    Insert(Entry),
    Remove(Arc<str>),
    Clear,
    /// The entry that was computed first, and the closure that computed it: applied to a newer record, it computes from the
    /// newer value.
    Update(Entry, Arc<Compute>),
}

impl Change {
    /// The key that it is about, if it is about one.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Insert(entry) | Self::Update(entry, _) => Some(entry.key()),
            Self::Remove(key) => Some(key),
            Self::Clear => None,
        }
    }
}

/// What becomes of the token, and of the user.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identity {
    #[default]
    Keep,
    /// A new token for the same session.
    Regenerate,
    /// A new token, and the session belongs to this user from now on.
    LogIn(Login),
}

/// What a request did to one session.
#[derive(Clone, Default)]
pub(crate) struct ChangeSet {
    data: Vec<Change>,
    pub(crate) identity: Identity,
    pub(crate) remember: Option<bool>,
    pub(crate) client: Option<Arc<Client>>,
}

impl ChangeSet {
    /// Hands over the changes to be written. What tells the handler of them stays, but for the data, which the session has.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self {
            data: std::mem::take(&mut self.data),
            identity: self.identity.clone(),
            remember: self.remember,
            client: self.client.clone(),
        }
    }

    /// Whether nothing is recorded. What is recorded may still change nothing in a record.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
            && matches!(self.identity, Identity::Keep)
            && self.remember.is_none()
            && self.client.is_none()
    }

    /// Whether anything but the data of this record changes, or of a new one.
    pub(crate) fn changes_more_than_data(&self, base: Option<&Record>) -> bool {
        !matches!(self.identity, Identity::Keep) || self.changes_description(base)
    }

    /// Whether these changes set what the record says of its browser, to something else.
    pub(crate) fn changes_description(&self, base: Option<&Record>) -> bool {
        let sets_client = self.client.as_ref().is_some_and(|client| {
            base.is_none_or(|base| base.content().client.as_ref() != Some(client))
        });
        self.sets_remember(base) || sets_client
    }

    /// Whether the record gets a new token. With another `remember` it does, since a cookie's Max-Age is sent with a new token
    /// only.
    pub(crate) fn replaces_token(&self, base: &Record) -> bool {
        !matches!(self.identity, Identity::Keep) || self.sets_remember(Some(base))
    }

    fn sets_remember(&self, base: Option<&Record>) -> bool {
        self.remember
            .is_some_and(|remember| base.is_none_or(|base| base.content().remember != remember))
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        match &self.identity {
            Identity::LogIn(login) => Some(login),
            Identity::Keep | Identity::Regenerate => None,
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.forget(entry.key());
        self.data.push(Change::Insert(entry));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.forget(key);
        self.data.push(Change::Remove(key.into()));
    }

    pub(crate) fn clear(&mut self) {
        self.data.clear();
        self.data.push(Change::Clear);
    }

    pub(crate) fn update<T: Serialize + DeserializeOwned>(
        &mut self,
        entry: Entry,
        update: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) {
        let first = entry.clone();
        let compute = move |old: Option<&Entry>| Ok(compute(first.key(), old, &update)?.0);
        self.data.push(Change::Update(entry, Arc::new(compute)));
    }

    /// Drops earlier changes of a key that is now set anew, so that the list does not grow with every insert.
    fn forget(&mut self, key: &str) {
        self.data.retain(|change| change.key() != Some(key));
    }

    /// The data of a record after these changes.
    ///
    /// The limit holds for data that grows: where it was lowered, a larger session can still be used, and be made smaller.
    pub(crate) fn apply(&self, old: &Data, limit: usize) -> Result<Data, SessionError> {
        let mut data = old.clone();
        for change in &self.data {
            match change {
                Change::Insert(entry) => data.insert(entry.clone()),
                Change::Remove(key) => data.remove(key),
                Change::Clear => data = Data::default(),
                Change::Update(first, compute) => data.insert(compute(data.get(first.key()))?),
            }
        }
        check_size(data.size(), limit.max(old.size()))?;
        Ok(data)
    }

    /// Makes the changes of all but the data in `record`.
    pub(crate) fn stamp(&self, record: &mut Content) {
        if let Some(login) = self.login() {
            record.created_at = login.at;
            record.login = Some(login.clone());
        }
        if let Some(remember) = self.remember {
            record.remember = remember;
        }
        if let Some(client) = &self.client {
            record.client = Some(client.clone());
        }
    }
}

impl fmt::Debug for ChangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSet")
            .field("data", &self.data.len())
            .field("identity", &self.identity)
            .field("remember", &self.remember)
            .finish_non_exhaustive()
    }
}

pub(crate) fn check_size(size: usize, limit: usize) -> Result<(), SessionError> {
    if size > limit {
        return Err(ErrorKind::TooLarge.into());
    }
    Ok(())
}

/// A key's new entry, and its value as the application knows it.
pub(crate) fn compute<T: Serialize + DeserializeOwned>(
    key: &str,
    old: Option<&Entry>,
    update: &impl Fn(Option<T>) -> T,
) -> Result<(Entry, T), SessionError> {
    let old = old.map(Entry::value).transpose()?;
    let new = Entry::new(key, &update(old))?;
    // What its own type cannot read back is not written.
    let unreadable = |_| SessionError::of_key(ErrorKind::Unserializable, key);
    let value = new.value().map_err(unreadable)?;
    Ok((new, value))
}
