//! The time of a request in one process, for all contenders side by side.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::ready::{Ready, Result};
use crate::scenario::Scenario;

/// The number of requests in one contender's turn.
pub const BATCH: u32 = 500;

/// The number of turns of each contender.
const ROUNDS: usize = 200;

/// The nanoseconds of a request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Nanos {
    pub p10: f64,
    pub median: f64,
}

/// The times by scenario and contender.
pub type Times = BTreeMap<String, BTreeMap<String, Nanos>>;

/// The contenders take turns. So other work on the machine affects all of them.
pub async fn measure() -> Result<Times> {
    let mut times = Times::new();
    for scenario in Scenario::ALL {
        let mut contenders: Vec<(Contender, Ready, Vec<f64>)> = Vec::new();
        for &contender in Contender::ALL {
            let mut ready = contender.ready().await?;
            batch(&mut ready, scenario).await;
            contenders.push((contender, ready, Vec::with_capacity(ROUNDS)));
        }
        for _ in 0..ROUNDS {
            for (_, ready, samples) in &mut contenders {
                let taken = batch(ready, scenario).await;
                samples.push(taken.as_nanos() as f64 / f64::from(BATCH));
            }
        }
        let of_scenario = contenders
            .into_iter()
            .map(|(contender, _, samples)| (contender.to_string(), summary(samples)))
            .collect();
        times.insert(scenario.to_string(), of_scenario);
    }
    Ok(times)
}

/// The requests are made before the clock starts. In a real program, a server makes them from its
/// input, and a session layer does not.
pub async fn batch(ready: &mut Ready, scenario: Scenario) -> Duration {
    let request = || scenario.request(&ready.cookie);
    let requests: Vec<_> = std::iter::repeat_with(request)
        .take(BATCH as usize)
        .collect();
    let start = Instant::now();
    for request in requests {
        ready.answer(request).await;
    }
    start.elapsed()
}

pub fn summary(mut samples: Vec<f64>) -> Nanos {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[(samples.len() as f64 * share) as usize];
    Nanos {
        p10: at(0.1).round(),
        median: at(0.5).round(),
    }
}

pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
