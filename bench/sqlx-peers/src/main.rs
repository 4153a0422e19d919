//! Times requests to tower-sessions on its SQL stores. They need an older sqlx than the benchmark that starts this.

#[allow(dead_code)]
#[path = "../../src/scenario.rs"]
mod scenario;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::{HeaderValue, SET_COOKIE};
use axum::http::{Request, Uri};
use axum::routing::get;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::runtime;
use tower::Service;
use tower_sessions::cookie::Key;
use tower_sessions::service::SignedCookie;
use tower_sessions::{Session, SessionManagerLayer, SessionStore, session};
use tower_sessions_sqlx_store::{PostgresStore, SqliteStore};

use scenario::{GOOD, NONCE, Profile, Scenario, THEME, cart};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "\
start it as `sqlx-peers sqlite PATH` or `sqlx-peers postgres URL`
and, after its line `ready`, write lines `SCENARIO IN_FLIGHT REQUESTS`, such as `B 64 6400`, to it";

const CONNECTIONS: u32 = 10;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sqlx-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let router = match arguments.as_slice() {
        ["sqlite", path] => runtime.block_on(sqlite(path)).map_err(|error| {
            format!("{error}; give a PATH of a file in a directory that can be written to")
        })?,
        ["postgres", url] => runtime.block_on(postgres(url)).map_err(|error| {
            format!(
                "{error}; start PostgreSQL, and give a URL such as \
                 postgres://user@127.0.0.1:5432/database whose user may create a schema"
            )
        })?,
        _ => return Err(USAGE.into()),
    };
    let cookie = runtime.block_on(session_cookie(&router))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    for line in io::stdin().lines() {
        let line = line?;
        let (scenario, in_flight, requests) =
            parsed(&line).ok_or_else(|| format!("cannot read the line {line:?}; {USAGE}"))?;
        let elapsed = runtime.block_on(send(&router, &cookie, scenario, in_flight, requests))?;
        writeln!(stdout, "{}", elapsed.as_nanos())?;
        stdout.flush()?;
    }
    Ok(())
}

fn parsed(line: &str) -> Option<(Scenario, NonZeroU64, u64)> {
    let mut words = line.split_whitespace();
    let scenario = Scenario::named(words.next()?)?;
    let in_flight = words.next()?.parse().ok()?;
    let requests = words.next()?.parse().ok()?;
    words
        .next()
        .is_none()
        .then_some((scenario, in_flight, requests))
}

async fn sqlite(path: &str) -> Result<Router> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    let store = SqliteStore::new(pool);
    store.migrate().await?;
    Ok(around(store))
}

async fn postgres(url: &str) -> Result<Router> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect(url)
        .await?;
    let store = PostgresStore::new(pool);
    store.migrate().await?;
    Ok(around(store))
}

/// The cookies that `/fill` answers with, as a browser sends them.
async fn session_cookie(router: &Router) -> Result<HeaderValue> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("/fill");
    let response = router.clone().call(request).await?;
    let cookies: Vec<&str> = response
        .headers()
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .collect();
    if response.status() != GOOD || cookies.is_empty() {
        return Err("no session was made; check that the database can be written to".into());
    }
    Ok(cookies.join("; ").parse()?)
}

/// The time that all requests took together.
async fn send(
    router: &Router,
    cookie: &HeaderValue,
    scenario: Scenario,
    in_flight: NonZeroU64,
    requests: u64,
) -> Result<Duration> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..in_flight.get())
        .map(|task| {
            // What does not divide evenly goes to the first tasks.
            let share = requests / in_flight + u64::from(task < requests % in_flight);
            let (mut router, cookie) = (router.clone(), cookie.clone());
            tokio::spawn(async move {
                for _ in 0..share {
                    let response = match router.call(scenario.request(&cookie)).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    assert_eq!(response.status(), GOOD, "{scenario}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|_| {
            format!(
                "a request of scenario {scenario} failed; check that the database is up and has \
                 {CONNECTIONS} connections left"
            )
        })?;
    }
    Ok(start.elapsed())
}

fn around<S: SessionStore + Clone>(store: S) -> Router {
    let layer: SessionManagerLayer<S, SignedCookie> =
        SessionManagerLayer::new(store).with_signed(Key::generate());
    Router::new()
        .route("/untouched", get(untouched))
        .route("/fill", get(fill))
        .route("/read", get(read))
        .route("/count", get(count))
        .route("/create", get(create))
        .layer(layer)
}

async fn untouched() -> &'static str {
    "ok"
}

async fn fill(session: Session) -> Result<(), &'static str> {
    let filled: Result<(), session::Error> = async {
        session.insert("profile", Profile::example()).await?;
        session.insert("cart", cart()).await?;
        session.insert("nonce", NONCE).await?;
        session.insert("theme", THEME).await?;
        session.insert("count", 0_u64).await
    }
    .await;
    filled.map_err(|_| "no store")
}

async fn read(session: Session) -> &'static str {
    let theme: Option<String> = session.get("theme").await.unwrap();
    assert_eq!(theme.as_deref(), Some(THEME));
    "ok"
}

async fn count(session: Session) -> &'static str {
    let count: u64 = session.get("count").await.unwrap().unwrap_or(0);
    session.insert("count", count + 1).await.unwrap();
    "ok"
}

async fn create(session: Session) -> &'static str {
    session.insert("count", 1_u64).await.unwrap();
    "ok"
}
