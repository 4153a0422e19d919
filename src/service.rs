//! The way of a request: [`SessionService`], and its response future.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_service::Service;
use tracing::{Instrument as _, Span};

use crate::commit::{Committed, Pending, commit};
use crate::engine::{Engine, Found, Loading};
use crate::error::{ErrorKind, SessionError, SessionHeaders};
use crate::outcome::{DropReason, Outcome};
use crate::report;
use crate::session::{ClientFacts, EarlyTouch, Sealed, Session, Told};
use crate::token::{GoodTokens, Presented};
use crate::transport::Carrier;

/// The service that [`SessionLayer`](crate::SessionLayer) puts around another.
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    engine: Arc<Engine>,
}

impl<S> SessionService<S> {
    pub(crate) fn new(inner: S, engine: Arc<Engine>) -> Self {
        Self { inner, engine }
    }
}

impl<S: fmt::Debug> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for SessionService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone,
    ResponseBody: Default,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S, RequestBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let outer = request.extensions().get::<Session>().cloned();
        if let Some(outer) = &outer {
            // A clone of this layer further out has loaded the session, and will write it.
            if let Some(session) = outer.chain().find(|session| self.is_layer_of(session)) {
                let session = session.clone();
                request.extensions_mut().insert(session);
                return ResponseFuture::passing(self.inner.call(request));
            }
            self.warn_of_rival(outer);
        }

        let engine = self.engine.clone();
        let presented = engine.carrier.presented(request.headers());
        let client = ClientFacts {
            presents_token: presented.is_anything(),
            // A browser that drops the cookie presents none.
            is_on_plain_http: !presented.is_anything()
                && !engine.warned.insecure_origin.is_done()
                && engine.carrier.is_dropped_at(request.headers()),
        };
        let session = if engine.loading == Loading::Lazy && presented.has_candidates() {
            Session::unloaded(engine, outer, client, presented)
        } else if let Some((tokens, span)) = verify(&engine, &presented) {
            // The service that is ready takes the request, once the session is there; the clone takes the next.
            let clone = self.inner.clone();
            let inner = mem::replace(&mut self.inner, clone);
            let load = load(engine, outer, client, tokens, span);
            return ResponseFuture::loading(load, inner, request);
        } else {
            Session::loaded(engine, outer, client, Found::Nothing)
        };
        request.extensions_mut().insert(session.clone());
        ResponseFuture::handling(session, self.inner.call(request))
    }
}

impl<S> SessionService<S> {
    fn is_layer_of(&self, session: &Session) -> bool {
        Arc::ptr_eq(session.engine(), &self.engine)
    }

    fn warn_of_rival(&self, outer: &Session) {
        let carrier = &self.engine.carrier;
        if outer
            .chain()
            .any(|outer| outer.engine().carrier.rivals(carrier))
        {
            let warned = &self.engine.warned.rival_layer;
            warned.call(|| report::rival_layer(carrier.name()));
        }
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The response future of [`SessionService`].
    ///
    /// When it is dropped while the handler runs, nothing of what the request did is written: a client that leaves then keeps
    /// its session, even where the handler has logged it out. When it is dropped later, each step is written whole or not at
    /// all; only an end with a new session after it, as when another user logs in, has two steps.
    ///
    /// An error of the inner service is handled as a 5xx response is: nothing is written but an end that was asked for.
    ///
    /// Where a session is nearly over when its request comes, it is touched once the handler has waited for
    /// a second.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        step: Step<S, B, S::Future, Result<S::Response, S::Error>>,
        // Of the request that is not answered yet.
        session: Unanswered,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<S, B, F, R> {
        /// The store is asked for the session.
        Loading {
            load: BoxFuture<Result<Session, SessionError>>,
            // Taken when the session is there.
            call: Option<(S, Request<B>)>,
        },
        /// The inner service works.
        Handling {
            #[pin]
            handler: F,
            // What is done beside, so that a slow handler does not outlive its session.
            touch: Touch,
        },
        /// The store takes the changes.
        Committing {
            commit: BoxFuture<Result<Committed, SessionError>>,
            // Taken when the changes are written.
            answer: Option<(Unsettled, Told, R)>,
        },
    }
}

/// The touch of a session that is nearly over.
enum Touch {
    NotDue,
    /// To be asked for when the handler waits.
    Open,
    Running(BoxFuture<()>),
}

impl Touch {
    /// Goes on while the handler waits.
    fn poll(&mut self, session: &Session, cx: &mut Context<'_>) {
        if let Self::Open = self {
            *self = match session.early_touch() {
                EarlyTouch::Undecided => return,
                EarlyTouch::NotDue => Self::NotDue,
                EarlyTouch::Due(touch) => Self::Running(touch),
            };
        }
        if let Self::Running(touch) = self
            && touch.as_mut().poll(cx).is_ready()
        {
            *self = Self::NotDue;
        }
    }
}

/// The session, if this layer is the one that writes it.
///
/// It is sealed if the request never gets to its end: its handler panicked, or its client went away. A change through a handle
/// that was kept could not be saved any more, and has to say so.
struct Unanswered(Option<Session>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(session) = &self.0
            && let Sealed::Dirty(_, pending) = session.seal()
        {
            pending.report_dropped(session.record_id(), DropReason::Unanswered);
            session.settle();
        }
    }
}

/// A session whose changes are on the way to the store. What waits for them hears when they are there, or
/// will never be.
struct Unsettled(Option<Session>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.settle();
        }
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn passing(handler: S::Future) -> Self {
        Self {
            step: Step::Handling {
                handler,
                touch: Touch::NotDue,
            },
            session: Unanswered(None),
        }
    }

    fn handling(session: Session, handler: S::Future) -> Self {
        Self {
            step: Step::Handling {
                handler,
                touch: Touch::Open,
            },
            session: Unanswered(Some(session)),
        }
    }

    fn loading(
        load: BoxFuture<Result<Session, SessionError>>,
        inner: S,
        request: Request<B>,
    ) -> Self {
        Self {
            step: Step::Loading {
                load,
                call: Some((inner, request)),
            },
            session: Unanswered(None),
        }
    }
}

impl<S, RequestBody, ResponseBody> Future for ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    ResponseBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProjection::Loading { load, call } => match ready!(load.as_mut().poll(cx)) {
                    Err(error) => return Poll::Ready(Ok(error.to_response())),
                    Ok(session) => {
                        let Some((mut inner, mut request)) = call.take() else {
                            return Poll::Pending;
                        };
                        request.extensions_mut().insert(session.clone());
                        this.session.0 = Some(session);
                        this.step.set(Step::Handling {
                            handler: inner.call(request),
                            touch: Touch::Open,
                        });
                    }
                },
                StepProjection::Handling { handler, touch } => {
                    let Poll::Ready(mut answer) = handler.poll(cx) else {
                        if let Some(session) = &this.session.0 {
                            touch.poll(session, cx);
                        }
                        return Poll::Pending;
                    };
                    let Some(session) = &this.session.0 else {
                        return Poll::Ready(answer);
                    };
                    let mut sealed = session.seal();
                    if let Sealed::Dirty(told, pending) = &mut sealed
                        && !is_to_write(session, pending, &mut answer)
                    {
                        session.settle();
                        sealed = Sealed::Clean(*told);
                    }
                    let Some(session) = this.session.0.take() else {
                        return Poll::Ready(answer);
                    };
                    match sealed {
                        Sealed::Clean(told) => {
                            if let Ok(response) = &mut answer {
                                tell(&session, told, response, &Committed::Kept(None));
                            }
                            return Poll::Ready(answer);
                        }
                        Sealed::Dirty(told, pending) => this.step.set(Step::Committing {
                            commit: write(session.clone(), pending),
                            answer: Some((Unsettled(Some(session)), told, answer)),
                        }),
                    }
                }
                StepProjection::Committing { commit, answer } => {
                    let committed = ready!(commit.as_mut().poll(cx));
                    let Some((mut unsettled, told, mut answer)) = answer.take() else {
                        return Poll::Pending;
                    };
                    match committed {
                        Ok(committed) => {
                            if let Some(session) = unsettled.0.take() {
                                if let Ok(response) = &mut answer {
                                    tell(&session, told, response, &committed);
                                }
                                session.adopt(committed.into_base());
                            }
                        }
                        Err(error) => {
                            report::refused(&error);
                            // What the handler answered is not true if its changes are lost.
                            if let Ok(response) = &mut answer {
                                error.replace_response(response);
                            }
                        }
                    }
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

/// Whether anything is to be written after this answer of the handler.
fn is_to_write<B: Default, E>(
    session: &Session,
    pending: &mut Pending,
    answer: &mut Result<Response<B>, E>,
) -> bool {
    let outcome = match answer {
        Ok(response) => session.engine().commit_rule.judge(response),
        Err(_) => Outcome::Failed(DropReason::HandlerFailed),
    };
    match outcome {
        Outcome::Succeeded => true,
        Outcome::Failed(reason) => pending.keep_the_end_alone(session.record_id(), reason),
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// The good tokens that a request presents, and the span in which its session is loaded.
fn verify(engine: &Engine, presented: &Presented) -> Option<(GoodTokens, Span)> {
    if !presented.has_candidates() {
        return None;
    }
    let span = report::load_span();
    let tokens = span.in_scope(|| engine.verify(presented))?;
    Some((tokens, span))
}

fn load(
    engine: Arc<Engine>,
    outer: Option<Session>,
    client: ClientFacts,
    tokens: GoodTokens,
    span: Span,
) -> BoxFuture<Result<Session, SessionError>> {
    within(span, async move {
        let found = engine.find(tokens).await?;
        Ok(Session::loaded(engine, outer, client, found))
    })
}

fn write(session: Session, pending: Pending) -> BoxFuture<Result<Committed, SessionError>> {
    let mut unwritten = Unwritten {
        session,
        pending,
        reason: Some(DropReason::Unanswered),
    };
    within(report::commit_span(), async move {
        let committed = commit(unwritten.session.engine(), &mut unwritten.pending).await;
        unwritten.end(&committed);
        committed
    })
}

/// What a commit is to write. It reports why that is not written, also where the commit is dropped: then
/// the call that is under way may take effect all the same.
struct Unwritten {
    session: Session,
    pending: Pending,
    reason: Option<DropReason>,
}

impl Unwritten {
    fn end(&mut self, committed: &Result<Committed, SessionError>) {
        self.reason = match committed {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::Superseded => Some(DropReason::TokenReplaced),
            Err(_) => Some(DropReason::CommitFailed),
        };
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            let id = self.session.record_id();
            self.pending.report_dropped(id, reason);
        }
    }
}

fn within<T>(span: Span, work: impl Future<Output = T> + Send + 'static) -> BoxFuture<T> {
    if span.is_disabled() {
        Box::pin(work)
    } else {
        Box::pin(work.instrument(span))
    }
}

/// Tells the client and caches what they have to know of the session.
fn tell<B>(session: &Session, told: Told, response: &mut Response<B>, committed: &Committed) {
    let carrier = &session.engine().carrier;
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(kind) = response.extensions().get::<ErrorKind>().copied()
    {
        carrier.challenge(kind, session.has_dead_token(), response.headers_mut());
    }
    let headers = response.headers_mut();
    match committed {
        Committed::Kept(_) if told.varies => carrier.vary(headers),
        Committed::Kept(_) => {}
        Committed::Issued { token, max_age, .. } => {
            if session.client().is_on_plain_http {
                let warned = &session.engine().warned.insecure_origin;
                warned.call(|| report::insecure_origin(carrier.name()));
            }
            carrier.issue(headers, token, *max_age);
        }
        Committed::Withdrawn => carrier.withdraw(headers),
    }
    if told.clears_site_data {
        Carrier::clear_site_data(headers);
    }
    // A layer further out may have to put an error in this response's place.
    let is_told = told.clears_site_data || !matches!(committed, Committed::Kept(_));
    if is_told && session.has_outer() {
        let mut own = carrier.session_headers(headers, told.clears_site_data);
        let extensions = response.extensions_mut();
        if let Some(inner) = extensions.remove::<SessionHeaders>() {
            own.0.extend(inner.0);
        }
        extensions.insert(own);
    }
}
