//! [`Session`]: what a handler holds.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Extensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use crate::change::{self, ChangeSet, Identity};
use crate::clock::Timestamp;
use crate::commit::{Activity, Ended, Pending, commit, touch};
use crate::data::{Data, Entry};
use crate::engine::{Base, Engine, Found, Loaded};
use crate::error::{ErrorKind, SessionError};
use crate::key::SessionKey;
use crate::lifetime::Lifetimes;
use crate::outcome::DropReason;
use crate::record::{Client, Login, Record, UserId};
use crate::report;
use crate::token::{Presented, RecordId, Verified};

/// The session of a request.
///
/// It is an extractor, and a handle: clones are the same session. Reads see this request's changes at once; the layer writes
/// them to the store after the handler, before the response's head leaves. Where the handler fails, they are dropped,
/// except that a session that was ended stays ended. A handler fails with a status of 5xx or 408 and with
/// a gRPC error, or as [`commit_when`](crate::SessionLayerBuilder::commit_when) says.
///
/// A visitor has an empty session that is stored nowhere until something is put into it.
///
/// ```
/// use cloakroom::{Session, SessionError};
///
/// async fn home(session: Session) -> Result<String, SessionError> {
///     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
///     let theme = session.get::<String>("theme")?.unwrap_or_else(|| "light".into());
///     Ok(format!("visit {visits}, {theme}"))
/// }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    /// The session of another layer further out.
    outer: Option<Session>,
    client: ClientFacts,
    state: Mutex<State>,
}

/// What a request shows of its client, besides a good token.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientFacts {
    /// It presented something as its token, good or not.
    pub(crate) presents_token: bool,
    /// It is a browser that came over plain HTTP, from another host than its own.
    pub(crate) is_on_plain_http: bool,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// What the request came with, or what has been written since.
    found: Found,
    ended: Option<Ended>,
    changes: ChangeSet,
    /// The base's data after the changes, once there are any.
    data: Option<Data>,
    /// Counts changes of the data, so that `update` sees one that came between.
    revision: u64,
    activity: Activity,
    /// Whether the response depends on the session.
    looked_at: bool,
    clears_site_data: bool,
    /// Whether the layer has done with the session: what the request did is stored, or never will be.
    is_settled: bool,
    /// Who waits for that.
    waiting: Option<Arc<Notify>>,
}

/// How far a session is in its request.
#[derive(Debug, Default)]
enum Phase {
    /// The layer is lazy, and nobody has asked for the session yet.
    Unloaded(Presented),
    /// The handler runs.
    #[default]
    Open,
    /// The response is on its way, or was never made.
    Sealed,
    /// The same, and nobody has asked for the session before: what is in it is not known.
    SealedUnloaded,
}

impl State {
    fn base(&self) -> Option<&Base> {
        self.found.base()
    }

    fn data(&self) -> Option<&Data> {
        let of_base = || self.base().map(|base| &base.record.content().data);
        self.data.as_ref().or_else(of_base)
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        self.data()?.get(key).cloned()
    }

    fn login(&self) -> Option<&Login> {
        let of_base = self
            .base()
            .and_then(|base| base.record.content().login.as_ref());
        self.changes.login().or(of_base)
    }

    fn settle(&mut self) {
        self.is_settled = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.notify_waiters();
        }
    }

    /// Whether the handler sees this entry already.
    fn has(&self, entry: &Entry) -> bool {
        self.data().and_then(|data| data.get(entry.key())) == Some(entry)
    }

    /// The data as the handler sees it, to be changed.
    fn data_mut(&mut self) -> &mut Data {
        self.revision += 1;
        let of_base = || {
            self.found
                .base()
                .map(|base| base.record.content().data.clone())
        };
        self.data
            .get_or_insert_with(|| of_base().unwrap_or_default())
    }

    /// Puts an entry into the data as the handler sees it, if that keeps to the limit.
    fn put(&mut self, entry: Entry, limit: usize) -> Result<(), SessionError> {
        let mut data = self.data().cloned().unwrap_or_default();
        data.insert(entry);
        change::check_size(data.size(), limit)?;
        self.data = Some(data);
        self.revision += 1;
        Ok(())
    }

    /// Whether there is something to write besides the data.
    fn changes_more_than_data(&self) -> bool {
        let base = self.base().map(|base| &base.record);
        self.ended.is_some() || self.changes.changes_more_than_data(base)
    }

    /// Whether the data differs from what the request came with. Changes that cancel each other out
    /// are recorded all the same: applied to newer data, they may not.
    fn changes_data(&self) -> bool {
        match (&self.data, self.base()) {
            (None, _) => false,
            (Some(data), None) => !data.is_empty(),
            (Some(data), Some(base)) => *data != base.record.content().data,
        }
    }

    /// What there is to write, with these changes.
    fn pending(&self, changes: ChangeSet, changes_data: bool) -> Pending {
        Pending {
            ended: self.ended.clone(),
            found: self.found.clone(),
            changes_data,
            changes,
            data: self.data.clone(),
            activity: self.activity,
        }
    }

    /// Goes on with nothing, and drops what was changed so far.
    fn leave(
        &mut self,
        reason: DropReason,
        how: impl FnOnce(RecordId) -> Ended,
    ) -> Option<Dropped> {
        let login = self.changes.login().is_some();
        let dropped = (login || self.changes_data()).then(|| Dropped {
            id: self.base().map(|base| base.token.id),
            login,
            reason,
        });
        if let Some(base) = self.base() {
            self.ended = Some(how(base.token.id));
            self.found = Found::Nothing;
        }
        self.changes = ChangeSet::default();
        self.data = None;
        self.revision += 1;
        dropped
    }

    fn end(&mut self, client: ClientFacts) -> Option<Dropped> {
        let dropped = self.leave(DropReason::EndedByRequest, Ended::Explicitly);
        self.ended = match (self.ended.take(), mem::take(&mut self.found)) {
            (Some(Ended::BySwitch(id)), _) => Some(Ended::Explicitly(id)),
            (None, Found::Overtaken(id)) => {
                self.found = Found::Overtaken(id);
                Some(Ended::InVain)
            }
            (None, Found::Ambiguous(ids)) => Some(Ended::AllOf(ids)),
            (None, _) if client.presents_token => Some(Ended::DeadToken),
            (ended, found) => {
                self.found = found;
                ended
            }
        };
        dropped
    }

    /// Leaves the last user's session to the next one. What is known of the browser holds for both.
    fn switch_user(&mut self) -> Option<Dropped> {
        let remember = self.changes.remember.take();
        let client = self.changes.client.take();
        let dropped = self.leave(DropReason::OtherUser, Ended::BySwitch);
        self.changes.remember = remember;
        self.changes.client = client;
        dropped
    }
}

/// Changes that a request has made and dropped. They are reported once no lock is held, since what
/// listens to events is code of the application.
#[must_use]
struct Dropped {
    id: Option<RecordId>,
    login: bool,
    reason: DropReason,
}

impl Dropped {
    fn report(dropped: Option<Self>) {
        if let Some(Self { id, login, reason }) = dropped {
            report::dropped_write(id, login, reason);
        }
    }
}

impl Session {
    /// The session of a request that presents `presented`, which is verified and loaded by [`load`](Self::load).
    pub(crate) fn unloaded(
        engine: Arc<Engine>,
        outer: Option<Self>,
        client: ClientFacts,
        presented: Presented,
    ) -> Self {
        let state = State {
            phase: Phase::Unloaded(presented),
            ..State::default()
        };
        Self::new(engine, outer, client, state)
    }

    /// The session of a request that starts from what was found.
    pub(crate) fn loaded(
        engine: Arc<Engine>,
        outer: Option<Self>,
        client: ClientFacts,
        found: Found,
    ) -> Self {
        let state = State {
            found,
            ..State::default()
        };
        Self::new(engine, outer, client, state)
    }

    fn new(engine: Arc<Engine>, outer: Option<Self>, client: ClientFacts, state: State) -> Self {
        let state = Mutex::new(state);
        Self(Arc::new(Inner {
            engine,
            outer,
            client,
            state,
        }))
    }

    /// No lock is ever held while code of the application runs, so that a poisoned one has a whole state all the same.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for a read.
    fn read(&self) -> Result<MutexGuard<'_, State>, SessionError> {
        let mut state = self.state();
        match state.phase {
            Phase::Unloaded(_) => return Err(ErrorKind::NotLoaded.into()),
            Phase::SealedUnloaded => return Err(ErrorKind::Sealed.into()),
            Phase::Open | Phase::Sealed => {}
        }
        state.looked_at = true;
        Ok(state)
    }

    /// The state for a change.
    fn write(&self) -> Result<MutexGuard<'_, State>, SessionError> {
        let state = self.read()?;
        match state.phase {
            Phase::Sealed => Err(ErrorKind::Sealed.into()),
            _ => Ok(state),
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// Fails where the session can no longer change.
    pub(crate) fn check_open(&self) -> Result<(), SessionError> {
        self.write().map(drop)
    }

    pub(crate) fn client(&self) -> ClientFacts {
        self.0.client
    }

    /// Whether the client holds a token that leads to no session.
    pub(crate) fn has_dead_token(&self) -> bool {
        self.0.client.presents_token && self.state().base().is_none()
    }

    pub(crate) fn has_outer(&self) -> bool {
        self.0.outer.is_some()
    }

    /// This session and those of the layers further out, from the innermost on.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |session| session.0.outer.as_ref())
    }

    /// The session that the layer put into a request.
    ///
    /// Handlers of Axum have it as an extractor; this is for other services. With several layers it is the innermost one's
    /// session, and [`named`](Self::named) leads to the others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MissingLayer`] where the request did not pass a [`SessionLayer`](crate::SessionLayer).
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// async fn service(request: http::Request<String>) -> Result<http::Response<String>, SessionError> {
    ///     let session = Session::from_extensions(request.extensions())?;
    ///     session.load().await?; // needed where the layer may be lazy
    ///     let name = session.get::<String>("name")?;
    ///     Ok(http::Response::new(name.unwrap_or_default()))
    /// }
    /// ```
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, SessionError> {
        extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| ErrorKind::MissingLayer.into())
    }

    /// The session of the layer with this cookie name, where several layers are around a handler. Of two
    /// with the same name, it is the inner one's.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// if let Some(admin) = session.named("__Host-admin") {
    ///     let operator = admin.user()?;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn named(&self, cookie_name: &str) -> Option<Self> {
        self.chain()
            .find(|session| session.0.engine.carrier.name() == cookie_name)
            .cloned()
    }

    /// Loads the session, where a lazy layer has not done so yet. The extractors do this by themselves.
    ///
    /// When the future is dropped, the session is still not loaded, and can be loaded again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] where the store fails. [`ErrorKind::Sealed`] after the response, where nobody asked before.
    pub async fn load(&self) -> Result<(), SessionError> {
        let presented = match &self.state().phase {
            Phase::Unloaded(presented) => presented.clone(),
            Phase::Open | Phase::Sealed => return Ok(()),
            Phase::SealedUnloaded => return Err(ErrorKind::Sealed.into()),
        };
        // Boxed, since it is seldom needed, and the future of each handler has room for that of its extractors.
        let load = self.load_presented(presented);
        Box::pin(load.instrument(report::load_span())).await
    }

    async fn load_presented(&self, presented: Presented) -> Result<(), SessionError> {
        let found = match self.0.engine.verify(&presented) {
            Some(tokens) => self.0.engine.find(tokens).await?,
            None => Found::Nothing,
        };
        let mut state = self.state();
        match state.phase {
            Phase::Unloaded(_) => {
                state.phase = Phase::Open;
                state.found = found;
                Ok(())
            }
            Phase::Open | Phase::Sealed => Ok(()),
            Phase::SealedUnloaded => Err(ErrorKind::Sealed.into()),
        }
    }

    /// The value under a key, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongType`] where the value is not a `T`; it stays as it is.
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
        // The key may be the application's code, which runs under no lock.
        let key = key.name();
        let entry = self.read()?.entry(key);
        entry.map(|entry| entry.value()).transpose()
    }

    /// Puts a value under a key, in place of the one that is there. An equal value is no change, and is not
    /// written.
    ///
    /// The order of a map's keys does not count, so that an equal `HashMap` is no change. Keep what has an
    /// order in a list. A `HashSet` becomes a list, whose order does, so that an
    /// equal one may be written again: use a `BTreeSet`. JSON has one `null`, so that `Some(None)` and
    /// `Some(())` come back as `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] where the session's data would exceed the layer's limit, and
    /// [`ErrorKind::Unserializable`] where the value cannot be JSON, or could not be read back: a NaN or an
    /// infinity anywhere in it, or more than 127 levels of lists and maps. The session stays as it was.
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn set(session: &Session) -> Result<(), SessionError> {
    /// session.insert("theme", "dark")?;
    /// # Ok(()) }
    /// ```
    pub fn insert<T: Serialize>(
        &self,
        key: impl SessionKey<T>,
        value: T,
    ) -> Result<(), SessionError> {
        let key = key.name();
        let entry = Entry::new(key, &value)?;
        let mut state = self.write()?;
        if !state.has(&entry) {
            state.put(entry.clone(), self.0.engine.data_limit)?;
        }
        state.changes.insert(entry);
        Ok(())
    }

    /// Computes a key's new value from its old one, and returns the new one.
    ///
    /// This is for what parallel requests change: where another request changed the session in the meantime, `compute` runs
    /// again on the newer value when the session is saved, so that no change is lost. It may therefore run several times, and
    /// should do nothing but compute. The value returned is the one that this request saw.
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
        let key = key.name();
        loop {
            let (old, revision) = {
                let state = self.write()?;
                (state.entry(key), state.revision)
            };
            // The closure is the application's, so no lock is held while it runs.
            let (new, value) = change::compute(key, old.as_ref(), &compute)?;
            let mut state = self.write()?;
            if state.revision != revision {
                continue;
            }
            if old.as_ref() != Some(&new) {
                state.put(new.clone(), self.0.engine.data_limit)?;
            }
            state.changes.update(new, compute);
            return Ok(value);
        }
    }

    /// Takes a value out of the session. This is what a flash message needs.
    ///
    /// It is a change also where there is no value. If a parallel request changes the session first, it takes
    /// out what is there then, which this request has not seen.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongType`] where the value is not a `T`, and then it stays. [`ErrorKind::Sealed`] after the response.
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
            let (old, revision) = {
                let state = self.write()?;
                (state.entry(key), state.revision)
            };
            let value = old.map(|old| old.value()).transpose()?;
            let mut state = self.write()?;
            // Another task of the request may have changed it since.
            if state.revision != revision {
                continue;
            }
            if value.is_some() {
                state.data_mut().remove(key);
            }
            state.changes.remove(key);
            return Ok(value);
        }
    }

    /// Removes all values. The session goes on, and so does its login.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// session.clear()?; // the cart, the filters, and all else; the user stays logged in
    /// # Ok(()) }
    /// ```
    pub fn clear(&self) -> Result<(), SessionError> {
        let mut state = self.write()?;
        if state.data().is_some_and(|data| !data.is_empty()) {
            *state.data_mut() = Data::default();
        }
        state.changes.clear();
        Ok(())
    }

    /// The names of all values.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotLoaded`] where the layer is lazy and the session is not loaded.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// for key in session.keys()? {
    ///     println!("{key}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn keys(&self) -> Result<Vec<String>, SessionError> {
        let state = self.read()?;
        Ok(state
            .data()
            .map(|data| data.keys().map(str::to_owned).collect())
            .unwrap_or_default())
    }

    /// Gives the session a new token; the old one is dead at once. Data and lifetimes stay as they are.
    ///
    /// Call it where a user's rights change; [`log_in`](Self::log_in) does so by itself. A visitor whose session is not stored
    /// yet has no token to replace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// // The user has just got more rights: a token that somebody saw before must not have them.
    /// session.regenerate()?;
    /// # Ok(()) }
    /// ```
    pub fn regenerate(&self) -> Result<(), SessionError> {
        let mut state = self.write()?;
        if state.base().is_some() && matches!(state.changes.identity, Identity::Keep) {
            state.changes.identity = Identity::Regenerate;
        }
        Ok(())
    }

    /// Logs a user in: the session gets a new token, belongs to the user, and its absolute timeout starts anew.
    ///
    /// What is in the session stays, unless it belonged to another user: then this one starts empty, and that one's is ended
    /// once this one is stored. These are two steps, and a request that is dropped between them leaves the other's as it was.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUserId`] for an id that is empty or longer than 255 bytes. [`ErrorKind::Sealed`] after the
    /// response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # struct User { id: i64 }
    /// # fn log_in(session: &Session, user: &User) -> Result<(), SessionError> {
    /// session.log_in(&user.id)?;
    /// # Ok(()) }
    /// ```
    pub fn log_in(&self, user: impl Into<UserId>) -> Result<(), SessionError> {
        let user = user.into();
        user.check()?;
        let user = self.0.engine.realm.qualify(&user);
        let now = self.0.engine.now();
        let mut state = self.write()?;
        let is_other = state.login().is_some_and(|login| login.user != user);
        let dropped = if is_other { state.switch_user() } else { None };
        state.changes.identity = Identity::LogIn(Login { user, at: now });
        drop(state);
        Dropped::report(dropped);
        Ok(())
    }

    /// Logs the user out: [`destroy`](Self::destroy), and `Clear-Site-Data` where the layer is set to send it.
    ///
    /// It happens after the handler, as all changes do: a client that leaves before the handler is done keeps its session. What
    /// has to end in any case is ended by [`Sessions::revoke`](crate::Sessions::revoke).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// # fn main() -> Result<(), SessionError> {
    /// async fn log_out(session: Session) -> Result<&'static str, SessionError> {
    ///     session.log_out()?;
    ///     Ok("Goodbye.")
    /// }
    /// # Ok(()) }
    /// ```
    pub fn log_out(&self) -> Result<(), SessionError> {
        let mut state = self.write()?;
        let dropped = state.end(self.0.client);
        state.clears_site_data = true;
        drop(state);
        Dropped::report(dropped);
        Ok(())
    }

    /// Ends the session, in the store and in the browser. What is put into it afterwards makes a new one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// session.destroy()?;
    /// session.insert("notice", "Your order is complete.")?; // in a new session
    /// # Ok(()) }
    /// ```
    pub fn destroy(&self) -> Result<(), SessionError> {
        let dropped = self.write()?.end(self.0.client);
        Dropped::report(dropped);
        Ok(())
    }

    /// Whether the session outlives the browser: `true` gives it a persistent cookie and the layer's remember timeouts.
    ///
    /// Where the session was made otherwise, it gets a new token, as with [`regenerate`](Self::regenerate).
    /// A session that is older than the absolute timeout which holds for it from now on ends instead, and
    /// the response removes its cookie. A login in the same request makes it young again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session, stay_logged_in: bool) -> Result<(), SessionError> {
    /// session.remember(stay_logged_in)?; // the box below the password
    /// session.log_in(42)?;
    /// # Ok(()) }
    /// ```
    pub fn remember(&self, remember: bool) -> Result<(), SessionError> {
        self.write()?.changes.remember = Some(remember);
        Ok(())
    }

    /// This request does not count as use of the session: for polling, which would keep a session alive until its absolute
    /// timeout.
    ///
    /// Call it in the first second of the handler. The layer touches a session that is nearly over once its
    /// handler has waited for so long, since a slow request could outlive it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// # fn main() -> Result<(), SessionError> {
    /// async fn unread(session: Session) -> Result<String, SessionError> {
    ///     session.passive()?; // the page asks every few seconds, whether somebody is there or not
    ///     Ok(session.get::<u32>("unread")?.unwrap_or(0).to_string())
    /// }
    /// # Ok(()) }
    /// ```
    pub fn passive(&self) -> Result<(), SessionError> {
        self.write()?.activity = Activity::Passive;
        Ok(())
    }

    /// Records where the session is used from, to be shown by [`Sessions::list`](crate::Sessions::list).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] after the response.
    ///
    /// ```
    /// # use cloakroom::{Client, Session, SessionError};
    /// # fn show(session: &Session, user_agent: &str) -> Result<(), SessionError> {
    /// session.log_in(42)?;
    /// session.set_client(Client::new().with_user_agent(user_agent))?;
    /// # Ok(()) }
    /// ```
    pub fn set_client(&self, client: Client) -> Result<(), SessionError> {
        self.write()?.changes.client = Some(Arc::new(client));
        Ok(())
    }

    /// The record id of the session that the request came with; `None` for a visitor. It is no secret.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotLoaded`] where the layer is lazy and the session is not loaded. So do the methods below.
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # async fn show(session: &Session, sessions: cloakroom::Sessions<cloakroom::MemoryStore>) -> Result<(), SessionError> {
    /// // "Log out everywhere else": all but this one.
    /// if let (Some(user), Some(this)) = (session.user()?, session.id()?) {
    ///     sessions.revoke_others(user, this).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn id(&self) -> Result<Option<RecordId>, SessionError> {
        Ok(self.read()?.base().map(|base| base.token.id))
    }

    /// Who is logged in.
    ///
    /// # Errors
    ///
    /// As [`id`](Self::id).
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// let greeting = match session.user()? {
    ///     Some(user) => format!("Hello, {user}."),
    ///     None => "Please log in.".to_owned(),
    /// };
    /// # Ok(()) }
    /// ```
    pub fn user(&self) -> Result<Option<UserId>, SessionError> {
        let state = self.read()?;
        Ok(state.login().map(|login| login.user.without_realm()))
    }

    /// Who is logged in, where somebody has to be. The extractor [`CurrentUser`](crate::CurrentUser) asks
    /// this.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotLoggedIn`] for a visitor. [`ErrorKind::Superseded`] where a parallel request has just
    /// replaced the token: its client may be logged in, and shall ask again with the new token. Others as
    /// [`id`](Self::id).
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// let user = session.require_user()?;
    /// # Ok(()) }
    /// ```
    pub fn require_user(&self) -> Result<UserId, SessionError> {
        self.require_login(|login| Ok(login.user.without_realm()))
    }

    fn require_login<T>(
        &self,
        accept: impl FnOnce(&Login) -> Result<T, ErrorKind>,
    ) -> Result<T, SessionError> {
        let state = self.read()?;
        let accepted = match (state.login(), &state.found) {
            (Some(login), _) => accept(login),
            (None, Found::Overtaken(_)) => Err(ErrorKind::Superseded),
            (None, _) => Err(ErrorKind::NotLoggedIn),
        };
        Ok(accepted?)
    }

    /// When the user logged in. Activity does not move it.
    ///
    /// # Errors
    ///
    /// As [`id`](Self::id).
    pub fn authenticated_at(&self) -> Result<Option<Timestamp>, SessionError> {
        Ok(self.read()?.login().map(|login| login.at))
    }

    /// When the session that the request came with ends if nothing happens any more.
    ///
    /// # Errors
    ///
    /// As [`id`](Self::id).
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use cloakroom::{Session, SessionError};
    /// # fn show(session: &Session) -> Result<(), SessionError> {
    /// let ends_at: Option<SystemTime> = session.ends_at()?.map(SystemTime::from);
    /// # Ok(()) }
    /// ```
    pub fn ends_at(&self) -> Result<Option<Timestamp>, SessionError> {
        let state = self.read()?;
        Ok(state
            .base()
            .map(|base| self.0.engine.lifetimes.ends_at(&base.record)))
    }

    /// Asks for a login that is at most `max_age` old, before something that matters: a new password, a payment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LoginTooOld`]. A login that is dated more than a minute ahead counts as too old as well:
    /// a clock was wrong, and nobody knows when it was. Others as [`require_user`](Self::require_user).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cloakroom::{Session, SessionError};
    /// # fn change_password(session: &Session) -> Result<(), SessionError> {
    /// session.require_fresh(Duration::from_secs(5 * 60))?;
    /// # Ok(()) }
    /// ```
    pub fn require_fresh(&self, max_age: Duration) -> Result<(), SessionError> {
        // The clock may be code of the application, which runs under no lock.
        let now = self.0.engine.now();
        self.require_login(
            |login| match Lifetimes::is_login_too_old(login.at, max_age, now) {
                true => Err(ErrorKind::LoginTooOld),
                false => Ok(()),
            },
        )
    }

    /// A handle for what goes on after the response: a socket, a stream, a task.
    ///
    /// It starts with the session as it was loaded; this request's own changes are in it after a
    /// [`reload`](DetachedSession::reload).
    ///
    /// # Errors
    ///
    /// As [`id`](Self::id).
    pub fn detach(&self) -> Result<DetachedSession, SessionError> {
        let found = self.read()?.found.clone();
        let work = Self::loaded(self.0.engine.clone(), None, ClientFacts::default(), found);
        Ok(DetachedSession {
            origin: self.clone(),
            work,
        })
    }

    /// Closes the session to changes, and hands over what there is to write and to tell. For most
    /// requests there is nothing to write.
    pub(crate) fn seal(&self) -> Sealed {
        let engine = &self.0.engine;
        let mut state = self.state();
        let told = Told {
            varies: state.looked_at,
            clears_site_data: state.clears_site_data && engine.clear_site_data,
        };
        let was_open = matches!(state.phase, Phase::Open);
        state.phase = match state.phase {
            Phase::Open | Phase::Sealed => Phase::Sealed,
            Phase::Unloaded(_) | Phase::SealedUnloaded => Phase::SealedUnloaded,
        };
        let changes_data = state.changes_data();
        if was_open && (changes_data || state.changes_more_than_data()) {
            let changes = state.changes.hand_over();
            return Sealed::Dirty(told, state.pending(changes, changes_data));
        }
        // Nobody waits for a session that is there already.
        state.settle();
        let Some(record) = state.base().map(|base| base.record.clone()) else {
            return Sealed::Clean(told);
        };
        if !was_open || state.activity == Activity::Passive {
            return Sealed::Clean(told);
        }
        // The clock may be code of the application, which runs under no lock. It is asked now, and not
        // when the session was loaded, so that slow requests keep a session alive.
        drop(state);
        match engine.lifetimes.renewal(record.content(), engine.now()) {
            Some(_) => Sealed::Dirty(told, self.state().pending(ChangeSet::default(), false)),
            None => Sealed::Clean(told),
        }
    }

    /// Goes on from what has been written.
    pub(crate) fn adopt(&self, base: Option<Base>) {
        let mut state = self.state();
        state.found = base.into();
        state.ended = None;
        state.changes = ChangeSet::default();
        state.data = None;
        state.settle();
    }

    /// The layer has done with the session.
    pub(crate) fn settle(&self) {
        self.state().settle();
    }

    /// The session that the request came with.
    pub(crate) fn record_id(&self) -> Option<RecordId> {
        let state = self.state();
        match (&state.found, &state.ended) {
            (Found::Session(base), _) => Some(base.token.id),
            (Found::Overtaken(id), _) => Some(*id),
            (_, Some(Ended::Explicitly(id) | Ended::BySwitch(id))) => Some(*id),
            _ => None,
        }
    }

    /// What the request's session became, once the layer has done with it.
    async fn settled(&self) -> Option<Base> {
        let waiting = {
            let mut state = self.state();
            if state.is_settled || state.base().is_some() {
                return state.base().cloned();
            }
            state
                .waiting
                .get_or_insert_default()
                .clone()
                .notified_owned()
        };
        // A handler that waits for its own response would do so without end.
        let _ = timeout(self.0.engine.commit_timeout, waiting).await;
        self.state().base().cloned()
    }

    /// A touch while the handler runs, where the session is nearly over.
    pub(crate) fn early_touch(&self) -> EarlyTouch {
        let state = self.state();
        match (&state.phase, state.base(), state.activity) {
            (Phase::Unloaded(_), _, _) => EarlyTouch::Undecided,
            (Phase::Open, Some(base), Activity::Active) if base.was_nearly_over => {
                let session = self.clone();
                let base = base.clone();
                EarlyTouch::Due(Box::pin(async move { session.touch_early(base).await }))
            }
            _ => EarlyTouch::NotDue,
        }
    }

    async fn touch_early(&self, mut base: Base) {
        // A handler that asks for no touch does so at its start, which may wait for a body or a database.
        let left = base.record.expires_at().since(self.0.engine.now());
        sleep(EARLY_TOUCH_AFTER.min(left / 4)).await;
        if self.state().activity == Activity::Passive {
            return;
        }
        // Where it fails, the request's commit tries again.
        touch(&self.0.engine, &mut base, Activity::Active).await;
        if let Found::Session(own) = &mut self.state().found
            && own.record.version() == base.record.version()
        {
            *own = base;
        }
    }
}

/// How long a handler has waited when its session is touched.
const EARLY_TOUCH_AFTER: Duration = Duration::from_secs(1);

/// Whether a session is to be touched while its handler runs.
pub(crate) enum EarlyTouch {
    /// The session is not loaded yet.
    Undecided,
    NotDue,
    Due(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// What a handler leaves behind, for the response and for the store.
pub(crate) enum Sealed {
    Clean(Told),
    Dirty(Told, Pending),
}

/// What a response has to say of its session, besides the token.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    /// It depends on the session.
    pub(crate) varies: bool,
    /// The browser is to forget what it keeps of the site.
    pub(crate) clears_site_data: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Session")
            .field("cookie", &self.0.engine.carrier.name())
            .field("phase", &state.phase)
            .field("found", &state.found)
            .field("changes", &state.changes)
            .finish_non_exhaustive()
    }
}

/// A session for what goes on after the response: a socket, a stream, a task.
///
/// Its changes are written by [`save`](Self::save) and by nothing else; what is not saved is lost. It cannot change the token,
/// since there is no response any more to carry one, and it is no use after the session has got another: a socket that is to
/// go on has to be opened anew.
///
/// ```
/// use cloakroom::{Session, SessionError};
///
/// async fn upload(session: Session) -> Result<&'static str, SessionError> {
///     session.insert("upload", "started")?;
///     let mut later = session.detach()?;
///     tokio::spawn(async move {
///         // … when the work is done, and the response has long been sent:
///         later.reload().await?;
///         later.insert("upload", "done")?;
///         later.save().await
///     });
///     Ok("on its way")
/// }
/// ```
#[derive(Debug)]
#[must_use = "a detached session does nothing until it is saved"]
pub struct DetachedSession {
    /// The request's session, which knows the token that its commit made.
    origin: Session,
    work: Session,
}

impl DetachedSession {
    /// As [`Session::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get<T: DeserializeOwned>(
        &self,
        key: impl SessionKey<T>,
    ) -> Result<Option<T>, SessionError> {
        self.work.get(key)
    }

    /// As [`Session::insert`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn insert<T: Serialize>(
        &self,
        key: impl SessionKey<T>,
        value: T,
    ) -> Result<(), SessionError> {
        self.work.insert(key, value)
    }

    /// As [`Session::update`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn update<T, F>(&self, key: impl SessionKey<T>, compute: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        self.work.update(key, compute)
    }

    /// As [`Session::remove`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn remove<T: DeserializeOwned>(
        &self,
        key: impl SessionKey<T>,
    ) -> Result<Option<T>, SessionError> {
        self.work.remove(key)
    }

    /// As [`Session::clear`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn clear(&self) -> Result<(), SessionError> {
        self.work.clear()
    }

    /// Who is logged in, as of the last [`reload`](Self::reload) or [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn user(&self) -> Result<Option<UserId>, SessionError> {
        self.work.user()
    }

    /// Writes the changes, as the layer does after a handler: none of a parallel request is lost. It counts as use of the
    /// session.
    ///
    /// A session that its request makes is stored with the response. `save` and [`reload`](Self::reload) wait
    /// for that, at most for the [`commit_timeout`](crate::SessionLayerBuilder::commit_timeout): a handler
    /// that waits for them before it answers waits in vain.
    ///
    /// When the future is dropped, or fails, the changes are still there to be saved again. They may have reached the store
    /// even so, and then an `update` counts twice.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ended`] where the session has been ended or was never stored, [`ErrorKind::Superseded`] where it has
    /// another token by now, [`ErrorKind::Store`] and [`ErrorKind::Contended`] as for a request.
    pub async fn save(&mut self) -> Result<(), SessionError> {
        let mut base = self.base().await?;
        let is_changed = {
            let state = self.work.state();
            state.changes_data() || state.changes_more_than_data()
        };
        if !is_changed {
            // Nothing may be due to be written, and then nothing else asks whether the session is still there.
            base.record = self.record(&base.token).await?;
        }
        let mut pending = {
            let state = self.work.state();
            let is_current = state
                .base()
                .is_some_and(|own| own.record.version() == base.record.version());
            Pending {
                // Data that was computed from another record is computed anew.
                data: if is_current { state.data.clone() } else { None },
                found: Found::Session(base),
                ..state.pending(state.changes.clone(), state.changes_data())
            }
        };
        let committed = commit(self.work.engine(), &mut pending).await?;
        match committed.into_base() {
            Some(base) => {
                self.work.adopt(Some(base));
                Ok(())
            }
            None => Err(ErrorKind::Ended.into()),
        }
    }

    /// Reads the session as it is in the store now. Changes that are not saved yet stay, on top of it.
    ///
    /// When the future is dropped, the session is as before.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub async fn reload(&mut self) -> Result<(), SessionError> {
        let token = self.base().await?.token;
        let record = self.record(&token).await?;
        let changes = self.work.state().changes.clone();
        // Closures of the application run here, so no lock is held.
        let data = changes.apply(&record.content().data, self.work.engine().data_limit)?;
        let mut state = self.work.state();
        state.data = Some(data);
        state.found = Found::Session(Base {
            token,
            record,
            was_nearly_over: false,
        });
        state.revision += 1;
        Ok(())
    }

    /// What the store has of the session now.
    async fn record(&self, token: &Verified) -> Result<Record, SessionError> {
        match self.work.engine().load(token, false).await? {
            Loaded::Live(record, _) => Ok(record),
            Loaded::Overtaken | Loaded::Superseded => Err(ErrorKind::Superseded.into()),
            Loaded::Gone => Err(ErrorKind::Ended.into()),
        }
    }

    /// The newest state that is known here of the session, with the token that it has since the request's commit. A handle of
    /// one user's session never goes on with that of another, to which the request may have switched.
    async fn base(&self) -> Result<Base, SessionError> {
        let own = self.work.state().base().cloned();
        // A visitor's first session is stored with the response, which may not be made yet.
        let origin = match &own {
            Some(_) => self.origin.state().base().cloned(),
            None => self.origin.settled().await,
        };
        match (origin, own) {
            (Some(origin), Some(own))
                if origin.token.id == own.token.id
                    && origin.record.version() > own.record.version() =>
            {
                Ok(origin)
            }
            (_, Some(own)) | (Some(own), None) => Ok(own),
            (None, None) => Err(ErrorKind::Ended.into()),
        }
    }
}
