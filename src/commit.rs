//! The commit: writing what a request did, so that no parallel change is lost and no ended session comes back.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::change::ChangeSet;
use crate::engine::{Base, Engine, Loaded, UserLimit, WhenFull};
use crate::error::{ErrorKind, SessionError};
use crate::record::{Data, Login, Record, Version};
use crate::report;
use crate::store::Replaced;
use crate::token::{RecordId, SessionToken};

/// What a request leaves behind to be written.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The session that the request came with and has ended.
    pub(crate) ended: Option<RecordId>,
    /// The session that the request goes on with, if it came with one.
    pub(crate) base: Option<Base>,
    pub(crate) changes: ChangeSet,
    /// The base's data after the changes, as the handler saw it.
    pub(crate) data: Option<Data>,
    pub(crate) activity: Activity,
}

/// Whether a request counts as use of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    #[default]
    Active,
    Passive,
}

/// What a commit came to.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) token: TokenChange,
    /// The session that the client has from now on.
    pub(crate) base: Option<Base>,
}

/// What the client has to be told.
#[derive(Debug)]
pub(crate) enum TokenChange {
    Keep,
    Issue {
        token: SessionToken,
        max_age: Option<u64>,
    },
    Withdraw,
}

/// Writes what a request did.
///
/// When the future is dropped, the store call that is under way may or may not take effect, and nothing after it does.
pub(crate) async fn commit(engine: &Engine, pending: Pending) -> Result<Committed, SessionError> {
    let Pending {
        ended,
        base,
        changes,
        data,
        activity,
    } = pending;
    // Only the request that ended the session takes the cookie away: another's may be a new one by now.
    let withdraws = match ended {
        Some(id) => engine.remove(id).await?,
        None => false,
    };
    let mut committed = match base {
        None => start(engine, &changes, data).await?,
        Some(base) if changes.is_empty() => touch(engine, base, activity).await,
        Some(base) => change(engine, base, &changes, data, activity).await?,
    };
    if withdraws && matches!(committed.token, TokenChange::Keep) {
        committed.token = TokenChange::Withdraw;
    }
    Ok(committed)
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
        return Ok(unchanged(None));
    }
    if let Some(login) = changes.login() {
        admit(engine, login, None).await?;
    }
    let now = engine.now();
    let token = engine.mint.token()?;
    let mut record = Record {
        version: Version::FIRST,
        secret_hash: token.secret_hash(),
        login: None,
        created_at: now,
        expires_at: now,
        remember: false,
        client: None,
        data: Arc::new(data),
        #[cfg(feature = "memcached")]
        loaded_cas: None,
    };
    changes.stamp(&mut record);
    record.expires_at = engine.lifetimes.expiry(record.remember, now);
    if !engine.insert(token.id, &record).await? {
        // Two equal ids of 128 random bits: the generator does not work.
        return Err(ErrorKind::Random.into());
    }
    report::created(token.id);
    if let Some(login) = changes.login() {
        settle(engine, login, token.id).await?;
    }
    Ok(issued(engine, Base { token, record }))
}

/// Writes the changes to the session that the request came with.
async fn change(
    engine: &Engine,
    mut base: Base,
    changes: &ChangeSet,
    mut data: Option<Data>,
    activity: Activity,
) -> Result<Committed, SessionError> {
    let id = base.token.id;
    let deadline = Instant::now() + engine.commit_timeout;
    if let Some(login) = changes.login() {
        admit(engine, login, Some(id)).await?;
    }
    let new_token = match changes.replaces_token() {
        true => Some(engine.mint.renew(id)?),
        false => None,
    };
    let mut turn = None;
    loop {
        let data = match data.take() {
            Some(data) => data,
            None => changes.apply(&base.record.data, engine.data_limit)?,
        };
        let Some(record) = next_record(engine, &base, changes, data, new_token.as_ref(), activity)
        else {
            return Ok(touch(engine, base, activity).await);
        };
        match engine.replace(id, base.record.version, &record).await? {
            Replaced::Done => return done(engine, base, record, changes, new_token).await,
            Replaced::Missing => return gone(engine, id, changes).await,
            Replaced::Conflict => report::conflict(id),
        }
        // Conflicting commits of this process wait for each other from here on, instead of spoiling each other's next try.
        if Instant::now() >= deadline {
            return Err(ErrorKind::Contended.into());
        }
        if turn.is_none()
            && let Some(queue) = engine.queues.of(id)
        {
            let waited = timeout_at(deadline, queue.lock()).await;
            turn = Some(waited.map_err(|_| SessionError::from(ErrorKind::Contended))?);
        }
        match engine.load(&base.token).await? {
            Loaded::Live(record) => base.record = record,
            Loaded::Superseded => return superseded(engine, id, changes).await,
            Loaded::Gone => return gone(engine, id, changes).await,
        }
    }
}

/// The record after the changes, or `None` where they change nothing.
fn next_record(
    engine: &Engine,
    base: &Base,
    changes: &ChangeSet,
    data: Data,
    new_token: Option<&SessionToken>,
    activity: Activity,
) -> Option<Record> {
    let now = engine.now();
    let old = &base.record;
    let mut record = Record {
        version: old.version.next(),
        data: if *old.data == data {
            old.data.clone()
        } else {
            Arc::new(data)
        },
        ..old.clone()
    };
    changes.stamp(&mut record);
    let is_changed = new_token.is_some()
        || record.remember != old.remember
        || record.client != old.client
        || !Arc::ptr_eq(&record.data, &old.data);
    if !is_changed {
        return None;
    }
    if let Some(token) = new_token {
        record.secret_hash = token.secret_hash();
    }
    // Other timeouts hold for a session that is remembered from now on, and a login is activity in any case.
    if record.remember != old.remember || changes.login().is_some() {
        record.expires_at = engine.lifetimes.expiry(record.remember, now);
    } else if activity == Activity::Active
        && let Some(expires_at) = engine.lifetimes.renewal(&record, now)
    {
        record.expires_at = expires_at;
    }
    Some(record)
}

async fn done(
    engine: &Engine,
    base: Base,
    record: Record,
    changes: &ChangeSet,
    new_token: Option<SessionToken>,
) -> Result<Committed, SessionError> {
    let id = base.token.id;
    if let Some(login) = changes.login() {
        settle(engine, login, id).await?;
    }
    let is_new = new_token.is_some();
    if is_new {
        report::regenerated(id);
    }
    let moved = is_new
        || record.remember != base.record.remember
        || (record.remember
            && engine.lifetimes.ends_at(&record) != engine.lifetimes.ends_at(&base.record));
    let base = Base {
        token: new_token.unwrap_or(base.token),
        record,
    };
    Ok(if moved {
        issued(engine, base)
    } else {
        unchanged(Some(base))
    })
}

/// Records that the session was used, where that is due.
async fn touch(engine: &Engine, mut base: Base, activity: Activity) -> Committed {
    let renewal = match activity {
        Activity::Active => engine.lifetimes.renewal(&base.record, engine.now()),
        Activity::Passive => None,
    };
    let Some(expires_at) = renewal else {
        return unchanged(Some(base));
    };
    let ended_at = engine.lifetimes.ends_at(&base.record);
    let touched = base.record.clone().with_expires_at(expires_at);
    // No answer is spoilt by a failed touch: it loses nothing but some minutes of idle time, and it was reported. Where
    // another request has written meanwhile, it has moved the expiry as well.
    let Ok(true) = engine.touch(base.token.id, &touched).await else {
        return unchanged(Some(base));
    };
    base.record = touched;
    if base.record.remember && engine.lifetimes.ends_at(&base.record) != ended_at {
        issued(engine, base)
    } else {
        unchanged(Some(base))
    }
}

/// The session was ended while the request ran. A login proves the user by itself; anything else has nowhere to go.
async fn gone(
    engine: &Engine,
    id: RecordId,
    changes: &ChangeSet,
) -> Result<Committed, SessionError> {
    if changes.login().is_some() {
        return start(engine, changes, None).await;
    }
    report::dropped_write(id, "the session was ended");
    Ok(unchanged(None))
}

/// The session has another token now: of a parallel login, say, whose session this request has no business in.
async fn superseded(
    engine: &Engine,
    id: RecordId,
    changes: &ChangeSet,
) -> Result<Committed, SessionError> {
    if changes.login().is_some() {
        return start(engine, changes, None).await;
    }
    if changes.only_regenerates() {
        return Ok(unchanged(None));
    }
    report::dropped_write(id, "the token was replaced");
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

/// Ends what parallel logins have brought beyond the limit. Each looks after its own write, and all of them agree on the
/// order, so that the last one sees all and none ends what another keeps.
///
/// The login is written by now and its token is the only good one, so that a store that fails here must not spoil the
/// response that carries it: the failure is reported, and the user's next login ends the surplus.
async fn settle(engine: &Engine, login: &Login, own: RecordId) -> Result<(), SessionError> {
    let Some(limit) = &engine.user_limit else {
        return Ok(());
    };
    let Ok(mut sessions) = engine.sessions_of(&*limit.index, &login.user).await else {
        return Ok(());
    };
    sessions.sort_by_key(|(id, record)| (record.created_at, *id));
    match limit.when_full {
        WhenFull::EndOldest => {
            let surplus = sessions.len().saturating_sub(limit.max);
            for (id, _) in sessions.into_iter().take(surplus) {
                let _ = engine.remove(id).await;
            }
        }
        WhenFull::Refuse => {
            let is_surplus = sessions.iter().skip(limit.max).any(|(id, _)| *id == own);
            if is_surplus && engine.remove(own).await.is_ok() {
                return Err(ErrorKind::TooManySessions.into());
            }
        }
    }
    Ok(())
}

fn issued(engine: &Engine, base: Base) -> Committed {
    Committed {
        token: TokenChange::Issue {
            token: base.token.clone(),
            max_age: engine.lifetimes.max_age(&base.record, engine.now()),
        },
        base: Some(base),
    }
}

fn unchanged(base: Option<Base>) -> Committed {
    Committed {
        token: TokenChange::Keep,
        base,
    }
}
