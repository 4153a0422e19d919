//! What a near cache saves and costs, how fast an end gets to another node, and what a waiting
//! socket costs.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cloakroom::{NearCache, RedisStore, SessionLayer, SigningKey};
use support::stores::{Backend, Kind};
use tower::Service;

use crate::contenders::{self, Contender, Sockets};
use crate::load::{self, sessions};
use crate::networked::{IN_FLIGHT, Plain, REQUESTS, client_with_value, get_all};
use crate::ready::{Ready, Result};
use crate::scenario::{GOOD, Scenario};
use crate::size::resident;
use crate::time::{self, median};

const ROUNDS: usize = 11;

/// How many ends are measured.
const ENDS: usize = 1_000;

/// How many sockets wait, in all.
const SOCKETS: usize = 1_000;

/// How many wait to measure the memory of one.
const MANY_SOCKETS: usize = 100_000;

pub async fn measure() -> Result<()> {
    reads().await?;
    in_process().await?;
    ends().await?;
    sockets().await
}

/// Reads over Redis, with 64 in flight.
async fn reads() -> Result<()> {
    let server = Backend::start(Kind::Redis);
    let url = server.direct_url();
    let plain = Plain::Redis(client_with_value(&url).await?);
    let without = contenders::over(RedisStore::connect(&url).await?).await?;
    let near = NearCache::open(RedisStore::connect(&url).await?).await?;
    let hits = contenders::over(near.clone()).await?;
    // No record fits, so that each read is a miss.
    let full = NearCache::builder(RedisStore::connect(&url).await?).max_bytes(1);
    let full = full.open().await?;
    let misses = contenders::over(full.clone()).await?;
    let memory = Contender::Cloakroom.ready().await?;
    let layers = [&without, &hits, &misses, &memory];
    let mut all = Vec::new();
    for ready in layers {
        all.push(sessions(ready, IN_FLIGHT).await?);
    }
    let mut rates = vec![Vec::new(); 5];
    for round in 0..=ROUNDS {
        let get = get_all(&plain, IN_FLIGHT, REQUESTS).await?;
        let mut times = vec![get];
        for sessions in &all {
            times.push(load::send(sessions, Scenario::B, REQUESTS).await?);
        }
        if round > 0 {
            for (rates, time) in rates.iter_mut().zip(times) {
                rates.push(f64::from(REQUESTS) / time.as_secs_f64());
            }
        }
    }
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    let [get, without, hits, misses, memory] = rates[..] else {
        return Err("five rates".into());
    };
    println!("over Redis, with 64 in flight, requests a second:");
    println!("  GET of the client        {get:.0}");
    println!(
        "  B without a near cache   {without:.0}, {:.2} of GET",
        without / get
    );
    println!(
        "  B, all hits              {hits:.0}, {:.2} of GET",
        hits / get
    );
    println!(
        "  B, all misses            {misses:.0}, {:.2} times as long as without",
        without / misses
    );
    println!(
        "  B of MemoryStore         {memory:.0}, {:.2} of GET",
        memory / get
    );
    let (near, full) = (near.stats(), full.stats());
    println!(
        "  {} hits of {}; {} misses of {}",
        near.hits,
        near.hits + near.misses,
        full.misses,
        full.hits + full.misses
    );
    Ok(())
}

/// One read after the other.
async fn in_process() -> Result<()> {
    let server = Backend::start(Kind::Redis);
    let near = NearCache::open(RedisStore::connect(&server.direct_url()).await?).await?;
    let mut bare = Contender::Bare.ready().await?;
    let mut memory = Contender::Cloakroom.ready().await?;
    let mut hits = contenders::over(near).await?;
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..=200 {
        for (ready, samples) in [&mut bare, &mut memory, &mut hits]
            .into_iter()
            .zip(&mut samples)
        {
            let taken = time::batch(ready, Scenario::B).await;
            if round > 0 {
                samples.push(taken.as_nanos() as f64 / f64::from(time::BATCH));
            }
        }
    }
    let [bare, memory, hits] = samples.map(median);
    println!("one read (B) after the other, beyond axum alone ({bare:.0} ns):");
    println!(
        "  MemoryStore {:.0} ns, all hits over Redis {:.0} ns: {:.2} times as long",
        memory - bare,
        hits - bare,
        (hits - bare) / (memory - bare)
    );
    Ok(())
}

/// From the answer to a logout on one node until the other node refuses the token.
async fn ends() -> Result<()> {
    let server = Backend::start(Kind::Redis);
    let url = server.direct_url();
    let key = SigningKey::generate()?;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let near = NearCache::open(RedisStore::connect(&url).await?).await?;
        nodes.push(contenders::with_ends(SessionLayer::new(near, key.clone())));
    }
    let (here, there) = (nodes.remove(0), nodes.remove(0));
    let mut times = Vec::new();
    for _ in 0..ENDS {
        let cookie = Ready::of(here.clone()).await?.cookie;
        let ask = async |router: &axum::Router, path: &str| -> Result<StatusCode> {
            let mut request = Scenario::B.request(&cookie);
            *request.uri_mut() = path.parse()?;
            Ok(router.clone().call(request).await?.status())
        };
        // The other node has it in its cache.
        for _ in 0..2 {
            assert_eq!(ask(&there, "/who").await?, GOOD);
        }
        assert_eq!(ask(&here, "/end").await?, GOOD);
        let ended = Instant::now();
        while ask(&there, "/who").await? == GOOD {}
        times.push(ended.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "from the answer to a logout until the other node refuses, {ENDS} times: \
         median {:.3} ms, worst {:.3} ms",
        times[ENDS / 2],
        times[ENDS - 1]
    );
    Ok(())
}

/// Sockets on two nodes wait for the end of their user's sessions.
async fn sockets() -> Result<()> {
    let server = Backend::start(Kind::Redis);
    let url = server.direct_url();
    let key = SigningKey::generate()?;
    let mut layers = Vec::new();
    for _ in 0..2 {
        let near = NearCache::open(RedisStore::connect(&url).await?).await?;
        layers.push(SessionLayer::new(near, key.clone()));
    }
    let nodes = [Sockets::on(&layers[0]), Sockets::on(&layers[1])];
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..SOCKETS {
        let session = nodes[number % 2].open().await?;
        waiting.spawn(async move { session.ended().await });
    }
    // All of them are known to be live.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let ended = layers[0].sessions().revoke_user("ada").await?;
    let revoked = start.elapsed();
    let mut closed = 0;
    while waiting.join_next().await.is_some() {
        closed += 1;
    }
    println!(
        "{SOCKETS} sockets on two nodes: {ended} sessions revoked in {:.1} ms, {closed} sockets told \
         after {:.1} ms",
        revoked.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3
    );

    let mut sessions = Vec::with_capacity(MANY_SOCKETS);
    for _ in 0..MANY_SOCKETS {
        sessions.push(nodes[0].open().await?);
    }
    let before = resident()?;
    let mut waiting = Vec::with_capacity(MANY_SOCKETS);
    for session in &sessions {
        let mut ended = Box::pin(session.ended());
        assert!(waits(&mut ended).await);
        waiting.push(ended);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for ended in &mut waiting {
        assert!(waits(ended).await);
    }
    let bytes = resident()?.saturating_sub(before) as f64 / MANY_SOCKETS as f64;
    println!("memory of a waiting socket, beside its handle: {bytes:.0} bytes");
    Ok(())
}

/// Polls once. Returns whether the future waits.
async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
    })
    .await
}
