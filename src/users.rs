//! [`Sessions`]: the sessions of all users, to list, revoke and purge.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::error::{ErrorKind, SessionError};
use crate::record::{Client, Record, UserId};
use crate::session::Session;
use crate::store::{SessionStore, UserIndex};
use crate::token::RecordId;

/// The sessions that are in a layer's store: for admin code, jobs, and a user's "your devices" page.
///
/// It comes from [`SessionLayer::sessions`](crate::SessionLayer::sessions), and clones are cheap. What needs to find sessions
/// by user is there only where the store is a [`UserIndex`].
///
/// The futures of all methods can be dropped: what was under way in the store may or may not take effect.
///
/// # Logins in flight
///
/// A login proves the user by itself, and is written after its handler. One that is not written yet when sessions are ended is
/// not ended with them: it makes a session afterwards, and a new one where that which it was made in has been ended. So change
/// the password, or mark the ban, before you end sessions: every login that is checked later fails. One that was checked before
/// may still be on its way. Where it must not get through, put what it was checked against into the session, after
/// [`log_in`](crate::Session::log_in) (which may start an empty one), and compare that at each request, as
/// `examples/login/member.rs` does:
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
///     sessions.revoke_all(user).await
/// }
/// ```
pub struct Sessions<St> {
    engine: Arc<Engine>,
    store: Arc<St>,
}

/// One session, as its owner may see it.
///
/// ```
/// # use cloakroom::SessionInfo;
/// fn describe(session: &SessionInfo) -> String {
///     let browser = session.client().and_then(|client| client.user_agent()).unwrap_or("an unknown browser");
///     format!("{browser}, session {}", session.id())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SessionInfo {
    id: RecordId,
    user: Option<UserId>,
    client: Option<Arc<Client>>,
    created_at: Timestamp,
    last_seen: Timestamp,
    ends_at: Timestamp,
}

impl SessionInfo {
    /// The record id, which is no secret, and by which the session can be revoked.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Who is logged in.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// What the application recorded with [`Session::set_client`](crate::Session::set_client).
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.client.as_deref()
    }

    /// When the session was made, or its user logged in, whichever is later.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When the session was last used, within the layer's touch interval.
    #[must_use]
    pub fn last_seen(&self) -> Timestamp {
        self.last_seen
    }

    /// When the session ends if nothing happens any more.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.ends_at
    }
}

impl<St: SessionStore> Sessions<St> {
    pub(crate) fn new(engine: Arc<Engine>, store: Arc<St>) -> Self {
        Self { engine, store }
    }

    /// Ends a session, whoever's it is. `false` if there is none of this id. For a user's own request, see
    /// [`revoke_of`](Self::revoke_of).
    ///
    /// A login that is under way in it makes a new session all the same: see [logins in flight](Self#logins-in-flight).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    pub async fn revoke(&self, id: RecordId) -> Result<bool, SessionError> {
        self.engine.remove(id).await
    }

    /// Removes expired sessions from a store that does not do so by itself, and says how many. Run it from time to time: no
    /// session lives longer for it, but the store grows.
    ///
    /// It removes what expired ten minutes ago or earlier. So a node whose clock is ahead by less takes
    /// nobody's live session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// // From a job of your own, in place of `spawn_purge`.
    /// let purged = sessions.purge_expired().await?;
    /// # Ok(()) }
    /// ```
    pub async fn purge_expired(&self) -> Result<u64, SessionError> {
        self.engine.purge_expired().await
    }

    /// Purges now, and then again after each interval (of a second at least), until the task is stopped. It ends with the
    /// runtime, too; dropping the handle does not stop it.
    ///
    /// An error is reported, and the next purge is tried in its time. The SQL stores let one node purge at a time, so that
    /// all nodes can have such a task.
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
        let engine = self.engine.clone();
        let interval = interval.max(Duration::from_secs(1));
        PurgeTask(tokio::spawn(async move {
            loop {
                // The engine has reported an error.
                let _ = engine.purge_expired().await;
                tokio::time::sleep(interval).await;
            }
        }))
    }

    fn describe(&self, id: RecordId, record: &Record) -> SessionInfo {
        let lifetimes = &self.engine.lifetimes;
        SessionInfo {
            id,
            user: record.user().map(UserId::without_realm),
            client: record.content().client.clone(),
            created_at: record.content().created_at,
            last_seen: lifetimes.last_seen(record),
            ends_at: lifetimes.ends_at(record),
        }
    }
}

impl<St: UserIndex> Sessions<St> {
    /// A user's sessions, the last used first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// for session in sessions.list("ada").await? {
    ///     println!("{}, last used {:?}", session.id(), session.last_seen());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn list(&self, user: impl Into<UserId>) -> Result<Vec<SessionInfo>, SessionError> {
        let user = self.stored_user(user)?;
        let sessions = self.engine.sessions_of(&*self.store, &user).await?;
        let mut infos: Vec<_> = sessions
            .iter()
            .map(|(id, record)| self.describe(*id, record))
            .collect();
        infos.sort_by_key(|info| (std::cmp::Reverse(info.last_seen), info.id));
        Ok(infos)
    }

    /// Ends a session if it is this user's: for an id that comes from the user. `false` if it is not, or there is none. A login
    /// that is under way in it makes a new session all the same, as with [`revoke`](Self::revoke).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, user: i64, id: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// // A form of the "your devices" page, whose id could be anybody's.
    /// let was_theirs = sessions.revoke_of(user, id.parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub async fn revoke_of(
        &self,
        user: impl Into<UserId>,
        id: RecordId,
    ) -> Result<bool, SessionError> {
        let user = self.stored_user(user)?;
        let sessions = self.engine.all_sessions_of(&*self.store, &user).await?;
        if sessions.iter().any(|(own, _)| *own == id) {
            return self.engine.remove(id).await;
        }
        Ok(false)
    }

    /// Ends all sessions of a user, and says how many: after a ban, or when an account is closed.
    ///
    /// A login that is not written yet is none of them and makes a session afterwards, so mark the ban first: see
    /// [logins in flight](Self#logins-in-flight).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    pub async fn revoke_all(&self, user: impl Into<UserId>) -> Result<u64, SessionError> {
        let user = self.stored_user(user)?;
        self.engine.remove_all_of(&*self.store, &user, None).await
    }

    /// Ends all sessions of a user but one, and says how many: after a new password, say.
    ///
    /// A login that is not written yet is none of them and makes a session afterwards, so change the password first: see
    /// [logins in flight](Self#logins-in-flight).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, Session, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, session: Session, user: i64) -> Result<(), SessionError> {
    /// // After `session.require_fresh(..)` and the new password:
    /// if let Some(this) = session.id()? {
    ///     sessions.revoke_others(user, this).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn revoke_others(
        &self,
        user: impl Into<UserId>,
        keep: RecordId,
    ) -> Result<u64, SessionError> {
        let user = self.stored_user(user)?;
        self.engine
            .remove_all_of(&*self.store, &user, Some(keep))
            .await
    }

    /// Ends all sessions of the user who is logged in here, and says how many. This request's session is
    /// ended as by [`Session::log_out`], so that the response removes its cookie. What the handler puts into
    /// the session afterwards makes a new one. For a visitor it is [`Session::log_out`] alone.
    ///
    /// The sessions of others have ended when this is done; a handler that fails afterwards changes nothing
    /// of that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store). [`ErrorKind::Sealed`](crate::ErrorKind::Sealed) after the
    /// response, and [`ErrorKind::MissingLayer`](crate::ErrorKind::MissingLayer) where the session, and those of
    /// layers further out, are of another [`realm`](crate::SessionLayerBuilder::realm): then nothing is ended.
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
    pub async fn log_out_everywhere(&self, session: &Session) -> Result<u64, SessionError> {
        // Another layer's user may have the same id, and is somebody else.
        let own = session
            .chain()
            .find(|session| session.engine().realm.is_same(&self.engine.realm))
            .ok_or(ErrorKind::MissingLayer)?;
        own.check_open()?;
        let ended = match own.user()? {
            Some(user) => self.revoke_all(user).await?,
            None => 0,
        };
        own.log_out()?;
        Ok(ended)
    }

    /// A user as the store has them.
    fn stored_user(&self, user: impl Into<UserId>) -> Result<UserId, SessionError> {
        let user = user.into();
        user.check()?;
        Ok(self.engine.realm.qualify(&user))
    }
}

/// A purge that runs from time to time: see [`Sessions::spawn_purge`].
#[derive(Debug)]
pub struct PurgeTask(JoinHandle<()>);

impl PurgeTask {
    /// Stops it, in the midst of a purge if need be: the statement under way takes effect or not, and what is left waits for
    /// the next purge, here or elsewhere.
    ///
    /// When the future is dropped, the task ends all the same.
    pub async fn stop(self) {
        self.0.abort();
        // The answer is that it was stopped.
        let _ = self.0.await;
    }
}

impl<St> Clone for Sessions<St> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            store: self.store.clone(),
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
