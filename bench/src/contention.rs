//! Many requests on one session at once.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use cloakroom::testing::{FaultyStore, StoreCall};
use cloakroom::{
    AnyStore, MemoryStore, Session, SessionError, SessionLayer, SessionStore, SigningKey,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::ready::{Ready, Result};
use crate::scenario::Scenario;
use crate::time::median;
use support::stores::{Backend, Kind};

/// The time that a handler works.
const WORK: Duration = Duration::from_millis(5);
const ROUNDS: usize = 7;
const WRITERS: [u32; 5] = [1, 4, 16, 64, 256];

/// This many requests on one session, with one store. Each request increments the counter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contention {
    pub store: String,
    pub writers: u32,
    /// The time until all requests have their answers.
    pub milliseconds: f64,
    /// The number of further tries to write, for each request.
    pub retries: f64,
}

pub async fn measure() -> Result<Vec<Contention>> {
    let mut all = Vec::new();
    over("memory", MemoryStore::new(), &mut all).await?;
    for (name, kind) in [
        ("sqlite", Kind::Sqlite),
        ("postgres", Kind::Postgres),
        ("mysql", Kind::MySql),
        ("redis", Kind::Redis),
        ("memcached", Kind::Memcached),
    ] {
        let servers = Backend::start(kind);
        over(
            name,
            AnyStore::connect(&servers.direct_url()).await?,
            &mut all,
        )
        .await?;
    }
    Ok(all)
}

async fn over<S: SessionStore>(name: &str, store: S, all: &mut Vec<Contention>) -> Result<()> {
    // This store has no fault set. It only counts the calls.
    let counted = FaultyStore::new(store);
    let layer = SessionLayer::new(counted.clone(), SigningKey::generate()?);
    let router = Router::new()
        .route("/fill", get(fill))
        .route("/count", get(count))
        .layer(layer);
    let ready = Ready::of(router).await?;
    for writers in WRITERS {
        let mut times = Vec::new();
        for round in 0..=ROUNDS {
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..writers {
                let mut ready = ready.clone();
                tasks.spawn(async move { ready.send(Scenario::C).await });
            }
            while let Some(done) = tasks.join_next().await {
                done?;
            }
            // The first round opens the connections, so it does not count.
            if round == 0 {
                counted.take_calls();
            } else {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let requests = f64::from(writers) * ROUNDS as f64;
        let calls = counted.take_calls();
        let replaces = calls.iter().filter(|call| **call == StoreCall::Replace);
        let retries = replaces.count() as f64 / requests - 1.0;
        all.push(Contention {
            store: name.into(),
            writers,
            milliseconds: (median(times) * 10.0).round() / 10.0,
            retries: (retries * 100.0).round() / 100.0,
        });
    }
    Ok(())
}

async fn fill(session: Session) -> Result<(), SessionError> {
    session.insert("count", 0_u64)
}

async fn count(session: Session) -> Result<&'static str, SessionError> {
    session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    tokio::time::sleep(WORK).await;
    Ok("ok")
}
