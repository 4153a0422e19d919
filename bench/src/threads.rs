//! The gain from a second thread. Each thread has its own session.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::one_thread;
use crate::ready::{Ready, Result, session_cookie};
use crate::scenario::Scenario;
use crate::time::median;

const REQUESTS: u32 = 20_000;
const ROUNDS: usize = 15;

/// Two threads answer this many times as many requests as one thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scaling {
    pub contender: String,
    pub scenario: String,
    pub two_threads: f64,
}

pub fn measure() -> Result<Vec<Scaling>> {
    let mut all = Vec::new();
    for scenario in [Scenario::B, Scenario::C] {
        let mut pairs = Vec::new();
        for &contender in Contender::ALL {
            pairs.push((contender, one_thread()?.block_on(pair(contender))?, vec![]));
        }
        for _ in 0..ROUNDS {
            for (_, pair, ratios) in &mut pairs {
                let alone = run(&pair[..1], scenario)?;
                let together = run(pair, scenario)?;
                ratios.push(2.0 * alone.as_secs_f64() / together.as_secs_f64());
            }
        }
        all.extend(pairs.into_iter().map(|(contender, _, ratios)| Scaling {
            contender: contender.to_string(),
            scenario: scenario.to_string(),
            two_threads: median(ratios),
        }));
    }
    Ok(all)
}

/// Two sessions with the same layer.
async fn pair(contender: Contender) -> Result<[Ready; 2]> {
    let first = contender.ready().await?;
    let mut second = first.clone();
    if contender.has_sessions() {
        second.cookie = session_cookie(&second.router).await?;
    }
    Ok([first, second])
}

/// The time from the first request to the last answer.
fn run(each: &[Ready], scenario: Scenario) -> Result<Duration> {
    let barrier = Arc::new(Barrier::new(each.len()));
    let mut threads = Vec::new();
    for ready in each {
        let (mut ready, barrier) = (ready.clone(), barrier.clone());
        let runtime = one_thread()?;
        threads.push(thread::spawn(move || {
            runtime.block_on(async {
                ready.send(scenario).await;
                barrier.wait();
                let start = Instant::now();
                for _ in 0..REQUESTS {
                    ready.send(scenario).await;
                }
                (start, Instant::now())
            })
        }));
    }
    let times: Vec<(Instant, Instant)> = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| "a thread failed"))
        .collect::<Result<_, _>>()?;
    let first = times.iter().map(|(start, _)| *start).min();
    let last = times.iter().map(|(_, end)| *end).max();
    Ok(last
        .zip(first)
        .map_or(Duration::ZERO, |(last, first)| last - first))
}
