//! [`WatchedKeys`]: keys that change while the application runs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::error::ConfigError;
use crate::events;

/// Nobody needs a shorter time between two reads.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Keys that a task reads again at an interval, so that they can change without a restart: the
/// keys of a file, or those that a function gives.
///
/// [`SigningKeys::watch_file`](crate::SigningKeys::watch_file) and
/// [`SigningKeys::watch`](crate::SigningKeys::watch) make them, and so do the same functions of
/// `EncryptionKeys`. A [`SessionLayer`](crate::SessionLayer) and an `EncryptedStore` take them in
/// the place of other keys.
///
/// - A request gets the newest keys when it comes, and keeps them until its response is made. An
///   `EncryptedStore` takes the newest keys for each record that it encrypts or decrypts.
/// - If the file or the function fails, or takes longer than the interval, the keys stay as they
///   are, and the event `keys_rejected` says why. Of many failures in a row, the log warns of the
///   1st, the 2nd, the 4th and so on. The event `keys_accepted` says that the keys have changed, or
///   that a read has succeeded again.
/// - The layer no longer accepts a key that is left out: a token that this key signed is refused.
///
/// A clone has the same keys, and the task ends with the last clone. A layer or a store keeps a
/// clone.
///
/// ```no_run
/// use std::time::Duration;
/// use cloakroom::{MemoryStore, SessionLayer, SigningKeys};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = SigningKeys::watch_file("/run/secrets/session_keys", Duration::from_secs(30))?;
/// let layer = SessionLayer::new(MemoryStore::new(), keys.clone());
/// keys.reload()?; // at once, for example at a SIGHUP
/// # Ok(()) }
/// ```
#[doc(alias("hot reload", "SIGHUP"))]
pub struct WatchedKeys<K> {
    watched: Arc<Watched<K>>,
}

struct Watched<K> {
    /// Whose keys they are, for the log.
    kind: &'static str,
    source: Box<dyn Fn() -> Result<K, ConfigError> + Send + Sync>,
    is_same: fn(&K, &K) -> bool,
    current: RwLock<Snapshot<K>>,
    /// The number of `current`. Most readers need no more.
    number: AtomicU64,
    /// How many reads have failed, or have given no answer in time, since the last good one.
    failures: AtomicU64,
    /// Only one read is under way at a time, so that no older keys come after newer ones.
    reading: Mutex<()>,
    task: AbortHandle,
}

/// The keys of one moment. Each change has the next number.
#[derive(Debug)]
pub(crate) struct Snapshot<K> {
    pub(crate) number: u64,
    pub(crate) keys: Arc<K>,
}

impl<K> Clone for Snapshot<K> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            keys: Arc::clone(&self.keys),
        }
    }
}

impl<K: Send + Sync + 'static> WatchedKeys<K> {
    /// Reads the keys, and starts the task.
    pub(crate) fn new(
        kind: &'static str,
        interval: Duration,
        is_same: fn(&K, &K) -> bool,
        source: impl Fn() -> Result<K, ConfigError> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let first = call(&source)?;
        let watched = Arc::new_cyclic(|watched| Watched {
            kind,
            source: Box::new(source),
            is_same,
            current: RwLock::new(Snapshot {
                number: 0,
                keys: Arc::new(first),
            }),
            number: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            reading: Mutex::new(()),
            task: tokio::spawn(follow(
                Weak::clone(watched),
                interval.max(SHORTEST_INTERVAL),
            ))
            .abort_handle(),
        });
        Ok(Self { watched })
    }
}

/// Reads the keys again and again, while there is somebody to have them.
async fn follow<K: Send + Sync + 'static>(watched: Weak<Watched<K>>, interval: Duration) {
    loop {
        sleep(interval).await;
        let reader = Weak::clone(&watched);
        // A file system may be slow, and so may the application's function.
        let mut read = spawn_blocking(move || {
            if let Some(watched) = reader.upgrade() {
                // A failure has an event.
                drop(watched.reload());
            }
        });
        loop {
            match timeout(interval, &mut read).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) => watched.upgrade().iter().for_each(|it| it.rejected(&late())),
            }
        }
    }
}

/// Nobody can stop the read. It goes on, and its keys count once they are there.
fn late() -> ConfigError {
    ConfigError::new(
        "keys",
        "the file or the function has given no keys for an interval and longer",
    )
}

/// What the source answers. The source of an application may panic.
fn call<K>(source: &dyn Fn() -> Result<K, ConfigError>) -> Result<K, ConfigError> {
    catch_unwind(AssertUnwindSafe(source)).unwrap_or_else(|_| {
        let reason = "the function that gives the keys panicked";
        Err(ConfigError::new("keys", reason))
    })
}

impl<K> Watched<K> {
    fn reload(&self) -> Result<bool, ConfigError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = call(&*self.source).inspect_err(|error| self.rejected(error))?;
        let was_rejected = self.failures.swap(0, Ordering::Relaxed) > 0;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_changed = !(self.is_same)(&current.keys, &keys);
        if is_changed {
            *current = Snapshot {
                number: current.number + 1,
                keys: Arc::new(keys),
            };
            self.number.store(current.number, Ordering::Release);
        }
        drop(current);
        if is_changed || was_rejected {
            events::keys_accepted(self.kind, is_changed);
        }
        Ok(is_changed)
    }

    fn rejected(&self, error: &ConfigError) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        events::keys_rejected(self.kind, error, before + 1);
    }
}

impl<K> WatchedKeys<K> {
    /// Reads the keys now, in this thread. If a read is under way already, the call waits for it
    /// first. The answer is `true` if the keys have changed. Requests that come from now on get the
    /// new keys.
    ///
    /// # Errors
    ///
    /// The file or the function failed. The keys stay as they are.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        self.watched.reload()
    }

    pub(super) fn snapshot(&self) -> Snapshot<K> {
        let current = self.watched.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn number(&self) -> u64 {
        self.watched.number.load(Ordering::Acquire)
    }
}

impl<K> Drop for Watched<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> Clone for WatchedKeys<K> {
    fn clone(&self) -> Self {
        Self {
            watched: Arc::clone(&self.watched),
        }
    }
}

impl<K> fmt::Debug for WatchedKeys<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedKeys")
            .field("kind", &self.watched.kind)
            .field("changes", &self.number())
            .finish_non_exhaustive()
    }
}

/// What was made of watched keys. It is made again when they change.
pub(crate) struct Following<K, P> {
    keys: WatchedKeys<K>,
    make: Box<dyn Fn(&K) -> P + Send + Sync>,
    first: Arc<P>,
    /// What was made, and the number of the keys.
    made: RwLock<(u64, Arc<P>)>,
}

impl<K, P> Following<K, P> {
    /// `first` was made of the keys of this number.
    pub(super) fn new(
        keys: WatchedKeys<K>,
        number: u64,
        first: Arc<P>,
        make: impl Fn(&K) -> P + Send + Sync + 'static,
    ) -> Self {
        Self {
            keys,
            make: Box::new(make),
            first: Arc::clone(&first),
            made: RwLock::new((number, first)),
        }
    }

    /// What was made of the first keys.
    pub(super) fn first(&self) -> &Arc<P> {
        &self.first
    }

    /// What is made of the newest keys.
    #[inline(never)]
    pub(super) fn now(&self) -> Arc<P> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        if made.0 == self.keys.number() {
            return Arc::clone(&made.1);
        }
        drop(made);
        let Snapshot { number, keys } = self.keys.snapshot();
        let new = Arc::new((self.make)(&keys));
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        // Another request may have done the same, with newer keys.
        if made.0 < number {
            *made = (number, new);
        }
        Arc::clone(&made.1)
    }
}
