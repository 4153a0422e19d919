//! The commit: writing what a request did, so that no parallel change is lost and no ended session comes back.
//!
//! The ways that few requests go are boxed: the future of every commit has room for the largest of its steps.

use std::mem;
use std::sync::Arc;

use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::change::ChangeSet;
use crate::clock::Timestamp;
use crate::data::Data;
use crate::engine::{Base, Engine, Found, Loaded, UserLimit, WhenFull};
use crate::error::{ErrorKind, SessionError};
use crate::outcome::DropReason;
use crate::record::{Content, Login, Record, Version};
use crate::report;
use crate::store::Replaced;
use crate::token::{RecordId, Token, Verified};

/// What a request leaves behind to be written.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ended: Option<Ended>,
    /// What the request goes on with.
    pub(crate) found: Found,
    pub(crate) changes: ChangeSet,
    /// Whether the changes make other data of what the request came with.
    pub(crate) changes_data: bool,
    /// The base's data after the changes, as the handler saw it.
    pub(crate) data: Option<Data>,
    pub(crate) activity: Activity,
}

impl Pending {
    /// Drops what a handler that failed has changed, which is reported. An end that it asked for stays:
    /// says whether there is one.
    pub(crate) fn keep_the_end_alone(&mut self, id: Option<RecordId>, reason: DropReason) -> bool {
        if self.drops_changes() {
            report::dropped_write(id, self.changes.login().is_some(), reason);
        }
        self.found = Found::Nothing;
        self.changes = ChangeSet::default();
        self.changes_data = false;
        self.data = None;
        self.asks_for_an_end()
    }

    fn asks_for_an_end(&self) -> bool {
        matches!(self.ended, Some(Ended::Explicitly(_) | Ended::AllOf(_)))
    }

    /// Reports that nothing of this is written.
    pub(crate) fn report_dropped(&self, id: Option<RecordId>, reason: DropReason) {
        if self.drops_changes() || self.asks_for_an_end() {
            report::dropped_write(id, self.changes.login().is_some(), reason);
        }
    }

    fn drops_changes(&self) -> bool {
        let base = self.found.base().map(|base| &base.record);
        self.changes_data || (!self.changes.is_empty() && self.changes.changes_more_than_data(base))
    }
}

/// How a request left the session that it came with.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// It asked for the end.
    Explicitly(RecordId),
    /// It asked for the end, with the tokens of all of these.
    AllOf(Arc<[RecordId]>),
    /// It logged in another user, who gets a session of their own.
    BySwitch(RecordId),
    /// It asked for the end with a token that was replaced just before, and so ends nothing.
    InVain,
    /// It asked for the end with a token that leads to no session. The client is to forget the token.
    DeadToken,
}

/// Whether a request counts as use of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    #[default]
    Active,
    Passive,
}

/// What a commit came to.
pub(crate) enum Committed {
    /// The client keeps its token, and this session with it, if it has one.
    Kept(Option<Base>),
    /// The client gets this session's token.
    Issued {
        base: Base,
        token: Token,
        max_age: Option<u64>,
    },
    /// The client's session is over, and its token is taken away.
    Withdrawn,
}

/// What became of the session that a request came with.
pub(crate) enum Fate {
    Kept,
    /// It has a new token.
    Renewed(Token),
    /// It goes on with another token, which a parallel request has made.
    Elsewhere,
    Over,
    /// It ends now: what the request made of it would be over already.
    Expired,
}

/// Writes what a request did.
///
/// When the future is dropped, the store call that is under way may or may not take effect, and nothing after it does.
pub(crate) async fn commit(
    engine: &Engine,
    pending: &mut Pending,
) -> Result<Committed, SessionError> {
    let changes = &pending.changes;
    // A session of its own would take the place of the other's in the browser.
    if let Found::Overtaken(_) = pending.found
        && changes.login().is_none()
    {
        return Err(ErrorKind::Superseded.into());
    }
    // Only a request that asked for the end takes the cookie away: the client may have got a newer one
    // since another request came.
    let withdraws = match &pending.ended {
        Some(Ended::Explicitly(id)) => {
            Box::pin(engine.remove(*id)).await?;
            true
        }
        Some(Ended::AllOf(ids)) => {
            for id in ids.iter() {
                Box::pin(engine.remove(*id)).await?;
            }
            true
        }
        Some(Ended::DeadToken) => true,
        Some(Ended::BySwitch(_) | Ended::InVain) | None => false,
    };
    let committed = match mem::take(&mut pending.found) {
        Found::Nothing | Found::Overtaken(_) => {
            start(engine, changes, None, pending.data.take()).await?
        }
        Found::Ambiguous(ids) => {
            let committed = start(engine, changes, None, pending.data.take()).await?;
            // The new session would be one of several again, and its user a visitor.
            match changes.login() {
                Some(_) => Box::pin(leave(engine, &ids, committed)).await?,
                None => committed,
            }
        }
        Found::Session(mut base) => {
            let loaded = changes.login().map(|_| base.record.clone());
            let fate = if changes.is_empty() {
                touch(engine, &mut base, pending.activity).await
            } else {
                change(engine, &mut base, pending).await?
            };
            let changes = &pending.changes;
            match (fate, changes.login()) {
                (Fate::Kept, _) => Committed::Kept(Some(base)),
                (Fate::Renewed(token), _) => issued(engine, base, token),
                // A login proves the user by itself. What the request had loaded was a visitor's or the
                // same user's, and goes with them: of two logins at once, the second one keeps the cart.
                (Fate::Elsewhere, Some(_)) => {
                    let loaded = loaded.as_ref().map(Record::content);
                    Box::pin(start(engine, changes, loaded, None)).await?
                }
                (Fate::Over, Some(_)) => Box::pin(start(engine, changes, None, None)).await?,
                (Fate::Elsewhere | Fate::Over, None) => Committed::Kept(None),
                (Fate::Expired, _) => {
                    // It is over, whether the store removes it now or later, and it was reported if not.
                    let _ = Box::pin(engine.remove(base.token.id)).await;
                    Committed::Withdrawn
                }
            }
        }
    };
    match (&pending.ended, committed) {
        (Some(Ended::BySwitch(id)), committed) => Box::pin(leave(engine, &[*id], committed)).await,
        (_, Committed::Kept(None)) if withdraws => Ok(Committed::Withdrawn),
        (_, committed) => Ok(committed),
    }
}

/// Ends the sessions that a login leaves behind. They are there until its own is, so that a login that fails takes nothing
/// away.
async fn leave(
    engine: &Engine,
    ids: &[RecordId],
    committed: Committed,
) -> Result<Committed, SessionError> {
    for id in ids {
        // Where it is gone and is not known to be, neither session is left. That takes two lost answers.
        if let Err(error) = remove_with_retry(engine, *id).await {
            if let Some(new) = committed.into_base() {
                let _ = engine.remove(new.token.id).await;
            }
            return Err(error);
        }
    }
    Ok(committed)
}

/// Removes a session, and tries once more where only the answer may have been lost.
async fn remove_with_retry(engine: &Engine, id: RecordId) -> Result<bool, SessionError> {
    match engine.remove(id).await {
        Err(_) => engine.remove(id).await,
        removed => removed,
    }
}

impl Committed {
    /// The session that the client has from now on.
    pub(crate) fn into_base(self) -> Option<Base> {
        match self {
            Self::Kept(base) => base,
            Self::Issued { base, .. } => Some(base),
            Self::Withdrawn => None,
        }
    }
}

/// Makes a new session, if there is anything in it. It starts from what is in `from`.
async fn start(
    engine: &Engine,
    changes: &ChangeSet,
    from: Option<&Content>,
    data: Option<Data>,
) -> Result<Committed, SessionError> {
    let data = match data {
        Some(data) => data,
        None => {
            let old = from.map(|from| from.data.clone()).unwrap_or_default();
            changes.apply(&old, engine.data_limit)?
        }
    };
    // A session with nothing in it is not stored, or bots would fill the store.
    if data.is_empty() && changes.login().is_none() {
        return Ok(Committed::Kept(None));
    }
    if let Some(login) = changes.login() {
        Box::pin(admit(engine, login, None)).await?;
    }
    let now = engine.now();
    let id = engine.random.record_id()?;
    let (token, encoded) = engine.signer.token(id, &engine.random)?;
    let mut record = Content {
        version: Version::FIRST,
        secret_hash: token.secret_hash,
        login: None,
        created_at: now,
        expires_at: now,
        idle_timeout: 0,
        token_replaced_at: None,
        remember: from.is_some_and(|from| from.remember),
        client: from.and_then(|from| from.client.clone()),
        data,
        keeps_later_expiry: false,
        #[cfg(feature = "memcached")]
        loaded_cas: None,
    };
    changes.stamp(&mut record);
    record.expires_at = engine.lifetimes.expiry(record.remember, now);
    record.idle_timeout = engine.lifetimes.idle_millis(record.remember);
    let record = Record::new(record);
    if !engine.insert(id, &record).await? {
        // Two equal ids of 128 random bits: the generator does not work.
        return Err(ErrorKind::Random.into());
    }
    report::created(id);
    if let Some(login) = changes.login() {
        Box::pin(settle(engine, login, id, true)).await?;
    }
    let base = Base {
        token,
        record,
        was_nearly_over: false,
    };
    Ok(issued(engine, base, encoded))
}

/// Writes the changes to the session that the request came with.
async fn change(
    engine: &Engine,
    base: &mut Base,
    pending: &mut Pending,
) -> Result<Fate, SessionError> {
    // Whether it differs from the base's was found out when the session was sealed.
    let mut data = pending.data.take().filter(|_| pending.changes_data);
    let pending = &*pending;
    let changes = &pending.changes;
    let id = base.token.id;
    if let Some(login) = changes.login() {
        Box::pin(admit(engine, login, Some(id))).await?;
    }
    let mut now = engine.now();
    // A slow handler may have outlived what it loaded, which a parallel request may have kept alive.
    let mut is_stale = is_over(engine, base, now);
    let mut contention: Option<Contention<'_>> = None;
    loop {
        if is_stale {
            data = None;
            match Box::pin(engine.load(&base.token, base.was_nearly_over)).await? {
                Loaded::Live(record, loaded_at) => {
                    base.record = record;
                    now = loaded_at;
                }
                Loaded::Overtaken | Loaded::Superseded => return elsewhere(base, pending),
                Loaded::Gone => return Ok(gone(id, changes)),
            }
        }
        let new_token = match changes.replaces_token(&base.record) {
            true => Some(engine.signer.token(id, &engine.random)?),
            false => None,
        };
        let old = &base.record.content().data;
        let data = match data.take() {
            Some(data) => data,
            None => {
                let data = changes.apply(old, engine.data_limit)?;
                // Equal data is the very same from here on.
                if data == *old { old.clone() } else { data }
            }
        };
        let Some(record) = next_record(
            engine,
            base.record.content(),
            changes,
            data,
            new_token.as_ref().map(|(token, _)| token),
            pending.activity,
            now,
        ) else {
            return Ok(Box::pin(touch(engine, base, pending.activity)).await);
        };
        match engine.replace(id, base.record.version(), &record).await? {
            Replaced::Done => {
                let had_login = base.record.content().login.is_some();
                base.record = record;
                base.was_nearly_over = false;
                // A session that is remembered no more may be older than any other may become.
                if new_token.is_some() && engine.lifetimes.is_over(&base.record, now) {
                    report::expired(id);
                    if pending.changes_data || changes.login().is_some() {
                        let login = changes.login().is_some();
                        report::dropped_write(Some(id), login, DropReason::SessionEnded);
                    }
                    return Ok(Fate::Expired);
                }
                if let Some(login) = changes.login() {
                    Box::pin(settle(engine, login, id, !had_login)).await?;
                }
                // A token that the client has already is never sent again: it could overwrite the newer one of a parallel
                // request.
                let Some((token, encoded)) = new_token else {
                    return Ok(Fate::Kept);
                };
                base.token = token;
                report::regenerated(id);
                return Ok(Fate::Renewed(encoded));
            }
            Replaced::Missing => return Ok(gone(id, changes)),
            Replaced::Conflict => report::conflict(id),
        }
        is_stale = true;
        match &contention {
            None => contention = Some(Box::pin(Contention::begin(engine, id)).await?),
            Some(contention) if Instant::now() >= contention.deadline => {
                return Err(ErrorKind::Contended.into());
            }
            Some(_) => {}
        }
    }
}

/// Conflicting commits of this process wait for each other, instead of spoiling each other's next try.
struct Contention<'a> {
    deadline: Instant,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Contention<'a> {
    async fn begin(engine: &'a Engine, id: RecordId) -> Result<Self, SessionError> {
        let deadline = Instant::now() + engine.commit_timeout;
        match timeout_at(deadline, engine.queues.of(id).lock()).await {
            Ok(turn) => Ok(Self {
                deadline,
                _turn: turn,
            }),
            Err(_) => Err(ErrorKind::Contended.into()),
        }
    }
}

/// The record after the changes, or `None` where they change nothing.
fn next_record(
    engine: &Engine,
    old: &Content,
    changes: &ChangeSet,
    data: Data,
    new_token: Option<&Verified>,
    activity: Activity,
    now: Timestamp,
) -> Option<Record> {
    let mut record = Content {
        version: old.version.next(),
        data,
        ..old.clone()
    };
    changes.stamp(&mut record);
    let is_changed = new_token.is_some()
        || record.remember != old.remember
        || record.client != old.client
        || !record.data.is_same(&old.data);
    if !is_changed {
        return None;
    }
    if let Some(token) = new_token {
        record.secret_hash = token.secret_hash;
        record.token_replaced_at = Some(now);
    }
    // Other timeouts hold for a session that is remembered from now on, and a login is activity in any case.
    let expiry = if record.remember != old.remember || changes.login().is_some() {
        Some(engine.lifetimes.expiry(record.remember, now))
    } else if activity == Activity::Active {
        engine.lifetimes.renewal(&record, now)
    } else {
        None
    };
    // A touch moves the stored expiry and no version. A write that sets none must not move it back.
    record.keeps_later_expiry = expiry.is_none();
    if let Some(expires_at) = expiry {
        record.expires_at = expires_at;
        record.idle_timeout = engine.lifetimes.idle_millis(record.remember);
    }
    Some(Record::new(record))
}

/// Whether the session that a request came with is over, as far as the request knows.
fn is_over(engine: &Engine, base: &Base, now: Timestamp) -> bool {
    let lifetimes = &engine.lifetimes;
    let as_of = lifetimes.as_of(base.record.content().remember, base.was_nearly_over, now);
    lifetimes.is_over(&base.record, as_of)
}

/// How often a touch looks again at a record that parallel requests keep changing.
const TOUCHES: usize = 4;

/// Records that the session was used, where that is due.
///
/// No answer is spoilt by a failed touch: it loses nothing but some minutes of idle time, and it was
/// reported.
pub(crate) async fn touch(engine: &Engine, base: &mut Base, activity: Activity) -> Fate {
    for _ in 0..TOUCHES {
        let now = engine.now();
        if !is_over(engine, base, now) {
            let renewal = match activity {
                Activity::Active => engine.lifetimes.renewal(base.record.content(), now),
                Activity::Passive => None,
            };
            let Some(expires_at) = renewal else {
                return Fate::Kept;
            };
            let touched = base.record.clone().with_expires_at(expires_at);
            match engine.touch(base.token.id, &touched).await {
                Ok(true) => {
                    base.record = touched;
                    base.was_nearly_over = false;
                    return Fate::Kept;
                }
                // Another request has written, and may not have moved the expiry.
                Ok(false) => {}
                Err(_) => return Fate::Kept,
            }
        }
        // A slow handler may have outlived what it loaded, which a parallel request may have kept alive.
        match Box::pin(engine.load(&base.token, base.was_nearly_over)).await {
            Ok(Loaded::Live(record, _)) => base.record = record,
            Ok(Loaded::Gone) => return Fate::Over,
            Ok(Loaded::Overtaken | Loaded::Superseded) | Err(_) => return Fate::Kept,
        }
    }
    Fate::Kept
}

/// The session was ended while the request ran.
fn gone(id: RecordId, changes: &ChangeSet) -> Fate {
    if changes.login().is_none() {
        report::dropped_write(Some(id), false, DropReason::SessionEnded);
    }
    Fate::Over
}

/// The session has another token now: of a parallel login, say, whose session this request has no business in.
fn elsewhere(base: &Base, pending: &Pending) -> Result<Fate, SessionError> {
    let changes = &pending.changes;
    let loses_nothing = !pending.changes_data && !changes.changes_description(Some(&base.record));
    if changes.login().is_some() || loses_nothing {
        return Ok(Fate::Elsewhere);
    }
    Err(ErrorKind::Superseded.into())
}

/// Whether the user may have one more session, before it is written.
async fn admit(engine: &Engine, login: &Login, own: Option<RecordId>) -> Result<(), SessionError> {
    let Some(
        limit @ UserLimit {
            when_full: WhenFull::Refuse,
            ..
        },
    ) = &engine.user_limit
    else {
        return Ok(());
    };
    let sessions = engine.sessions_of(&*limit.index, &login.user).await?;
    let others = sessions.iter().filter(|(id, _)| Some(*id) != own).count();
    if others >= limit.max {
        return Err(ErrorKind::TooManySessions.into());
    }
    Ok(())
}

/// Ends what a login has brought beyond the limit. Each looks after its own write, so that the last of parallel ones sees
/// all.
///
/// The login is written by now and its token is the only good one, so that a store that fails here must not spoil the
/// response that carries it: the failure is reported, and the user's next login ends the surplus.
async fn settle(
    engine: &Engine,
    login: &Login,
    own: RecordId,
    is_one_more: bool,
) -> Result<(), SessionError> {
    let Some(limit) = &engine.user_limit else {
        return Ok(());
    };
    let Ok(mut sessions) = engine.sessions_of(&*limit.index, &login.user).await else {
        return Ok(());
    };
    let surplus = sessions.len().saturating_sub(limit.max);
    match limit.when_full {
        WhenFull::EndOldest => {
            // Its own is the newest, whatever other nodes' clocks say: what is sent to the client must not be dead already.
            sessions.retain(|(id, _)| *id != own);
            sessions.sort_by_key(|(id, record)| (record.content().created_at, *id));
            for (id, _) in sessions.into_iter().take(surplus) {
                let _ = engine.remove(id).await;
            }
        }
        WhenFull::Refuse => {
            if is_one_more && surplus > 0 && remove_with_retry(engine, own).await.is_ok() {
                return Err(ErrorKind::TooManySessions.into());
            }
        }
    }
    Ok(())
}

fn issued(engine: &Engine, base: Base, token: Token) -> Committed {
    Committed::Issued {
        max_age: engine.lifetimes.max_age(&base.record, || engine.now()),
        base,
        token,
    }
}
