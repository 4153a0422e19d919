//! Times requests to tower-sessions on its SQL stores. They need an older sqlx than the benchmark that starts this.

#[path = "../../src/load.rs"]
mod load;
#[path = "../../src/ready.rs"]
mod ready;
#[path = "../../src/scenario.rs"]
mod scenario;
#[macro_use]
#[path = "../../src/contenders/tower_sessions.rs"]
mod tower_sessions_routes;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::runtime;
use tower_sessions_sqlx_store::{MySqlStore, PostgresStore, SqliteStore};

use ready::{Ready, Result};
use routes::around;
use scenario::Scenario;

tower_sessions!(routes, tower_sessions);

const USAGE: &str = "\
start it as `sqlx-peers sqlite PATH`, `sqlx-peers postgres URL` or `sqlx-peers mysql URL`
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
        ["mysql", url] => runtime.block_on(mysql(url)).map_err(|error| {
            format!(
                "{error}; start MySQL or MariaDB, and give a URL such as \
                 mysql://user@127.0.0.1:3306/database whose user may create a database"
            )
        })?,
        _ => return Err(USAGE.into()),
    };
    let first = runtime.block_on(Ready::of(router))?;
    let mut sessions = vec![first.clone()];
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    for line in io::stdin().lines() {
        let line = line?;
        let (scenario, in_flight, requests) =
            parsed(&line).ok_or_else(|| format!("cannot read the line {line:?}; {USAGE}"))?;
        if let Some(missing) = in_flight.checked_sub(sessions.len() as u32) {
            sessions.extend(runtime.block_on(load::sessions(&first, missing))?);
        }
        let used = &sessions[..in_flight as usize];
        let elapsed = runtime.block_on(load::send(used, scenario, requests))?;
        writeln!(stdout, "{}", elapsed.as_nanos())?;
        stdout.flush()?;
    }
    Ok(())
}

fn parsed(line: &str) -> Option<(Scenario, u32, u32)> {
    let mut words = line.split_whitespace();
    let scenario = Scenario::named(words.next()?)?;
    let in_flight = words.next()?.parse().ok().filter(|&number| number > 0)?;
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
        .synchronous(SqliteSynchronous::Full)
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

async fn mysql(url: &str) -> Result<Router> {
    let pool = MySqlPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect(url)
        .await?;
    let store = MySqlStore::new(pool);
    store.migrate().await?;
    Ok(around(store))
}
