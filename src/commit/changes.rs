//! [`ChangeSet`]: what a request did to its session, as a list that a commit can apply to a newer
//! record.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::error::{SessionError, SessionErrorKind};
use crate::record::client::Client;
use crate::record::data::{Data, Entry, EntryRef, MAX_SIZE};
use crate::record::lifetime::class::LifetimeClass;
use crate::record::login::Login;
use crate::record::{Record, RecordFields};

/// An `update` of a key.
pub(crate) trait Update: Send + Sync {
    /// The entry that it computed first. On a newer record it computes from the newer value.
    fn first(&self) -> &Entry;

    /// The key's new entry, computed from its old one.
    fn compute(&self, old: Option<EntryRef<'_>>) -> Result<Entry, SessionError>;
}

struct UpdateOf<F> {
    first: Entry,
    recompute: F,
}

impl<F> Update for UpdateOf<F>
where
    F: Fn(&str, Option<EntryRef<'_>>) -> Result<Entry, SessionError> + Send + Sync,
{
    fn first(&self) -> &Entry {
        &self.first
    }

    fn compute(&self, old: Option<EntryRef<'_>>) -> Result<Entry, SessionError> {
        (self.recompute)(self.first.key(), old)
    }
}

/// One change of the data.
#[derive(Clone)]
pub(crate) enum DataChange {
    Insert(Entry),
    Remove(Arc<str>),
    /// It follows an update that may leave an empty list.
    RemoveEmptyList(Arc<str>),
    Clear,
    Update(Arc<dyn Update>),
}

impl DataChange {
    /// The change of an `update` that computed `first`.
    pub(crate) fn update<T: Serialize + DeserializeOwned>(
        first: Entry,
        update: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Self {
        let recompute =
            move |key: &str, old: Option<EntryRef<'_>>| Ok(compute(key, old, &update)?.0);
        Self::Update(Arc::new(UpdateOf { first, recompute }))
    }

    /// The key of the change. `Clear` has none.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Insert(entry) => Some(entry.key()),
            Self::Update(update) => Some(update.first().key()),
            Self::Remove(key) | Self::RemoveEmptyList(key) => Some(key),
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
    /// Boxed, because few requests have one.
    description: Option<Box<Description>>,
}

/// What a request says of the session besides data, token and user.
#[derive(Clone, Debug, Default)]
struct Description {
    lifetime: Option<LifetimeClass>,
    client: Option<Arc<Client>>,
    /// What somebody else calls the login.
    external_id: Option<Arc<str>>,
    ends_by: Option<Timestamp>,
    /// The login is worth nothing any more. So the session ends at this time, unless somebody logs
    /// in before.
    retires_at: Option<Timestamp>,
}

impl Description {
    /// When a session ends that ended at `own` so far.
    fn ends_by(&self, own: Option<Timestamp>) -> Option<Timestamp> {
        let wished = self.ends_by.or(own);
        match self.retires_at {
            None => wished,
            Some(at) => Some(wished.map_or(at, |wished| wished.min(at))),
        }
    }
}

impl ChangeSet {
    /// Hands over the changes for a commit. A copy stays, because a handler may still read the
    /// user. The list of data changes does not stay: the session has the data itself.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self {
            data: std::mem::take(&mut self.data),
            identity: self.identity.clone(),
            description: self.description.clone(),
        }
    }

    /// Whether the request did nothing. A request that did something may still change nothing in a
    /// record.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty()
            && matches!(self.identity, Identity::Keep)
            && self.description.is_none()
    }

    /// Whether anything changes in `base`, or in a new record, besides the data.
    pub(crate) fn changes_more_than_data(&self, base: Option<&Record>) -> bool {
        !matches!(self.identity, Identity::Keep)
            || self.changes_description(base)
            || self.retires(base)
    }

    /// Whether anything changes in what the handler said of the session: its lifetime, its end, its
    /// client and its external id.
    pub(crate) fn changes_description(&self, base: Option<&Record>) -> bool {
        let Some(description) = &self.description else {
            return false;
        };
        let Some(base) = base.map(Record::fields) else {
            return description.lifetime.is_some()
                || description.client.is_some()
                || description.external_id.is_some()
                || description.ends_by.is_some();
        };
        let sets_client =
            description.client.is_some() && description.client.as_ref() != base.client();
        let sets_end = description.ends_by.is_some() && description.ends_by != base.ends_by();
        let sets_external_id = description.external_id.is_some()
            && description.external_id.as_ref() != base.external_id();
        self.sets_lifetime(base) || sets_client || sets_end || sets_external_id
    }

    /// Whether the session gets an end because its login is worth nothing.
    fn retires(&self, base: Option<&Record>) -> bool {
        let Some(base) = base.map(Record::fields) else {
            return false;
        };
        self.description
            .as_ref()
            .is_some_and(|description| description.ends_by(base.ends_by()) != base.ends_by())
    }

    /// Whether the record gets a new token. It does if it gets another lifetime, because the layer
    /// sends a Max-Age only with a new token.
    pub(crate) fn rotates_token(&self, base: &Record) -> bool {
        !matches!(self.identity, Identity::Keep) || self.sets_lifetime(base.fields())
    }

    fn sets_lifetime(&self, base: &RecordFields) -> bool {
        let lifetime = self
            .description
            .as_ref()
            .and_then(|it| it.lifetime.as_ref());
        lifetime.is_some_and(|lifetime| lifetime != base.lifetime())
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
            // These start from what the earlier changes left.
            DataChange::Update(_) | DataChange::RemoveEmptyList(_) => {}
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
        // It was what somebody called the login of before.
        if let Some(description) = &mut self.description {
            description.external_id = None;
        }
    }

    pub(crate) fn set_lifetime(&mut self, lifetime: LifetimeClass) {
        self.description.get_or_insert_default().lifetime = Some(lifetime);
    }

    /// The client that the handler has recorded.
    pub(crate) fn client(&self) -> Option<&Arc<Client>> {
        self.description.as_ref()?.client.as_ref()
    }

    /// Whether `record` ends when it does because these changes say that its login is worth nothing
    /// any more.
    pub(crate) fn has_retired(&self, record: &Record) -> bool {
        let retires_at = self.description.as_ref().and_then(|it| it.retires_at);
        self.login().is_none() && retires_at.is_some() && retires_at == record.fields().ends_by()
    }

    pub(crate) fn set_client(&mut self, client: Arc<Client>) {
        self.description.get_or_insert_default().client = Some(client);
    }

    /// What the handler has set as the external id of the login.
    pub(crate) fn external_id(&self) -> Option<&Arc<str>> {
        self.description.as_ref()?.external_id.as_ref()
    }

    pub(crate) fn set_external_id(&mut self, id: Arc<str>) {
        self.description.get_or_insert_default().external_id = Some(id);
    }

    pub(crate) fn set_ends_by(&mut self, at: Timestamp) {
        self.description.get_or_insert_default().ends_by = Some(at);
    }

    #[cfg(feature = "login")]
    pub(crate) fn retire(&mut self, at: Timestamp) {
        self.description.get_or_insert_default().retires_at = Some(at);
    }

    /// Moves what these changes say of the browser into a change set of its own.
    pub(crate) fn take_browser_changes(&mut self) -> Self {
        let mut description = self.description.take();
        if let Some(description) = &mut description {
            description.retires_at = None;
            description.external_id = None;
        }
        Self {
            description,
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
            let changed = match change {
                DataChange::Insert(entry) => data.with(entry),
                DataChange::Remove(key) => data.without(key),
                DataChange::RemoveEmptyList(key) => {
                    let is_empty = data.get(key).is_some_and(EntryRef::is_empty_list);
                    is_empty.then(|| data.without(key)).flatten()
                }
                DataChange::Clear => Some(Data::default()),
                DataChange::Update(update) => {
                    let old = data.get(update.first().key());
                    data.with(&update.compute(old)?)
                }
            };
            if let Some(changed) = changed {
                check_size(changed.size(), MAX_SIZE)?;
                data = changed;
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
        let Some(description) = &self.description else {
            return;
        };
        if let Some(lifetime) = &description.lifetime {
            fields.set_lifetime(lifetime.clone());
        }
        if let Some(client) = &description.client {
            fields.set_client(Some(client.clone()));
        }
        if let Some(id) = &description.external_id {
            fields.set_external_id(id.clone());
        }
        fields.set_ends_by(match self.login() {
            None => description.ends_by(fields.ends_by()),
            // The new login is worth something.
            Some(_) => description.ends_by,
        });
    }
}

impl fmt::Debug for ChangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSet")
            .field("data", &self.data.len())
            .field("identity", &self.identity)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// Fails if the data is larger than the layer allows.
pub(crate) fn check_size(size: usize, limit: usize) -> Result<(), SessionError> {
    if size > limit.min(MAX_SIZE) {
        return Err(SessionErrorKind::TooLarge.into());
    }
    Ok(())
}

/// A key's new entry, and its value as the application knows it.
pub(crate) fn compute<T: Serialize + DeserializeOwned>(
    key: &str,
    old: Option<EntryRef<'_>>,
    update: &impl Fn(Option<T>) -> T,
) -> Result<(Entry, T), SessionError> {
    let old = old.map(EntryRef::value).transpose()?;
    let new = Entry::new(key, &update(old))?;
    // A value that its own type cannot read back must not be written.
    let unreadable = |_| SessionError::new(SessionErrorKind::Unserializable).with_key(key);
    let value = new.value().map_err(unreadable)?;
    Ok((new, value))
}
