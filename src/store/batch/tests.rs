use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};

use super::lane::SLOW;
use super::*;

mod lone;
mod model;
mod runtimes;

const LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call<const IS_READ: bool> {
    id: u8,
    number: usize,
    bytes: usize,
}

type Read = Call<true>;
type Write = Call<false>;

impl<const IS_READ: bool> Call<IS_READ> {
    fn new(id: u8, number: usize) -> Self {
        let bytes = 1;
        Self { id, number, bytes }
    }
}

impl<R: BatchRunner> Batches<R> {
    /// Runs a call in a lane, even if it is alone.
    async fn run_in_lane(&self, call: R::Call, runtime: Handle) -> Result<R::Answer, StoreError> {
        let place = self.enqueue(self.0.queue(), call, &runtime);
        self.answer(place, &runtime).await
    }
}

impl<const IS_READ: bool> BatchCall for Call<IS_READ> {
    const IS_READ: bool = IS_READ;

    fn id(&self) -> RecordId {
        RecordId::from_bytes([self.id; 16])
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How the store answers a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    /// The store refuses a batch with this call, and nothing happens.
    RefusesWith(usize),
    /// The connection breaks. Nobody knows whether something has happened.
    Fails,
    /// The batch has all calls except this one, which must run alone.
    LeavesOut(usize),
    Panics,
}

/// A store that answers when the test lets it, and notes what it ran.
#[derive(Clone)]
struct Runner<const IS_READ: bool> {
    /// One permit for each batch.
    permits: Arc<Semaphore>,
    /// The answers to the next batches. Later batches are done.
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// The calls of each batch that took effect.
    done: Arc<Mutex<Vec<Vec<usize>>>>,
    begun: Arc<AtomicUsize>,
}

impl<const IS_READ: bool> Runner<IS_READ> {
    fn new(answers: &[Answer]) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            answers: Arc::new(Mutex::new(answers.iter().copied().collect())),
            done: Arc::default(),
            begun: Arc::default(),
        }
    }

    fn done(&self) -> Vec<Vec<usize>> {
        self.done.lock().unwrap().clone()
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Lets this many batches go on.
    async fn step(&self, batches: usize) {
        self.permits.add_permits(batches);
        settle().await;
    }
}

impl<const IS_READ: bool> BatchRunner for Runner<IS_READ> {
    type Call = Call<IS_READ>;
    type Answer = usize;

    fn abandoned_timeout(&self) -> Option<Duration> {
        Some(LIMIT)
    }

    fn can_share_batch(&self, one: &Self::Call, other: &Self::Call) -> bool {
        // Ids from 200 on are of another kind.
        (one.id >= 200) == (other.id >= 200)
    }

    async fn run(&self, calls: &[Self::Call]) -> Result<Vec<Option<usize>>, BatchError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.permits.acquire().await.unwrap().forget();
        let numbers: Vec<_> = calls.iter().map(|call| call.number).collect();
        let next = self.answers.lock().unwrap().front().copied();
        match next {
            Some(Answer::RefusesWith(number)) => {
                if numbers.contains(&number) {
                    let error = StoreError::new("this record is too large");
                    let is_refused = true;
                    return Err(BatchError { error, is_refused });
                }
            }
            Some(Answer::Fails) => {
                self.answers.lock().unwrap().pop_front();
                let error = StoreError::new("the connection broke");
                let is_refused = false;
                return Err(BatchError { error, is_refused });
            }
            Some(Answer::LeavesOut(number)) if numbers.len() > 1 && numbers.contains(&number) => {
                let done = numbers.iter().copied().filter(|&other| other != number);
                self.done.lock().unwrap().push(done.collect());
                let answer = |&other: &usize| (other != number).then_some(other);
                return Ok(numbers.iter().map(answer).collect());
            }
            Some(Answer::Panics) => {
                self.answers.lock().unwrap().pop_front();
                panic!("a panic of the runner");
            }
            Some(Answer::Done) => {
                self.answers.lock().unwrap().pop_front();
            }
            Some(Answer::LeavesOut(_)) | None => {}
        }
        self.done.lock().unwrap().push(numbers.clone());
        Ok(numbers.into_iter().map(Some).collect())
    }
}

/// Lets all tasks go on until each of them waits. The tests have one thread.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

type Caller = JoinHandle<Result<usize, StoreError>>;

async fn start<const IS_READ: bool>(
    batches: &Batches<Runner<IS_READ>>,
    call: Call<IS_READ>,
) -> Caller {
    let batches = batches.clone();
    let caller = tokio::spawn(async move { batches.run_in_lane(call, Handle::current()).await });
    settle().await;
    caller
}

fn with_lanes<const IS_READ: bool>(
    lanes: usize,
    answers: &[Answer],
) -> (Runner<IS_READ>, Batches<Runner<IS_READ>>) {
    let runner = Runner::new(answers);
    let (usual, most) = (lanes, lanes);
    (runner.clone(), Batches::new(runner, Lanes { usual, most }))
}

fn assert_idle<const IS_READ: bool>(batches: &Batches<Runner<IS_READ>>, lanes: usize) {
    let queue = batches.0.queue();
    let free_lanes = queue.lanes.most - queue.quick_lanes - queue.slow_lanes;
    assert_eq!(free_lanes, lanes);
    assert!(queue.waiting.is_empty() && queue.running.is_empty() && !queue.has_lone_call);
}

#[tokio::test]
async fn a_call_runs_at_once() {
    let (runner, batches) = with_lanes::<false>(2, &[]);
    let caller = start(&batches, Write::new(1, 0)).await;
    assert_eq!(runner.begun(), 1);
    runner.step(1).await;
    assert_eq!(caller.await.unwrap().unwrap(), 0);
    assert_idle(&batches, 2);
}

#[tokio::test]
async fn calls_that_wait_go_together() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let mut callers = Vec::new();
    for number in 0..5 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    runner.step(2).await;
    assert_eq!(runner.done(), [vec![0], vec![1, 2, 3, 4]]);
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), number);
    }
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn each_free_lane_takes_calls() {
    let (runner, batches) = with_lanes::<false>(2, &[]);
    for number in 0..4 {
        start(&batches, Write::new(number as u8, number)).await;
    }
    assert_eq!(runner.begun(), 2);
    runner.step(1).await;
    assert_eq!(runner.done(), [vec![0]]);
    runner.step(2).await;
    assert_eq!(runner.done(), [vec![0], vec![1], vec![2, 3]]);
}

#[tokio::test]
async fn reads_of_one_record_that_wait_share_an_answer() {
    let (runner, batches) = with_lanes::<true>(1, &[]);
    let mut callers = Vec::new();
    for number in 0..500 {
        callers.push(start(&batches, Read::new(1, number)).await);
    }
    runner.step(2).await;
    assert_eq!(runner.done(), [vec![0], vec![1]]);
    for (number, caller) in callers.into_iter().enumerate() {
        // A read that began before a caller asked is not the answer.
        assert_eq!(caller.await.unwrap().unwrap(), number.min(1));
    }
}

#[tokio::test]
async fn writes_of_one_record_run_in_the_order_of_their_arrival() {
    // The second lane is free, and yet takes no write of this record.
    let (runner, batches) = with_lanes::<false>(2, &[]);
    for number in 0..3 {
        start(&batches, Write::new(1, number)).await;
    }
    start(&batches, Write::new(2, 3)).await;
    for _ in 0..4 {
        runner.step(1).await;
    }
    assert_eq!(runner.done(), [vec![0], vec![3], vec![1], vec![2]]);
    assert_idle(&batches, 2);
}

#[tokio::test]
async fn a_batch_has_calls_of_one_kind_and_keeps_the_order_of_each_record() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    for (number, id) in [0, 1, 201, 2, 202].into_iter().enumerate() {
        start(&batches, Write::new(id, number)).await;
    }
    runner.step(3).await;
    assert_eq!(runner.done(), [vec![0], vec![1, 3], vec![2, 4]]);
}

#[tokio::test]
async fn a_batch_is_bounded_in_number_and_bytes() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    for number in 0..=MOST_CALLS + 10 {
        start(&batches, Write::new(number as u8, number)).await;
    }
    runner.step(10).await;
    let sizes: Vec<_> = runner.done().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, MOST_CALLS, 10]);

    let (runner, batches) = with_lanes::<false>(1, &[]);
    let large = MOST_BYTES;
    for (number, bytes) in [1, 10, large - 10, 1, 5 * large, 2].into_iter().enumerate() {
        let id = number as u8;
        start(&batches, Write { id, number, bytes }).await;
    }
    runner.step(10).await;
    let expected = [vec![0], vec![1, 2], vec![3], vec![4], vec![5]];
    assert_eq!(runner.done(), expected);
}

#[tokio::test]
async fn a_call_that_the_store_refuses_fails_alone() {
    let (runner, batches) = with_lanes::<false>(1, &[Answer::RefusesWith(2)]);
    let mut callers = Vec::new();
    for number in 0..4 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    runner.step(10).await;
    assert_eq!(runner.done(), [vec![0], vec![1], vec![3]]);
    for (number, caller) in callers.into_iter().enumerate() {
        match caller.await.unwrap() {
            Ok(answer) => assert!(answer == number && number != 2),
            Err(error) => assert!(number == 2 && error.to_string().contains("too large")),
        }
    }
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn a_batch_that_fails_is_an_error_for_each_caller_and_for_no_other() {
    let (runner, batches) = with_lanes::<false>(1, &[Answer::Done, Answer::Fails]);
    let mut callers = Vec::new();
    for number in 0..4 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    runner.step(2).await;
    callers.push(start(&batches, Write::new(9, 4)).await);
    runner.step(1).await;
    assert_eq!(runner.done(), [vec![0], vec![4]]);
    for (number, caller) in callers.into_iter().enumerate() {
        let result = caller.await.unwrap();
        assert_eq!(result.is_ok(), [0, 4].contains(&number), "{result:?}");
    }
}

#[tokio::test]
async fn a_runner_that_panics_takes_no_waiting_call_with_it() {
    let (runner, batches) = with_lanes::<false>(1, &[Answer::Panics]);
    let mut callers = Vec::new();
    for number in 0..3 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    runner.step(10).await;
    let mut results = Vec::new();
    for caller in callers {
        results.push(caller.await.unwrap().is_ok());
    }
    assert_eq!(results, [false, true, true]);
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing_for_the_others() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let mut callers = Vec::new();
    for number in 0..4 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    // The first call runs already, and goes on. The third waits, and never runs.
    callers[0].abort();
    callers[2].abort();
    settle().await;
    runner.step(10).await;
    assert_eq!(runner.done(), [vec![0], vec![1, 3]]);
    for (number, caller) in callers.into_iter().enumerate() {
        match caller.await {
            Ok(result) => assert_eq!(result.unwrap(), number),
            Err(_aborted) => assert!(number == 0 || number == 2),
        }
    }
    assert_idle(&batches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_keeps_no_lane_after_the_last_caller_has_gone() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let first = start(&batches, Write::new(1, 0)).await;
    let second = start(&batches, Write::new(2, 1)).await;
    tokio::time::sleep(LIMIT * 10).await;
    assert_eq!(runner.begun(), 1, "somebody waits for the first call");
    first.abort();
    tokio::time::sleep(LIMIT / 2).await;
    assert_eq!(runner.begun(), 1);
    tokio::time::sleep(LIMIT).await;
    assert_eq!(runner.begun(), 2, "the second call has the lane");
    runner.step(1).await;
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn a_call_that_its_batch_leaves_out_runs_alone_after_it() {
    let (runner, batches) = with_lanes::<false>(1, &[Answer::LeavesOut(2)]);
    let mut callers = Vec::new();
    for number in 0..4 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    runner.step(2).await;
    assert!(callers[1].is_finished() && callers[3].is_finished());
    assert!(!callers[2].is_finished());
    runner.step(1).await;
    assert_eq!(runner.done(), [vec![0], vec![1, 3], vec![2]]);
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), number);
    }
    assert_idle(&batches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_batch_holds_up_no_other_call() {
    let runner = Runner::<false>::new(&[]);
    let batches = Batches::new(runner.clone(), Lanes { usual: 1, most: 2 });
    let mut callers = Vec::new();
    for number in 0..2 {
        callers.push(start(&batches, Write::new(number as u8, number)).await);
    }
    assert_eq!(runner.begun(), 1);
    tokio::time::sleep(2 * SLOW).await;
    assert_eq!(runner.begun(), 2, "a second lane takes what waits");
    callers.push(start(&batches, Write::new(2, 2)).await);
    tokio::time::sleep(2 * SLOW).await;
    // This write waits for the slow one of the same record.
    callers.push(start(&batches, Write::new(0, 3)).await);
    assert_eq!(runner.begun(), 2, "there is no third lane");
    runner.step(1).await;
    assert_eq!(
        runner.begun(),
        3,
        "the first lane goes on, since the other is slow"
    );
    runner.step(1).await;
    assert_eq!(
        runner.begun(),
        3,
        "the second lane has ended, since the first is quick"
    );
    runner.step(1).await;
    assert_eq!(runner.done(), [vec![0], vec![1], vec![2, 3]]);
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), number);
    }
    assert_idle(&batches, 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_while_all_batches_are_slow_has_a_lane() {
    let runner = Runner::<false>::new(&[]);
    let batches = Batches::new(runner.clone(), Lanes { usual: 1, most: 2 });
    let first = start(&batches, Write::new(0, 0)).await;
    tokio::time::sleep(2 * SLOW).await;
    let second = start(&batches, Write::new(1, 1)).await;
    assert_eq!(runner.begun(), 2);
    runner.step(2).await;
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert_idle(&batches, 2);
}
