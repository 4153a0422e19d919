//! [`SessionSlot`]: what a layer puts into a request. With a lazy layer it has no session at first.

#[cfg(feature = "login")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Extensions;
#[cfg(feature = "login")]
use http::uri::{PathAndQuery, Uri};
use tracing::{Instrument as _, Span};

use super::{ClientFacts, Session};
use crate::binding::presented::PresentedProof;
use crate::commit::lookup::find_presented;
use crate::context::LayerContext;
use crate::error::{SessionError, SessionErrorKind};
use crate::events;
use crate::token::presented::PresentedTokens;

/// The session of a request, or what leads to it. It is in the extensions of the request.
#[derive(Clone)]
pub(crate) enum SessionSlot {
    Loaded(Session),
    Lazy(Arc<LazySession>),
}

/// A session that is loaded when somebody first asks for it.
pub(crate) struct LazySession {
    context: Arc<LayerContext>,
    outer: Option<SessionSlot>,
    client: ClientFacts,
    state: Mutex<LazyState>,
    /// The page that the client asked for, if the layer has users.
    #[cfg(feature = "login")]
    page: OnceLock<PathAndQuery>,
}

enum LazyState {
    Unloaded(PresentedTokens, PresentedProof),
    Loaded(Session),
    /// The response is on its way, or was never made, and nobody has asked for the session.
    Sealed,
}

impl SessionSlot {
    /// The slot of a request whose session nobody has loaded yet.
    pub(crate) fn unloaded(
        context: Arc<LayerContext>,
        outer: Option<Self>,
        client: ClientFacts,
        presented: PresentedTokens,
        proof: PresentedProof,
    ) -> Self {
        Self::Lazy(Arc::new(LazySession {
            context,
            outer,
            client,
            state: Mutex::new(LazyState::Unloaded(presented, proof)),
            #[cfg(feature = "login")]
            page: OnceLock::new(),
        }))
    }

    pub(crate) fn from_extensions(extensions: &Extensions) -> Result<&Self, SessionError> {
        extensions
            .get::<Self>()
            .ok_or_else(|| SessionErrorKind::MissingLayer.into())
    }

    pub(crate) fn context(&self) -> &Arc<LayerContext> {
        match self {
            Self::Loaded(session) => session.context(),
            Self::Lazy(lazy) => &lazy.context,
        }
    }

    /// The slot of the next layer further out.
    fn outer(&self) -> Option<&Self> {
        match self {
            Self::Loaded(session) => session.outer(),
            Self::Lazy(lazy) => lazy.outer.as_ref(),
        }
    }

    /// This slot and those of the layers further out, from the innermost on.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |slot| slot.outer())
    }

    /// Keeps the page that the client asked for, for a guard inside of a nested router: that router
    /// takes the beginning off the URI of its requests.
    #[cfg(feature = "login")]
    pub(crate) fn keep_page(&self, uri: &Uri) {
        if self.context().users().is_some()
            && let Some(page) = uri.path_and_query()
        {
            let kept = match self {
                Self::Loaded(session) => &session.0.page,
                Self::Lazy(lazy) => &lazy.page,
            };
            // A layer keeps it once, before anybody else has the slot.
            let _ = kept.set(page.clone());
        }
    }

    /// The page that the client asked for, as the outermost layer with users saw it.
    #[cfg(feature = "login")]
    pub(crate) fn page(&self) -> Option<&PathAndQuery> {
        let kept = self.chain().filter_map(|slot| match slot {
            Self::Loaded(session) => session.0.page.get(),
            Self::Lazy(lazy) => lazy.page.get(),
        });
        kept.last()
    }

    /// The session, if it is loaded.
    pub(crate) fn get(&self) -> Result<Session, SessionError> {
        match self {
            Self::Loaded(session) => Ok(session.clone()),
            Self::Lazy(lazy) => match &*lazy.state() {
                LazyState::Loaded(session) => Ok(session.clone()),
                LazyState::Unloaded(..) => Err(SessionErrorKind::NotLoaded.into()),
                LazyState::Sealed => Err(SessionErrorKind::Sealed.into()),
            },
        }
    }

    /// The session. It is loaded if it is not yet.
    pub(crate) async fn load(&self) -> Result<Session, SessionError> {
        match self {
            Self::Loaded(session) => Ok(session.clone()),
            // Boxed, because it is seldom needed, and the future of each handler has room for those
            // of its extractors.
            Self::Lazy(lazy) => Box::pin(lazy.load()).await,
        }
    }

    /// The session, if somebody has loaded it. Otherwise the slot, and from now on nobody can load
    /// the session.
    pub(crate) fn close(self) -> Result<Session, Self> {
        let lazy = match self {
            Self::Loaded(session) => return Ok(session),
            Self::Lazy(lazy) => lazy,
        };
        if let Some(session) = lazy.close() {
            return Ok(session);
        }
        Err(Self::Lazy(lazy))
    }
}

impl LazySession {
    fn state(&self) -> MutexGuard<'_, LazyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) -> Option<Session> {
        let mut state = self.state();
        if let LazyState::Loaded(session) = &*state {
            return Some(session.clone());
        }
        *state = LazyState::Sealed;
        None
    }

    async fn load(&self) -> Result<Session, SessionError> {
        let (presented, proof) = match &*self.state() {
            LazyState::Unloaded(presented, proof) => (presented.clone(), proof.clone()),
            LazyState::Loaded(session) => return Ok(session.clone()),
            LazyState::Sealed => return Err(SessionErrorKind::Sealed.into()),
        };
        let span = events::load_span().unwrap_or_else(Span::none);
        let base = find_presented(&self.context, &presented, &proof)
            .instrument(span)
            .await?;
        let mut state = self.state();
        match &*state {
            LazyState::Unloaded(..) => {
                let (context, outer) = (self.context.clone(), self.outer.clone());
                let session = Session::new(context, outer, self.client.clone(), base);
                *state = LazyState::Loaded(session.clone());
                Ok(session)
            }
            // Another task of the request was quicker.
            LazyState::Loaded(session) => Ok(session.clone()),
            LazyState::Sealed => Err(SessionErrorKind::Sealed.into()),
        }
    }
}
