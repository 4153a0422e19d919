//! [`ChangeSet`]: what a request did to its session, as a list that a commit can apply to a newer
//! record.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use crate::error::{SessionError, SessionErrorKind};
use crate::record::client::Client;
use crate::record::data::{Data, Entry};
use crate::record::user::Login;
use crate::record::{Record, RecordFields};

/// An `update` of a key.
pub(crate) trait Update: Send + Sync {
    /// The entry that it computed first. On a newer record it computes from the newer value.
    fn first(&self) -> &Entry;

    /// The key's new entry, computed from its old one.
    fn compute(&self, old: Option<&Entry>) -> Result<Entry, SessionError>;
}

struct UpdateOf<F> {
    first: Entry,
    recompute: F,
}

impl<F> Update for UpdateOf<F>
where
    F: Fn(&str, Option<&Entry>) -> Result<Entry, SessionError> + Send + Sync,
{
    fn first(&self) -> &Entry {
        &self.first
    }

    fn compute(&self, old: Option<&Entry>) -> Result<Entry, SessionError> {
        (self.recompute)(self.first.key(), old)
    }
}

/// One change of the data.
#[derive(Clone)]
pub(crate) enum DataChange {
    Insert(Entry),
    Remove(Arc<str>),
    Clear,
    Update(Arc<dyn Update>),
}

impl DataChange {
    /// The change of an `update` that computed `first`.
    pub(crate) fn update<T: Serialize + DeserializeOwned>(
        first: Entry,
        update: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Self {
        let recompute = move |key: &str, old: Option<&Entry>| Ok(compute(key, old, &update)?.0);
        Self::Update(Arc::new(UpdateOf { first, recompute }))
    }

    /// The key of the change. `Clear` has none.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Insert(entry) => Some(entry.key()),
            Self::Update(update) => Some(update.first().key()),
            Self::Remove(key) => Some(key),
            Self::Clear => None,
        }
    }
}

/// What the request does with the token and the user.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identity {
    #[default]
    Keep,
    /// A new token for the same session.
    Regenerate,
    /// A new token, and the session belongs to this user from now on. Boxed, because logins are
    /// rare, and every request has room for one.
    LogIn(Box<Login>),
}

/// What a request did to one session.
#[derive(Clone, Default)]
pub(crate) struct ChangeSet {
    /// Most requests change one value, which costs no allocation.
    data: SmallVec<[DataChange; 1]>,
    identity: Identity,
    remembered: Option<bool>,
    client: Option<Arc<Client>>,
}

impl ChangeSet {
    /// Hands over the changes for a commit. A copy stays, because a handler may still read the
    /// user. The list of data changes does not stay: the session has the data itself.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self {
            data: std::mem::take(&mut self.data),
            identity: self.identity.clone(),
            remembered: self.remembered,
            client: self.client.clone(),
        }
    }

    /// Whether the request did nothing. A request that did something may still change nothing in a
    /// record.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
            && matches!(self.identity, Identity::Keep)
            && self.remembered.is_none()
            && self.client.is_none()
    }

    /// Whether anything changes in `base`, or in a new record, besides the data.
    pub(crate) fn changes_more_than_data(&self, base: Option<&Record>) -> bool {
        !matches!(self.identity, Identity::Keep) || self.changes_description(base)
    }

    /// Whether anything changes in what the record says of the browser: whether it remembers the
    /// session, and what client it is.
    pub(crate) fn changes_description(&self, base: Option<&Record>) -> bool {
        let sets_client = self
            .client
            .as_ref()
            .is_some_and(|client| base.is_none_or(|base| base.fields().client() != Some(client)));
        self.sets_remembered(base) || sets_client
    }

    /// Whether the record gets a new token. It does if the changes make the browser remember the
    /// session, or stop that, because the layer sends a Max-Age only with a new token.
    pub(crate) fn rotates_token(&self, base: &Record) -> bool {
        !matches!(self.identity, Identity::Keep) || self.sets_remembered(Some(base))
    }

    fn sets_remembered(&self, base: Option<&Record>) -> bool {
        self.remembered.is_some_and(|remembered| {
            base.is_none_or(|base| base.fields().is_remembered() != remembered)
        })
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        match &self.identity {
            Identity::LogIn(login) => Some(login),
            Identity::Keep | Identity::Regenerate => None,
        }
    }

    /// Adds a change of the data. It removes earlier changes that have no effect any more, so that
    /// the list does not grow with every insert of one key.
    pub(crate) fn push(&mut self, change: DataChange) {
        match &change {
            DataChange::Clear => self.data.clear(),
            DataChange::Insert(_) | DataChange::Remove(_) => {
                self.data.retain(|earlier| earlier.key() != change.key());
            }
            // An update computes from what the earlier changes left.
            DataChange::Update(_) => {}
        }
        self.data.push(change);
    }

    /// Asks for a new token. A login gives one anyway.
    pub(crate) fn regenerate(&mut self) {
        if matches!(self.identity, Identity::Keep) {
            self.identity = Identity::Regenerate;
        }
    }

    pub(crate) fn log_in(&mut self, login: Login) {
        self.identity = Identity::LogIn(Box::new(login));
    }

    pub(crate) fn set_remembered(&mut self, remembered: bool) {
        self.remembered = Some(remembered);
    }

    pub(crate) fn set_client(&mut self, client: Client) {
        self.client = Some(Arc::new(client));
    }

    /// Moves what these changes say of the browser into a change set of its own.
    pub(crate) fn take_browser_changes(&mut self) -> Self {
        Self {
            remembered: self.remembered.take(),
            client: self.client.take(),
            ..Self::default()
        }
    }

    /// The data of a record after these changes.
    ///
    /// The limit holds for data that grows. If the application lowers the limit, a session that is
    /// larger can still be used and made smaller.
    pub(crate) fn apply(&self, old: &Data, limit: usize) -> Result<Data, SessionError> {
        let mut data = old.clone();
        for change in &self.data {
            match change {
                DataChange::Insert(entry) => {
                    data.insert(entry.clone());
                }
                DataChange::Remove(key) => data.remove(key),
                DataChange::Clear => data = Data::default(),
                DataChange::Update(update) => {
                    let old = data.get(update.first().key());
                    data.insert(update.compute(old)?);
                }
            }
        }
        check_size(data.size(), limit.max(old.size()))?;
        Ok(data)
    }

    /// Makes all changes in `fields` except those of the data and the token.
    pub(crate) fn apply_to_fields(&self, fields: &mut RecordFields) {
        if let Some(login) = self.login() {
            fields.log_in(login.clone());
        }
        if let Some(remembered) = self.remembered {
            fields.set_remembered(remembered);
        }
        if let Some(client) = &self.client {
            fields.set_client(Some(client.clone()));
        }
    }
}

impl fmt::Debug for ChangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSet")
            .field("data", &self.data.len())
            .field("identity", &self.identity)
            .field("remembered", &self.remembered)
            .finish_non_exhaustive()
    }
}

/// Fails if the data is larger than the layer allows.
pub(crate) fn check_size(size: usize, limit: usize) -> Result<(), SessionError> {
    if size > limit {
        return Err(SessionErrorKind::TooLarge.into());
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
    // A value that its own type cannot read back must not be written.
    let unreadable = |_| SessionError::new(SessionErrorKind::Unserializable).with_key(key);
    let value = new.value().map_err(unreadable)?;
    Ok((new, value))
}
