//! [`GuardFuture`]: the response future of a guard.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

pin_project! {
    /// The response future of [`GuardService`](super::GuardService).
    ///
    /// When it is dropped before the inner service has the request, nothing has happened.
    #[must_use = "a future does nothing until it is awaited"]
    pub struct GuardFuture<F: Future> {
        #[pin]
        step: Step<F>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<F: Future> {
        /// Somebody looks up the user. Then the inner service works.
        Waiting { work: Pin<Box<dyn Future<Output = F::Output> + Send>> },
        /// The inner service works.
        Handling {
            #[pin]
            handler: F,
        },
        Refusing { answer: Option<F::Output> },
    }
}

impl<F, B, E> GuardFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    pub(super) fn waiting(work: Pin<Box<dyn Future<Output = F::Output> + Send>>) -> Self {
        let step = Step::Waiting { work };
        Self { step }
    }

    pub(super) fn handling(handler: F) -> Self {
        let step = Step::Handling { handler };
        Self { step }
    }

    pub(super) fn refusing(response: Response<B>) -> Self {
        let answer = Some(Ok(response));
        let step = Step::Refusing { answer };
        Self { step }
    }
}

impl<F: Future> Future for GuardFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().step.project() {
            StepProjection::Waiting { work } => work.as_mut().poll(cx),
            StepProjection::Handling { handler } => handler.poll(cx),
            StepProjection::Refusing { answer } => {
                #[expect(clippy::expect_used, reason = "who polls again has made a mistake")]
                let answer = answer
                    .take()
                    .expect("`GuardFuture` polled after completion");
                Poll::Ready(answer)
            }
        }
    }
}

impl<F: Future> fmt::Debug for GuardFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
