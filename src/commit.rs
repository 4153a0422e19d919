//! The commit: it writes what a request did, so that no parallel change is lost and no ended
//! session comes back.
//!
//! Rare paths are boxed. The future of an async function is as large as its largest await, and
//! common commits should not pay for rare ones.

pub(crate) mod changes;
mod contention;
mod create;
#[cfg(feature = "dbsc")]
pub(crate) mod device;
mod end;
mod limit;
pub(crate) mod lookup;
pub(crate) mod request;
mod touch;

use std::mem;

use self::changes::ChangeSet;
use self::contention::Contention;
use self::create::{create, create_beside};
use self::end::{end_acting, end_previous, end_sessions};
use self::limit::{admit, enforce_limit};
use self::lookup::{InitialState, LoadedSession, TokenLookup, reload};
use self::request::{Activity, CommitRequest, EndRequest};
pub(crate) use self::touch::touch_early;
use self::touch::{rotate_or_touch, touch};
use crate::binding::rotation::Step;
use crate::clock::Timestamp;
use crate::context::LayerContext;
use crate::context::ending::Ending;
use crate::error::{SessionError, SessionErrorKind};
use crate::events::{self, DropReason};
use crate::hooks::cause::EndCause;
use crate::id::RecordId;
use crate::record::data::Data;
use crate::record::generations::Generations;
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
    if changes.login().is_none()
        && let Some(kind) = request.base.refuses_changes()
    {
        return Err(kind.into());
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
        InitialState::Session(mut base) => {
            let loaded = changes.login().map(|_| base.record.clone());
            let became = if changes.is_empty() && context.rotates() {
                Box::pin(rotate_or_touch(context, &mut base, request)).await
            } else if changes.is_empty() {
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
        // Most new sessions are those of visitors. So this arm has nothing to keep while it waits.
        InitialState::Visitor => create(context, changes, None, request.data.take()).await?,
        #[cfg(feature = "dbsc")]
        InitialState::Unbound(session) => {
            Box::pin(create_beside(context, request, session.with_actor())).await?
        }
        other => Box::pin(create_beside(context, request, other.live_sessions())).await?,
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
                TokenLookup::Rotated { .. } | TokenLookup::Reused(_) => {
                    return elsewhere(base, request);
                }
                TokenLookup::Gone => return Ok(gone(id, changes)),
            }
        }
        let Some((record, new_token)) = prepare(context, base, request, data.take(), now)? else {
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
                    Some(new) => {
                        let (token, encoded) = *new;
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

/// A token, and the text of it that the client gets. Boxed, because few commits make one, and each
/// would have room for it.
type NewToken = Box<(SessionToken, EncodedToken)>;

/// What a commit writes, and the new token that it gives. `None` if the changes change nothing.
fn prepare(
    context: &LayerContext,
    base: &LoadedSession,
    request: &CommitRequest,
    data: Option<Data>,
    now: Timestamp,
) -> Result<Option<(Record, Option<NewToken>)>, SessionError> {
    let (id, old, changes) = (base.id(), base.record.fields(), &request.changes);
    let issue = |serial| context.issue_token(id, serial).map(Box::new).map(Some);
    let (new_token, step) = match changes.rotates_token(&base.record) {
        true => (issue(context.next_serial(old))?, None),
        false => match context.rotation_step(old, &base.token, request.chance, now) {
            Some(Step::Replace(next)) => (issue(next.newest)?, Some(next)),
            Some(Step::Seen(next)) => (None, Some(next)),
            None => (None, None),
        },
    };
    let data = match data {
        Some(data) => data,
        None => data_after(context, changes, old.data())?,
    };
    let token = new_token.as_ref().map(|new| &new.0);
    let tokens = NextTokens { token, step };
    let record = next_record(context, old, request, data, tokens, now);
    Ok(record.map(|record| (record, new_token)))
}

/// What a commit makes of a session's tokens.
struct NextTokens<'a> {
    token: Option<&'a SessionToken>,
    /// If the layer has rotated the token by itself, or has seen its client use the new one.
    step: Option<Generations>,
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
    tokens: NextTokens<'_>,
    now: Timestamp,
) -> Option<Record> {
    let mut fields = old.next(data);
    request.changes.apply_to_fields(&mut fields);
    let changes_lifetime = fields.lifetime() != old.lifetime();
    let is_changed = tokens.token.is_some()
        || tokens.step.is_some()
        || changes_lifetime
        || fields.client() != old.client()
        || fields.external_id() != old.external_id()
        || fields.ends_by() != old.ends_by()
        || !fields.data().is_same(old.data());
    if !is_changed {
        return None;
    }
    match (tokens.token, tokens.step) {
        (None, None) => {}
        (Some(token), None) => fields.rotate_token(token.serial(), token.secret_hash(), now),
        (None, Some(next)) => fields.set_generations(next),
        (Some(token), Some(next)) => {
            fields.set_secret_hash(token.secret_hash());
            fields.set_generations(next);
            if let (Some(client), None) = (&request.client, request.changes.client()) {
                fields.set_client(Some(client.clone()));
            }
        }
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

/// The session was ended while the request ran.
fn gone(id: RecordId, changes: &ChangeSet) -> BaseOutcome {
    if changes.login().is_none() && !changes.is_empty() {
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
