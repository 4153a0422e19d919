//! [`Session`]: what a handler holds.

mod acting;
#[cfg(feature = "jwt")]
mod assertion;
mod client_facts;
pub(crate) mod detached;
#[cfg(feature = "dbsc")]
mod device;
mod ended;
pub(crate) mod key;
pub(crate) mod lazy;
mod lifetime;
mod login;
mod state;
#[cfg(feature = "login")]
pub(crate) mod user_cell;
mod values;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
#[cfg(feature = "login")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Extensions;
#[cfg(feature = "login")]
use http::uri::PathAndQuery;
use tokio::time::{sleep, timeout};

pub(crate) use self::client_facts::ClientFacts;
use self::lazy::SessionSlot;
pub(crate) use self::state::ResponseFlags;
use self::state::State;
#[cfg(feature = "login")]
use self::user_cell::UserCell;
use crate::binding::rotation::Chance;
use crate::commit::lookup::{InitialState, LoadedSession};
use crate::commit::request::{Activity, CommitRequest};
use crate::commit::touch_early;
use crate::context::LayerContext;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;
use crate::token::transport::ClientTransport;

/// The session of a request.
///
/// It is an extractor, and a handle: clones are the same session. It is loaded, so that
/// [`id`](Self::id), [`user`](Self::user) and the like cannot fail. Reads see the changes of this
/// request at once. The layer writes the changes to the store after the handler, before it sends
/// the head of the response.
///
/// If the handler fails, the layer drops the changes. If the handler asked for the end of the
/// session, the session still ends. A handler fails with a status of 5xx or 408, or with a gRPC
/// error. [`commit_when`](crate::SessionLayerBuilder::commit_when) sets another rule.
///
/// A visitor has an empty session. No store keeps it until something is put into it.
///
/// ```
/// use cloakroom::{Session, SessionError};
///
/// async fn home(session: Session) -> Result<String, SessionError> {
///     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
///     let theme = session.get::<String>("theme")?.unwrap_or_else(|| "light".into());
///     Ok(format!("visit {visits}, {theme}"))
/// }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    context: Arc<LayerContext>,
    /// The session of the next layer further out.
    outer: Option<SessionSlot>,
    client: ClientFacts,
    state: Mutex<State>,
    /// The page that the client asked for, if the layer has users.
    #[cfg(feature = "login")]
    page: OnceLock<PathAndQuery>,
    /// The look-up of the user.
    #[cfg(feature = "login")]
    user: UserCell,
}

/// What a handler leaves behind: for the response, and for the store. Most requests have nothing to
/// write.
pub(crate) struct SealedSession {
    pub(crate) flags: ResponseFlags,
    pub(crate) request: Option<CommitRequest>,
}

/// # Where a session comes from
impl Session {
    /// The session of a request that starts from `base`.
    pub(crate) fn new(
        context: Arc<LayerContext>,
        outer: Option<SessionSlot>,
        client: ClientFacts,
        base: InitialState,
    ) -> Self {
        Self(Arc::new(Inner {
            context,
            outer,
            client,
            state: Mutex::new(State::starting_from(base)),
            #[cfg(feature = "login")]
            page: OnceLock::new(),
            #[cfg(feature = "login")]
            user: UserCell::default(),
        }))
    }

    /// The session of a request, if it is loaded. A handler of Axum takes the session as an
    /// extractor. This method is for other services.
    ///
    /// If several layers are around the handler, this gives the session of the innermost layer.
    /// [`of_layer`](Self::of_layer) gives the others.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::MissingLayer`] if the request did not pass a
    /// [`SessionLayer`](crate::SessionLayer). [`SessionErrorKind::NotLoaded`] if the layer is lazy
    /// and nobody has loaded the session yet: use [`load_from`](Self::load_from).
    /// [`SessionErrorKind::Sealed`] after the response, if nobody has loaded the session before.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// fn service(request: http::Request<String>) -> Result<http::Response<String>, SessionError> {
    ///     let session = Session::from_extensions(request.extensions())?;
    ///     let name = session.get::<String>("name")?;
    ///     Ok(http::Response::new(name.unwrap_or_default()))
    /// }
    /// ```
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, SessionError> {
        SessionSlot::from_extensions(extensions)?.get()
    }

    /// The session of a request. If the layer is lazy and nobody has loaded the session yet, this
    /// loads it.
    ///
    /// When the future is dropped, the session is still not loaded, and a later call can load it.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::MissingLayer`] if the request did not pass a
    /// [`SessionLayer`](crate::SessionLayer). [`SessionErrorKind::Store`] if the store fails.
    /// [`SessionErrorKind::Sealed`] after the response, if nobody has loaded the session before.
    ///
    /// ```
    /// use cloakroom::{Session, SessionError};
    ///
    /// async fn greeting(request: &http::Request<String>) -> Result<String, SessionError> {
    ///     let session = Session::load_from(request.extensions()).await?;
    ///     Ok(match session.user() {
    ///         Some(user) => format!("Hello, {user}."),
    ///         None => "Please log in.".to_owned(),
    ///     })
    /// }
    /// ```
    pub async fn load_from(extensions: &Extensions) -> Result<Self, SessionError> {
        SessionSlot::from_extensions(extensions)?.load().await
    }

    /// The session of another layer around the handler: the layer with this cookie name. If two
    /// layers have the same name, this gives the session of the inner one. If that layer is lazy
    /// and nobody has loaded its session yet, this loads it.
    ///
    /// When the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::MissingLayer`] if the request passed no layer of this name. Others as
    /// [`load_from`](Self::load_from).
    ///
    /// ```
    /// # use cloakroom::{Session, SessionError};
    /// # async fn show(session: &Session) -> Result<(), SessionError> {
    /// let operator = session.of_layer("__Host-admin").await?.user();
    /// # Ok(()) }
    /// ```
    pub async fn of_layer(&self, cookie_name: &str) -> Result<Self, SessionError> {
        self.find_in_chain(|context| context.transport().name() == cookie_name)
            .ok_or(SessionErrorKind::MissingLayer)?
            .load()
            .await
    }

    /// Looks through this session and those of the layers further out, from the innermost on, and
    /// takes the first whose layer is the right one.
    pub(crate) fn find_in_chain(
        &self,
        is_right: impl Fn(&LayerContext) -> bool,
    ) -> Option<SessionSlot> {
        if is_right(self.context()) {
            return Some(SessionSlot::Loaded(self.clone()));
        }
        let mut outer = self.0.outer.iter().flat_map(SessionSlot::chain);
        outer.find(|slot| is_right(slot.context())).cloned()
    }

    pub(crate) fn context(&self) -> &Arc<LayerContext> {
        &self.0.context
    }

    pub(crate) fn client(&self) -> &ClientFacts {
        &self.0.client
    }

    /// Whether another session layer is around this session's layer.
    pub(crate) fn is_inside_another_layer(&self) -> bool {
        self.0.outer.is_some()
    }

    fn outer(&self) -> Option<&SessionSlot> {
        self.0.outer.as_ref()
    }

    /// No closure, key or value of the application runs while this lock is held. So the state of a
    /// poisoned lock is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for a read.
    fn read(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.mark_looked_at();
        state
    }

    /// The state for a change.
    fn write(&self) -> Result<MutexGuard<'_, State>, SessionError> {
        let state = self.read();
        if state.is_sealed() {
            return Err(SessionErrorKind::Sealed.into());
        }
        Ok(state)
    }
}

/// What the layer does with it.
impl Session {
    /// Fails if the session can no longer change.
    pub(crate) fn check_open(&self) -> Result<(), SessionError> {
        self.write().map(drop)
    }

    /// Whether the client holds a token that leads to no session. If the layer has both transports,
    /// only a bearer token counts.
    pub(crate) fn has_dead_token(&self) -> bool {
        let client = &self.0.client;
        client.presents_token
            && !client.transport.sends_only_cookie()
            && self.state().session().is_none()
    }

    /// How the client gets the token that this request's commit has made, if the layer has both
    /// transports.
    pub(crate) fn client_transport(&self) -> ClientTransport {
        let client = self.0.client.transport;
        match self.state().may_change_transport() {
            true => client,
            false => client.without_choice(),
        }
    }

    /// The session that the request came with.
    pub(crate) fn record_id(&self) -> Option<RecordId> {
        self.state().record_id()
    }

    /// Closes the session to changes, and hands over what there is to write and to say.
    pub(crate) fn seal(&self) -> SealedSession {
        let context = &self.0.context;
        let mut state = self.state();
        let flags = state.response_flags(context.clears_site_data());
        let was_open = state.seal();
        let client = &self.0.client;
        if was_open && let Some(mut request) = state.take_request(|| context.answers_from_cache()) {
            request.answers(client.chance, client.described.as_ref());
            let request = Some(request);
            return SealedSession { flags, request };
        }
        // Nobody waits for a session that is stored already.
        state.settle();
        let may_touch = state.activity() == Activity::Active;
        let may_write = was_open && (may_touch || client.chance != Chance::Never);
        let base = state.session().filter(|_| may_write);
        let base = base.map(|base| (base.record.clone(), base.token));
        // The clock may be code of the application. So no lock is held while it runs. The session
        // asks the clock now, and not at the load, so that slow requests keep a session alive.
        drop(state);
        let is_due = base.is_some_and(|(record, token)| {
            let now = context.now();
            let fields = record.fields();
            may_touch && context.lifetimes().renewal(fields, now).is_some()
                || context
                    .rotation_step(fields, &token, client.chance, now)
                    .is_some()
        });
        if !is_due {
            let request = None;
            return SealedSession { flags, request };
        }
        let mut request = self.state().touch_request();
        request.answers(client.chance, client.described.as_ref());
        let request = Some(request);
        SealedSession { flags, request }
    }

    /// Goes on from what a commit has written.
    pub(crate) fn adopt_committed(&self, session: Option<LoadedSession>) {
        self.state().adopt_committed(session);
    }

    /// The layer has finished.
    pub(crate) fn settle(&self) {
        self.state().settle();
    }

    /// What the request's session became, once the layer has finished.
    async fn settled(&self) -> Option<LoadedSession> {
        let waiting = {
            let mut state = self.state();
            if state.is_settled() || state.session().is_some() {
                return state.session().cloned();
            }
            state.waiting().notified_owned()
        };
        // A handler that waits for its own response would wait without end.
        let _ = timeout(self.0.context.commit_timeout(), waiting).await;
        self.state().session().cloned()
    }

    /// A touch while the handler runs, if the session is nearly over.
    pub(crate) fn early_touch(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let state = self.state();
        if state.is_sealed() || state.activity() == Activity::Passive {
            return None;
        }
        let base = state.session().filter(|base| base.was_nearly_over)?.clone();
        let session = self.clone();
        Some(Box::pin(async move { session.touch_early(base).await }))
    }

    async fn touch_early(&self, mut base: LoadedSession) {
        // A handler that asks for no touch does so at its start. But the start may wait for a body
        // or a database.
        let left = base.record.expires_at().since(self.0.context.now());
        sleep(EARLY_TOUCH_AFTER.min(left / 4)).await;
        if self.state().activity() == Activity::Passive {
            return;
        }
        touch_early(&self.0.context, &mut base).await;
        self.state().adopt_touched(base);
    }
}

/// How long a handler has waited when the layer touches its session.
const EARLY_TOUCH_AFTER: Duration = Duration::from_secs(1);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Session")
            .field("cookie", &self.0.context.transport().name())
            .field("is_sealed", &state.is_sealed())
            .field("base", state.base())
            .field("changes", state.changes())
            .finish_non_exhaustive()
    }
}
