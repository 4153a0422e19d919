//! Many requests at once.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::ready::{Ready, Result};
use crate::scenario::Scenario;

/// The same routes, with this many new sessions.
pub async fn sessions(ready: &Ready, count: u32) -> Result<Vec<Ready>> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Ready::of(ready.router.clone()).await?);
    }
    Ok(all)
}

/// The time until all requests have their answers. Each session has one request in flight.
pub async fn send(sessions: &[Ready], scenario: Scenario, requests: u32) -> Result<Duration> {
    let each = requests as usize / sessions.len();
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for ready in sessions {
        let mut ready = ready.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                ready.send(scenario).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    Ok(start.elapsed())
}
