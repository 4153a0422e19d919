//! What the provider has ended in the last minutes, for a login that was on its way meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloakroom::Timestamp;

/// How long the code of a login may be good at most (RFC 6749, section 4.1.2).
const LONGEST_LOGIN: Duration = Duration::from_secs(10 * 60);

/// A session at the provider, all sessions of a user there, or one session of one user.
#[derive(Debug)]
struct Ending {
    sid: Option<String>,
    sub: Option<String>,
    at: Timestamp,
    heard_at: Instant,
}

/// Several nodes would keep this in a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endings(Arc<Mutex<Vec<Ending>>>);

impl Endings {
    /// Call this before you end the sessions. Then a login either sees the entry, or its session is
    /// there and ends. Only a login that has asked already, and has not written its session yet,
    /// escapes.
    pub(crate) fn add(&self, sid: Option<String>, sub: Option<String>, at: Timestamp) {
        let heard_at = Instant::now();
        let mut endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        endings.retain(|ending| heard_at.duration_since(ending.heard_at) < LONGEST_LOGIN);
        endings.push(Ending {
            sid,
            sub,
            at,
            heard_at,
        });
    }

    /// Whether the provider has ended the session that a login belongs to. A session that has ended
    /// never comes back. But a user can log in again: so if the provider has named only the user,
    /// the time counts.
    pub(crate) fn cover(&self, sid: Option<&str>, sub: &str, made_at: Timestamp) -> bool {
        let endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        endings.iter().any(|ending| {
            let is_user = ending.sub.as_deref().is_none_or(|ended| ended == sub);
            is_user
                && match ending.sid.as_deref() {
                    Some(ended) => sid == Some(ended),
                    None => made_at <= ending.at,
                }
        })
    }
}
