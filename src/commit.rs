//! The commit: writing what a request did, so that no parallel change is lost and no ended session comes back.
//!
//! The ways that few requests go are boxed: the future of every commit has room for the largest of its steps.

use std::mem;

use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::change::ChangeSet;
use crate::clock::Timestamp;
use crate::data::Data;
use crate::engine::{Base, Engine, Found, Loaded, UserLimit, WhenFull};
use crate::error::{ErrorKind, SessionError};
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
    /// The base's data after the changes, as the handler saw it.
    pub(crate) data: Option<Data>,
    pub(crate) activity: Activity,
}

/// How a request left the session that it came with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// It asked for the end.
    Explicitly(RecordId),
    /// It logged in another user, who gets a session of their own.
    BySwitch(RecordId),
    /// It asked for the end with a token that was replaced just before, and so ends nothing.
    InVain,
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
enum Fate {
    Kept,
    /// It has a new token.
    Renewed(Token),
    Over,
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
    if let Found::Overtaken(id) = pending.found
        && changes.login().is_none()
    {
        report::dropped_write(id, "the token was replaced");
        return Err(ErrorKind::Superseded.into());
    }
    // Only the request that ended the session takes the cookie away: another's may be a new one by now.
    let withdraws = match pending.ended {
        Some(Ended::Explicitly(id)) => Box::pin(engine.remove(id)).await?,
        Some(Ended::BySwitch(_) | Ended::InVain) | None => false,
    };
    let committed = match mem::take(&mut pending.found) {
        Found::Nothing | Found::Overtaken(_) => start(engine, changes, pending.data.take()).await?,
        Found::Session(mut base) => {
            let fate = if changes.is_empty(Some(&base.record)) {
                touch(engine, &mut base, pending.activity).await
            } else {
                change(
                    engine,
                    &mut base,
                    changes,
                    pending.data.take(),
                    pending.activity,
                )
                .await?
            };
            match fate {
                Fate::Kept => Committed::Kept(Some(base)),
                Fate::Renewed(token) => issued(engine, base, token),
                // A login proves the user by itself; anything else has nowhere to go.
                Fate::Over if changes.login().is_some() => {
                    Box::pin(start(engine, changes, None)).await?
                }
                Fate::Over => Committed::Kept(None),
            }
        }
    };
    match (pending.ended, committed) {
        (Some(Ended::BySwitch(id)), committed) => Box::pin(leave(engine, id, committed)).await,
        (_, Committed::Kept(None)) if withdraws => Ok(Committed::Withdrawn),
        (_, committed) => Ok(committed),
    }
}

/// Ends the last user's session. It is there until the next one's is, so that a login that fails takes nothing away.
async fn leave(
    engine: &Engine,
    id: RecordId,
    committed: Committed,
) -> Result<Committed, SessionError> {
    // Where it is gone and is not known to be, neither session is left. That takes two lost answers.
    match remove_with_retry(engine, id).await {
        Ok(_) => Ok(committed),
        Err(error) => {
            if let Some(new) = committed.into_base() {
                let _ = engine.remove(new.token.id).await;
            }
            Err(error)
        }
    }
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

/// Makes a new session, if there is anything in it.
async fn start(
    engine: &Engine,
    changes: &ChangeSet,
    data: Option<Data>,
) -> Result<Committed, SessionError> {
    let data = match data {
        Some(data) => data,
        None => changes.apply(&Data::default(), engine.data_limit)?,
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
        token_replaced_at: None,
        remember: false,
        client: None,
        data,
        #[cfg(feature = "memcached")]
        loaded_cas: None,
    };
    changes.stamp(&mut record);
    record.expires_at = engine.lifetimes.expiry(record.remember, now);
    let record = Record::new(record);
    if !engine.insert(id, &record).await? {
        // Two equal ids of 128 random bits: the generator does not work.
        return Err(ErrorKind::Random.into());
    }
    report::created(id);
    if let Some(login) = changes.login() {
        Box::pin(settle(engine, login, id, true)).await?;
    }
    Ok(issued(engine, Base { token, record }, encoded))
}

/// Writes the changes to the session that the request came with.
async fn change(
    engine: &Engine,
    base: &mut Base,
    changes: &ChangeSet,
    mut data: Option<Data>,
    activity: Activity,
) -> Result<Fate, SessionError> {
    let id = base.token.id;
    if let Some(login) = changes.login() {
        Box::pin(admit(engine, login, Some(id))).await?;
    }
    let mut now = engine.now();
    // A slow handler may have outlived what it loaded, which a parallel request may have kept alive.
    let mut is_stale = engine.lifetimes.is_over(&base.record, now);
    let mut contention: Option<Contention<'_>> = None;
    loop {
        if is_stale {
            data = None;
            match Box::pin(engine.load(&base.token)).await? {
                Loaded::Live(record) => base.record = record,
                Loaded::Overtaken | Loaded::Superseded => return superseded(base, changes),
                Loaded::Gone => return Ok(gone(id, changes)),
            }
            now = engine.now();
        }
        let new_token = match changes.replaces_token(&base.record) {
            true => Some(engine.signer.token(id, &engine.random)?),
            false => None,
        };
        let data = match data.take() {
            Some(data) => data,
            None => changes.apply(&base.record.content().data, engine.data_limit)?,
        };
        let Some(record) = next_record(
            engine,
            base.record.content(),
            changes,
            data,
            new_token.as_ref().map(|(token, _)| token),
            activity,
            now,
        ) else {
            return Ok(Box::pin(touch(engine, base, activity)).await);
        };
        match engine.replace(id, base.record.version(), &record).await? {
            Replaced::Done => {
                let had_login = base.record.content().login.is_some();
                base.record = record;
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
        data: if old.data == data {
            old.data.clone()
        } else {
            data
        },
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
    if record.remember != old.remember || changes.login().is_some() {
        record.expires_at = engine.lifetimes.expiry(record.remember, now);
    } else if activity == Activity::Active
        && let Some(expires_at) = engine
            .lifetimes
            .renewal(record.remember, record.expires_at, now)
    {
        record.expires_at = expires_at;
    }
    Some(Record::new(record))
}

/// Records that the session was used, where that is due.
async fn touch(engine: &Engine, base: &mut Base, activity: Activity) -> Fate {
    // A slow handler may have outlived the session, and must not bring it back.
    let now = engine.now();
    if engine.lifetimes.is_over(&base.record, now) {
        report::expired(base.token.id);
        return Fate::Over;
    }
    let renewal = match activity {
        Activity::Active => {
            let content = base.record.content();
            engine
                .lifetimes
                .renewal(content.remember, content.expires_at, now)
        }
        Activity::Passive => None,
    };
    if let Some(expires_at) = renewal {
        let touched = base.record.clone().with_expires_at(expires_at);
        // No answer is spoilt by a failed touch: it loses nothing but some minutes of idle time, and it was reported. Where
        // another request has written meanwhile, it has moved the expiry as well.
        if let Ok(true) = engine.touch(base.token.id, &touched).await {
            base.record = touched;
        }
    }
    Fate::Kept
}

/// The session was ended while the request ran.
fn gone(id: RecordId, changes: &ChangeSet) -> Fate {
    if changes.login().is_none() {
        report::dropped_write(id, "the session was ended");
    }
    Fate::Over
}

/// The session has another token now: of a parallel login, say, whose session this request has no business in.
fn superseded(base: &Base, changes: &ChangeSet) -> Result<Fate, SessionError> {
    if changes.login().is_some() || changes.only_regenerates(Some(&base.record)) {
        return Ok(Fate::Over);
    }
    report::dropped_write(base.token.id, "the token was replaced");
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
