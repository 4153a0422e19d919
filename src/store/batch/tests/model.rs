//! Every order of what three callers and a batch can do.

use super::*;

/// What happens in a run of [`every_order_of_three_callers_keeps_the_promises`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Start(usize),
    /// The caller goes away.
    Leave(usize),
    /// A batch goes on.
    Step,
}

/// All orders of the events in which a caller starts before it leaves.
fn orders(events: &[Event]) -> Vec<Vec<Event>> {
    let mut found: Vec<Vec<Event>> = vec![Vec::new()];
    for event in events {
        found = found
            .iter()
            .flat_map(|order| {
                (0..=order.len()).map(move |place| {
                    let mut order = order.clone();
                    order.insert(place, *event);
                    order
                })
            })
            .collect();
    }
    found.retain(|order| {
        let place = |event| order.iter().position(|&other| other == event);
        (0..3)
            .all(|n| place(Event::Leave(n)).is_none_or(|left| place(Event::Start(n)) < Some(left)))
    });
    found.sort_by_key(|order| format!("{order:?}"));
    found.dedup();
    found
}

#[test]
fn every_order_of_three_callers_keeps_the_promises() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut runs = 0;
    for left in [None, Some(0), Some(1), Some(2)] {
        let mut events = vec![
            Event::Start(0),
            Event::Start(1),
            Event::Start(2),
            Event::Step,
        ];
        events.extend(left.map(Event::Leave));
        for order in orders(&events) {
            for ids in [[1, 1, 1], [1, 1, 2], [1, 2, 2], [1, 2, 1], [1, 2, 3]] {
                for answer in [
                    Answer::Done,
                    Answer::Fails,
                    Answer::RefusesWith(0),
                    Answer::RefusesWith(1),
                    Answer::RefusesWith(2),
                    Answer::LeavesOut(1),
                    Answer::LeavesOut(2),
                ] {
                    for lanes in [1, 2] {
                        runtime.block_on(keeps_the_promises(&order, ids, answer, lanes));
                        runs += 1;
                    }
                }
            }
        }
    }
    assert!(runs > 5_000, "{runs}");
}

async fn keeps_the_promises(order: &[Event], ids: [u8; 3], answer: Answer, lanes: usize) {
    let case = format!("{order:?} {ids:?} {answer:?} {lanes}");
    let (runner, batches) = with_lanes::<false>(lanes, &[answer]);
    let mut callers: [Option<Caller>; 3] = [None, None, None];
    let mut arrivals = Vec::new();
    for event in order {
        match *event {
            Event::Start(n) => {
                callers[n] = Some(start(&batches, Write::new(ids[n], n)).await);
                arrivals.push(n);
            }
            Event::Leave(n) => {
                callers[n].take().unwrap().abort();
                settle().await;
            }
            Event::Step => runner.step(1).await,
        }
    }
    runner.step(10).await;

    let batches_done = runner.done();
    let done: Vec<usize> = batches_done.concat();
    for (n, caller) in callers.into_iter().enumerate() {
        let times = done.iter().filter(|&&other| other == n).count();
        assert!(times <= 1, "{case}: {done:?}");
        let Some(caller) = caller else { continue };
        match caller.await.unwrap() {
            Ok(number) => assert!(number == n && times == 1, "{case}: {done:?}"),
            Err(error) => {
                let of_this = answer == Answer::RefusesWith(n) || answer == Answer::Fails;
                assert!(of_this && times == 0, "{case}: {error}");
            }
        }
    }
    for batch in &batches_done {
        let mut of_batch: Vec<_> = batch.iter().map(|&n| ids[n]).collect();
        of_batch.sort_unstable();
        of_batch.dedup();
        assert_eq!(
            of_batch.len(),
            batch.len(),
            "{case}: one record twice in {batch:?}"
        );
    }
    for id in ids {
        let of_id = |order: &[usize]| -> Vec<usize> {
            let of_id = order.iter().copied().filter(|&n| ids[n] == id);
            of_id.filter(|n| done.contains(n)).collect()
        };
        assert_eq!(of_id(&done), of_id(&arrivals), "{case}");
    }
    assert_idle(&batches, lanes);
}
