//! Run with `cargo run --example login`, then open <http://127.0.0.1:3000>.
//!
//! A small site with accounts. A user can register, log in, stay logged in over a restart, see and
//! end other sessions, change the password, and delete the account. The first user is one of the
//! staff, who can act as other users. One SQLite file holds the users and the sessions. `--store`
//! names another place for the sessions. The site works without JavaScript.
//!
//! `--tls` serves it over HTTPS. Then a browser that can do that binds the session to its device: a
//! copy of its cookies is worth nothing after some minutes.
//!
//! Read the parts in this order:
//!
//! - `app.rs`: the routes, their guards, the session layer and the layers around it
//! - `users.rs`: the accounts and their passwords, and how the session layer finds a user
//! - `account.rs`: register, log in and out, confirm and change the password, delete the account
//! - `devices.rs`: the list of a user's sessions, and how to end them
//! - `staff.rs`: the list of users, and how one user acts as another
//! - `home.rs`: a counter, a theme, and a page for members only
//! - `tls.rs`: the certificate, and a listener that speaks TLS
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
mod tls;
mod users;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use axum::serve::ListenerExt;
use cloakroom::{
    AnyStore, AtLimit, DeviceBinding, SessionLayer, SessionLayerBuilder, SessionStore, SigningKeys,
    SqliteStore, WithDevices,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use app::{App, Devices};
use options::{Command, Options, USAGE};
use tls::{CertificateFiles, Tls};
use users::Db;

/// The time that requests under way may take after somebody has asked the server to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// A token that somebody copied is good for two of these intervals and a minute, if its owner is
/// active.
const ROTATION_INTERVAL: Duration = Duration::from_secs(10 * 60);

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
) -> Result<SessionLayer<S, WithDevices>, Box<dyn Error>> {
    // Without `--tls`, the demo speaks plain HTTP on this machine, unless a proxy in front of it
    // speaks TLS. Some browsers do not take a `Secure` cookie from plain HTTP. Never use plain HTTP
    // if others can listen.
    let is_secure = options.tls || options.behind_tls;
    // A browser binds the session to its device over HTTPS only. These two files need no session,
    // so the browser need not prove its device for them.
    let binding = DeviceBinding::default()
        .cookie_lifetime(options.bound_for)
        .grace_period(options.bound_for.min(Duration::from_secs(30)))
        .exclude("/style.css")
        .exclude("/icon.svg");
    let layer = builder
        .secure(is_secure)
        .rotate_every(ROTATION_INTERVAL)
        .client_from(devices::client_of)
        .on_event(devices::log_reuse)
        .bind_to_device(is_secure.then_some(binding))
        .users(db.clone())
        .build()?;
    Ok(layer)
}

async fn run<S: SessionStore>(
    options: Options,
    layer: SessionLayer<S, WithDevices>,
    app: App,
) -> Result<(), Box<dyn Error>> {
    let tls = open_tls(&options)?;
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
    match &tls {
        Some(tls) => {
            let hash = &tls.public_key_hash;
            writeln!(out, "SHA-256 of the certificate's public key: {hash}")?;
            writeln!(out, "cloakroom demo on https://{address}")?;
        }
        None => writeln!(out, "cloakroom demo on http://{address}")?,
    }
    out.flush()?;

    let app = app::router(app, layer, options.fresh_for);
    let (stop, stopping) = oneshot::channel();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let asked_to_stop = async move {
        asked_to_stop.await;
        let _ = stop.send(());
    };
    let server: Pin<Box<dyn Future<Output = std::io::Result<()>>>> = match tls {
        Some(tls) => {
            // axum knows the addresses of clients for listeners that `tap_io` returns.
            let listener = tls.listen(listener)?.tap_io(|_| {});
            let server = axum::serve(listener, app).with_graceful_shutdown(asked_to_stop);
            Box::pin(server.into_future())
        }
        None => {
            let server = axum::serve(listener, app).with_graceful_shutdown(asked_to_stop);
            Box::pin(server.into_future())
        }
    };
    let too_late = async {
        let _ = stopping.await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        ended = server => ended?,
        () = too_late => tracing::warn!("some requests took too long and were dropped"),
    }
    purge.stop().await;
    Ok(())
}

fn open_tls(options: &Options) -> Result<Option<Tls>, Box<dyn Error>> {
    if !options.tls {
        return Ok(None);
    }
    let files = match &options.certificate {
        Some(files) => files.clone(),
        None => {
            let path = options.own_certificate();
            tls::create_certificate(&path)?;
            CertificateFiles {
                certificate: path.clone(),
                key: path,
            }
        }
    };
    Tls::read(&files).map(Some)
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
