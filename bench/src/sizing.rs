//! What many sessions cost in each store: bytes of the store, and the time of calls about all
//! sessions.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::HeaderValue;
use axum::routing::get;
use cloakroom::{
    AnyStore, Client, MemoryStore, Session, SessionCatalog, SessionError, SessionFilter,
    SessionLayer, SigningKey, Timestamp,
};
use sqlx::{Connection, MySqlConnection, PgConnection};
use support::stores::{Backend, Kind};
use tokio::task::JoinSet;

use crate::contenders;
use crate::networked::{IN_FLIGHT, kind};
use crate::ready::{Ready, Result};
use crate::size::resident;
use crate::time::median;

pub const STORES: [&str; 6] = [
    "memory",
    "sqlite",
    "postgres",
    "mysql",
    "redis",
    "memcached",
];

/// A store's memory of 64 MiB holds this many, and Memcached forgets the others.
const MOST_IN_MEMCACHED: u64 = 100_000;

/// As a browser says who it is.
const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// Fills a store with sessions, each of its own user, and prints what they cost.
pub async fn measure(store: &str, sessions: u64) -> Result<()> {
    let (server, any, sessions) = match store {
        "memory" => {
            let memory = MemoryStore::new().with_max_sessions(usize::try_from(sessions)?);
            (None, AnyStore::from_catalog(memory), sessions)
        }
        store => {
            let kind = kind(store).ok_or("no such store")?;
            let server = Backend::start(kind);
            let any = AnyStore::connect(&server.direct_url()).await?;
            let most = match kind {
                Kind::Memcached => sessions.min(MOST_IN_MEMCACHED),
                _ => sessions,
            };
            (Some(server), any, most)
        }
    };
    let catalog = any.session_catalog();
    let before = bytes(server.as_ref()).await?;
    let start = Instant::now();
    fill(any, sessions).await?;
    let took = start.elapsed();
    let after = bytes(server.as_ref()).await?;
    let each = after.saturating_sub(before) / sessions;
    println!("{store}: {sessions} sessions, {each} bytes each; they were made in {took:.1?}");
    match catalog {
        Some(catalog) => calls(catalog, sessions).await,
        None => Ok(()),
    }
}

/// The sessions hold the payload, the user and the client.
async fn fill(store: AnyStore, sessions: u64) -> Result<()> {
    static USERS: AtomicU64 = AtomicU64::new(0);

    async fn log_in(session: Session) -> Result<(), SessionError> {
        let user = USERS.fetch_add(1, Ordering::Relaxed);
        session.log_in(format!("user-{user:08}"))?;
        contenders::fill(session).await
    }

    USERS.store(0, Ordering::Relaxed);
    let layer = SessionLayer::builder(store, SigningKey::generate()?)
        .client_from(|_, _| {
            let client = Client::new().with_address("2001:db8::4711");
            client.with_user_agent(USER_AGENT)
        })
        .build()?;
    let router = Router::new().route("/log_in", get(log_in)).layer(layer);
    let each = sessions / u64::from(IN_FLIGHT);
    let mut tasks = JoinSet::new();
    for number in 0..u64::from(IN_FLIGHT) {
        let rest = u64::from(number < sessions % u64::from(IN_FLIGHT));
        let mut ready = Ready {
            router: router.clone(),
            cookie: HeaderValue::from_static("session=none"),
        };
        tasks.spawn(async move {
            for _ in 0..each + rest {
                let mut request = Request::new(Body::empty());
                *request.uri_mut() = axum::http::Uri::from_static("/log_in");
                ready.answer(request).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    Ok(())
}

/// The time of the calls of an administrator.
async fn calls(catalog: Arc<dyn SessionCatalog>, expected: u64) -> Result<()> {
    let sessions = SessionLayer::new(catalog, SigningKey::generate()?).sessions();
    let all = SessionFilter::new();
    let mut pages = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        let page = sessions.page(&all, None, 50).await?;
        assert_eq!(page.sessions.len(), 50);
        pages.push(start.elapsed().as_secs_f64());
    }
    println!(
        "  page of 50: {:.2?}",
        Duration::from_secs_f64(median(pages))
    );

    let start = Instant::now();
    assert_eq!(sessions.count(&all).await?, expected);
    println!("  count of all: {:.2?}", start.elapsed());

    let start = Instant::now();
    let one = SessionFilter::new().user("user-00000007");
    assert_eq!(sessions.count(&one).await?, 1);
    println!("  count of a user: {:.2?}", start.elapsed());

    let start = Instant::now();
    let now = Timestamp::from(SystemTime::now());
    let before = SessionFilter::new().created_before(now);
    assert_eq!(sessions.end(&before).await?, expected);
    println!("  end of all: {:.2?}", start.elapsed());
    Ok(())
}

/// How many bytes the store takes, with its indexes. Without a server, it is this process.
async fn bytes(server: Option<&Backend>) -> Result<u64> {
    let Some(server) = server else {
        return Ok(u64::try_from(resident()?)?);
    };
    let url = server.direct_url();
    let (scheme, place) = url.split_once(':').ok_or("the URL has no scheme")?;
    Ok(match scheme {
        "sqlite" => ["", "-wal"]
            .iter()
            .map(|end| length(&format!("{place}{end}")))
            .sum(),
        "postgres" => {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::query("VACUUM ANALYZE")
                .execute(&mut connection)
                .await?;
            let size =
                "SELECT coalesce(pg_total_relation_size(to_regclass('cloakroom_sessions')), 0)";
            let size: i64 = sqlx::query_scalar(size).fetch_one(&mut connection).await?;
            u64::try_from(size)?
        }
        "mysql" => {
            let mut connection = MySqlConnection::connect(&url).await?;
            let statements = [
                "SET SESSION information_schema_stats_expiry = 0",
                "ANALYZE TABLE cloakroom_sessions",
            ];
            for statement in statements {
                // MariaDB knows no such setting, and keeps nothing.
                let _ = sqlx::query(statement).execute(&mut connection).await;
            }
            let size = "SELECT CAST(coalesce(sum(data_length + index_length), 0) AS UNSIGNED)
                FROM information_schema.tables WHERE table_name = 'cloakroom_sessions'";
            sqlx::query_scalar(size).fetch_one(&mut connection).await?
        }
        "redis" => {
            let client = redis::Client::open(&*url)?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let info: String = redis::cmd("INFO")
                .arg("memory")
                .query_async(&mut connection)
                .await?;
            number_behind(&info, "used_memory:")?
        }
        _ => {
            let addresses = place.trim_start_matches('/').split(',');
            let mut sum = 0;
            for address in addresses {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(b"stats\r\n")?;
                stream.shutdown(Shutdown::Write)?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                sum += number_behind(&answer, "STAT bytes ")?;
            }
            sum
        }
    })
}

fn length(path: &str) -> u64 {
    Path::new(path).metadata().map_or(0, |file| file.len())
}

fn number_behind(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line
        .ok_or("the server does not say its size")?
        .trim()
        .parse()?)
}
