//! [`Link`]: a connection that is replaced when its server is gone, silent or demoted.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::aio::{ConnectionLike, SendError};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::servers::{Servers, Source, Wire};

/// How long one step of an attempt to connect may take, such as the TCP connection with its login.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that says nothing for so long counts as lost.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a whole attempt may take. It may ask several sentinels or nodes.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call waits for a connection. It is shorter than the layer's default store timeout, so
/// that the caller sees why there is no connection.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long a call that the server refused waits for another server.
const RETRY_WITHIN: Duration = Duration::from_secs(1);

/// How often the task looks at the calls that wait for an answer.
const TICK: Duration = Duration::from_millis(250);

/// A connection that all clones share. One task connects for all of them, and watches the
/// connection. The task does both, whether a caller waits for an answer or not.
#[derive(Clone)]
pub(super) struct Link(Arc<Owner>);

/// What the clones of a link share. When the last clone is dropped, the task ends.
struct Owner(Arc<State>);

struct State {
    servers: Servers,
    /// Only the task uses it.
    source: Mutex<Source>,
    line: watch::Sender<Line>,
    /// The line of this number has to be replaced, and so do all lines before it.
    doubted: AtomicU64,
    /// How many calls wait for an answer.
    waiting: AtomicUsize,
    /// Whether a caller went away before the answer came.
    is_given_up: AtomicBool,
    /// Whether the task is about to look at what is waiting.
    is_watching: AtomicBool,
    wake: Notify,
    /// `None` when the link is gone.
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// The connection that calls use now.
struct Line {
    /// Each new connection has the next number.
    number: u64,
    /// `None` while there is no connection that could answer.
    wire: Option<Wire>,
    /// Why the last attempt to connect failed.
    error: Option<RedisError>,
}

impl Link {
    /// Connects, and starts the task.
    pub(super) async fn open(servers: Servers, source: Source) -> RedisResult<Self> {
        let line = Line {
            number: 0,
            wire: None,
            error: None,
        };
        let state = Arc::new(State {
            servers,
            source: Mutex::new(source),
            line: watch::Sender::new(line),
            doubted: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            is_given_up: AtomicBool::new(false),
            is_watching: AtomicBool::new(false),
            wake: Notify::new(),
            task: std::sync::Mutex::new(None),
        });
        state.connect().await?;
        *state.task() = Some(tokio::spawn(Arc::clone(&state).keep()));
        Ok(Self(Arc::new(Owner(state))))
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.0.0.servers.is_cluster()
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.0.0.servers
    }

    /// A look at the connection from beside. It does not keep the link.
    pub(super) fn observe(&self) -> Observer {
        Observer {
            state: Arc::downgrade(&self.0.0),
            owner: Arc::downgrade(&self.0),
            lines: self.0.0.line.subscribe(),
        }
    }

    /// The server's answer. A call that a demoted server refused is made once more on the next
    /// connection, if that comes soon: the server did nothing.
    pub(super) async fn call(&self, command: &Cmd) -> RedisResult<Value> {
        let state = &self.0.0;
        let (number, wire) = state.wire_after(0).await?;
        let answer = state.ask(number, wire, command).await;
        if !is_refused(&answer) {
            return answer;
        }
        match timeout(RETRY_WITHIN, state.wire_after(number)).await {
            Ok(Ok((number, wire))) => state.ask(number, wire, command).await,
            _ => answer,
        }
    }
}

impl Link {
    /// The connections to a cluster. `None` if the link is to one server.
    pub(super) async fn cluster(&self) -> RedisResult<Option<ClusterConnection>> {
        if !self.is_cluster() {
            return Ok(None);
        }
        let (_, wire) = self.0.0.wire_after(0).await?;
        Ok(match wire {
            Wire::Cluster(connection) => Some(connection),
            Wire::Server(_) => None,
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(task) = self.0.task().take() {
            task.abort();
        }
    }
}

impl State {
    /// A connection with a higher number than this.
    async fn wire_after(self: &Arc<Self>, number: u64) -> RedisResult<(u64, Wire)> {
        if let Some(found) = self.line.borrow().after(number) {
            return Ok(found);
        }
        self.wake();
        let mut lines = self.line.subscribe();
        let wait = lines.wait_for(|line| line.after(number).is_some());
        if let Ok(Ok(line)) = timeout(PATIENCE, wait).await
            && let Some(found) = line.after(number)
        {
            return Ok(found);
        }
        let error = self.line.borrow().error.clone();
        Err(error.unwrap_or_else(|| io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    async fn ask(
        self: &Arc<Self>,
        number: u64,
        mut wire: Wire,
        command: &Cmd,
    ) -> RedisResult<Value> {
        let mut asked = Asked::begin(self);
        let answer = wire.ask(command).await;
        asked.end(number, answer.as_ref().err());
        if is_refused(&answer) {
            self.doubt(number);
        }
        answer
    }

    /// Ends the use of a connection that is closed: calls wait for another one.
    fn lose(self: &Arc<Self>, number: u64) {
        // The other nodes of a cluster may answer.
        if !self.servers.is_cluster() {
            self.line.send_if_modified(|line| {
                let is_lost = line.number == number && line.wire.is_some();
                if is_lost {
                    line.wire = None;
                }
                is_lost
            });
        }
        self.doubt(number);
    }

    /// Has the task replace the connection. Calls use this one until then.
    fn doubt(self: &Arc<Self>, number: u64) {
        self.doubted.fetch_max(number, SeqCst);
        self.wake();
    }

    fn is_doubted(&self) -> bool {
        self.doubted.load(SeqCst) >= self.line.borrow().number
    }

    /// Has the task look soon at the calls that wait.
    fn watch(self: &Arc<Self>) {
        if !self.is_watching.load(SeqCst) && !self.is_watching.swap(true, SeqCst) {
            self.wake();
        }
    }

    /// Wakes the task. If its runtime has ended, this starts it in the present one.
    fn wake(self: &Arc<Self>) {
        if let Some(task) = &mut *self.task()
            && task.is_finished()
            && let Ok(runtime) = Handle::try_current()
        {
            *task = runtime.spawn(Arc::clone(self).keep());
        }
        self.wake.notify_one();
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task: replaces a connection that is in doubt, and looks for one that went silent.
    async fn keep(self: Arc<Self>) {
        let mut pace = Pace::new();
        loop {
            if self.is_doubted() {
                pace.wait().await;
                // The line keeps the error for the calls that wait.
                let _ = self.connect().await;
                continue;
            }
            self.wake.notified().await;
            if !self.is_doubted() && self.waits_for_long().await {
                self.look_for_silence().await;
            }
        }
    }

    /// Whether calls wait for an answer at one look and at the next. Calls whose callers went away
    /// count too: otherwise nothing would notice that no answer comes.
    async fn waits_for_long(&self) -> bool {
        for _ in 0..2 {
            // It ends early if the connection has to be replaced.
            let _ = timeout(TICK, self.wake.notified()).await;
            // The order matters: a call that begins after the look finds that nothing watches.
            self.is_watching.store(false, SeqCst);
            let waits = self.waiting.load(SeqCst) > 0 || self.is_given_up.load(SeqCst);
            if self.is_doubted() || !waits {
                return false;
            }
        }
        true
    }

    /// Asks a question of its own. A server answers in the order of the calls, so that this answer
    /// proves that all calls before it were answered.
    async fn look_for_silence(self: &Arc<Self>) {
        self.is_given_up.store(false, SeqCst);
        let Some((number, mut wire)) = self.line.borrow().after(0) else {
            return;
        };
        match timeout(RESPONSE_TIMEOUT, wire.ask(&redis::cmd("PING"))).await {
            Err(_) => self.doubt(number),
            // A cluster's client has a timeout of its own.
            Ok(Err(error)) if error.is_timeout() => self.doubt(number),
            Ok(Err(error)) if error.is_unrecoverable_error() => self.lose(number),
            Ok(_) => {}
        }
    }

    /// Makes the next connection.
    async fn connect(self: &Arc<Self>) -> RedisResult<()> {
        let number = self.line.borrow().number + 1;
        let attempt = async {
            let mut source = self.source.lock().await;
            source.connect(&config(Arc::downgrade(self), number)).await
        };
        let wire = timeout(ATTEMPT_TIMEOUT, attempt)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        match wire {
            Ok(wire) => {
                self.line.send_replace(Line {
                    number,
                    wire: Some(wire),
                    error: None,
                });
                Ok(())
            }
            Err(error) => {
                let cause = error.clone();
                self.line.send_modify(|line| line.error = Some(cause));
                Err(error)
            }
        }
    }
}

impl Line {
    fn after(&self, number: u64) -> Option<(u64, Wire)> {
        let wire = self.wire.as_ref().filter(|_| self.number > number)?;
        Some((self.number, wire.clone()))
    }
}

impl Wire {
    async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(wire) => wire.send_packed_command(command).await,
            Self::Cluster(wire) => wire.req_packed_command(command).await,
        }
    }
}

/// The settings of the connection of this number.
fn config(state: Weak<State>, number: u64) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        // Each call would need a timer. The layer has one, and the task looks for silence.
        .set_response_timeout(None)
        // With it, the link notices that an idle connection ends.
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection
                && let Some(state) = state.upgrade()
            {
                state.lose(number);
            }
            Ok::<_, SendError>(())
        })
}

/// What somebody who does not use the link can know about its connection.
pub(super) struct Observer {
    state: Weak<State>,
    owner: Weak<Owner>,
    lines: watch::Receiver<Line>,
}

impl Observer {
    /// The number of the present connection. If there is none, this waits for one.
    pub(super) async fn connected(&self) -> RedisResult<u64> {
        let state = self.state.upgrade().ok_or_else(gone)?;
        Ok(state.wire_after(0).await?.0)
    }

    /// Whether the connection of this number is the present one.
    pub(super) fn is_present(&self, number: u64) -> bool {
        self.lines.borrow().number == number
    }

    /// Whether all clones of the link were dropped.
    pub(super) fn is_gone(&self) -> bool {
        self.owner.strong_count() == 0
    }

    /// Waits until the connection of this number is replaced, or the link is gone.
    pub(super) async fn replaced(&mut self, number: u64) {
        // It is an error if the link is gone.
        let _ = self.lines.wait_for(|line| line.number != number).await;
    }

    /// Waits until the link is gone.
    pub(super) async fn gone(&mut self) {
        let _ = self.lines.wait_for(|_| false).await;
    }

    /// The answer over the connection of this number.
    pub(super) async fn ask(&self, number: u64, command: &Cmd) -> RedisResult<Value> {
        let state = self.state.upgrade().ok_or_else(gone)?;
        let line = state.line.borrow().after(number.saturating_sub(1));
        let (_, wire) = line
            .filter(|(found, _)| *found == number)
            .ok_or_else(gone)?;
        state.ask(number, wire, command).await
    }

    /// Has the link replace the connection of this number.
    pub(super) fn doubt(&self, number: u64) {
        if let Some(state) = self.state.upgrade() {
            state.doubt(number);
        }
    }
}

fn gone() -> RedisError {
    io::Error::from(io::ErrorKind::NotConnected).into()
}

/// A call that waits for its answer. It counts until it is dropped.
struct Asked<'a> {
    state: &'a Arc<State>,
    is_answered: bool,
}

impl<'a> Asked<'a> {
    fn begin(state: &'a Arc<State>) -> Self {
        state.waiting.fetch_add(1, SeqCst);
        state.watch();
        Self {
            state,
            is_answered: false,
        }
    }

    fn end(&mut self, number: u64, error: Option<&RedisError>) {
        // A timeout of a cluster's client is not an answer of the server.
        self.is_answered = !error.is_some_and(RedisError::is_timeout);
        if error.is_some_and(RedisError::is_unrecoverable_error) {
            self.state.lose(number);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.state.waiting.fetch_sub(1, SeqCst);
        if !self.is_answered {
            self.state.is_given_up.store(true, SeqCst);
            self.state.watch();
        }
    }
}

/// When the next attempt to connect may begin.
pub(super) struct Pace {
    last: Instant,
    pause: Duration,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);
    /// If there was no attempt for so long, the next pause is the shortest again.
    const CALM: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self {
            last: Instant::now(),
            pause: Self::SHORTEST,
        }
    }

    pub(super) async fn wait(&mut self) {
        if self.last.elapsed() > Self::CALM {
            self.pause = Self::SHORTEST;
        }
        sleep_until(self.last + self.pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        self.last = Instant::now();
    }
}

/// Whether a server refused a call because another server may have its role: it is a replica now,
/// or a replica without its master; it still reads its data after a start; or it is a master that
/// lost its replicas, and one of them may be master.
fn is_refused(answer: &RedisResult<Value>) -> bool {
    is_of_demoted(answer) || matches!(code(answer), Some("LOADING" | "NOREPLICAS"))
}

/// Whether a server is a replica now, so that it refuses every write.
pub(super) fn is_of_demoted(answer: &RedisResult<Value>) -> bool {
    matches!(code(answer), Some("READONLY" | "MASTERDOWN"))
}

fn code(answer: &RedisResult<Value>) -> Option<&str> {
    match answer {
        Ok(Value::ServerError(error)) => Some(error.code()),
        Ok(_) => None,
        Err(error) => error.code(),
    }
}
