//! [`ResponseFuture`]: a request's way from the store through the handler to the store.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tracing::Instrument as _;

use super::headers::{write_challenge, write_session_headers};
use crate::commit::request::CommitRequest;
use crate::commit::{CommitOutcome, commit};
use crate::context::commit_rule::Outcome;
use crate::error::{SessionError, SessionErrorKind};
use crate::events::{self, DropReason};
use crate::session::lazy::SessionSlot;
use crate::session::{ResponseFlags, SealedSession, Session};

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Makes a future in its box. `Box::pin` would copy the future there, with all the room that it has
/// for what it awaits.
pub(super) fn boxed<F: Future + Send + 'static>(make: impl FnOnce() -> F) -> BoxFuture<F::Output> {
    let made = Box::write(Box::new_uninit(), make());
    Box::into_pin(made)
}

pin_project! {
    /// The response future of [`SessionService`](crate::SessionService).
    ///
    /// If this future is dropped while the handler runs, the layer writes nothing of what the
    /// request did. So a client that goes away keeps its session, even if the handler has logged it
    /// out. If this future is dropped later, the layer writes each step as a whole or not at all.
    /// Few requests have more than one step. These are an end of the session with a new session
    /// after it, for example when another user logs in; a login that ends other sessions because of
    /// a session limit; and a request with the tokens of two live sessions that ends both.
    ///
    /// The layer treats an error of the inner service like a 5xx response: it drops the changes,
    /// and still ends the session if the handler asked for that.
    ///
    /// If a session is nearly over when its request comes, the layer touches the session once the
    /// handler has waited for a second.
    #[must_use = "a future does nothing until it is awaited"]
    pub struct ResponseFuture<F: Future> {
        #[pin]
        step: Step<F>,
        // Of the request that is not answered yet.
        session: SealOnDrop,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<F: Future> {
        /// The store is asked for the session, and then the inner service for its future.
        Loading { load: BoxFuture<Result<(SealOnDrop, F), SessionError>> },
        /// The layer answers by itself.
        Answering {
            answer: BoxFuture<Response<String>>,
            finish: fn(Response<String>) -> F::Output,
        },
        /// The inner service works.
        Handling {
            #[pin]
            handler: F,
            touch: Touch,
        },
        /// The store takes the changes.
        Committing {
            commit: BoxFuture<Committed>,
            // Taken when the changes are written.
            answer: Option<F::Output>,
        },
    }
}

impl<F: Future> ResponseFuture<F> {
    /// For a request whose session another clone of this layer writes.
    pub(super) fn passing(handler: F) -> Self {
        Self {
            step: Step::Handling {
                handler,
                touch: Touch::NotDue,
            },
            session: SealOnDrop(None),
        }
    }

    pub(super) fn handling(session: SealOnDrop, handler: F) -> Self {
        Self {
            step: Step::Handling {
                handler,
                touch: Touch::Undecided,
            },
            session,
        }
    }

    /// For a request that the layer answers by itself.
    #[cfg(feature = "dbsc")]
    pub(super) fn answering(
        answer: BoxFuture<Response<String>>,
        finish: fn(Response<String>) -> F::Output,
    ) -> Self {
        Self {
            step: Step::Answering { answer, finish },
            session: SealOnDrop(None),
        }
    }

    pub(super) fn loading(load: BoxFuture<Result<(SealOnDrop, F), SessionError>>) -> Self {
        Self {
            step: Step::Loading { load },
            session: SealOnDrop(None),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                StepProjection::Loading { load } => match ready!(load.as_mut().poll(cx)) {
                    Err(error) => return Poll::Ready(Ok(error.to_response())),
                    Ok((session, handler)) => {
                        *this.session = session;
                        this.step.set(Step::Handling {
                            handler,
                            touch: Touch::Undecided,
                        });
                    }
                },
                StepProjection::Answering { answer, finish } => {
                    let answer = ready!(answer.as_mut().poll(cx));
                    return Poll::Ready(finish(answer));
                }
                StepProjection::Handling { handler, touch } => {
                    let Poll::Ready(mut answer) = handler.poll(cx) else {
                        if let Some(slot) = &this.session.0 {
                            touch.poll(slot, cx);
                        }
                        return Poll::Pending;
                    };
                    let slot = this.session.0.take();
                    let Some(mut commit) = slot.and_then(|slot| finish(slot, &mut answer)) else {
                        return Poll::Ready(answer);
                    };
                    // A store in this process writes now. Then the answer needs no place to wait
                    // in.
                    if let Poll::Ready(committed) = commit.as_mut().poll(cx) {
                        committed.answer(&mut answer);
                        return Poll::Ready(answer);
                    }
                    let answer = Some(answer);
                    this.step.set(Step::Committing { commit, answer });
                    return Poll::Pending;
                }
                StepProjection::Committing { commit, answer } => {
                    let committed = ready!(commit.as_mut().poll(cx));
                    #[expect(clippy::expect_used, reason = "who polls again has made a mistake")]
                    let mut answer = answer
                        .take()
                        .expect("`ResponseFuture` polled after completion");
                    committed.answer(&mut answer);
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

/// Does what the layer does after a handler, for a test that has no handler.
#[cfg(feature = "testing")]
pub(crate) async fn respond<B: Default, E>(
    session: Session,
    mut answer: Result<Response<B>, E>,
) -> Result<Response<B>, E> {
    if let Some(commit) = finish(SessionSlot::Loaded(session), &mut answer) {
        commit.await.answer(&mut answer);
    }
    answer
}

/// Closes the session to changes. Returns the commit of what the layer must write before it
/// answers. If that is nothing, this writes the headers of the response.
fn finish<B: Default, E>(
    slot: SessionSlot,
    answer: &mut Result<Response<B>, E>,
) -> Option<BoxFuture<Committed>> {
    let session = match slot.close() {
        Ok(session) => session,
        Err(slot) => {
            // Nobody has asked for the session.
            if let Ok(response) = answer {
                write_challenge(slot.context().transport(), false, response);
            }
            return None;
        }
    };
    let SealedSession { flags, request } = session.seal();
    let session = match request {
        None => session,
        Some(request) => {
            // From here on, a panic in the application's rule drops the changes and says so.
            let mut unwritten = Unwritten {
                session,
                request,
                reason: Some(DropReason::Unanswered),
            };
            if unwritten.is_to_write(answer) {
                return Some(write(unwritten, flags));
            }
            unwritten.reason = None;
            unwritten.session.settle();
            unwritten.session.clone()
        }
    };
    if let Ok(response) = answer {
        write_session_headers(&session, flags, response, &CommitOutcome::Kept(None));
    }
    None
}

/// Writes the changes.
fn write(mut unwritten: Unwritten, flags: ResponseFlags) -> BoxFuture<Committed> {
    let work = move || async move {
        let outcome = commit(unwritten.session.context(), &mut unwritten.request).await;
        unwritten.reason = match &outcome {
            Ok(_) => None,
            Err(error) if error.kind() == SessionErrorKind::TokenRotated => {
                Some(DropReason::TokenRotated)
            }
            #[cfg(feature = "dbsc")]
            Err(error) if error.kind() == SessionErrorKind::DeviceUnproven => {
                Some(DropReason::DeviceUnproven)
            }
            Err(_) => Some(DropReason::CommitFailed),
        };
        let session = Unsettled(Some(unwritten.session.clone()));
        Committed {
            session,
            flags,
            outcome,
        }
    };
    match events::commit_span() {
        None => boxed(work),
        Some(span) => boxed(|| work().instrument(span)),
    }
}

/// What a commit must write. If the commit does not write it, this reports why. The commit may have
/// been dropped. Then the call that was under way may still take effect.
struct Unwritten {
    session: Session,
    request: CommitRequest,
    reason: Option<DropReason>,
}

impl Unwritten {
    /// Whether the layer writes anything after this answer of the handler.
    fn is_to_write<B: Default, E>(&mut self, answer: &mut Result<Response<B>, E>) -> bool {
        let outcome = match answer {
            Ok(response) => self.session.context().commit_rule().judge(response),
            Err(_) => Outcome::Failed(DropReason::HandlerFailed),
        };
        match outcome {
            Outcome::Succeeded => true,
            Outcome::Failed(reason) => {
                let id = self.session.record_id();
                self.request.keep_only_the_end(id, reason)
            }
        }
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.request
                .report_dropped(self.session.record_id(), reason);
            self.session.settle();
        }
    }
}

/// What a commit came to.
struct Committed {
    session: Unsettled,
    flags: ResponseFlags,
    outcome: Result<CommitOutcome, SessionError>,
}

/// A session whose changes are stored, or never will be. Whoever waits for that hears of it.
struct Unsettled(Option<Session>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.settle();
        }
    }
}

impl Committed {
    /// Writes the headers of the response. If the commit failed, its error takes the place of the
    /// response.
    fn answer<B: Default, E>(mut self, answer: &mut Result<Response<B>, E>) {
        match self.outcome {
            Ok(outcome) => {
                if let Some(session) = self.session.0.take() {
                    if let Ok(response) = answer {
                        write_session_headers(&session, self.flags, response, &outcome);
                    }
                    session.adopt_committed(outcome.into_session());
                }
            }
            Err(error) => {
                events::refused(&error);
                // The handler's answer is not true if its changes are lost.
                if let Ok(response) = answer {
                    error.replace_response(response);
                    if let Some(session) = &self.session.0 {
                        write_challenge(session.context().transport(), false, response);
                    }
                }
            }
        }
    }
}

/// The session of a request that nobody has answered yet, if this layer writes it.
///
/// If the handler panics or the client goes away, the session is sealed. Somebody may have kept a
/// handle, and a change through it could not be saved any more. Such a change must fail.
pub(super) struct SealOnDrop(Option<SessionSlot>);

impl SealOnDrop {
    pub(super) fn new(slot: SessionSlot) -> Self {
        Self(Some(slot))
    }
}

impl Drop for SealOnDrop {
    fn drop(&mut self) {
        if let Some(Ok(session)) = self.0.take().map(SessionSlot::close)
            && let Some(request) = session.seal().request
        {
            request.report_dropped(session.record_id(), DropReason::Unanswered);
            session.settle();
        }
    }
}

/// The touch of a session that is nearly over, so that a slow handler does not outlive its session.
enum Touch {
    NotDue,
    /// The handler has not waited yet, or the session is not loaded yet.
    Undecided,
    Running(BoxFuture<()>),
}

impl Touch {
    /// Goes on while the handler waits.
    fn poll(&mut self, slot: &SessionSlot, cx: &mut Context<'_>) {
        if let Self::Undecided = self {
            let Ok(session) = slot.get() else { return };
            *self = match session.early_touch() {
                None => Self::NotDue,
                Some(touch) => Self::Running(touch),
            };
        }
        if let Self::Running(touch) = self
            && touch.as_mut().poll(cx).is_ready()
        {
            *self = Self::NotDue;
        }
    }
}

impl<F: Future> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
