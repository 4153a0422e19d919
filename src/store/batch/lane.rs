//! [`Lane`]: takes batches from the queue, and runs them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Batch, BatchCall, BatchError, BatchRunner, Outcome, Seat, Shared, Waiting};
use crate::error::StoreError;
use crate::id::RecordId;

/// A batch is slow if it takes longer. Then it does not hold up the calls that wait.
pub(super) const SLOW: Duration = Duration::from_millis(250);

/// Takes batches until no call waits.
pub(super) struct Lane<R: BatchRunner> {
    shared: Arc<Shared<R>>,
    /// The records of the batch that runs now.
    running: Vec<RecordId>,
    is_slow: bool,
    has_ended: bool,
}

impl<R: BatchRunner> Lane<R> {
    /// A lane that [`Queue::begin_lane`] has counted.
    pub(super) fn new(shared: Arc<Shared<R>>) -> Self {
        Self {
            shared,
            running: Vec::new(),
            is_slow: false,
            has_ended: false,
        }
    }

    pub(super) async fn work(mut self) {
        let shared = self.shared.clone();
        let mut left = Vec::new();
        while let Some(batch) = self.next(left) {
            let mut run = pin!(shared.run(batch));
            left = match timeout(SLOW, run.as_mut()).await {
                Ok(left) => left,
                Err(_) => {
                    self.become_slow();
                    run.await
                }
            };
        }
    }

    /// The next batch. If there is none, this is the end of the lane. `left` are the calls of the
    /// last batch that must run alone.
    fn next(&mut self, left: Vec<(u64, Waiting<R>)>) -> Option<Batch<R>> {
        let mut queue = self.shared.queue();
        // These are first in their order again, before later calls of their records can run.
        queue.waiting.extend(left);
        for id in self.running.drain(..) {
            queue.running.remove(&id);
        }
        queue.end_lane(std::mem::take(&mut self.is_slow));
        let goes_on = queue.begin_lane();
        let batch = match goes_on {
            true => queue.take(&self.shared.runner),
            // Another lane has the place of this one, which was slow.
            false => None,
        };
        match &batch {
            Some(batch) if !R::Call::IS_READ => self.running.extend(batch.ids()),
            Some(_) => {}
            None => {
                if goes_on {
                    queue.end_lane(false);
                }
                self.has_ended = true;
            }
        }
        batch
    }

    /// Begins another lane, if calls wait.
    fn become_slow(&mut self) {
        let mut queue = self.shared.queue();
        self.is_slow = true;
        queue.quick_lanes -= 1;
        queue.slow_lanes += 1;
        let begins_lane = !queue.waiting.is_empty() && queue.begin_lane();
        drop(queue);
        if begins_lane {
            tokio::spawn(Lane::new(self.shared.clone()).work());
        }
    }
}

/// A lane that is dropped before its end belonged to a runtime that has ended, or its runner has
/// panicked. The calls that wait go back to their callers, who may belong to another runtime.
impl<R: BatchRunner> Drop for Lane<R> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut queue = self.shared.queue();
        for id in self.running.drain(..) {
            queue.running.remove(&id);
        }
        queue.end_lane(self.is_slow);
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for (_, Waiting { call, caller, .. }) in waiting {
            // The caller may have gone away.
            let _ = caller.send(Outcome::Returned(call));
        }
    }
}

impl<R: BatchRunner> Shared<R> {
    /// Returns the calls that must run alone, and their numbers.
    async fn run(&self, batch: Batch<R>) -> Vec<(u64, Waiting<R>)> {
        let Batch { calls, mut seats } = batch;
        let mut result = self.run_for(&calls, &mut seats).await;
        let is_shared = seats.len() > calls.len();
        let mut left = Vec::new();
        for Seat {
            number,
            index,
            caller,
        } in seats
        {
            let answer = match &mut result {
                Err(failed) if failed.is_refused && calls.len() > 1 => None,
                Err(failed) => Some(Err(failed.error.clone())),
                Ok(answers) if is_shared => answers.get(index).cloned().flatten().map(Ok),
                Ok(answers) => answers.get_mut(index).and_then(Option::take).map(Ok),
            };
            match (answer, calls.get(index)) {
                // The caller may have gone away.
                (Some(answer), _) => drop(caller.send(Outcome::Answered(answer))),
                (None, Some(call)) if calls.len() > 1 && !caller.is_closed() => {
                    let (call, is_alone) = (call.clone(), true);
                    let waiting = Waiting {
                        call,
                        is_alone,
                        caller,
                    };
                    left.push((number, waiting));
                }
                _ => {}
            }
        }
        left
    }

    /// Runs calls until they are answered. If all callers have gone away, it gives up after some
    /// time: a server that does not answer must not keep the lane.
    async fn run_for(
        &self,
        calls: &[R::Call],
        seats: &mut [Seat<R>],
    ) -> Result<Vec<Option<R::Answer>>, BatchError> {
        let Some(limit) = self.runner.abandoned_timeout() else {
            return self.runner.run(calls).await;
        };
        let abandoned = async {
            for seat in seats {
                seat.caller.closed().await;
            }
            sleep(limit).await;
        };
        let (mut work, mut abandoned) = (pin!(self.runner.run(calls)), pin!(abandoned));
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => abandoned.as_mut().poll(context).map(|()| {
                Err(BatchError {
                    error: StoreError::timeout(limit),
                    is_refused: false,
                })
            }),
        })
        .await
    }
}
