//! What the tokens of a request lead to: [`InitialState`], and how the layer finds it in the store.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::context::LayerContext;
use crate::error::SessionError;
use crate::events;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::login::Actor;
use crate::token::presented::PresentedTokens;
use crate::token::{SessionToken, VerifiedTokens};

/// The grace period after a rotation of the token.
///
/// Within it, the layer assumes that a request with the old token was under way during the
/// rotation, and answers its changes with a 409. After it, the client probably never received the
/// new token. Then the layer treats the client as a visitor, so that nobody is locked out.
const ROTATION_GRACE: Duration = Duration::from_secs(60);

/// A live session of the store, and the token that led to it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedSession {
    pub(crate) token: SessionToken,
    pub(crate) record: Record,
    /// Whether little of the idle timeout was left when the request came. See
    /// [`Lifetimes::is_over_for_request`](crate::record::lifetime::Lifetimes::is_over_for_request).
    pub(crate) was_nearly_over: bool,
}

impl LoadedSession {
    pub(crate) fn id(&self) -> RecordId {
        self.token.id()
    }
}

/// What a request starts from.
#[derive(Clone, Debug, Default)]
pub(crate) enum InitialState {
    /// Its client is a visitor.
    #[default]
    Visitor,
    Session(LoadedSession),
    /// A parallel request rotated the token of this session, within the grace period.
    Rotated(RecordId),
    /// It came with the tokens of several live sessions, or with the cookie of a live session
    /// beside a bearer token of none. It reads as a visitor's, and can end them all.
    Ambiguous(Arc<[RecordId]>),
}

impl InitialState {
    pub(crate) fn session(&self) -> Option<&LoadedSession> {
        match self {
            Self::Session(session) => Some(session),
            Self::Visitor | Self::Rotated(_) | Self::Ambiguous(_) => None,
        }
    }

    /// The live sessions that the tokens lead to.
    fn live_ids(&self) -> Vec<RecordId> {
        match self {
            Self::Session(session) => vec![session.id()],
            Self::Ambiguous(ids) => ids.to_vec(),
            Self::Visitor | Self::Rotated(_) => Vec::new(),
        }
    }
}

/// What a commit wrote is what the next step starts from.
impl From<Option<LoadedSession>> for InitialState {
    fn from(session: Option<LoadedSession>) -> Self {
        session.map_or(Self::Visitor, Self::Session)
    }
}

/// What one token leads to.
pub(crate) enum TokenLookup {
    /// A live session, at this time.
    Live(Record, Timestamp),
    /// The session is there, but has another token now.
    Rotated { within_grace: bool },
    /// There is no such session, or it is over.
    Gone,
}

/// What a request that presents these tokens starts from.
pub(crate) async fn find_presented(
    context: &LayerContext,
    presented: &PresentedTokens,
) -> Result<InitialState, SessionError> {
    match context.verify(presented) {
        Some(tokens) => find(context, &tokens).await,
        None => Ok(InitialState::Visitor),
    }
}

/// What a request that came with these good tokens starts from.
pub(crate) async fn find(
    context: &LayerContext,
    tokens: &VerifiedTokens,
) -> Result<InitialState, SessionError> {
    match tokens {
        VerifiedTokens::One(token) => find_one(context, token).await,
        VerifiedTokens::Several { tokens, bearer } => {
            Box::pin(find_among_several(context, tokens, *bearer)).await
        }
    }
}

async fn find_one(
    context: &LayerContext,
    token: &SessionToken,
) -> Result<InitialState, SessionError> {
    Ok(match load(context, token, false).await? {
        TokenLookup::Live(record, now) => {
            let was_nearly_over = context.lifetimes().is_nearly_over(&record, now);
            InitialState::Session(LoadedSession {
                token: *token,
                record,
                was_nearly_over,
            })
        }
        TokenLookup::Rotated { within_grace: true } => InitialState::Rotated(token.id()),
        TokenLookup::Rotated { .. } | TokenLookup::Gone => InitialState::Visitor,
    })
}

/// The one session that is live, among tokens that came in one way. If two are live, the client
/// cannot mean both, and somebody else may have planted one of the tokens.
async fn find_among(
    context: &LayerContext,
    tokens: &[SessionToken],
) -> Result<InitialState, SessionError> {
    let mut found = InitialState::Visitor;
    let mut live = Vec::new();
    for token in tokens {
        match (find_one(context, token).await?, &found) {
            (InitialState::Session(session), _) => {
                live.push(session.id());
                found = InitialState::Session(session);
            }
            (rotated @ InitialState::Rotated(_), InitialState::Visitor) => found = rotated,
            _ => {}
        }
    }
    if live.len() > 1 {
        events::ambiguous(context.transport().name());
        found = InitialState::Ambiguous(live.into());
    }
    Ok(found)
}

/// The session of the bearer token, unless the cookie's is live as well. A client that sends a
/// bearer token means it. So the cookie alone leads to no session here, but a request can end its
/// session.
async fn find_among_several(
    context: &LayerContext,
    tokens: &[SessionToken],
    bearer: Option<usize>,
) -> Result<InitialState, SessionError> {
    let bearer = bearer.unwrap_or(tokens.len());
    let (bearer, cookie) = tokens.split_at_checked(bearer).unwrap_or((tokens, &[]));
    let bearer = find_among(context, bearer).await?;
    let cookie = find_among(context, cookie).await?.live_ids();
    // If the bearer token was rotated, a parallel request has just given the client a newer one.
    if cookie.is_empty() || matches!(bearer, InitialState::Rotated(_)) {
        return Ok(bearer);
    }
    events::cookie_beside_bearer(context.transport().name());
    let live = [bearer.live_ids(), cookie].concat();
    Ok(InitialState::Ambiguous(live.into()))
}

/// What the store has for this token. `was_nearly_over` says that the request came while its
/// session was nearly over: then the session gets some more time.
pub(crate) async fn load(
    context: &LayerContext,
    token: &SessionToken,
    was_nearly_over: bool,
) -> Result<TokenLookup, SessionError> {
    let id = token.id();
    let Some(record) = context.load(id).await? else {
        events::rejected_for(id, "no such session");
        return Ok(TokenLookup::Gone);
    };
    let now = context.now();
    let lifetimes = context.lifetimes();
    if lifetimes.is_over_for_request(&record, was_nearly_over, now) {
        events::expired(id);
        return Ok(TokenLookup::Gone);
    }
    let fields = record.fields();
    if !fields.secret_hash().matches(&token.secret_hash()) {
        events::rejected_for(id, "the token was rotated");
        // A time that lies far ahead comes from a wrong clock.
        let within_grace = fields
            .token_rotated_at()
            .is_some_and(|at| now.distance(at) < ROTATION_GRACE);
        return Ok(TokenLookup::Rotated { within_grace });
    }
    if record.user().is_some_and(|user| !context.realm().has(user)) {
        events::rejected_for(id, "the session belongs to a user of another realm");
        return Ok(TokenLookup::Gone);
    }
    if let Some(actor) = fields.actor()
        && !Box::pin(keep_acting(context, id, actor)).await?
    {
        return Ok(TokenLookup::Gone);
    }
    events::loaded(id);
    Ok(TokenLookup::Live(record, now))
}

/// Whether the user who acts in this session may go on. It counts as a use of their own session,
/// to which they go back later.
async fn keep_acting(
    context: &LayerContext,
    id: RecordId,
    actor: &Actor,
) -> Result<bool, SessionError> {
    let Some(record) = find_actor(context, id, actor).await? else {
        events::rejected_for(id, "the session of the user who acts has ended");
        return Ok(false);
    };
    let renewal = context.lifetimes().renewal(record.fields(), context.now());
    if let Some(expires_at) = renewal {
        let touched = record.with_expires_at(expires_at);
        // A touch that fails loses some minutes of idle time, and the failure has an event.
        let _ = context.touch(actor.session, &touched).await;
    }
    Ok(true)
}

/// The own session of the user who acts in the session of this id. If it is over, the session of
/// this id ends as well.
pub(crate) async fn find_actor(
    context: &LayerContext,
    id: RecordId,
    actor: &Actor,
) -> Result<Option<Record>, SessionError> {
    let record = context.load(actor.session).await?.filter(|record| {
        record.user() == Some(&actor.user) && !context.lifetimes().is_over(record, context.now())
    });
    if record.is_none() {
        // The session is over even if the store cannot remove it now, and a failure has an event.
        let _ = context.remove(id).await;
    }
    Ok(record)
}
