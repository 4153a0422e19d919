//! All sessions of a store: [`Sessions::page`], `count` and `end`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::Sessions;
use super::filter::SessionFilter;
use super::info::SessionInfo;
use crate::clock::Timestamp;
use crate::context::ending::Ending;
use crate::error::{SessionError, SessionErrorKind};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::UserId;
use crate::store::SessionStore;
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};

/// How many sessions end at the same time. Stores that write in batches need several.
const ENDED_AT_ONCE: usize = 64;

/// How many sessions one call of the store reads, before they end or are counted.
const READ_AT_ONCE: usize = 256;

/// How often `end_everything` goes through the store at most. It stops when nothing is left.
const MOST_WALKS: usize = 3;

/// Some of the sessions that match a filter, and where the next ones are: what
/// [`Sessions::page`](crate::Sessions::page) answers with. serde can make JSON of it.
///
/// ```
/// # use cloakroom::{MemoryStore, SessionError, SessionFilter, Sessions};
/// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
/// let page = sessions.page(&SessionFilter::new(), None, 50).await?;
/// for session in &page.sessions {
///     println!("{} until {}", session.id(), session.expires_at());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct SessionPage {
    /// The sessions, in the order of the store.
    pub sessions: Vec<SessionInfo>,
    /// Where the next page begins. `None` if this is the last page.
    pub next: Option<Cursor>,
}

/// # All sessions
///
/// These methods are for administration. The store must be a
/// [`SessionCatalog`](crate::SessionCatalog), as all stores except the one for Memcached are.
///
/// They find the sessions that this layer knows: those of the logged-in users of its
/// [realm](crate::SessionLayerBuilder::realm), and those of all visitors of the store, since a
/// visitor has no realm. A session that is over does not count, even if the store still has it.
impl<St: SessionStore> Sessions<St> {
    /// How many sessions a page may have.
    pub const MAX_PAGE: usize = 1000;

    /// A page of the sessions that match the filter: the first one, or the one that begins at the
    /// cursor `next` of another page of the same filter. Pages have `limit` sessions at most.
    ///
    /// If somebody acts as another user in a session, the call asks the store whether the actor's
    /// own session is still live. If it is over, the call ends the session in which they act, and
    /// leaves that session out of the page.
    ///
    /// The store chooses the order, and the order has no meaning. It does not change while sessions
    /// come and go. So a session that is there all the time is on exactly one page. (Redis may show
    /// it twice while the server makes room for more keys.)
    ///
    /// A page takes a short time, however many sessions there are. So if few sessions match the
    /// filter, a page can have fewer than `limit` sessions, or none, although others follow. A page
    /// is the last one if its `next` is `None`.
    ///
    /// If the future is dropped, nothing has happened, or such an actor's session has ended.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::InvalidFilter`] if the filter makes no sense, or if `limit` is 0 or more
    /// than [`MAX_PAGE`](Self::MAX_PAGE). [`SessionErrorKind::InvalidCursor`] if the store has not
    /// made this cursor. [`SessionErrorKind::Store`].
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, SessionFilter, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// let filter = SessionFilter::new().logged_in(true);
    /// let first = sessions.page(&filter, None, 50).await?;
    /// if let Some(next) = &first.next {
    ///     let second = sessions.page(&filter, Some(next), 50).await?;
    /// }
    /// # Ok(()) }
    /// ```
    #[doc(alias("list", "list_all", "all"))]
    pub async fn page(
        &self,
        filter: &SessionFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<SessionPage, SessionError>
    where
        St: SessionCatalog,
    {
        if !(1..=Self::MAX_PAGE).contains(&limit) {
            let why = "`limit` must be 1 to 1000";
            return Err(SessionError::new(SessionErrorKind::InvalidFilter).because(why));
        }
        let meant = self.meant(filter)?;
        let scan = meant.scan(after, limit).await?;
        let mut sessions = Vec::with_capacity(scan.records.len());
        for (id, record) in &scan.records {
            if self.is_listed(*id, record).await? {
                sessions.push(SessionInfo::new(*id, record, self.context.lifetimes()));
            }
        }
        Ok(SessionPage {
            sessions,
            next: scan.next,
        })
    }

    /// How many sessions match the filter. Without a user or an external id, the call looks at all
    /// sessions of the store, and takes as long as that takes.
    ///
    /// Unlike [`page`](Self::page), it does not ask whether the own session of a user who acts as
    /// another is still live. A Redis that makes room for more keys may count a session twice.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// As [`page`](Self::page), without those about `limit` and the cursor.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, SessionFilter, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// let visitors = sessions.count(&SessionFilter::new().logged_in(false)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn count(&self, filter: &SessionFilter) -> Result<u64, SessionError>
    where
        St: SessionCatalog,
    {
        let meant = self.meant(filter)?;
        let counted = AtomicU64::new(0);
        let count = |id: RecordId, record: &Record| {
            if meant.has(id, record) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            false
        };
        let mut after = None;
        loop {
            let scan = meant.scan_for(after.as_ref(), READ_AT_ONCE, &count);
            after = scan.await?.next;
            if after.is_none() {
                return Ok(counted.into_inner());
            }
            // A store in this process never waits, and other tasks want to run.
            tokio::task::yield_now().await;
        }
    }

    /// Ends the sessions that match the filter, and returns how many ended. To see beforehand which
    /// ones they are, call [`page`](Self::page) with the same filter.
    ///
    /// A session that begins while the call runs may go on, and a login in flight creates a new
    /// one: see [logins in flight](Self#logins-in-flight). A session that changes meanwhile may end
    /// although it no longer matches. If the future is dropped, or the store fails, some of the
    /// sessions may have ended: call it again.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::InvalidFilter`] if the filter has no condition: call
    /// [`end_everything`](Self::end_everything) for all sessions. After this error, and after any
    /// other error of a filter, no session has ended. Others as [`count`](Self::count).
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, SessionFilter, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// let stolen = SessionFilter::new().logged_in(true).client("192.0.2.");
    /// let ended = sessions.by("admin:ada").end(&stolen).await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("revoke_all", "delete_where"))]
    pub async fn end(&self, filter: &SessionFilter) -> Result<u64, SessionError>
    where
        St: SessionCatalog,
    {
        if filter.is_empty() {
            let why = "the filter has no condition; `end_everything` ends all sessions";
            return Err(SessionError::new(SessionErrorKind::InvalidFilter).because(why));
        }
        self.end_meant(filter).await
    }

    /// Ends all sessions of the users of this layer's realm, and of all visitors, and returns how
    /// many ended. It is for the day on which a key has leaked. It is also for a store that
    /// somebody has restored from a backup, because the sessions that ended since the backup are
    /// live again.
    ///
    /// Sessions that begin while the call runs may go on. If the future is dropped, or the store
    /// fails, some of the sessions may have ended: call it again.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Store`].
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>) -> Result<(), SessionError> {
    /// let ended = sessions.by("the restore of last night").end_everything().await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("clear", "flush", "revoke_everything", "delete_all"))]
    pub async fn end_everything(&self) -> Result<u64, SessionError>
    where
        St: SessionCatalog,
    {
        let mut ended = 0;
        // After a failover in the middle of a walk, a Redis has another order.
        for _ in 0..MOST_WALKS {
            let some = self.end_meant(&SessionFilter::new()).await?;
            ended += some;
            if some == 0 {
                break;
            }
        }
        Ok(ended)
    }

    /// Ends the sessions of an external id, and returns how many ended. If the external id is the
    /// `sid` of an OpenID provider, this is what OpenID Connect Back-Channel Logout asks for.
    ///
    /// A login in flight may create a session afterwards: see [logins in
    /// flight](Self#logins-in-flight). If the future is dropped, or the store fails, some of the
    /// sessions may have ended: call it again.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::InvalidFilter`] if the id is empty, has more than 255 bytes, or has a
    /// NUL in it. [`SessionErrorKind::Store`].
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, sid: &str) -> Result<(), SessionError> {
    /// let ended = sessions.by("the OpenID provider").end_external(sid).await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("backchannel_logout", "end_sid"))]
    pub async fn end_external(&self, external_id: &str) -> Result<u64, SessionError>
    where
        St: SessionCatalog,
    {
        self.end(&SessionFilter::new().external_id(external_id))
            .await
    }

    async fn end_meant(&self, filter: &SessionFilter) -> Result<u64, SessionError>
    where
        St: SessionCatalog,
    {
        let meant = self.meant(filter)?;
        let mut after = None;
        let mut ended = 0;
        loop {
            let scan = meant.scan(after.as_ref(), READ_AT_ONCE).await?;
            ended += self.end_all(scan.records).await?;
            after = scan.next;
            if after.is_none() {
                return Ok(ended);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends these sessions, several at a time. If one cannot end, the others still do.
    async fn end_all(&self, records: Vec<(RecordId, Record)>) -> Result<u64, SessionError> {
        let mut ended = 0;
        let mut failure = None;
        let mut tasks = JoinSet::new();
        let mut records = records.into_iter();
        loop {
            while tasks.len() < ENDED_AT_ONCE
                && let Some((id, record)) = records.next()
            {
                let (context, asked_by) = (self.context.clone(), self.asked_by.clone());
                let end = async move {
                    let ending = Ending::new(EndCause::Revoked)
                        .asked_by(asked_by.as_deref())
                        .with_record(Some(&record));
                    context.remove(id, ending).await
                };
                // Log lines belong to the request of whoever asks.
                tasks.spawn(end.in_current_span());
            }
            match tasks.join_next().await {
                None => break,
                Some(Ok(Ok(was_there))) => ended += u64::from(was_there),
                Some(Ok(Err(error))) => failure = Some(error),
                // A hook of the application has panicked.
                Some(Err(ended)) => {
                    if let Ok(panic) = ended.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
        failure.map_or(Ok(ended), Err)
    }

    fn meant<'a>(&'a self, filter: &'a SessionFilter) -> Result<Meant<'a, St>, SessionError> {
        filter.check()?;
        Ok(Meant {
            sessions: self,
            filter,
            user: filter.stored_user(self.context.realm()),
            now: self.context.now(),
        })
    }
}

/// The sessions that match a filter, of those that this layer knows.
struct Meant<'a, St> {
    sessions: &'a Sessions<St>,
    filter: &'a SessionFilter,
    user: Option<UserId>,
    now: Timestamp,
}

impl<St: SessionStore> Meant<'_, St> {
    fn has(&self, _: RecordId, record: &Record) -> bool {
        let context = &self.sessions.context;
        let lifetimes = context.lifetimes();
        self.filter.has(record, self.user.as_ref(), lifetimes)
            && record.user().is_none_or(|user| context.realm().has(user))
            && !lifetimes.is_over(record, self.now)
    }

    async fn scan(&self, after: Option<&Cursor>, limit: usize) -> Result<Scan, SessionError>
    where
        St: SessionCatalog,
    {
        let has = |id: RecordId, record: &Record| self.has(id, record);
        self.scan_for(after, limit, &has).await
    }

    /// As [`SessionCatalog::scan`], by the index where the filter has a key of one.
    async fn scan_for(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Scan, SessionError>
    where
        St: SessionCatalog,
    {
        let Sessions { context, store, .. } = self.sessions;
        let store: &Arc<St> = store;
        let mut found = if let Some(id) = self.filter.external_id_text() {
            context.find_by_external_id(&**store, id).await?
        } else if let Some(user) = &self.user {
            context.find_all_by_user(&**store, user).await?
        } else {
            let scan = context.scan(&**store, after, limit, accept).await?;
            return scan.ok_or_else(|| SessionErrorKind::InvalidCursor.into());
        };
        found.sort_unstable_by_key(|(id, _)| *id);
        if let Some(after) = after {
            let after = after.record().ok_or(SessionErrorKind::InvalidCursor)?;
            found.retain(|(id, _)| *id > after);
        }
        let mut records = Vec::new();
        let mut next = None;
        for (id, record) in found {
            if !accept(id, &record) {
                continue;
            }
            if records.len() == limit {
                next = records.last().map(|(last, _)| Cursor::behind(*last));
                break;
            }
            records.push((id, record));
        }
        Ok(Scan { records, next })
    }
}
