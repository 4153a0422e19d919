//! [`Sessions`]: the sessions of all users, to list, revoke and purge them.

pub(crate) mod catalog;
mod export;
pub(crate) mod filter;
pub(crate) mod info;

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use self::info::SessionInfo;
use crate::commit::lookup;
use crate::context::LayerContext;
use crate::context::ending::Ending;
use crate::error::{SessionError, SessionErrorKind};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::{IntoUserId, UserId};
use crate::session::Session;
use crate::store::{SessionStore, UserIndex};

/// The sessions of all users: for an admin page, for jobs, and for a user's "your devices" page.
///
/// [`SessionLayer::sessions`](crate::SessionLayer::sessions) gives it, and clones are cheap.
/// Methods that find sessions by user exist only if the store is a [`UserIndex`].
///
/// You can drop all futures. A store call that is under way then may or may not take effect.
///
/// # Logins in flight
///
/// The layer commits a login after its handler returns. If you revoke a user's sessions while a
/// login is in flight, that login still succeeds: its session is stored after the revocation. If
/// you revoked the session in which the login started, the login creates a new session.
///
/// So change the password, or mark the ban, before you revoke sessions. Then every later check of
/// the old password fails. But a login may be in flight whose password was checked before the
/// change. To keep such a login out, put the password's version into the session, and compare it at
/// each request. The feature `login` does so with a [`Stamp`](crate::Stamp). Put the version there
/// after [`log_in`](crate::Session::log_in), because `log_in` may start an empty session.
///
/// ```
/// use cloakroom::{Session, SessionError};
///
/// struct User { id: i64, password_version: u64, is_banned: bool }
///
/// fn log_in(session: &Session, checked: &User) -> Result<(), SessionError> {
///     session.log_in(checked.id)?;
///     session.insert("password_version", checked.password_version)
/// }
///
/// /// With the user as the database has it now.
/// fn is_still_good(session: &Session, user: &User) -> Result<bool, SessionError> {
///     let version = session.get::<u64>("password_version")?;
///     Ok(!user.is_banned && version == Some(user.password_version))
/// }
/// ```
///
/// # Example
///
/// ```
/// use cloakroom::{MemoryStore, SessionError, SessionLayer, Sessions, SigningKey};
///
/// async fn ban(sessions: &Sessions<MemoryStore>, user: i64) -> Result<u64, SessionError> {
///     sessions.revoke_user(user).await
/// }
/// ```
pub struct Sessions<St> {
    context: Arc<LayerContext>,
    store: Arc<St>,
    asked_by: Option<Arc<str>>,
}

impl<St: SessionStore> Sessions<St> {
    pub(crate) fn new(context: Arc<LayerContext>, store: Arc<St>) -> Self {
        Self {
            context,
            store,
            asked_by: None,
        }
    }

    /// The same sessions, in the name of somebody: an admin, a job, a support tool. Hooks and log
    /// lines name them for each session that ends through this handle. The name is any text, and
    /// it is for the people who read an audit trail.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, RecordId, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, admin: i64, id: RecordId) -> Result<(), SessionError> {
    /// sessions.by(format_args!("admin:{admin}")).revoke(id).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    #[doc(alias = "on_behalf_of")]
    pub fn by(&self, name: impl fmt::Display) -> Self {
        Self {
            asked_by: Some(name.to_string().into()),
            ..self.clone()
        }
    }

    /// One session, or `None` if no live session of this layer has this id. The store answers, and
    /// not a cache. If somebody acts as another user in the session, and the actor's own session is
    /// over, the call ends the session and answers with `None`.
    ///
    /// If the future is dropped, nothing has happened, or such a session has ended.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, RecordId, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, id: RecordId) -> Result<(), SessionError> {
    /// if let Some(session) = sessions.get(id).await? {
    ///     println!("of {:?}, until {}", session.user(), session.expires_at());
    /// }
    /// # Ok(()) }
    /// ```
    #[doc(alias("find", "find_by_id", "show"))]
    pub async fn get(&self, id: RecordId) -> Result<Option<SessionInfo>, SessionError> {
        let Some(record) = self.context.reload(id).await? else {
            return Ok(None);
        };
        let realm = self.context.realm();
        let lifetimes = self.context.lifetimes();
        let is_known = record.user().is_none_or(|user| realm.has(user))
            && !lifetimes.is_over(&record, self.context.now())
            && self.is_listed(id, &record).await?;
        Ok(is_known.then(|| SessionInfo::new(id, &record, lifetimes)))
    }

    /// Ends a session of any user. The answer is `false` if no session has this id. If the id comes
    /// from a user, call [`revoke_owned`](Self::revoke_owned).
    ///
    /// A login that is in flight in this session creates a new session: see [logins in
    /// flight](Self#logins-in-flight).
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    pub async fn revoke(&self, id: RecordId) -> Result<bool, SessionError> {
        self.context
            .remove(id, self.ending(EndCause::Revoked))
            .await
    }

    /// Removes expired records from a store that does not do so by itself, and returns how many.
    /// Run it from time to time. Without it no session lives longer, but the store grows.
    ///
    /// It removes records that expired ten minutes ago or earlier. So a node whose clock is less
    /// than ten minutes ahead removes no live session.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// // From a job of your own, in place of `spawn_purge`.
    /// let purged = sessions.purge_expired().await?;
    /// # Ok(()) }
    /// ```
    pub async fn purge_expired(&self) -> Result<u64, SessionError> {
        self.context.purge_expired().await
    }

    /// Starts a task that purges at once, and again after each interval. The interval is at least a
    /// second. The task runs until [`PurgeTask::stop`] or until the runtime ends. It goes on if you
    /// drop the handle.
    ///
    /// An error is an event, and the task tries again after the interval. All nodes can have such a
    /// task, because the SQL stores let one node purge at a time.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cloakroom::{MemoryStore, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) {
    /// let purge = sessions.spawn_purge(Duration::from_secs(300));
    /// // … and when the application shuts down:
    /// purge.stop().await;
    /// # }
    /// ```
    #[expect(clippy::must_use_candidate, reason = "it runs on without its handle")]
    pub fn spawn_purge(&self, interval: Duration) -> PurgeTask {
        let context = self.context.clone();
        let interval = interval.max(Duration::from_secs(1));
        PurgeTask(tokio::spawn(async move {
            loop {
                // The context has logged the error.
                let _ = context.purge_expired().await;
                tokio::time::sleep(interval).await;
            }
        }))
    }
}

/// # By user
///
/// The bound is on each method, so that the compiler can say what a store lacks.
impl<St: SessionStore> Sessions<St> {
    /// A user's sessions, the last used first.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// for session in sessions.list_for("ada").await? {
    ///     println!("{}, last used {}", session.id(), session.last_seen_at());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn list_for(&self, user: impl IntoUserId) -> Result<Vec<SessionInfo>, SessionError>
    where
        St: UserIndex,
    {
        let user = self.stored_user(user)?;
        let sessions = self.context.find_by_user(&*self.store, &user).await?;
        let mut infos = Vec::with_capacity(sessions.len());
        for (id, record) in &sessions {
            if self.is_listed(*id, record).await? {
                infos.push(SessionInfo::new(*id, record, self.context.lifetimes()));
            }
        }
        infos.sort_by_key(|info| (Reverse(info.last_seen_at()), info.id()));
        Ok(infos)
    }

    /// Ends a session if it belongs to this user. Use it for an id that comes from the user. The
    /// answer is `false` if the session belongs to another user, or if no session has this id. For
    /// logins in flight, see [`revoke`](Self::revoke).
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, user: i64, id: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// // A form of the "your devices" page, whose id could be anybody's.
    /// let was_theirs = sessions.revoke_owned(user, id.parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub async fn revoke_owned(
        &self,
        user: impl IntoUserId,
        id: RecordId,
    ) -> Result<bool, SessionError>
    where
        St: UserIndex,
    {
        let user = self.stored_user(user)?;
        let sessions = self.context.find_all_by_user(&*self.store, &user).await?;
        match sessions.iter().find(|(own, _)| *own == id) {
            None => Ok(false),
            Some((_, record)) => {
                let ending = self.ending(EndCause::Revoked).with_record(Some(record));
                self.context.remove(id, ending).await
            }
        }
    }

    /// Ends all sessions of a user, and returns how many. It is for a ban, or for an account that
    /// is closed.
    ///
    /// A login that is in flight creates a session afterwards. So mark the ban first: see
    /// [logins in flight](Self#logins-in-flight).
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    pub async fn revoke_user(&self, user: impl IntoUserId) -> Result<u64, SessionError>
    where
        St: UserIndex,
    {
        let user = self.stored_user(user)?;
        let ending = self.ending(EndCause::Revoked);
        self.remove_by_user(&user, None, ending).await
    }

    /// Ends all sessions of a user except one, and returns how many. Use it, for example, after a
    /// new password.
    ///
    /// A login that is in flight creates a session afterwards. So change the password first: see
    /// [logins in flight](Self#logins-in-flight).
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, Session, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, session: Session, user: i64) -> Result<(), SessionError> {
    /// // After `session.require_recent_login(..)` and the new password:
    /// if let Some(this) = session.id() {
    ///     sessions.revoke_others(user, this).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn revoke_others(
        &self,
        user: impl IntoUserId,
        keep: RecordId,
    ) -> Result<u64, SessionError>
    where
        St: UserIndex,
    {
        let user = self.stored_user(user)?;
        let ending = self.ending(EndCause::Revoked);
        self.remove_by_user(&user, Some(keep), ending).await
    }

    /// Ends all sessions of the user who is logged in here, and returns how many. This request's
    /// session ends as by [`Session::log_out`], so that the response removes its cookie. If the
    /// handler puts something into the session afterwards, that makes a new session. For a visitor,
    /// this method only calls [`Session::log_out`]. Where a user acts as another, it ends the
    /// sessions of the other user, and the own session of the one who acts.
    ///
    /// The sessions on other devices have ended when this returns, even if the handler fails
    /// afterwards.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`](crate::SessionErrorKind::Store).
    /// [`SessionErrorKind::Sealed`](crate::SessionErrorKind::Sealed) after the response.
    /// [`SessionErrorKind::MissingLayer`](crate::SessionErrorKind::MissingLayer) if neither the
    /// session nor one of the layers further out has this
    /// [`realm`](crate::SessionLayerBuilder::realm). Then no session ends.
    ///
    /// ```
    /// use cloakroom::{MemoryStore, Session, SessionError, Sessions};
    ///
    /// # #[allow(dead_code)]
    /// async fn everywhere(
    ///     session: Session,
    ///     sessions: Sessions<MemoryStore>, // from the router's state
    /// ) -> Result<&'static str, SessionError> {
    ///     sessions.log_out_everywhere(&session).await?;
    ///     session.insert("notice", "You are logged out on all devices.")?;
    ///     Ok("Goodbye.")
    /// }
    /// # fn main() {}
    /// ```
    pub async fn log_out_everywhere(&self, session: &Session) -> Result<u64, SessionError>
    where
        St: UserIndex,
    {
        // The user of another realm may have the same id, and is somebody else.
        let own = session
            .find_in_chain(|context| context.realm().is_same(self.context.realm()))
            .ok_or(SessionErrorKind::MissingLayer)?
            .load()
            .await?;
        own.check_open()?;
        let ended = match own.user() {
            Some(user) => {
                let user = self.stored_user(user)?;
                let actor = own.actor();
                let asked_by = self.asked_by.as_deref();
                let asked_by = asked_by.or(actor.as_ref().map(UserId::as_str));
                let ending = Ending::new(EndCause::LoggedOutEverywhere).asked_by(asked_by);
                self.remove_by_user(&user, None, ending).await?
            }
            None => 0,
        };
        own.log_out_because(EndCause::LoggedOutEverywhere)?;
        Ok(ended)
    }

    /// Whether nobody acts in a session, or somebody whose own session is live.
    async fn is_listed(&self, id: RecordId, record: &Record) -> Result<bool, SessionError> {
        match record.fields().actor() {
            None => Ok(true),
            Some(actor) => {
                let own = lookup::find_actor(&self.context, id, Some(record), actor).await?;
                Ok(own.is_some())
            }
        }
    }

    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
        ending: Ending<'_>,
    ) -> Result<u64, SessionError>
    where
        St: UserIndex,
    {
        let index: &St = &self.store;
        self.context
            .remove_by_user(index, user, except, ending)
            .await
    }

    fn ending(&self, cause: EndCause) -> Ending<'_> {
        Ending::new(cause).asked_by(self.asked_by.as_deref())
    }

    /// A user as the store has them.
    fn stored_user(&self, user: impl IntoUserId) -> Result<UserId, SessionError> {
        Ok(self.context.realm().qualify(&user.into_user_id()?))
    }
}

/// A task that purges from time to time. See [`Sessions::spawn_purge`].
#[derive(Debug)]
pub struct PurgeTask(JoinHandle<()>);

impl PurgeTask {
    /// Stops the task, even in the middle of a purge. A statement that is under way may or may not
    /// take effect. The next purge, on this node or another, removes the rest.
    ///
    /// When the future is dropped, the task still ends.
    pub async fn stop(self) {
        self.0.abort();
        // The answer is only that the task was stopped.
        let _ = self.0.await;
    }
}

impl<St> Clone for Sessions<St> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            store: self.store.clone(),
            asked_by: self.asked_by.clone(),
        }
    }
}

impl<St: fmt::Debug> fmt::Debug for Sessions<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
