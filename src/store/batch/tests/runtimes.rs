//! Calls of several runtimes, and of none.

use std::pin::pin;
use std::task::Poll;

use super::*;

/// A lane belongs to the runtime of the caller that started it.
#[test]
fn a_runtime_that_ends_takes_no_waiting_call_of_another_runtime_with_it() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_time().build().unwrap()
    };
    let (ending, staying) = (runtime(), runtime());
    let (runner, batches) = with_lanes::<false>(1, &[]);
    let call = |number: usize| {
        let batches = batches.clone();
        async move {
            let call = Write::new(number as u8, number);
            batches.run_in_lane(call, Handle::current()).await
        }
    };
    let until = |condition: &dyn Fn() -> bool| {
        while !condition() {
            std::thread::yield_now();
        }
    };
    let first = ending.spawn(call(0));
    until(&|| runner.begun() == 1);
    let second = staying.spawn(call(1));
    until(&|| batches.0.queue().waiting.len() == 1);
    ending.shutdown_background();
    runner.permits.add_permits(10);
    assert_eq!(staying.block_on(second).unwrap().unwrap(), 1);
    assert!(staying.block_on(first).is_err());
    assert_eq!(runner.done(), [vec![1]]);
}

/// A thread may wait for a call with the handle of a runtime that has ended.
#[test]
fn a_call_on_a_runtime_that_has_ended_is_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let (_, batches) = with_lanes::<false>(1, &[]);
    let call = batches.run_in_lane(Write::new(1, 0), handle.clone());
    let error = handle.block_on(call).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    assert_idle(&batches, 1);
}

#[test]
fn a_call_without_a_runtime_is_an_error() {
    let (_, batches) = with_lanes::<false>(1, &[]);
    let mut call = pin!(batches.run(Write::new(1, 0)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(Err(error)) = call.as_mut().poll(&mut context) else {
        panic!("this waits for nothing");
    };
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
    assert_idle(&batches, 1);
}
