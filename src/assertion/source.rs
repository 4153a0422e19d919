//! [`KeySource`]: where a service gets the keys of its issuer from.
//!
//! The service fetches the keys again after a while, and when an assertion names a key that is not
//! among them. Anybody can name an unknown key, so two fetches are some time apart. Each fetch runs
//! in a task of its own, so that no client can stop it by going away.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::jwks::{Jwks, PublicKey};
use super::refusal::Refusal;
use super::{AssertionError, InvalidJwks};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::events;

/// When the keys are fetched again, while assertions go on with the old ones.
const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);

/// When assertions wait for new keys, or for the failure to get them.
const WAIT_AFTER: Duration = Duration::from_secs(10 * 60);

/// When the service gives its keys up, if all fetches have failed since.
const OVER_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time between the starts of two fetches.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

type Fetched = Pin<Box<dyn Future<Output = Result<Jwks, BoxError>> + Send>>;

/// The keys of an issuer.
pub(super) enum KeySource {
    Given(Jwks),
    Fetched(Arc<Cache>),
}

pub(super) struct Cache {
    fetch: Box<dyn Fn() -> Fetched + Send + Sync>,
    state: Mutex<State>,
    /// Tells those who wait that a fetch is over.
    done: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// The keys, and when their fetch began.
    keys: Option<(Jwks, Timestamp)>,
    tried_at: Option<Timestamp>,
    is_fetching: bool,
}

/// What the cache says to one assertion.
enum Answer {
    Key(PublicKey),
    Unknown,
    Unavailable,
    /// Ask again after the fetch that is running.
    Wait,
}

impl KeySource {
    pub(super) fn fetching<F, Fut, T, E>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: AsRef<[u8]>,
        E: Into<BoxError>,
    {
        let fetch = move || -> Fetched {
            let answer = fetch();
            Box::pin(async move {
                let json = answer.await.map_err(Into::into)?;
                Ok(Jwks::parse(json).map_err(|error: InvalidJwks| Box::new(error))?)
            })
        };
        Self::Fetched(Arc::new(Cache {
            fetch: Box::new(fetch),
            state: Mutex::default(),
            done: watch::Sender::new(()),
        }))
    }

    /// The key of this name. The call waits for a fetch, if the key needs one.
    pub(super) async fn find(
        &self,
        kid: &str,
        now: Timestamp,
    ) -> Result<PublicKey, AssertionError> {
        let cache = match self {
            Self::Given(keys) => {
                let key = keys.get(kid).cloned();
                return key.ok_or_else(|| Refusal::UnknownKey.into());
            }
            Self::Fetched(cache) => cache,
        };
        let mut done = cache.done.subscribe();
        let mut answer = cache.ask(kid, now);
        if matches!(answer, Answer::Wait) {
            // The sender lives as long as the cache.
            let _ = done.changed().await;
            answer = cache.answer_after_fetch(kid, now);
        }
        match answer {
            Answer::Key(key) => Ok(key),
            Answer::Unknown => Err(Refusal::UnknownKey.into()),
            Answer::Unavailable | Answer::Wait => Err(AssertionError::unavailable()),
        }
    }
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the keys of now say. It starts a fetch if one is due.
    fn ask(self: &Arc<Self>, kid: &str, now: Timestamp) -> Answer {
        let mut state = self.state();
        let age = state.age(now);
        let known = state.get(kid, now);
        let is_due = known.is_none() || age >= REFRESH_AFTER;
        let is_allowed = state
            .tried_at
            // A clock that was set back must not stop all fetches.
            .is_none_or(|tried_at| now.distance(tried_at) >= SHORTEST_INTERVAL);
        let begins = is_due && is_allowed && !state.is_fetching;
        if begins {
            state.is_fetching = true;
            state.tried_at = Some(now);
        }
        let answer = match known {
            Some(key) if age < WAIT_AFTER => Answer::Key(key),
            _ if state.is_fetching => Answer::Wait,
            known => state.without_fetch(known, now),
        };
        drop(state);
        if begins {
            let done = Done(Arc::clone(self));
            tokio::spawn(done.fetch(now));
        }
        answer
    }

    /// What the keys say after the fetch, whether it succeeded or failed.
    fn answer_after_fetch(&self, kid: &str, now: Timestamp) -> Answer {
        let state = self.state();
        state.without_fetch(state.get(kid, now), now)
    }
}

/// A fetch. Its task may be dropped before it runs. Even then, nobody waits for ever.
struct Done(Arc<Cache>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.state().is_fetching = false;
        self.0.done.send_replace(());
    }
}

impl Done {
    async fn fetch(self, now: Timestamp) {
        let cache = &self.0;
        match timeout(FETCH_TIMEOUT, (cache.fetch)()).await {
            Ok(Ok(keys)) => {
                cache.state().keys = Some((keys, now));
                events::assertion::jwks_fetched();
            }
            Ok(Err(error)) => events::assertion::jwks_failed(&*error),
            Err(late) => events::assertion::jwks_failed(&late),
        }
    }
}

impl State {
    /// How old the keys are.
    fn age(&self, now: Timestamp) -> Duration {
        let fetched_at = self.keys.as_ref().map(|(_, fetched_at)| *fetched_at);
        fetched_at.map_or(Duration::MAX, |fetched_at| now.distance(fetched_at))
    }

    /// The key of this name, if the keys are good.
    fn get(&self, kid: &str, now: Timestamp) -> Option<PublicKey> {
        let (keys, _) = self.keys.as_ref()?;
        (self.age(now) < OVER_AFTER)
            .then(|| keys.get(kid).cloned())
            .flatten()
    }

    fn without_fetch(&self, known: Option<PublicKey>, now: Timestamp) -> Answer {
        match known {
            Some(key) => Answer::Key(key),
            None if self.age(now) < OVER_AFTER => Answer::Unknown,
            None => Answer::Unavailable,
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(keys) => keys.fmt(f),
            Self::Fetched(cache) => match &cache.state().keys {
                Some((keys, _)) => keys.fmt(f),
                None => f.write_str("none fetched yet"),
            },
        }
    }
}
