//! How a commit stores a session for the first time.

use super::changes::ChangeSet;
use super::end::end_previous;
use super::limit::{admit, enforce_limit};
use super::lookup::{KnownSession, LoadedSession};
use super::request::CommitRequest;
use super::{CommitOutcome, issued, use_until_idle};
use crate::context::LayerContext;
use crate::error::{SessionError, SessionErrorKind};
use crate::events::{self, DropReason};
use crate::hooks::cause::EndCause;
use crate::record::data::Data;
use crate::record::{Record, RecordFields};
use crate::token::SessionToken;
use crate::token::presented::EncodedToken;

/// Creates a session for a request that came with the tokens of these. If somebody logs in, these
/// end: otherwise the browser would have the tokens of several sessions again, and its next request
/// would be a visitor's.
pub(super) async fn create_beside(
    context: &LayerContext,
    request: &mut CommitRequest,
    sessions: Vec<KnownSession>,
) -> Result<CommitOutcome, SessionError> {
    let data = request.data.take();
    let outcome = create(context, &request.changes, None, data).await?;
    match request.changes.login() {
        Some(_) if !sessions.is_empty() => {
            end_previous(context, &sessions, EndCause::Replaced, outcome).await
        }
        _ => Ok(outcome),
    }
}

/// Creates a session, unless it would be empty. It starts from what is in `from`.
pub(super) async fn create(
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
    let Some((token, encoded, record)) = new_session(context, changes, from, data)? else {
        events::dropped_write(None, changes.login().is_some(), DropReason::SessionEnded);
        return Ok(CommitOutcome::Kept(None));
    };
    let id = token.id();
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
        #[cfg(feature = "dbsc")]
        is_unproven: false,
    };
    Ok(issued(context, session, encoded))
}

/// A record of this data, with a token of its own. `None` if the session would be over at once. It
/// is not part of `create`, so that the future of `create` has no room for what it needs.
fn new_session(
    context: &LayerContext,
    changes: &ChangeSet,
    from: Option<&RecordFields>,
    data: Data,
) -> Result<Option<(SessionToken, EncodedToken, Record)>, SessionError> {
    let now = context.now();
    let id = context.new_record_id()?;
    let (token, encoded) = context.issue_token(id, context.first_serial())?;
    let mut fields = RecordFields::new(token.secret_hash(), now, data);
    fields.begin_with_token(token.serial(), token.secret_hash(), now);
    if let Some(from) = from {
        fields.set_lifetime(from.lifetime().clone());
        fields.set_client(from.client().cloned());
    }
    changes.apply_to_fields(&mut fields);
    use_until_idle(context, &mut fields, now);
    let record = Record::new(fields);
    let is_over = record.fields().ends_by().is_some() && context.lifetimes().is_over(&record, now);
    Ok((!is_over).then_some((token, encoded, record)))
}
