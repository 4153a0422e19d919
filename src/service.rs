//! The way of a request: [`SessionService`], and its response future.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::HeaderValue;
use http::{HeaderName, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;
use tracing::{Instrument as _, Span};

use crate::commit::{Committed, Pending, commit};
use crate::engine::{Engine, Found, Loading};
use crate::error::SessionError;
use crate::report;
use crate::session::{Handler, Sealed, Session, Told};
use crate::token::{Presented, Verified};

/// What the browser is to forget when a user logs out. Not its cookies: the session's own is removed by name, and others are
/// not this crate's.
const CLEAR_SITE_DATA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\", \"storage\""),
);

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
        // A layer of the same name further out has loaded this session, and will write it.
        if let Some(session) = outer
            .as_ref()
            .and_then(|outer| outer.named(self.engine.carrier.name()))
        {
            request.extensions_mut().insert(session);
            return ResponseFuture::passing(self.inner.call(request));
        }

        let engine = self.engine.clone();
        let presented = engine.carrier.presented(request.headers());
        let session = if engine.loading == Loading::Lazy && !presented.is_nothing() {
            Session::unloaded(engine, outer, presented)
        } else if let Some((token, span)) = verify(&engine, &presented) {
            // The service that is ready takes the request, once the session is there; the clone takes the next.
            let clone = self.inner.clone();
            let inner = mem::replace(&mut self.inner, clone);
            let load = load(engine, outer, token, span);
            return ResponseFuture::loading(load, inner, request);
        } else {
            Session::loaded(engine, outer, Found::Nothing)
        };
        request.extensions_mut().insert(session.clone());
        ResponseFuture::handling(session, self.inner.call(request))
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
        },
        /// The store takes the changes.
        Committing {
            commit: BoxFuture<Result<Committed, SessionError>>,
            // Taken when the changes are written.
            answer: Option<(Session, Told, R)>,
        },
    }
}

/// The session, if this layer is the one that writes it.
///
/// It is sealed if the request never gets to its end: its handler panicked, or its client went away. A change through a handle
/// that was kept could not be saved any more, and has to say so.
struct Unanswered(Option<Session>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.seal(Handler::Failed);
        }
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn passing(handler: S::Future) -> Self {
        Self {
            step: Step::Handling { handler },
            session: Unanswered(None),
        }
    }

    fn handling(session: Session, handler: S::Future) -> Self {
        Self {
            step: Step::Handling { handler },
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
                        });
                    }
                },
                StepProjection::Handling { handler } => {
                    let mut answer = ready!(handler.poll(cx));
                    let Some(session) = this.session.0.take() else {
                        return Poll::Ready(answer);
                    };
                    let handler = match &answer {
                        Ok(response) if !response.status().is_server_error() => Handler::Succeeded,
                        Ok(_) | Err(_) => Handler::Failed,
                    };
                    match session.seal(handler) {
                        Sealed::Clean(told) => {
                            if let Ok(response) = &mut answer {
                                tell(&session, told, response, &Committed::Kept(None));
                            }
                            return Poll::Ready(answer);
                        }
                        Sealed::Dirty(told, pending) => this.step.set(Step::Committing {
                            commit: write(session.clone(), pending),
                            answer: Some((session, told, answer)),
                        }),
                    }
                }
                StepProjection::Committing { commit, answer } => {
                    let committed = ready!(commit.as_mut().poll(cx));
                    let Some((session, told, mut answer)) = answer.take() else {
                        return Poll::Pending;
                    };
                    match committed {
                        Ok(committed) => {
                            if let Ok(response) = &mut answer {
                                tell(&session, told, response, &committed);
                            }
                            session.settle(committed.into_base());
                        }
                        Err(error) => {
                            report::refused(&error);
                            // What the handler answered is not true if its changes are lost.
                            if let Ok(response) = &mut answer {
                                *response = error.to_response();
                            }
                        }
                    }
                    return Poll::Ready(answer);
                }
            }
        }
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

/// The good token that a request presents, and the span in which its session is loaded.
fn verify(engine: &Engine, presented: &Presented) -> Option<(Verified, Span)> {
    if presented.is_nothing() {
        return None;
    }
    let span = report::load_span();
    let token = span.in_scope(|| engine.verify(presented))?;
    Some((token, span))
}

fn load(
    engine: Arc<Engine>,
    outer: Option<Session>,
    token: Verified,
    span: Span,
) -> BoxFuture<Result<Session, SessionError>> {
    within(span, async move {
        let found = engine.find(token).await?;
        Ok(Session::loaded(engine, outer, found))
    })
}

fn write(session: Session, mut pending: Pending) -> BoxFuture<Result<Committed, SessionError>> {
    within(report::commit_span(), async move {
        commit(session.engine(), &mut pending).await
    })
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
    let headers = response.headers_mut();
    let carrier = &session.engine().carrier;
    match committed {
        Committed::Kept(_) if told.varies => carrier.vary(headers),
        Committed::Kept(_) => {}
        Committed::Issued { token, max_age, .. } => carrier.issue(headers, token, *max_age),
        Committed::Withdrawn => carrier.withdraw(headers),
    }
    if told.clears_site_data {
        let (name, value) = CLEAR_SITE_DATA;
        headers.insert(name, value);
    }
}
