//! What the crate says: every event is a line through `tracing` (target `cloakroom`) and, with the feature `metrics`, a
//! count. A record id may stand there; a secret, a token or session data never.

use std::error::Error as _;
use std::time::Duration;

use crate::error::{ErrorKind, SessionError, StoreError};
use crate::token::{RecordId, Rejected};

macro_rules! event {
    ($level:ident, $name:literal, $($rest:tt)*) => {{
        #[cfg(feature = "metrics")]
        metrics::counter!("cloakroom_events_total", "event" => $name).increment(1);
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

pub(crate) fn expired(id: RecordId) {
    event!(debug, "expired", record = %id, "session expired");
}

/// What the client presented is no token.
pub(crate) fn rejected(reason: Rejected) {
    let reason = match reason {
        Rejected::BadSignature => "bad signature",
        Rejected::Ambiguous => "two different tokens",
    };
    event!(debug, "rejected", reason, "session token rejected");
}

/// The token is well signed, but no session has it.
pub(crate) fn rejected_for(id: RecordId, reason: &'static str) {
    event!(debug, "rejected", record = %id, reason, "session token rejected");
}

pub(crate) fn conflict(id: RecordId) {
    event!(debug, "conflict", record = %id, "a parallel request changed the session; applying the changes again");
}

pub(crate) fn dropped_write(id: RecordId, reason: &'static str) {
    event!(info, "dropped_write", record = %id, reason, "session changes dropped");
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

/// The layer answers in the handler's place.
pub(crate) fn refused(error: &SessionError) {
    // A failure of the store was told when it came, and a 4xx is the client's affair.
    if error.status().is_server_error() && error.kind() != ErrorKind::Store {
        let cause = error.source().map(tracing::field::display);
        event!(error, "refused", error = %error, cause, "the session could not be saved; the response is an error");
    }
}

#[cfg(feature = "axum")]
pub(crate) fn missing_layer() {
    tracing::error!(target: "cloakroom", "{}", SessionError::from(ErrorKind::MissingLayer));
}

/// How long a call of the store took.
#[cfg(feature = "metrics")]
pub(crate) fn store_latency(operation: &'static str, took: Duration) {
    metrics::histogram!("cloakroom_store_seconds", "operation" => operation).record(took);
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn store_latency(_operation: &'static str, _took: Duration) {}
