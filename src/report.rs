//! What the crate says: every event is a line through `tracing` (target `cloakroom`) and, with the feature `metrics`, a
//! count. A record id may stand there; a secret, a token or session data never.

use std::error::Error as _;

use tracing::Span;

use crate::error::{ErrorKind, SessionError, StoreError};
use crate::outcome::DropReason;
use crate::token::{RecordId, Rejected};

macro_rules! event {
    ($level:ident, $name:literal, $($rest:tt)*) => {
        event!($level, $name; 1, $($rest)*)
    };
    ($level:ident, $name:literal; $count:expr, $($rest:tt)*) => {{
        #[cfg(feature = "metrics")]
        metrics::counter!("cloakroom_events_total", "event" => $name).increment($count);
        tracing::$level!(target: "cloakroom", event = $name, $($rest)*);
    }};
}

pub(crate) fn created(id: RecordId) {
    event!(debug, "created", record = %id, "session created");
}

pub(crate) fn loaded(id: RecordId) {
    event!(trace, "loaded", record = %id, "session loaded");
}

pub(crate) fn regenerated(id: RecordId) {
    event!(debug, "regenerated", record = %id, "session token replaced");
}

pub(crate) fn destroyed(id: RecordId) {
    event!(debug, "destroyed", record = %id, "session ended");
}

/// All sessions of a user, or all but one.
pub(crate) fn destroyed_all(count: u64) {
    event!(debug, "destroyed"; count, count, "sessions of a user ended");
}

pub(crate) fn expired(id: RecordId) {
    event!(debug, "expired", record = %id, "session expired");
}

/// What the client presented is no token.
pub(crate) fn rejected(reason: Rejected) {
    let reason = match reason {
        Rejected::BadSignature => "bad signature",
        Rejected::TooMany => "too many different tokens",
    };
    event!(debug, "rejected", reason, "session token rejected");
}

/// The client presented two tokens, and each leads to a live session.
pub(crate) fn ambiguous(name: &str) {
    event!(
        warn,
        "rejected",
        cookie = name,
        reason = "two different tokens",
        "a request came with the tokens of two live sessions and counts as a visitor's; this follows a \
         change of the cookie's path or domain, or somebody planted one: ask the user to delete the \
         site's cookies"
    );
}

/// A browser will drop the cookie that it is about to get.
pub(crate) fn insecure_origin(name: &str) {
    event!(
        warn,
        "insecure_origin",
        cookie = name,
        "a browser on plain HTTP gets a Secure cookie, which it drops: serve the site over HTTPS, or \
         set `secure(false)` for development; this is said once"
    );
}

/// Two layers read and set the same cookie, or the same header.
pub(crate) fn rival_layer(name: &str) {
    event!(
        warn,
        "rival_layer",
        cookie = name,
        "a session layer is inside of another one with the same cookie or header: each takes the \
         other's token for a bad one; use clones of one layer, or another `cookie_name` or transport; \
         this is said once"
    );
}

/// The token is well signed, but no session has it.
pub(crate) fn rejected_for(id: RecordId, reason: &'static str) {
    event!(debug, "rejected", record = %id, reason, "session token rejected");
}

pub(crate) fn conflict(id: RecordId) {
    event!(debug, "conflict", record = %id, "a parallel request changed the session; applying the changes again");
}

/// What a request did is not written. `login` says that a login was among it.
pub(crate) fn dropped_write(id: Option<RecordId>, login: bool, reason: DropReason) {
    let record = id.as_ref().map(tracing::field::display);
    let reason = reason.as_str();
    event!(
        info,
        "dropped_write",
        record,
        login,
        reason,
        "session changes dropped"
    );
}

pub(crate) fn corrupt_record(id: RecordId, reason: &str) {
    event!(
        warn,
        "corrupt_record",
        record = %id,
        reason,
        "the store holds something under this id that is no session record; it is left as it is"
    );
}

pub(crate) fn store_error(operation: &'static str, error: &StoreError) {
    let cause = error.source().map(tracing::field::display);
    event!(error, "store_error", operation, error = %error, cause, "the session store failed");
}

/// The error is the response: the layer's in the handler's place, or the handler's own.
pub(crate) fn refused(error: &SessionError) {
    // A failure of the store was told when it came, and a 4xx is the client's affair.
    if error.status().is_server_error() && error.kind() != ErrorKind::Store {
        let cause = error.source().map(tracing::field::display);
        event!(error, "refused", error = %error, cause, "a session error is the response");
    }
}

/// In which a token is verified and its session loaded.
pub(crate) fn load_span() -> Span {
    tracing::debug_span!(target: "cloakroom", "session_load")
}

/// In which a request's changes are written.
pub(crate) fn commit_span() -> Span {
    tracing::debug_span!(target: "cloakroom", "session_commit")
}

/// How long a call of the store takes. Without metrics nobody asks, and the clock is not read.
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    started: std::time::Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            started: std::time::Instant::now(),
        }
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(crate) fn stop(self, operation: &'static str) {
        #[cfg(feature = "metrics")]
        metrics::histogram!("cloakroom_store_seconds", "operation" => operation)
            .record(self.started.elapsed());
    }
}

/// Of the memory store, which was full. Each is a line for those who look closely; that it happens
/// at all is a warning, which is not repeated as often as a flood of bots could have it.
#[cfg(feature = "memory")]
pub(crate) fn evicted(id: RecordId, count: u64) {
    if count.is_power_of_two() {
        event!(
            warn,
            "evicted",
            record = %id,
            count,
            "the memory store is full: visitors' sessions make room for new ones"
        );
    } else {
        event!(debug, "evicted", record = %id, count, "visitor's session evicted");
    }
}
