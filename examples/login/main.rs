//! Run with `cargo run --example login`, then open <http://127.0.0.1:3000>.
//!
//! A small site with accounts. A user can register, log in, stay logged in over a restart, see and
//! end other sessions, change the password, and delete the account. The first user is one of the
//! staff, who can act as other users. One SQLite file holds the users and the sessions. `--store`
//! names another place for the sessions. The site works without JavaScript.
//!
//! Read the parts in this order:
//!
//! - `app.rs`: the routes, their guards, the session layer and the layers around it
//! - `users.rs`: the accounts and their passwords, and how the session layer finds a user
//! - `account.rs`: register, log in and out, confirm and change the password, delete the account
//! - `devices.rs`: the list of a user's sessions, and how to end them
//! - `staff.rs`: the list of users, and how one user acts as another
//! - `home.rs`: a counter, a theme, and a page for members only
//! - `pages.rs`, `error.rs`: HTML, notices that a page shows once, and pages for errors
//!
//! A real site needs one more thing: a limit on how many passwords a client may try.

mod account;
mod app;
mod devices;
mod error;
mod home;
mod options;
mod pages;
mod secret_file;
mod staff;
mod users;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use cloakroom::{
    AnyStore, AtLimit, SessionLayer, SessionLayerBuilder, SessionStore, SigningKeys, SqliteStore,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use app::{App, Devices};
use options::{Command, Options, USAGE};
use users::Db;

/// The time that requests under way may take after somebody has asked the server to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// More devices than people have. With this limit, the list of sessions stays readable.
const MAX_SESSIONS: usize = 20;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options::parse(
        std::env::args_os().skip(1),
        std::env::var("PORT").ok().as_deref(),
    ) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprint!("{reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();

    // The file holds password hashes, so only its owner may read it.
    secret_file::create(&options.database, "")?;
    let db = Db::open(&options.database).await?;
    let store = match &options.store {
        Some(url) => AnyStore::connect(url).await?,
        None => AnyStore::from_user_index(SqliteStore::open(&options.database).await?),
    };
    // The key is in a file beside the database. If a restart changed the key, nobody would be
    // logged in any more.
    let key_file = options.key_file();
    secret_file::create_key(&key_file)?;
    let keys = SigningKeys::from_file(&key_file)?;
    match store.user_index() {
        Some(store) => {
            let layer =
                SessionLayer::builder(store, keys).session_limit(MAX_SESSIONS, AtLimit::EndOldest);
            let layer = finish(layer, &db, &options)?;
            let devices = Devices::Listed(layer.sessions());
            run(options, layer, App { db, devices }).await
        }
        None => {
            let layer = finish(SessionLayer::builder(store, keys), &db, &options)?;
            let devices = Devices::Unknown;
            run(options, layer, App { db, devices }).await
        }
    }
}

fn finish<S: SessionStore>(
    builder: SessionLayerBuilder<S>,
    db: &Db,
    options: &Options,
) -> Result<SessionLayer<S>, Box<dyn Error>> {
    // The demo speaks plain HTTP on this machine, unless a proxy in front of it speaks TLS. Some
    // browsers do not take a `Secure` cookie from plain HTTP. Never use plain HTTP if others can
    // listen.
    let builder = builder.secure(options.behind_tls);
    Ok(builder.users(db.clone()).build()?)
}

async fn run<S: SessionStore>(
    options: Options,
    layer: SessionLayer<S>,
    app: App,
) -> Result<(), Box<dyn Error>> {
    // The layer refuses expired sessions in any case. This task removes them from the store.
    let purge = layer.sessions().spawn_purge(PURGE_INTERVAL);
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = listener.local_addr()?;

    let mut out = std::io::stdout();
    if app.db.add_demo_user().await? {
        writeln!(
            out,
            "made a user for you to try: {} with the password {}",
            users::DEMO_NAME,
            users::DEMO_PASSWORD
        )?;
    }
    let asked_to_stop = asked_to_stop()?;
    writeln!(out, "cloakroom demo on http://{address}")?;
    out.flush()?;

    let app = app::router(app, layer, options.fresh_for);
    let (stop, stopping) = oneshot::channel();
    let server = axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(async move {
        asked_to_stop.await;
        let _ = stop.send(());
    });
    let too_late = async {
        let _ = stopping.await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        ended = server.into_future() => ended?,
        () = too_late => tracing::warn!("some requests took too long and were dropped"),
    }
    purge.stop().await;
    Ok(())
}

/// Waits for Ctrl-C, or for the SIGTERM of a service manager. The process catches both signals from
/// this call on, even before the caller awaits the future.
#[cfg(unix)]
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
