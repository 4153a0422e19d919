//! The commit: it writes what a request did, so that no parallel change is lost and no ended
//! session comes back.
//!
//! Rare paths are boxed. The future of an async function is as large as its largest await, and
//! common commits should not pay for rare ones.

pub(crate) mod changes;
mod contention;
mod end;
mod limit;
pub(crate) mod lookup;
pub(crate) mod request;

use std::mem;

use self::changes::ChangeSet;
use self::contention::Contention;
use self::end::{end_acting, end_previous, end_sessions};
use self::limit::{admit, enforce_limit};
use self::lookup::{InitialState, LoadedSession, TokenLookup, reload};
use self::request::{Activity, CommitRequest, EndRequest};
use crate::clock::Timestamp;
use crate::context::LayerContext;
use crate::context::ending::Ending;
use crate::error::{SessionError, SessionErrorKind};
use crate::events::{self, DropReason};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::data::Data;
use crate::record::{Record, RecordFields};
use crate::store::Replaced;
use crate::token::SessionToken;
use crate::token::presented::EncodedToken;

/// What the client has after a commit.
pub(crate) enum CommitOutcome {
    /// It keeps its token, and this session with it, if it has one.
    Kept(Option<LoadedSession>),
    /// It gets the token of this session.
    Issued {
        session: LoadedSession,
        token: EncodedToken,
        max_age: Option<u64>,
    },
    /// Its session has ended, and it must forget its token.
    Ended,
}

impl CommitOutcome {
    /// The session that the client has from now on.
    fn session(&self) -> Option<&LoadedSession> {
        match self {
            Self::Kept(session) => session.as_ref(),
            Self::Issued { session, .. } => Some(session),
            Self::Ended => None,
        }
    }

    /// The session that the client has from now on.
    pub(crate) fn into_session(self) -> Option<LoadedSession> {
        match self {
            Self::Kept(session) => session,
            Self::Issued { session, .. } => Some(session),
            Self::Ended => None,
        }
    }
}

/// What became of the session that a request came with.
enum BaseOutcome {
    Kept,
    /// It has a new token.
    Rotated(EncodedToken),
    /// A parallel request has rotated the token, and the session goes on with that one.
    Elsewhere,
    /// It has ended.
    Gone,
    /// It ends now: with the timeouts that the changes gave it, it is too old.
    Expired,
}

/// Writes what a request did.
///
/// The request keeps its changes, so that a caller can try again or report them. But a commit takes
/// the base and the data out of the request. That keeps the future small.
///
/// When the future is dropped, the store call that is under way may or may not take effect. No call
/// after it is made.
pub(crate) async fn commit(
    context: &LayerContext,
    request: &mut CommitRequest,
) -> Result<CommitOutcome, SessionError> {
    let changes = &request.changes;
    // A new session here would overwrite the cookie that the parallel request has just set.
    if let InitialState::Rotated(_) = request.base
        && changes.login().is_none()
    {
        return Err(SessionErrorKind::TokenRotated.into());
    }
    // Only a request that asks for the end removes the cookie. The client may have got a newer
    // cookie since another kind of request came.
    let removes_token = match &request.end {
        Some(EndRequest::Destroy(cause, sessions)) => {
            Box::pin(end_sessions(context, *cause, sessions)).await?;
            true
        }
        Some(EndRequest::DeadToken) => true,
        Some(EndRequest::SwitchUser(_) | EndRequest::StopActing(_) | EndRequest::StaleToken)
        | None => false,
    };
    let outcome = match mem::take(&mut request.base) {
        InitialState::Visitor | InitialState::Rotated(_) => {
            create(context, changes, None, request.data.take()).await?
        }
        InitialState::Ambiguous(sessions) => {
            let outcome = create(context, changes, None, request.data.take()).await?;
            // If the old sessions stayed, the browser would have the tokens of several sessions
            // again, and its next request would be a visitor's.
            match changes.login() {
                Some(_) => {
                    Box::pin(end_previous(
                        context,
                        &sessions,
                        EndCause::Replaced,
                        outcome,
                    ))
                    .await?
                }
                None => outcome,
            }
        }
        InitialState::Session(mut base) => {
            let loaded = changes.login().map(|_| base.record.clone());
            let became = if changes.is_empty() {
                touch(context, &mut base, request.activity).await
            } else {
                change(context, &mut base, request).await?
            };
            let changes = &request.changes;
            match (became, changes.login()) {
                (BaseOutcome::Kept, _) => CommitOutcome::Kept(Some(base)),
                (BaseOutcome::Rotated(token), _) => issued(context, base, token),
                // A login proves the user by itself. The session that the request had loaded was a
                // visitor's or the same user's, so the new session keeps its data. If two logins
                // come at once, the second one keeps the cart too.
                (BaseOutcome::Elsewhere, Some(_)) => {
                    let loaded = loaded.as_ref().map(Record::fields);
                    Box::pin(create(context, changes, loaded, None)).await?
                }
                (BaseOutcome::Gone, Some(_)) => {
                    Box::pin(create(context, changes, None, None)).await?
                }
                (BaseOutcome::Elsewhere | BaseOutcome::Gone, None) => CommitOutcome::Kept(None),
                (BaseOutcome::Expired, _) => {
                    // The session is over even if the store cannot remove it now, and a failure has
                    // an event.
                    let ending = Ending::new(EndCause::Expired).with_record(Some(&base.record));
                    let _ = Box::pin(context.remove(base.id(), ending)).await;
                    CommitOutcome::Ended
                }
            }
        }
    };
    match (&request.end, outcome) {
        (Some(EndRequest::SwitchUser(sessions)), outcome) => {
            let cause = EndCause::SwitchedUser;
            Box::pin(end_previous(context, sessions, cause, outcome)).await
        }
        // If this fails, the client keeps its token and can try again. The session that it goes
        // back to stays.
        (Some(EndRequest::StopActing(acting)), outcome) => {
            Box::pin(end_acting(context, acting, &outcome)).await?;
            Ok(outcome)
        }
        (_, CommitOutcome::Kept(None)) if removes_token => Ok(CommitOutcome::Ended),
        (_, outcome) => Ok(outcome),
    }
}

/// Creates a session, unless it would be empty. It starts from what is in `from`.
async fn create(
    context: &LayerContext,
    changes: &ChangeSet,
    from: Option<&RecordFields>,
    data: Option<Data>,
) -> Result<CommitOutcome, SessionError> {
    let data = match data {
        Some(data) => data,
        None => {
            let old = from.map(|from| from.data().clone()).unwrap_or_default();
            changes.apply(&old, context.data_limit())?
        }
    };
    // An empty session is not stored, or bots would fill the store.
    if data.is_empty() && changes.login().is_none() {
        return Ok(CommitOutcome::Kept(None));
    }
    if let Some(login) = changes.login() {
        let client = changes.client().or(from.and_then(RecordFields::client));
        Box::pin(admit(context, login, None, client)).await?;
    }
    let now = context.now();
    let id = context.new_record_id()?;
    let (token, encoded) = context.issue_token(id)?;
    let mut fields = RecordFields::new(token.secret_hash(), now, data);
    if let Some(from) = from {
        fields.set_lifetime(from.lifetime().clone());
        fields.set_client(from.client().cloned());
    }
    changes.apply_to_fields(&mut fields);
    use_until_idle(context, &mut fields, now);
    let record = Record::new(fields);
    if record.fields().ends_by().is_some() && context.lifetimes().is_over(&record, now) {
        events::dropped_write(None, changes.login().is_some(), DropReason::SessionEnded);
        return Ok(CommitOutcome::Kept(None));
    }
    if !context.insert(id, &record).await? {
        // Two equal ids of 128 random bits: the generator does not work.
        return Err(SessionErrorKind::Random.into());
    }
    context.report_created(id, &record);
    if let Some(login) = changes.login() {
        Box::pin(enforce_limit(context, login, (id, &record), true)).await?;
    }
    let session = LoadedSession {
        token,
        record,
        was_nearly_over: false,
    };
    Ok(issued(context, session, encoded))
}

/// Writes the changes to the session that the request came with.
///
/// This is a compare-and-set. If a parallel request has written in between, this loads the newer
/// record, applies the changes to it and tries again.
async fn change(
    context: &LayerContext,
    base: &mut LoadedSession,
    request: &mut CommitRequest,
) -> Result<BaseOutcome, SessionError> {
    // The session knew when it was sealed whether this data differs from the base's.
    let mut data = request.data.take().filter(|_| request.changes_data);
    let request = &*request;
    let changes = &request.changes;
    let id = base.id();
    if let Some(login) = changes.login() {
        let client = changes.client().or(base.record.fields().client());
        Box::pin(admit(context, login, Some(id), client)).await?;
    }
    let mut now = context.now();
    // A slow handler may have outlived what it loaded, but a parallel request may have kept that
    // alive.
    let mut is_stale = request.looks_again || is_over(context, base, now);
    let mut contention: Option<Contention<'_>> = None;
    loop {
        if is_stale {
            data = None;
            match Box::pin(reload(context, &base.token, base.was_nearly_over)).await? {
                TokenLookup::Live(record, loaded_at) => {
                    base.record = record;
                    now = loaded_at;
                }
                TokenLookup::Rotated { .. } => return elsewhere(base, request),
                TokenLookup::Gone => return Ok(gone(id, changes)),
            }
        }
        let new_token = match changes.rotates_token(&base.record) {
            true => Some(context.issue_token(id)?),
            false => None,
        };
        let data = match data.take() {
            Some(data) => data,
            None => data_after(context, changes, base.record.fields().data())?,
        };
        let token = new_token.as_ref().map(|(token, _)| token);
        let old = base.record.fields();
        let Some(record) = next_record(context, old, request, data, token, now) else {
            return Ok(Box::pin(touch(context, base, request.activity)).await);
        };
        match context.replace(id, base.record.version(), &record).await? {
            Replaced::Done => {
                let is_one_more = base.record.fields().login().is_none();
                let ends = base.record.fields().ends_by() != record.fields().ends_by();
                base.record = record;
                base.was_nearly_over = false;
                if (new_token.is_some() || ends) && is_over_at_once(context, base, request, now) {
                    return Ok(BaseOutcome::Expired);
                }
                context.report_changed(id, &base.record, new_token.is_some(), changes.login());
                if ends && changes.has_retired(&base.record) {
                    context.report_retired(id, &base.record);
                }
                if let Some(login) = changes.login() {
                    Box::pin(enforce_limit(
                        context,
                        login,
                        (id, &base.record),
                        is_one_more,
                    ))
                    .await?;
                }
                // The layer never sends again a token that the client has already. Such a token
                // could overwrite the newer one of a parallel request.
                return Ok(match new_token {
                    Some((token, encoded)) => {
                        base.token = token;
                        BaseOutcome::Rotated(encoded)
                    }
                    None => BaseOutcome::Kept,
                });
            }
            Replaced::Missing => return Ok(gone(id, changes)),
            Replaced::Conflict => events::conflict(id),
        }
        is_stale = true;
        match &contention {
            None => contention = Some(Box::pin(Contention::begin(context, id)).await?),
            Some(contention) => contention.check_deadline()?,
        }
    }
}

/// The data after the changes. If nothing changes, this returns the old data itself, so that nobody
/// has to compare the two later.
fn data_after(
    context: &LayerContext,
    changes: &ChangeSet,
    old: &Data,
) -> Result<Data, SessionError> {
    let data = changes.apply(old, context.data_limit())?;
    Ok(if data == *old { old.clone() } else { data })
}

/// The record after the changes, or `None` if they change nothing.
fn next_record(
    context: &LayerContext,
    old: &RecordFields,
    request: &CommitRequest,
    data: Data,
    new_token: Option<&SessionToken>,
    now: Timestamp,
) -> Option<Record> {
    let mut fields = old.next(data);
    request.changes.apply_to_fields(&mut fields);
    let changes_lifetime = fields.lifetime() != old.lifetime();
    let is_changed = new_token.is_some()
        || changes_lifetime
        || fields.client() != old.client()
        || fields.ends_by() != old.ends_by()
        || !fields.data().is_same(old.data());
    if !is_changed {
        return None;
    }
    if let Some(token) = new_token {
        fields.rotate_token(token.secret_hash(), now);
    }
    // Another lifetime has other timeouts. A login always is a use of the session.
    if changes_lifetime || request.changes.login().is_some() {
        use_until_idle(context, &mut fields, now);
        return Some(Record::new(fields));
    }
    let renewal = match request.activity {
        Activity::Active => context.lifetimes().renewal(&fields, now),
        Activity::Passive => None,
    };
    match renewal {
        Some(_) => use_until_idle(context, &mut fields, now),
        // A touch moves the stored expiry and not the version. This write must not move the expiry
        // back.
        None => fields.keep_later_expiry(),
    }
    Some(Record::new(fields))
}

/// The session is used now, and so it lasts for another idle timeout.
fn use_until_idle(context: &LayerContext, fields: &mut RecordFields, now: Timestamp) {
    let lifetimes = context.lifetimes();
    let expires_at = lifetimes.expiry(fields, now);
    fields.use_until(expires_at, lifetimes.idle_millis(fields));
}

/// Whether the session is over because of the changes. That happens if it has an end that is over,
/// or another lifetime: the session may be older than the absolute timeout of such sessions.
fn is_over_at_once(
    context: &LayerContext,
    base: &LoadedSession,
    request: &CommitRequest,
    now: Timestamp,
) -> bool {
    let is_over = context.lifetimes().is_over(&base.record, now);
    if is_over {
        context.report_expired(base.id(), &base.record);
        let has_login = request.changes.login().is_some();
        if request.changes_data || has_login {
            events::dropped_write(Some(base.id()), has_login, DropReason::SessionEnded);
        }
    }
    is_over
}

/// Whether the session that a request came with is over, as far as the request knows.
fn is_over(context: &LayerContext, base: &LoadedSession, now: Timestamp) -> bool {
    let lifetimes = context.lifetimes();
    lifetimes.is_over_for_request(&base.record, base.was_nearly_over, now)
}

/// How often a touch looks again at a record that parallel requests keep changing.
const MAX_TOUCHES: usize = 4;

/// Moves the expiry of a session that was used, if that is due.
///
/// A touch that fails spoils no answer. It loses some minutes of idle time, and the failure has an
/// event.
async fn touch(
    context: &LayerContext,
    base: &mut LoadedSession,
    activity: Activity,
) -> BaseOutcome {
    for _ in 0..MAX_TOUCHES {
        let now = context.now();
        if !is_over(context, base, now) {
            let renewal = match activity {
                Activity::Active => context.lifetimes().renewal(base.record.fields(), now),
                Activity::Passive => None,
            };
            let Some(expires_at) = renewal else {
                return BaseOutcome::Kept;
            };
            let touched = base.record.clone().with_expires_at(expires_at);
            match context.touch(base.id(), &touched).await {
                Ok(true) => {
                    base.record = touched;
                    base.was_nearly_over = false;
                    return BaseOutcome::Kept;
                }
                // Another request has written the record, and may not have moved the expiry.
                Ok(false) => {}
                Err(_) => return BaseOutcome::Kept,
            }
        }
        // A slow handler may have outlived what it loaded, but a parallel request may have kept
        // that alive.
        match Box::pin(reload(context, &base.token, base.was_nearly_over)).await {
            Ok(TokenLookup::Live(record, _)) => base.record = record,
            Ok(TokenLookup::Gone) => return BaseOutcome::Gone,
            Ok(TokenLookup::Rotated { .. }) | Err(_) => return BaseOutcome::Kept,
        }
    }
    BaseOutcome::Kept
}

/// Touches a session while its handler still runs. If that fails, the request's commit tries again.
pub(crate) async fn touch_early(context: &LayerContext, session: &mut LoadedSession) {
    touch(context, session, Activity::Active).await;
}

/// The session was ended while the request ran.
fn gone(id: RecordId, changes: &ChangeSet) -> BaseOutcome {
    if changes.login().is_none() {
        events::dropped_write(Some(id), false, DropReason::SessionEnded);
    }
    BaseOutcome::Gone
}

/// The session has another token now, for example after a parallel login. This request must not
/// change it.
fn elsewhere(base: &LoadedSession, request: &CommitRequest) -> Result<BaseOutcome, SessionError> {
    let changes = &request.changes;
    let loses_nothing = !request.changes_data && !changes.changes_description(Some(&base.record));
    if changes.login().is_some() || loses_nothing {
        return Ok(BaseOutcome::Elsewhere);
    }
    Err(SessionErrorKind::TokenRotated.into())
}

fn issued(context: &LayerContext, session: LoadedSession, token: EncodedToken) -> CommitOutcome {
    let lifetimes = context.lifetimes();
    CommitOutcome::Issued {
        max_age: lifetimes.max_age(&session.record, || context.now()),
        session,
        token,
    }
}
