//! [`LoneCall`]: a call that runs in the task of its caller, because no other call is there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::lane::Lane;
use super::{BatchCall, BatchError, BatchRunner, Shared};
use crate::error::StoreError;

/// A call that needs no lane, and so no task and no hop between threads.
///
/// While it runs, further calls go to the lanes. If the caller goes away, a task ends the call.
pub(super) struct LoneCall<R: BatchRunner> {
    // There until the call is over.
    work: Option<Work<R>>,
    runtime: Handle,
    /// How long the call may go on in a task.
    limit: Option<Duration>,
}

type Work<R> = Pin<Box<dyn Future<Output = Result<<R as BatchRunner>::Answer, StoreError>> + Send>>;

impl<R: BatchRunner> LoneCall<R> {
    /// A call that [`Queue::begin_lone_call`](super::Queue::begin_lone_call) has let through.
    pub(super) fn new(shared: Arc<Shared<R>>, call: R::Call, runtime: Handle) -> Self {
        let limit = shared.runner.abandoned_timeout();
        let end = End {
            shared,
            call,
            runtime: runtime.clone(),
        };
        let work = async move {
            let calls = std::slice::from_ref(&end.call);
            let answer = end.shared.runner.run(calls).await;
            answer_of_one(answer)
        };
        Self {
            work: Some(Box::pin(work)),
            runtime,
            limit,
        }
    }
}

fn answer_of_one<A>(answer: Result<Vec<Option<A>>, BatchError>) -> Result<A, StoreError> {
    let answers = answer.map_err(|failed| failed.error)?;
    let answer = answers.into_iter().next().flatten();
    answer.ok_or_else(|| StoreError::new("the session store gave no answer to a call"))
}

impl<R: BatchRunner> Future for LoneCall<R> {
    type Output = Result<R::Answer, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let answer = ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(answer)
    }
}

impl<R: BatchRunner> Drop for LoneCall<R> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        match self.limit {
            Some(limit) => drop(self.runtime.spawn(timeout(limit, work))),
            None => drop(self.runtime.spawn(work)),
        }
    }
}

/// Ends a lone call when it is dropped. Calls that waited for it get a lane.
struct End<R: BatchRunner> {
    shared: Arc<Shared<R>>,
    call: R::Call,
    runtime: Handle,
}

impl<R: BatchRunner> Drop for End<R> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.has_lone_call = false;
        queue.running.remove(&self.call.id());
        let begins_lane = !queue.waiting.is_empty() && queue.begin_lane();
        drop(queue);
        if begins_lane {
            self.runtime.spawn(Lane::new(self.shared.clone()).work());
        }
    }
}
