//! [`Session`]: what a handler holds.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Extensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::change::{self, ChangeSet, Identity};
use crate::clock::Timestamp;
use crate::commit::{Activity, Ended, Pending, commit};
use crate::data::{Data, Entry};
use crate::engine::{Base, Engine, Found, Loaded};
use crate::error::{ErrorKind, SessionError};
use crate::key::SessionKey;
use crate::record::{Client, Login, Record, UserId};
use crate::report;
use crate::token::{Presented, RecordId, Verified};

/// The session of a request.
///
/// It is an extractor, and a handle: clones are the same session. Reads see this request's changes at once; the layer writes
/// them to the store after the handler, before the response's head leaves. Where the handler answers with a 5xx status, they
/// are dropped, except that a session that was ended stays ended.
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
    /// The session of a layer further out, of another name.
    outer: Option<Session>,
    state: Mutex<State>,
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

    /// Whether there is a change to write.
    fn is_changed(&self) -> bool {
        let base = self.base().map(|base| &base.record);
        self.ended.is_some() || !self.changes.is_empty(base)
    }

    /// What there is to write, with these changes.
    fn pending(&self, changes: ChangeSet) -> Pending {
        Pending {
            ended: self.ended,
            found: self.found.clone(),
            changes,
            data: self.data.clone(),
            activity: self.activity,
        }
    }

    /// Goes on with nothing, and drops what was changed so far.
    fn leave(&mut self, how: impl FnOnce(RecordId) -> Ended) {
        if let Some(base) = self.base() {
            self.ended = Some(how(base.token.id));
            self.found = Found::Nothing;
        }
        self.changes = ChangeSet::default();
        self.data = None;
        self.revision += 1;
    }

    fn end(&mut self) {
        self.leave(Ended::Explicitly);
        self.ended = match self.ended {
            Some(Ended::BySwitch(id)) => Some(Ended::Explicitly(id)),
            None if matches!(self.found, Found::Overtaken(_)) => Some(Ended::InVain),
            ended => ended,
        };
    }

    /// Leaves the last user's session to the next one. What is known of the browser holds for both.
    fn switch_user(&mut self) {
        let ChangeSet {
            remember, client, ..
        } = std::mem::take(&mut self.changes);
        self.leave(Ended::BySwitch);
        self.changes.remember = remember;
        self.changes.client = client;
    }
}

impl Session {
    /// The session of a request that presents `presented`, which is verified and loaded by [`load`](Self::load).
    pub(crate) fn unloaded(engine: Arc<Engine>, outer: Option<Self>, presented: Presented) -> Self {
        let state = State {
            phase: Phase::Unloaded(presented),
            ..State::default()
        };
        Self::new(engine, outer, state)
    }

    /// The session of a request that starts from what was found.
    pub(crate) fn loaded(engine: Arc<Engine>, outer: Option<Self>, found: Found) -> Self {
        let state = State {
            found,
            ..State::default()
        };
        Self::new(engine, outer, state)
    }

    fn new(engine: Arc<Engine>, outer: Option<Self>, state: State) -> Self {
        let state = Mutex::new(state);
        Self(Arc::new(Inner {
            engine,
            outer,
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

    /// The session of the layer with this cookie name, where several layers are around a handler.
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
        let mut session = self;
        while session.0.engine.carrier.name() != cookie_name {
            session = session.0.outer.as_ref()?;
        }
        Some(session.clone())
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
            Some(token) => self.0.engine.find(token).await?,
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

    /// Puts a value under a key, in place of the one that is there. An equal value is no change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] where the session's data would exceed the layer's limit, and
    /// [`ErrorKind::Unserializable`] where the value cannot be JSON; the session stays as it was.
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
        let is_equal = state.entry(key).is_some_and(|old| old == entry);
        // After an `update` of this request it is a change, even so: a parallel write would have that computed anew.
        if is_equal && !state.changes.changes_key(key) {
            return Ok(());
        }
        if !is_equal {
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
            if old.is_none_or(|old| old != new) {
                state.put(new.clone(), self.0.engine.data_limit)?;
                state.changes.update(new, compute);
            }
            return Ok(value);
        }
    }

    /// Takes a value out of the session. This is what a flash message needs.
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
            let Some(old) = old else {
                return Ok(None);
            };
            let value = old.value()?;
            let mut state = self.write()?;
            // Another task of the request may have taken it meanwhile.
            if state.revision == revision {
                state.data_mut().remove(key);
                state.changes.remove(key);
                return Ok(Some(value));
            }
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
            state.changes.clear();
        }
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
        let now = self.0.engine.now();
        let mut state = self.write()?;
        if state.login().is_some_and(|login| login.user != user) {
            state.switch_user();
        }
        state.changes.identity = Identity::LogIn(Login { user, at: now });
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
        state.end();
        state.clears_site_data = true;
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
        self.write()?.end();
        Ok(())
    }

    /// Whether the session outlives the browser: `true` gives it a persistent cookie and the layer's remember timeouts.
    ///
    /// Where the session was made otherwise, it gets a new token, as with [`regenerate`](Self::regenerate).
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
        Ok(self.read()?.login().map(|login| login.user.clone()))
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
    /// [`ErrorKind::NotLoggedIn`], or [`ErrorKind::LoginTooOld`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cloakroom::{Session, SessionError};
    /// # fn change_password(session: &Session) -> Result<(), SessionError> {
    /// session.require_fresh(Duration::from_secs(5 * 60))?;
    /// # Ok(()) }
    /// ```
    pub fn require_fresh(&self, max_age: Duration) -> Result<(), SessionError> {
        match self.authenticated_at()? {
            None => Err(ErrorKind::NotLoggedIn.into()),
            Some(at) if self.0.engine.now().since(at) > max_age => {
                Err(ErrorKind::LoginTooOld.into())
            }
            Some(_) => Ok(()),
        }
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
        let work = Self::loaded(self.0.engine.clone(), None, found);
        Ok(DetachedSession {
            origin: self.clone(),
            work,
        })
    }

    /// Closes the session to changes, and hands over what there is to write and to tell: nothing to write for most requests,
    /// and nothing but an end where the handler failed.
    pub(crate) fn seal(&self, handler: Handler) -> Sealed {
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
        if !was_open {
            return Sealed::Clean(told);
        }
        match (handler, state.ended) {
            (Handler::Succeeded, _) if state.is_changed() => {
                let changes = state.changes.hand_over();
                Sealed::Dirty(told, state.pending(changes))
            }
            (Handler::Succeeded, _) => match state.base() {
                Some(base) if state.activity == Activity::Active => {
                    let content = base.record.content();
                    let (remember, expires_at) = (content.remember, content.expires_at);
                    // The clock may be code of the application, which runs under no lock. It is asked now, and not when the
                    // session was loaded, so that slow requests keep a session alive.
                    drop(state);
                    let renewal = engine.lifetimes.renewal(remember, expires_at, engine.now());
                    match renewal {
                        Some(_) => Sealed::Dirty(told, self.state().pending(ChangeSet::default())),
                        None => Sealed::Clean(told),
                    }
                }
                _ => Sealed::Clean(told),
            },
            (Handler::Failed, ended @ Some(Ended::Explicitly(_))) => {
                let end = Pending {
                    ended,
                    found: Found::Nothing,
                    changes: ChangeSet::default(),
                    data: None,
                    activity: state.activity,
                };
                Sealed::Dirty(told, end)
            }
            (Handler::Failed, _) => Sealed::Clean(told),
        }
    }

    /// Goes on from what has been written.
    pub(crate) fn settle(&self, base: Option<Base>) {
        let mut state = self.state();
        state.found = base.into();
        state.ended = None;
        state.changes = ChangeSet::default();
        state.data = None;
    }
}

/// What a handler leaves behind, for the response and for the store.
pub(crate) enum Sealed {
    Clean(Told),
    Dirty(Told, Pending),
}

/// What a response has to say of its session, besides the token.
pub(crate) struct Told {
    /// It depends on the session.
    pub(crate) varies: bool,
    /// The browser is to forget what it keeps of the site.
    pub(crate) clears_site_data: bool,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    Succeeded,
    /// It answered with a 5xx status or an error, or never.
    Failed,
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
    /// The request's session, which knows the token that its commit issued.
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
    /// When the future is dropped, or fails, the changes are still there to be saved again. They may have reached the store
    /// even so, and then an `update` counts twice.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ended`] where the session has been ended or was never stored, [`ErrorKind::Superseded`] where it has
    /// another token by now, [`ErrorKind::Store`] and [`ErrorKind::Contended`] as for a request.
    pub async fn save(&mut self) -> Result<(), SessionError> {
        let mut base = self.base()?;
        if self.work.state().changes.is_empty(Some(&base.record)) {
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
                ..state.pending(state.changes.clone())
            }
        };
        let committed = commit(self.work.engine(), &mut pending).await?;
        match committed.into_base() {
            Some(base) => {
                self.work.settle(Some(base));
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
        let token = self.base()?.token;
        let record = self.record(&token).await?;
        let changes = self.work.state().changes.clone();
        // Closures of the application run here, so no lock is held.
        let data = changes.apply(&record.content().data, self.work.engine().data_limit)?;
        let mut state = self.work.state();
        state.data = Some(data);
        state.found = Found::Session(Base { token, record });
        state.revision += 1;
        Ok(())
    }

    /// What the store has of the session now.
    async fn record(&self, token: &Verified) -> Result<Record, SessionError> {
        match self.work.engine().load(token).await? {
            Loaded::Live(record) => Ok(record),
            Loaded::Overtaken | Loaded::Superseded => Err(ErrorKind::Superseded.into()),
            Loaded::Gone => Err(ErrorKind::Ended.into()),
        }
    }

    /// The newest state that is known here of the session, with the token that it has since the request's commit. A handle of
    /// one user's session never goes on with that of another, to which the request may have switched.
    fn base(&self) -> Result<Base, SessionError> {
        let origin = self.origin.state().base().cloned();
        let own = self.work.state().base().cloned();
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
