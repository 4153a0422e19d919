//! What a feed costs those who write.

use cloakroom::{AnyStore, Notice, SessionStore as _};

use crate::contenders;
use crate::load::{self, sessions};
use crate::networked::kind;
use crate::ready::{Ready, Result};
use crate::scenario::Scenario;
use crate::time::median;
use support::stores::Backend;

/// The number of requests in one turn, with this many in flight.
const TURNS: [(u32, u32); 4] = [(1, 500), (8, 3_200), (64, 6_400), (512, 10_240)];
const ROUNDS: usize = 11;

/// Increments (C) over one store, with a feed that somebody reads and without one.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "they are shown by `Debug`")]
pub struct FeedCost {
    pub store: &'static str,
    pub in_flight: u32,
    pub without_a_second: f64,
    pub with_a_second: f64,
    /// The median of the quotients of turns that followed each other.
    pub with_by_without: f64,
}

pub async fn measure() -> Result<Vec<FeedCost>> {
    let mut all = Vec::new();
    for store in ["sqlite", "postgres", "redis"] {
        let kind = kind(store).ok_or("no such store")?;
        let (plain_server, server) = (Backend::start(kind), Backend::start(kind));
        let plain = AnyStore::connect(&plain_server.direct_url()).await?;
        let option = if store == "postgres" {
            "?feed=true"
        } else {
            ""
        };
        let told = AnyStore::connect(&(server.direct_url() + option)).await?;
        let Some(source) = told.session_feed() else {
            println!("{store} has no feed");
            continue;
        };
        let mut feed = source.subscribe().await?;
        let reader = tokio::spawn(async move {
            let mut changes: u64 = 0;
            while let Some(notice) = feed.next().await {
                changes += u64::from(matches!(notice, Notice::Changed(_)));
            }
            changes
        });
        let plain = contenders::over(plain).await?;
        let told = contenders::over(told).await?;
        for (in_flight, requests) in TURNS {
            let (plain, told) = (
                sessions(&plain, in_flight).await?,
                sessions(&told, in_flight).await?,
            );
            all.push(compare(store, &plain, &told, requests).await?);
        }
        reader.abort();
    }
    Ok(all)
}

async fn compare(
    store: &'static str,
    plain: &[Ready],
    told: &[Ready],
    requests: u32,
) -> Result<FeedCost> {
    let (mut without, mut with, mut quotients) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let plain = load::send(plain, Scenario::C, requests).await?;
        let told = load::send(told, Scenario::C, requests).await?;
        // The first round opens the connections.
        if round > 0 {
            without.push(f64::from(requests) / plain.as_secs_f64());
            with.push(f64::from(requests) / told.as_secs_f64());
            quotients.push(plain.as_secs_f64() / told.as_secs_f64());
        }
    }
    Ok(FeedCost {
        store,
        in_flight: u32::try_from(plain.len())?,
        without_a_second: median(without).round(),
        with_a_second: median(with).round(),
        with_by_without: (median(quotients) * 100.0).round() / 100.0,
    })
}
