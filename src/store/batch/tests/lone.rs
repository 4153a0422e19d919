//! Calls that run in the task of their caller.

use super::*;

async fn start_lone<const IS_READ: bool>(
    batches: &Batches<Runner<IS_READ>>,
    call: Call<IS_READ>,
) -> Caller {
    let batches = batches.clone();
    let caller = tokio::spawn(async move { batches.run(call).await });
    settle().await;
    caller
}

#[tokio::test]
async fn a_call_that_is_alone_needs_no_lane() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let first = start_lone(&batches, Write::new(1, 0)).await;
    assert_eq!((runner.begun(), batches.0.queue().quick_lanes), (1, 0));
    runner.step(1).await;
    assert_eq!(first.await.unwrap().unwrap(), 0);
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn calls_beside_a_lone_call_share_the_lanes() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let mut callers = Vec::new();
    for number in 0..4 {
        callers.push(start_lone(&batches, Write::new(number as u8, number)).await);
    }
    for _ in 0..3 {
        runner.step(1).await;
    }
    assert_eq!(runner.done(), [vec![0], vec![1], vec![2, 3]]);
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), number);
    }
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn a_write_waits_for_the_lone_write_of_its_record() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    for number in 0..3 {
        start_lone(&batches, Write::new(1, number)).await;
    }
    assert_eq!(runner.begun(), 1);
    for _ in 0..3 {
        runner.step(1).await;
    }
    assert_eq!(runner.done(), [vec![0], vec![1], vec![2]]);
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn a_lone_call_whose_caller_goes_away_goes_on() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let first = start_lone(&batches, Write::new(1, 0)).await;
    let second = start_lone(&batches, Write::new(1, 1)).await;
    first.abort();
    settle().await;
    runner.step(1).await;
    runner.step(1).await;
    assert_eq!(runner.done(), [vec![0], vec![1]]);
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert_idle(&batches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lone_call_without_an_answer_ends_some_time_after_its_caller_has_gone() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let first = start_lone(&batches, Write::new(1, 0)).await;
    let second = start_lone(&batches, Write::new(1, 1)).await;
    first.abort();
    tokio::time::sleep(LIMIT / 2).await;
    assert_eq!(runner.begun(), 1);
    tokio::time::sleep(LIMIT).await;
    assert_eq!(runner.begun(), 2);
    runner.step(1).await;
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert_idle(&batches, 1);
}

#[tokio::test]
async fn a_lone_call_that_is_not_polled_holds_up_no_call_of_another_record() {
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let mut unpolled = Box::pin(batches.run(Write::new(1, 0)));
    assert!(futures_util::poll!(&mut unpolled).is_pending());
    let other = start_lone(&batches, Write::new(2, 1)).await;
    runner.step(2).await;
    assert_eq!(other.await.unwrap().unwrap(), 1);
    assert_eq!(unpolled.await.unwrap(), 0);
}

#[tokio::test]
async fn an_error_of_a_lone_call_is_its_callers() {
    let (runner, batches) = with_lanes::<false>(1, &[Answer::Fails]);
    let first = start_lone(&batches, Write::new(1, 0)).await;
    runner.step(1).await;
    first.await.unwrap().unwrap_err();
    assert_idle(&batches, 1);
}
