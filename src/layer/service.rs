//! [`SessionService`]: where a request comes in.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
#[cfg(feature = "dbsc")]
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use tokio::runtime::Handle;
use tower_service::Service;
use tracing::{Instrument as _, Span};

use super::answer::{AnswerBody, NoDevices};
#[cfg(feature = "dbsc")]
use super::future::BoxFuture;
use super::future::{ResponseFuture, SealOnDrop, boxed};
#[cfg(feature = "dbsc")]
use crate::binding::device::devices::Endpoint;
use crate::binding::presented::PresentedProof;
use crate::commit::lookup::{InitialState, find};
use crate::context::LayerContext;
use crate::context::keys::ContextSource;
use crate::events;
use crate::session::lazy::SessionSlot;
use crate::session::{ClientFacts, Session};
use crate::token::VerifiedTokens;
use crate::token::presented::PresentedTokens;

/// The service that [`SessionLayer`](crate::SessionLayer) puts around another.
///
/// The inner service and the body of the request must be `Send + 'static`, as in Axum: they wait in
/// a box while the store loads the session.
pub struct SessionService<S, D = NoDevices> {
    inner: S,
    contexts: ContextSource,
    kind: PhantomData<fn() -> D>,
}

impl<S, D> SessionService<S, D> {
    pub(super) fn new(inner: S, contexts: ContextSource) -> Self {
        Self {
            inner,
            contexts,
            kind: PhantomData,
        }
    }

    /// The inner service.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without this one around it.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, D> Clone for SessionService<S, D> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.contexts.clone())
    }
}

impl<S: fmt::Debug, D> fmt::Debug for SessionService<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, D, RequestBody, ResponseBody> Service<Request<RequestBody>> for SessionService<S, D>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    RequestBody: Send + 'static,
    ResponseBody: Default,
    D: AnswerBody<ResponseBody>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let outer = request.extensions().get::<SessionSlot>().cloned();
        // If keys change, this request keeps what it has here to its end.
        let context = self.contexts.now();
        if let Some(outer) = &outer {
            // A clone of this layer further out has loaded the session, and will write it.
            let is_own = |slot: &&SessionSlot| slot.context().is_same_layer(&context);
            if let Some(own) = outer.chain().find(is_own) {
                let own = own.clone();
                request.extensions_mut().insert(own);
                return ResponseFuture::passing(self.inner.call(request));
            }
            warn_of_rival(&context, outer);
        }
        #[cfg(feature = "dbsc")]
        if let Some(devices) = context.devices()
            && let Some(endpoint) = devices.endpoint(request.uri().path())
        {
            let answer = answer_device(context.into_owned(), endpoint, request);
            return ResponseFuture::answering(answer, |answer| Ok(answer.map(D::body)));
        }
        let context = context.into_owned();
        let presented = context.transport().presented(request.headers());
        let mut proof = match presented.has_candidates() {
            true => context.presented_proof(request.headers()),
            false => PresentedProof::default(),
        };
        proof.client = context.describe(request.headers(), request.extensions());
        let client = client_facts(&context, &request, &presented, &proof);
        let slot = if context.is_lazy() && presented.has_candidates() {
            // The token counts as of now, whenever the handler asks for the session.
            proof.arrived_at = context.rotates().then(|| context.now());
            SessionSlot::unloaded(context, outer, client, presented, proof)
        } else if let Some((tokens, span)) = verify(&context, &presented) {
            let own = context.clone();
            let find = || async move { find(&own, &tokens, &proof).await };
            let mut load = match span {
                None => boxed(find),
                // The span ends before the handler begins.
                Some(span) => boxed(|| find().instrument(span)),
            };
            // A store in this process answers now. Then neither the request nor the service needs a
            // place to wait in. Another store may need the runtime, and answers later.
            let answer = match Handle::try_current() {
                Ok(_) => load.as_mut().poll(&mut Context::from_waker(Waker::noop())),
                Err(_) => Poll::Pending,
            };
            match answer {
                Poll::Ready(Ok(base)) => {
                    SessionSlot::Loaded(Session::new(context, outer, client, base))
                }
                Poll::Ready(Err(error)) => {
                    return ResponseFuture::loading(Box::pin(async move { Err(error) }));
                }
                Poll::Pending => {
                    // The service that is ready takes the request once the session is there. Its
                    // clone takes the next.
                    let not_ready = self.inner.clone();
                    let mut inner = mem::replace(&mut self.inner, not_ready);
                    return ResponseFuture::loading(Box::pin(async move {
                        let session = Session::new(context, outer, client, load.await?);
                        let session = put_into(&mut request, SessionSlot::Loaded(session));
                        Ok((session, inner.call(request)))
                    }));
                }
            }
        } else {
            let session = Session::new(context, outer, client, InitialState::Visitor);
            SessionSlot::Loaded(session)
        };
        let session = put_into(&mut request, slot);
        ResponseFuture::handling(session, self.inner.call(request))
    }
}

/// Answers a request to a path of the device binding. It stays out of the way of all others.
#[cfg(feature = "dbsc")]
#[cold]
#[inline(never)]
fn answer_device<B>(
    context: Arc<LayerContext>,
    endpoint: Endpoint,
    request: Request<B>,
) -> BoxFuture<Response<String>> {
    let (parts, _) = request.into_parts();
    Box::pin(super::devices::answer(context, endpoint, parts))
}

/// Puts a session into its request. The inner service may panic already when it is called.
#[inline]
fn put_into<B>(request: &mut Request<B>, slot: SessionSlot) -> SealOnDrop {
    #[cfg(feature = "login")]
    slot.keep_page(request.uri());
    request.extensions_mut().insert(slot.clone());
    SealOnDrop::new(slot)
}

#[inline]
fn client_facts<B>(
    context: &LayerContext,
    request: &Request<B>,
    presented: &PresentedTokens,
    proof: &PresentedProof,
) -> ClientFacts {
    let presents_token = presented.is_anything();
    ClientFacts {
        presents_token,
        // A browser that drops the cookie presents none.
        is_on_plain_http: !presents_token
            && !context.warnings().insecure_origin.is_done()
            && context.transport().is_dropped_at(request.headers()),
        transport: context.transport().client(request.headers(), presented),
        chance: context.rotation_chance(request.headers()),
        described: proof.client.clone(),
        #[cfg(feature = "dbsc")]
        presents_bound_cookie: proof.has_cookie(),
    }
}

/// The good tokens that a request presents, and the span in which the layer loads its session.
#[inline]
fn verify(
    context: &LayerContext,
    presented: &PresentedTokens,
) -> Option<(VerifiedTokens, Option<Span>)> {
    if !presented.has_candidates() {
        return None;
    }
    let span = events::load_span();
    let verify = || context.verify(presented);
    let tokens = match &span {
        None => verify()?,
        Some(span) => span.in_scope(verify)?,
    };
    Some((tokens, span))
}

fn warn_of_rival(context: &LayerContext, outer: &SessionSlot) {
    let transport = context.transport();
    let mut outers = outer.chain();
    if outers.any(|outer| outer.context().transport().rivals(transport)) {
        let warning = &context.warnings().rival_layer;
        warning.call(|| events::rival_layer(transport.name()));
    }
}
