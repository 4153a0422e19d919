//! Requests with stores outside the process. Next to each one is the plain GET of the same client
//! library. This program starts the servers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use cloakroom::{AnyStore, EncryptedStore, EncryptionKey, UserHashKey};
use fred::prelude::{ClientLike, Config, KeysInterface, Pool};
use redis::aio::ConnectionManager;
use redis_pool::{RedisPool, SingleRedisPool};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::contenders;
use crate::load::{self, sessions};
use crate::ready::{Ready, Result};
use crate::scenario::Scenario;
use crate::time::median;
use crate::toolchain;
use support::stores::{Backend, Kind};

pub const IN_FLIGHT: u32 = 64;
/// The number of requests in one turn: with 64 in flight, and one after the other.
pub const REQUESTS: u32 = 6_400;
const SEQUENTIAL: u32 = 500;
const ROUNDS: usize = 11;
/// The numbers of requests in flight for [`at_once`].
const AT_ONCE: [u32; 4] = [1, 8, 64, 512];

/// The length is about that of a stored session.
static VALUE: [u8; 450] = [b'x'; 450];
const KEY: &str = "cloakroom-bench";

/// The result of one contender with one store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Networked {
    pub store: String,
    /// A scenario, or `GET`.
    pub what: String,
    pub contender: String,
    /// The result with 64 requests in flight.
    pub requests_a_second: f64,
    /// The time of one request, if there is only one at a time.
    pub microseconds: f64,
    /// Its requests in a second, divided by those of its client library's plain GET.
    pub of_plain_get: Option<f64>,
}

/// What answers the requests.
enum Client {
    /// One session for each request in flight.
    Layer(Vec<Ready>),
    Plain(Plain),
    /// tower-sessions over sqlx, in its own process.
    Sqlx(SqlxPeer),
}

/// A client library without sessions.
#[derive(Clone)]
pub enum Plain {
    Redis(ConnectionManager),
    Fred(Pool),
    RedisPool(Box<SingleRedisPool>),
}

impl Plain {
    async fn get(&mut self) -> Result<()> {
        let value: Vec<u8> = match self {
            Self::Redis(client) => redis::cmd("GET").arg(KEY).query_async(client).await?,
            Self::Fred(client) => client.get(KEY).await?,
            Self::RedisPool(pool) => {
                let mut client = pool.acquire().await?;
                redis::cmd("GET").arg(KEY).query_async(&mut client).await?
            }
        };
        assert_eq!(value.len(), VALUE.len());
        Ok(())
    }
}

/// One measurement: a name, a client, and the name of the plain GET to compare with.
struct Line {
    what: &'static str,
    contender: &'static str,
    client: Client,
    plain: Option<&'static str>,
}

/// How many requests of one scenario a second, with this many in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AtOnce {
    pub store: String,
    pub what: String,
    pub in_flight: u32,
    /// Whether all requests are of one session.
    pub is_one_session: bool,
    pub requests_a_second: f64,
}

/// How the cost of a request falls as more are in flight.
pub async fn at_once() -> Result<Vec<AtOnce>> {
    let mut all = Vec::new();
    for store in ["sqlite", "postgres", "mysql", "redis", "memcached"] {
        let server = Backend::start(kind(store).ok_or("no such store")?);
        let ours = contenders::over(AnyStore::connect(&server.direct_url()).await?).await?;
        let mut many = Client::Layer(sessions(&ours, *AT_ONCE.last().unwrap_or(&1)).await?);
        for what in ["B", "C", "D"] {
            for in_flight in AT_ONCE {
                let requests = if in_flight == 1 { SEQUENTIAL } else { REQUESTS };
                let mut rates = Vec::new();
                for _ in 0..5 {
                    let time = many.load(what, in_flight, requests).await?;
                    rates.push(f64::from(requests) / time.as_secs_f64());
                }
                all.push(AtOnce {
                    store: store.into(),
                    what: what.into(),
                    in_flight,
                    is_one_session: false,
                    requests_a_second: median(rates).round(),
                });
            }
        }
        let one = sessions(&ours, 1).await?;
        let [session] = &one[..] else { continue };
        let mut one = Client::Layer(vec![session.clone(); 512]);
        let time = one.load("B", 512, REQUESTS).await?;
        all.push(AtOnce {
            store: store.into(),
            what: "B".into(),
            in_flight: 512,
            is_one_session: true,
            requests_a_second: (f64::from(REQUESTS) / time.as_secs_f64()).round(),
        });
    }
    Ok(all)
}

/// The stores that are measured beside other layers.
pub const STORES: [&str; 4] = ["redis", "sqlite", "postgres", "mysql"];

pub async fn measure(stores: &[&str]) -> Result<Vec<Networked>> {
    let mut all = Vec::new();
    for store in stores {
        let found = STORES.iter().find(|name| *name == store);
        all.extend(match (kind(store), found) {
            (Some(Kind::Redis), _) => over_redis().await?,
            (Some(kind), Some(store)) => over_sql(kind, store).await?,
            _ => return Err(format!("{store} is not one of {STORES:?}").into()),
        });
    }
    Ok(all)
}

async fn over_redis() -> Result<Vec<Networked>> {
    let server = Backend::start(Kind::Redis);
    let url = server.direct_url();

    let plain = client_with_value(&url).await?;
    let config = Config::from_url(&url)?;
    let fred = Pool::new(config, None, None, None, 6)?;
    fred.init().await?;
    let pool = RedisPool::from(redis::Client::open(url.as_str())?);

    let ours = contenders::over(AnyStore::connect(&url).await?).await?;
    let tower_sessions = contenders::tower_sessions_over_redis(fred.clone()).await?;
    let axum_session = contenders::axum_session_over_redis(pool.clone()).await?;

    let plain_get = |contender, client| Line {
        what: "GET",
        contender,
        client: Client::Plain(client),
        plain: None,
    };
    // Only the commands that a session needs.
    let floor = contenders::around_redis(plain.clone(), KEY, &VALUE);
    let floor = |what| Line {
        what,
        contender: "without a layer",
        client: Client::Layer(vec![floor.clone(); IN_FLIGHT as usize]),
        plain: Some("redis"),
    };
    let mut lines = vec![
        floor("B"),
        floor("C"),
        plain_get("redis", Plain::Redis(plain)),
        plain_get("fred", Plain::Fred(fred)),
        plain_get("redis_pool", Plain::RedisPool(Box::new(pool))),
    ];
    for what in ["B", "C"] {
        for (contender, ready, plain) in [
            ("cloakroom", &ours, "redis"),
            ("tower-sessions", &tower_sessions, "fred"),
            ("axum_session", &axum_session, "redis_pool"),
        ] {
            lines.push(Line {
                what,
                contender,
                client: Client::Layer(sessions(ready, IN_FLIGHT).await?),
                plain: Some(plain),
            });
        }
    }
    in_turns("redis", lines).await
}

/// What encryption costs requests over Redis: with users in the clear, and hashed.
pub async fn encryption() -> Result<Vec<Networked>> {
    let server = Backend::start(Kind::Redis);
    let url = server.direct_url();
    let encrypted = |store| {
        Ok::<_, cloakroom::ConfigError>(EncryptedStore::new(store, EncryptionKey::generate()?))
    };
    let plain = contenders::over(AnyStore::connect(&url).await?).await?;
    let readable = contenders::over(encrypted(AnyStore::connect(&url).await?)?).await?;
    let hashed = encrypted(AnyStore::connect(&url).await?)?.hash_users(UserHashKey::generate()?);
    let hashed = contenders::over(hashed).await?;
    let mut lines = Vec::new();
    for what in ["B", "C"] {
        for (contender, ready) in [
            ("cloakroom", &plain),
            ("cloakroom-encrypted", &readable),
            ("cloakroom-encrypted, hashed users", &hashed),
        ] {
            lines.push(Line {
                what,
                contender,
                client: Client::Layer(sessions(ready, IN_FLIGHT).await?),
                plain: None,
            });
        }
    }
    in_turns("redis", lines).await
}

/// A client, and a server that has the value of the plain GET.
pub async fn client_with_value(url: &str) -> Result<ConnectionManager> {
    let client = redis::Client::open(url)?.get_connection_manager().await?;
    let _: () = redis::cmd("SET")
        .arg(KEY)
        .arg(&VALUE[..])
        .query_async(&mut client.clone())
        .await?;
    Ok(client)
}

async fn over_sql(kind: Kind, store: &'static str) -> Result<Vec<Networked>> {
    let server = Backend::start(kind);
    let url = server.direct_url();
    let ours = contenders::over(AnyStore::connect(&url).await?).await?;
    let peer_server = Backend::start(kind);
    let peer_url = peer_server.direct_url();
    let place = peer_url.strip_prefix("sqlite:").unwrap_or(&peer_url);
    let mut lines = Vec::new();
    for what in ["B", "C", "D"] {
        for contender in ["cloakroom", "tower-sessions"] {
            let client = match contender {
                "cloakroom" => Client::Layer(sessions(&ours, IN_FLIGHT).await?),
                _ => Client::Sqlx(SqlxPeer::start(store, place)?),
            };
            lines.push(Line {
                what,
                contender,
                client,
                plain: None,
            });
        }
    }
    // What the same code does if no call shares a statement: each session has a store of its own.
    if kind == Kind::MySql {
        let mut client = Vec::new();
        for _ in 0..IN_FLIGHT {
            let alone = contenders::over(AnyStore::connect(&url).await?).await?;
            client.extend(sessions(&alone, 1).await?);
        }
        lines.push(Line {
            what: "B",
            contender: "cloakroom, unbatched",
            client: Client::Layer(client),
            plain: None,
        });
    }
    in_turns(store, lines).await
}

/// The servers of a store.
pub fn kind(store: &str) -> Option<Kind> {
    Some(match store {
        "sqlite" => Kind::Sqlite,
        "postgres" => Kind::Postgres,
        "mysql" => Kind::MySql,
        "redis" => Kind::Redis,
        "memcached" => Kind::Memcached,
        _ => return None,
    })
}

/// Sends only requests to this crate, for a profiler.
pub async fn run(kind: Kind, scenario: &str, requests: u32) -> Result<()> {
    let server = Backend::start(kind);
    let ours = contenders::over(AnyStore::connect(&server.direct_url()).await?).await?;
    let mut client = Client::Layer(sessions(&ours, IN_FLIGHT).await?);
    let together = client.load(scenario, IN_FLIGHT, requests).await?;
    let few = requests / IN_FLIGHT;
    let alone = client.load(scenario, 1, few).await?;
    println!(
        "{:.0} requests a second, {:.1} microseconds each alone",
        f64::from(requests) / together.as_secs_f64(),
        alone.as_secs_f64() * 1e6 / f64::from(few)
    );
    Ok(())
}

/// In every round, each line has one turn. So other work on the machine affects all of them.
async fn in_turns(store: &str, mut lines: Vec<Line>) -> Result<Vec<Networked>> {
    let mut rates = vec![Vec::new(); lines.len()];
    let mut latencies = vec![Vec::new(); lines.len()];
    for round in 0..=ROUNDS {
        for (number, line) in lines.iter_mut().enumerate() {
            let together = line.client.load(line.what, IN_FLIGHT, REQUESTS).await?;
            let alone = line.client.load(line.what, 1, SEQUENTIAL).await?;
            // The first round opens the connections, so it does not count.
            if round > 0 {
                rates[number].push(f64::from(REQUESTS) / together.as_secs_f64());
                latencies[number].push(alone.as_secs_f64() * 1e6 / f64::from(SEQUENTIAL));
            }
        }
    }
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    let of_get: BTreeMap<&str, f64> = lines
        .iter()
        .zip(&rates)
        .filter(|(line, _)| line.what == "GET")
        .map(|(line, rate)| (line.contender, *rate))
        .collect();
    Ok(lines
        .iter()
        .zip(&rates)
        .zip(latencies)
        .map(|((line, rate), latencies)| Networked {
            store: store.into(),
            what: line.what.into(),
            contender: line.contender.into(),
            requests_a_second: rate.round(),
            microseconds: (median(latencies) * 10.0).round() / 10.0,
            of_plain_get: line
                .plain
                .map(|plain| (rate / of_get[plain] * 100.0).round() / 100.0),
        })
        .collect())
}

impl Client {
    /// The time until all requests have their answers.
    async fn load(&mut self, what: &str, in_flight: u32, requests: u32) -> Result<Duration> {
        match self {
            Self::Layer(sessions) => {
                let scenario = Scenario::named(what).ok_or("no such scenario")?;
                load::send(&sessions[..in_flight as usize], scenario, requests).await
            }
            Self::Plain(client) => get_all(client, in_flight, requests).await,
            Self::Sqlx(peer) => peer.load(what, in_flight, requests),
        }
    }
}

/// The program of `bench/sqlx-peers`. It answers each line with a time.
struct SqlxPeer {
    process: Child,
    requests: ChildStdin,
    times: BufReader<ChildStdout>,
}

impl SqlxPeer {
    fn start(store: &str, place: &str) -> Result<Self> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("sqlx-peers");
        let mut process = toolchain::command("cargo")?
            .args(["run", "--quiet", "--release", "--"])
            .args([store, place])
            .env("CARGO_TARGET_DIR", project.join("../../target/sqlx-peers"))
            .current_dir(&project)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (requests, times) = process
            .stdin
            .take()
            .zip(process.stdout.take())
            .ok_or("no pipes")?;
        let mut peer = Self {
            process,
            requests,
            times: BufReader::new(times),
        };
        match peer.line()?.as_str() {
            "ready" => Ok(peer),
            other => Err(format!("bench/sqlx-peers says {other:?}").into()),
        }
    }

    fn load(&mut self, what: &str, in_flight: u32, requests: u32) -> Result<Duration> {
        writeln!(self.requests, "{what} {in_flight} {requests}")?;
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.times.read_line(&mut line)?;
        Ok(line.trim().into())
    }
}

impl Drop for SqlxPeer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The time until all plain GETs have their answers.
pub async fn get_all(client: &Plain, in_flight: u32, requests: u32) -> Result<Duration> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let mut client = client.clone();
        tasks.spawn(async move {
            for _ in 0..requests / in_flight {
                client.get().await?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let done: Result<()> = done?;
        done?;
    }
    Ok(start.elapsed())
}
