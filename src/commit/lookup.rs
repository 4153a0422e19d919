//! What the tokens of a request lead to: [`InitialState`], and how the layer finds it in the store.

mod acting;
#[cfg(feature = "dbsc")]
pub(crate) mod devices;
mod reuse;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::acting::find_actor;
use self::acting::keep_acting;
use self::reuse::{Reused, end_reused};
use crate::binding::presented::PresentedProof;
use crate::binding::rotation::{self, Standing};
use crate::clock::Timestamp;
use crate::context::LayerContext;
use crate::error::{SessionError, SessionErrorKind};
use crate::events;
use crate::id::RecordId;
use crate::record::{Record, RecordFields};
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
    /// Whether the request did not prove the device that the session is bound to.
    #[cfg(feature = "dbsc")]
    pub(crate) is_unproven: bool,
}

impl LoadedSession {
    pub(crate) fn id(&self) -> RecordId {
        self.token.id()
    }

    pub(crate) fn known(&self) -> KnownSession {
        KnownSession {
            id: self.id(),
            record: Some(self.record.clone()),
        }
    }
}

/// A session that a request is about to leave or to end, and its record if the request has it.
#[derive(Clone, Debug)]
pub(crate) struct KnownSession {
    pub(crate) id: RecordId,
    pub(crate) record: Option<Record>,
}

#[cfg(feature = "dbsc")]
impl KnownSession {
    /// This session, and before it the own session of a user who acts in it as another.
    pub(crate) fn with_actor(&self) -> Vec<Self> {
        let fields = self.record.as_ref().map(Record::fields);
        let own = fields.and_then(|fields| fields.actor()).map(|actor| Self {
            id: actor.session,
            record: None,
        });
        own.into_iter().chain([self.clone()]).collect()
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
    Ambiguous(Arc<[KnownSession]>),
    /// Its session is bound to a device, and it did not prove that it comes from there. It reads as
    /// a visitor's, and can end the session.
    #[cfg(feature = "dbsc")]
    Unbound(KnownSession),
}

impl InitialState {
    pub(crate) fn session(&self) -> Option<&LoadedSession> {
        match self {
            Self::Session(session) => Some(session),
            Self::Visitor | Self::Rotated(_) | Self::Ambiguous(_) => None,
            #[cfg(feature = "dbsc")]
            Self::Unbound(_) => None,
        }
    }

    /// Why a request without a login must not write anything, if it must not.
    pub(super) fn refuses_changes(&self) -> Option<SessionErrorKind> {
        match self {
            // A new session would overwrite the cookie that the parallel request has just set.
            Self::Rotated(_) => Some(SessionErrorKind::TokenRotated),
            // A browser that has skipped its proof once would lose its session to a new one.
            #[cfg(feature = "dbsc")]
            Self::Unbound(_) => Some(SessionErrorKind::DeviceUnproven),
            Self::Visitor | Self::Session(_) | Self::Ambiguous(_) => None,
        }
    }

    /// The live sessions that the tokens lead to.
    pub(super) fn live_sessions(&self) -> Vec<KnownSession> {
        match self {
            Self::Session(session) => vec![session.known()],
            Self::Ambiguous(sessions) => sessions.to_vec(),
            #[cfg(feature = "dbsc")]
            Self::Unbound(session) => vec![session.clone()],
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
    /// Two clients have the token, or have had it.
    Reused(Record),
    /// There is no such session, or it is over.
    Gone,
}

/// What a request that presents these tokens starts from.
pub(crate) async fn find_presented(
    context: &LayerContext,
    presented: &PresentedTokens,
    proof: &PresentedProof,
) -> Result<InitialState, SessionError> {
    match context.verify(presented) {
        Some(tokens) => find(context, &tokens, proof).await,
        None => Ok(InitialState::Visitor),
    }
}

/// What a request that came with these good tokens starts from.
pub(crate) async fn find(
    context: &LayerContext,
    tokens: &VerifiedTokens,
    proof: &PresentedProof,
) -> Result<InitialState, SessionError> {
    match tokens {
        VerifiedTokens::One(token) => {
            let mut reused = Reused::new();
            let found = find_one(context, token, proof, &mut reused).await?;
            if !reused.is_empty() {
                Box::pin(end_reused(context, reused, &found, proof)).await?;
            }
            Ok(found)
        }
        VerifiedTokens::Several { tokens, bearer } => {
            Box::pin(find_among_several(context, tokens, *bearer, proof)).await
        }
    }
}

async fn find_one(
    context: &LayerContext,
    token: &SessionToken,
    proof: &PresentedProof,
    reused: &mut Reused,
) -> Result<InitialState, SessionError> {
    Ok(match load(context, token, proof.arrived_at).await? {
        TokenLookup::Live(record, now) => {
            let was_nearly_over = context.lifetimes().is_nearly_over(&record, now);
            let session = LoadedSession {
                token: *token,
                record,
                was_nearly_over,
                #[cfg(feature = "dbsc")]
                is_unproven: false,
            };
            #[cfg(feature = "dbsc")]
            if let Some(devices) = context.devices() {
                return devices::admit(context, devices, session, proof, now).await;
            }
            // A layer that binds no sessions has no proof.
            let _ = proof;
            InitialState::Session(session)
        }
        TokenLookup::Rotated { within_grace: true } => InitialState::Rotated(token.id()),
        TokenLookup::Reused(record) => {
            reused.push((*token, record));
            InitialState::Visitor
        }
        TokenLookup::Rotated { .. } | TokenLookup::Gone => InitialState::Visitor,
    })
}

/// The one session that is live, among tokens that came in one way. If two are live, the client
/// cannot mean both, and somebody else may have planted one of the tokens.
async fn find_among(
    context: &LayerContext,
    tokens: &[SessionToken],
    proof: &PresentedProof,
    reused: &mut Reused,
) -> Result<InitialState, SessionError> {
    let mut found = InitialState::Visitor;
    let mut live = Vec::new();
    for token in tokens {
        match (find_one(context, token, proof, reused).await?, &found) {
            // A token that was just replaced is good beside the newer one.
            (InitialState::Session(session), InitialState::Session(other))
                if session.id() == other.id() =>
            {
                let is_newer = session.token.serial() > other.token.serial();
                found = InitialState::Session(if is_newer { session } else { other.clone() });
            }
            #[cfg(feature = "dbsc")]
            (InitialState::Unbound(session), InitialState::Unbound(other))
                if session.id == other.id => {}
            (InitialState::Session(session), _) => {
                live.push(session.known());
                found = InitialState::Session(session);
            }
            #[cfg(feature = "dbsc")]
            (InitialState::Unbound(session), _) => {
                live.push(session.clone());
                found = InitialState::Unbound(session);
            }
            (rotated @ InitialState::Rotated(_), InitialState::Visitor) => found = rotated,
            _ => {}
        }
    }
    if live.len() > 1 {
        context.report_ambiguous();
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
    proof: &PresentedProof,
) -> Result<InitialState, SessionError> {
    let bearer = bearer.unwrap_or(tokens.len());
    let (bearer, cookie) = tokens.split_at_checked(bearer).unwrap_or((tokens, &[]));
    let mut reused = Reused::new();
    let bearer = find_among(context, bearer, proof, &mut reused).await?;
    let cookie = find_among(context, cookie, proof, &mut reused).await?;
    for found in [&bearer, &cookie] {
        let of_others = |(token, _): &(SessionToken, Record)| {
            let live = found.live_sessions();
            !live.iter().any(|session| session.id == token.id())
        };
        reused.retain(of_others);
    }
    end_reused(context, reused, &bearer, proof).await?;
    let mut cookie = cookie.live_sessions();
    let of_bearer = bearer.live_sessions();
    // A client may have copied the cookie's token before the token was replaced.
    cookie.retain(|session| !of_bearer.iter().any(|known| known.id == session.id));
    // If the bearer token was rotated, a parallel request has just given the client a newer one.
    if cookie.is_empty() || matches!(bearer, InitialState::Rotated(_)) {
        return Ok(bearer);
    }
    context.report_cookie_beside_bearer();
    let live = [of_bearer, cookie].concat();
    Ok(InitialState::Ambiguous(live.into()))
}

/// Looks a token up at the beginning of a request, or later in a request that came at `arrived_at`.
async fn load(
    context: &LayerContext,
    token: &SessionToken,
    arrived_at: Option<Timestamp>,
) -> Result<TokenLookup, SessionError> {
    let record = context.load(token.id()).await?;
    let admission = Admission::New { arrived_at };
    let verdict = Verdict::of(context, token, admission, record.as_ref());
    // A cache may not know yet of a login on another node, or of a use. Only a session that has
    // ended stays so.
    if !matches!(verdict, Verdict::Live(_) | Verdict::Missing) && context.answers_from_cache() {
        return Box::pin(reload_with(context, token, admission)).await;
    }
    conclude(context, token, record, verdict).await
}

/// What the store has now, whatever a cache says, for a request or a socket that was let in with
/// this token. `was_nearly_over` says that the request came while its session was nearly over: then
/// the session gets some more time.
pub(crate) fn reload<'a>(
    context: &'a LayerContext,
    token: &'a SessionToken,
    was_nearly_over: bool,
) -> impl Future<Output = Result<TokenLookup, SessionError>> + Send + 'a {
    reload_with(context, token, Admission::Earlier { was_nearly_over })
}

async fn reload_with(
    context: &LayerContext,
    token: &SessionToken,
    admission: Admission,
) -> Result<TokenLookup, SessionError> {
    let record = context.reload(token.id()).await?;
    let verdict = Verdict::of(context, token, admission, record.as_ref());
    conclude(context, token, record, verdict).await
}

/// When the layer let a token in.
#[derive(Clone, Copy)]
enum Admission {
    /// It asks for the first time. The request may have come earlier.
    New { arrived_at: Option<Timestamp> },
    /// It was let in, and the handler may have taken long since then.
    Earlier { was_nearly_over: bool },
}

/// What a record says of a token.
enum Verdict {
    /// It leads to this session, at this time.
    Live(Timestamp),
    Missing,
    Expired,
    Rotated {
        within_grace: bool,
    },
    Reused,
    OtherRealm,
}

impl Verdict {
    fn of(
        context: &LayerContext,
        token: &SessionToken,
        admission: Admission,
        record: Option<&Record>,
    ) -> Self {
        let Some(record) = record else {
            return Self::Missing;
        };
        let now = context.now();
        let lifetimes = context.lifetimes();
        let was_nearly_over = matches!(
            admission,
            Admission::Earlier {
                was_nearly_over: true
            }
        );
        if lifetimes.is_over_for_request(record, was_nearly_over, now) {
            return Self::Expired;
        }
        let fields = record.fields();
        if !fields.secret_hash().matches(&token.secret_hash())
            && let Some(refused) = Self::of_older(fields, token, admission, now)
        {
            return refused;
        }
        if record.user().is_some_and(|user| !context.realm().has(user)) {
            return Self::OtherRealm;
        }
        Self::Live(now)
    }

    /// What a record says of a token that is not its newest. `None` if the token is still good.
    #[cold]
    fn of_older(
        fields: &RecordFields,
        token: &SessionToken,
        admission: Admission,
        now: Timestamp,
    ) -> Option<Self> {
        match admission {
            Admission::Earlier { .. } => {
                let (newest, known) = (fields.secret_hash(), fields.generations());
                if rotation::is_of_this_login(&newest, known, token) {
                    return None;
                }
            }
            Admission::New { arrived_at } => {
                let as_of = arrived_at.unwrap_or(now);
                match rotation::standing(fields, token, as_of) {
                    Standing::Current | Standing::Parent => return None,
                    // It may have been good when the request came.
                    Standing::Reused
                        if arrived_at.is_some() && rotation::was_replaced_since(fields, as_of) => {}
                    Standing::Reused => return Some(Self::Reused),
                    Standing::Dead => {}
                }
            }
        }
        // A time that lies far ahead comes from a wrong clock.
        let within_grace = fields
            .token_rotated_at()
            .is_some_and(|at| now.distance(at) < ROTATION_GRACE);
        Some(Self::Rotated { within_grace })
    }
}

/// Reports what the store said, and checks that a user who acts as another may go on.
async fn conclude(
    context: &LayerContext,
    token: &SessionToken,
    record: Option<Record>,
    verdict: Verdict,
) -> Result<TokenLookup, SessionError> {
    let id = token.id();
    match (verdict, record) {
        (Verdict::Live(now), Some(record)) => {
            if let Some(actor) = record.fields().actor()
                && !Box::pin(keep_acting(context, id, &record, actor)).await?
            {
                return Ok(TokenLookup::Gone);
            }
            events::loaded(id);
            return Ok(TokenLookup::Live(record, now));
        }
        (Verdict::Rotated { within_grace }, record) => {
            context.report_rejected_for(id, record.as_ref(), "the token was rotated");
            return Ok(TokenLookup::Rotated { within_grace });
        }
        (Verdict::Reused, Some(record)) => return Ok(TokenLookup::Reused(record)),
        (Verdict::Expired, Some(record)) => context.report_expired(id, &record),
        (Verdict::OtherRealm, _) => {
            // The user is none of this layer's.
            let reason = "the session belongs to a user of another realm";
            context.report_rejected_for(id, None, reason);
        }
        (Verdict::Missing | Verdict::Live(_) | Verdict::Expired | Verdict::Reused, _) => {
            context.report_rejected_for(id, None, "no such session");
        }
    }
    Ok(TokenLookup::Gone)
}
