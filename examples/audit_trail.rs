//! Run with `cargo run --example audit_trail`, then log in as Ada, as an admin and out again:
//!
//! ```text
//! curl -c ada -d '' http://127.0.0.1:3000/login/ada
//! curl -c admin -d '' http://127.0.0.1:3000/login/admin
//! curl -b admin -d '' http://127.0.0.1:3000/revoke/ada
//! curl http://127.0.0.1:3000/audit
//! ```
//!
//! An audit trail in SQLite: who logged in, when, from where, and who ended which session. It must
//! not lose an event. A hook runs in the task of the request, so it must not wait for a disk. What
//! connects the two is a channel. There are three ways to make one:
//!
//! - A bounded channel whose hook drops events when it is full. It loses exactly the events of an
//!   attack.
//! - A bounded channel whose hook waits for room. A blocked hook blocks a thread of the runtime,
//!   and a slow disk then stops the whole site.
//! - An unbounded channel, with the bound at the door. This example does that. The hook never waits
//!   and never drops. Before a request that changes something, [`keep_trail`] looks at how many
//!   events wait. If there are too many, the answer is a 503, and nothing happens that the trail
//!   would have to know.
//!
//! A channel is memory, and memory is lost in a crash. So [`keep_trail`] also holds the response
//! back until the events of its request are on the disk. If that takes too long, the answer is a
//! 503. Then the client has no token, and the event is still written later. So nobody is logged in
//! without a line in the trail.
//!
//! The writer takes all events that wait and writes them in one transaction, so a busy site pays
//! for few syncs of the disk. It tries again until the disk takes the events. The number of an
//! event keeps it from being there twice. At a shutdown, the program ends when the last event is
//! written.
//!
//! One gap stays: somebody kills the process after the store has ended a session, and before the
//! trail has the event. To close this gap, keep sessions and trail in one database, and compare
//! them at the start.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cloakroom::{
    Client, CurrentUser, MemoryStore, Session, SessionError, SessionEvent, SessionEventKind,
    SessionLayer, Sessions, SigningKey, Timestamp,
};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_http::csrf::CsrfLayer;

/// How many events may wait before the site refuses to make more.
const MOST_WAITING: u64 = 10_000;

/// How many events the writer puts into one transaction.
const BATCH: usize = 500;

/// An event, and its number in this run of the program.
type Entry = (u64, SessionEvent);

/// The way to the audit trail. Clones are the same trail.
#[derive(Clone)]
struct Trail {
    sender: UnboundedSender<Entry>,
    /// How many events there were in this run.
    raised: Arc<AtomicU64>,
    /// How many of them are on the disk.
    written: watch::Receiver<u64>,
    /// How long a response waits for that.
    longest_wait: Duration,
}

/// The task that writes the trail.
struct Writer {
    task: JoinHandle<()>,
    close: Arc<Notify>,
}

impl Trail {
    async fn open(pool: SqlitePool, longest_wait: Duration) -> Result<(Self, Writer), sqlx::Error> {
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS audit (
                run INTEGER NOT NULL, number INTEGER NOT NULL, event TEXT NOT NULL,
                user TEXT, line TEXT NOT NULL, PRIMARY KEY (run, number))",
        )
        .execute(&pool)
        .await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let (progress, written) = watch::channel(0);
        let close = Arc::new(Notify::new());
        let task = tokio::spawn(write_all(pool, receiver, progress, close.clone()));
        let trail = Self {
            sender,
            raised: Arc::default(),
            written,
            longest_wait,
        };
        Ok((trail, Writer { task, close }))
    }

    /// The hook. It never waits.
    fn record(&self, event: &SessionEvent) {
        // Anybody can send a bad token, as often as they like.
        if event.kind() == SessionEventKind::Rejected {
            return;
        }
        let number = self.raised.fetch_add(1, Ordering::SeqCst) + 1;
        if let Err(unsent) = self.sender.send((number, event.clone())) {
            // The writer has ended, and so has the server.
            eprintln!("too late for the trail: {:?}", unsent.0);
        }
    }

    fn is_full(&self) -> bool {
        self.raised.load(Ordering::SeqCst) - *self.written.borrow() >= MOST_WAITING
    }

    /// Waits until everything is written that was raised so far. Returns whether it is.
    async fn is_written(&self) -> bool {
        let raised = self.raised.load(Ordering::SeqCst);
        let mut written = self.written.clone();
        let written = written.wait_for(|written| *written >= raised);
        matches!(timeout(self.longest_wait, written).await, Ok(Ok(_)))
    }
}

impl Writer {
    /// Ends when the last event is written.
    async fn finish(self) -> Result<(), tokio::task::JoinError> {
        self.close.notify_one();
        self.task.await
    }
}

/// A middleware around the session layer. It refuses a request whose events would find no room, and
/// holds back a response whose events are not written.
async fn keep_trail(State(trail): State<Trail>, request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET;
    if changes && trail.is_full() {
        return try_later();
    }
    let response = next.run(request).await;
    match !changes || trail.is_written().await {
        true => response,
        false => try_later(),
    }
}

fn try_later() -> Response {
    let text = "The audit trail is behind. Try again in a moment.\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response()
}

/// Writes all events, until `close` asks for the end and nothing waits any more.
async fn write_all(
    pool: SqlitePool,
    mut receiver: UnboundedReceiver<Entry>,
    progress: watch::Sender<u64>,
    close: Arc<Notify>,
) {
    let run = Timestamp::from(SystemTime::now()).as_millis();
    let mut entries = Vec::new();
    loop {
        let received = tokio::select! {
            received = receiver.recv_many(&mut entries, BATCH) => received,
            () = close.notified() => {
                receiver.close();
                continue;
            }
        };
        if received == 0 {
            return;
        }
        let mut pause = Duration::from_millis(50);
        while let Err(error) = write(&pool, run, &entries).await {
            eprintln!("{received} events wait for the audit trail: {error}");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        entries.clear();
        progress.send_modify(|written| *written += u64::try_from(received).unwrap_or(u64::MAX));
    }
}

async fn write(
    pool: &SqlitePool,
    run: u64,
    entries: &[Entry],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut transaction = pool.begin().await?;
    for (number, event) in entries {
        // After a commit whose answer was lost, the entries are there already.
        sqlx::query(
            "INSERT OR IGNORE INTO audit (run, number, event, user, line) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(i64::try_from(run)?)
        .bind(i64::try_from(*number)?)
        .bind(event.kind().as_str())
        .bind(event.user().map(|user| user.as_str()))
        .bind(serde_json::to_string(event)?)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(transaction.commit().await?)
}

/// A real application checks a password first.
async fn log_in(
    session: Session,
    headers: HeaderMap,
    Path(user): Path<String>,
) -> Result<(), SessionError> {
    session.log_in(user)?;
    let browser = headers.get(USER_AGENT).and_then(|it| it.to_str().ok());
    session.set_client(Client::new().with_user_agent(browser.unwrap_or("unknown")))
}

async fn log_out(session: Session) -> Result<(), SessionError> {
    session.log_out()
}

/// A real application checks first that the user is an admin. The trail says who asked.
async fn revoke(
    State(app): State<App>,
    CurrentUser(admin): CurrentUser,
    Path(user): Path<String>,
) -> Result<String, SessionError> {
    let ended = app.sessions.by(admin).revoke_user(user).await?;
    Ok(format!("{ended} sessions ended.\n"))
}

/// A real application shows this to nobody but its auditors.
async fn audit(State(app): State<App>) -> Result<String, StatusCode> {
    let lines = sqlx::query_scalar::<_, String>("SELECT line FROM audit ORDER BY run, number");
    let lines = lines.fetch_all(&app.pool).await;
    let lines = lines.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

/// Waits for Ctrl-C, or for the SIGTERM of a service manager. The program catches the signal from
/// this call on.
fn asked_to_stop() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())?
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}

#[derive(Clone)]
struct App {
    sessions: Sessions<MemoryStore>,
    pool: SqlitePool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let file = std::env::temp_dir().join("cloakroom_audit.db");
    let file = std::env::var_os("AUDIT_DB").map_or(file, Into::into);
    let wait = Duration::from_millis(setting("WAIT_MS", "5000").parse()?);
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options.busy_timeout(wait / 2)).await?;
    let (trail, writer) = Trail::open(pool.clone(), wait).await?;

    let hook = trail.clone();
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .on_event(move |event| hook.record(event))
        .build()?;
    let sessions = layer.sessions();
    let app = Router::new()
        .route("/login/{user}", post(log_in))
        .route("/logout", post(log_out))
        .route("/revoke/{user}", post(revoke))
        .route("/audit", get(audit))
        .with_state(App { sessions, pool })
        .layer(layer)
        .layer(from_fn_with_state(trail, keep_trail)) // around the session layer
        .layer(CsrfLayer::new());

    let asked_to_stop = asked_to_stop()?;
    let port = setting("PORT", "3000");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(asked_to_stop)
        .await?;
    Ok(writer.finish().await?)
}
