//! The events of the crate.
//!
//! Each event is a line through `tracing` (target `cloakroom`) and, with the feature `metrics`, a
//! count. An event may show a record id. It never shows a secret, a token or session data.

use std::error::Error as _;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use crate::error::{ConfigError, SessionError, SessionErrorKind, StoreError};
use crate::id::RecordId;

macro_rules! event {
    ($level:ident, $name:literal, $($rest:tt)*) => {
        event!($level, $name; 1, $($rest)*)
    };
    // With a cause, which is a label of the counter.
    ($level:ident, $name:literal; $count:expr, cause = $cause:expr, $($rest:tt)*) => {{
        #[cfg(feature = "metrics")]
        metrics::counter!("cloakroom_events_total", "event" => $name, "cause" => $cause)
            .increment($count);
        tracing::$level!(target: "cloakroom", event = $name, cause = $cause, $($rest)*);
    }};
    ($level:ident, $name:literal; $count:expr, $($rest:tt)*) => {{
        #[cfg(feature = "metrics")]
        metrics::counter!("cloakroom_events_total", "event" => $name).increment($count);
        tracing::$level!(target: "cloakroom", event = $name, $($rest)*);
    }};
}

/// Whose session an event is about, as far as that is known without a store call. Users are without
/// their realm.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Who<'a> {
    pub(crate) user: Option<&'a str>,
    /// The user who acts as `user`.
    pub(crate) actor: Option<&'a str>,
    /// Who asked for it, if somebody has a name.
    pub(crate) asked_by: Option<&'a str>,
}

// After the macro, which it uses.
#[cfg(feature = "jwt")]
pub(crate) mod assertion;
#[cfg(feature = "dbsc")]
mod device;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(crate) mod feed;

#[cfg(feature = "dbsc")]
pub(crate) use self::device::{bound, device_refreshed, device_rejected, unbound};

/// Why the layer does not write a request's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The handler answered with a 5xx, a 408 or a gRPC error, or its service failed.
    HandlerFailed,
    /// The application's own rule refused the response.
    RefusedByRule,
    /// Nobody answered the request: its client went away, or its handler panicked.
    Unanswered,
    /// Another request ended the session.
    SessionEnded,
    /// Another request rotated the token.
    TokenRotated,
    /// The request changed the session, and then ended it.
    EndedByRequest,
    /// The request changed the session of one user, and then logged in another user.
    OtherUser,
    /// The request did not prove that it comes from the session's device.
    #[cfg(feature = "dbsc")]
    DeviceUnproven,
    /// The commit failed. Another event gives the error.
    CommitFailed,
}

impl DropReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::HandlerFailed => "the handler failed",
            Self::RefusedByRule => "`commit_when` refused the response",
            Self::Unanswered => "the request was dropped before it was answered",
            Self::SessionEnded => "the session was ended",
            Self::TokenRotated => "the token was rotated",
            Self::EndedByRequest => "the same request ended the session",
            Self::OtherUser => "the same request logged in another user",
            #[cfg(feature = "dbsc")]
            Self::DeviceUnproven => "the device was not proven",
            Self::CommitFailed => "the changes could not be stored",
        }
    }
}

pub(crate) fn created(id: RecordId, Who { user, actor, .. }: Who<'_>) {
    event!(debug, "created", record = %id, user, actor, "session created");
}

pub(crate) fn logged_in(id: RecordId, Who { user, .. }: Who<'_>) {
    event!(debug, "logged_in", record = %id, user, "user logged in");
}

/// A login was refused at the session limit.
pub(crate) fn login_refused(id: Option<RecordId>, user: &str) {
    let record = id.as_ref().map(tracing::field::display);
    event!(
        debug,
        "login_refused",
        record,
        user,
        "login refused at the session limit"
    );
}

/// The credentials of the user have changed since the login.
pub(crate) fn retired(id: RecordId, Who { user, actor, .. }: Who<'_>) {
    event!(
        debug,
        "retired",
        record = %id,
        user,
        actor,
        "the credentials of the user have changed, and the session ends within a minute"
    );
}

pub(crate) fn loaded(id: RecordId) {
    event!(trace, "loaded", record = %id, "session loaded");
}

pub(crate) fn rotated(id: RecordId, Who { user, actor, .. }: Who<'_>) {
    event!(debug, "rotated", record = %id, user, actor, "session token rotated");
}

/// A user acts as another one from now on, in a session of its own.
pub(crate) fn acting(id: RecordId, user: &str, actor_session: RecordId, actor: &str) {
    event!(
        info,
        "acting",
        record = %id,
        user,
        actor_record = %actor_session,
        actor,
        "a user acts as another"
    );
}

/// The user in this session acted as another one, and does so no longer.
pub(crate) fn stopped_acting(id: RecordId, Who { user, .. }: Who<'_>) {
    event!(info, "stopped_acting", record = %id, user, "a user does not act as another any more");
}

pub(crate) fn ended(id: RecordId, cause: &'static str, who: Who<'_>) {
    let Who {
        user,
        actor,
        asked_by,
    } = who;
    event!(
        debug,
        "ended"; 1,
        cause = cause,
        record = %id,
        user,
        actor,
        asked_by,
        "session ended"
    );
}

/// All sessions of a user ended, or all except one.
pub(crate) fn ended_all(count: u64, cause: &'static str, who: Who<'_>) {
    let Who { user, asked_by, .. } = who;
    event!(
        debug,
        "ended"; count,
        cause = cause,
        count,
        user,
        asked_by,
        "sessions of a user ended"
    );
}

pub(crate) fn expired(id: RecordId, Who { user, actor, .. }: Who<'_>) {
    event!(debug, "expired", record = %id, user, actor, "session expired");
}

/// A hook of the application panicked, and the event went on to the next hook.
pub(crate) fn hook_panicked(hooked: &'static str) {
    event!(
        error,
        "hook_panicked",
        hooked,
        "a hook of `on_event` panicked"
    );
}

/// The layer accepts nothing of what the client presented. `reason` says why.
pub(crate) fn rejected(reason: &'static str) {
    event!(debug, "rejected", reason, "session token rejected");
}

/// Why several tokens lead to no session.
pub(crate) const TWO_TOKENS: &str = "two different tokens";

/// Why a cookie and a bearer token lead to no session.
pub(crate) const COOKIE_BESIDE_BEARER: &str = "a cookie beside another bearer token";

/// The client presented several tokens, and more than one leads to a live session.
pub(crate) fn ambiguous(name: &str) {
    event!(
        warn,
        "rejected",
        cookie = name,
        reason = TWO_TOKENS,
        "a request came with the tokens of two live sessions and counts as a visitor's; either the \
         site changed the cookie's path or domain, or somebody planted a cookie: ask the user to delete \
         the site's cookies"
    );
}

/// The client presented the cookie of a live session, and a bearer token of another one or of none.
pub(crate) fn cookie_beside_bearer(name: &str) {
    event!(
        warn,
        "rejected",
        cookie = name,
        reason = COOKIE_BESIDE_BEARER,
        "a request came with the cookie of a live session, and with a bearer token of another session \
         or of none; it counts as a visitor's, because a client must send one of them"
    );
}

/// The browser will drop the cookie that the response sets.
pub(crate) fn insecure_origin(name: &str) {
    event!(
        warn,
        "insecure_origin",
        cookie = name,
        "a browser on plain HTTP gets a Secure cookie, which it drops: serve the site over HTTPS, or \
         set `secure(false)` for development; this warning comes once"
    );
}

/// Two layers, one inside the other, use the same cookie or the same header.
pub(crate) fn rival_layer(name: &str) {
    event!(
        warn,
        "rival_layer",
        cookie = name,
        "two session layers, one inside the other, use the same cookie or header: each rejects the \
         other's token; use clones of one layer, or another `cookie_name` or transport; this warning \
         comes once"
    );
}

/// The token is good, but it leads to no live session.
pub(crate) fn rejected_for(id: RecordId, Who { user, actor, .. }: Who<'_>, reason: &'static str) {
    event!(debug, "rejected", record = %id, user, actor, reason, "session token rejected");
}

/// Two clients have a token of this session. The addresses are those of the client that the record
/// names, and of the one that has just come.
pub(crate) fn reuse(
    id: RecordId,
    Who { user, actor, .. }: Who<'_>,
    address: Option<String>,
    presented_by: Option<String>,
) {
    event!(
        warn,
        "reuse",
        record = %id,
        user,
        actor,
        address,
        presented_by,
        "two clients have a token of this session, so one of them has stolen it; the session ends"
    );
}

/// A rotation of the token failed, and the old token stays good.
pub(crate) fn rotation_failed(id: RecordId, error: &SessionError) {
    let cause = error.source().map(tracing::field::display);
    event!(warn, "rotation_failed", record = %id, error = %error, cause, "the token was not rotated");
}

pub(crate) fn conflict(id: RecordId) {
    event!(debug, "conflict", record = %id, "a parallel request changed the session; applying the changes again");
}

/// The layer does not write what a request did. `login` says whether a login was part of it.
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
        "what the store holds under this id is not a session record; it stays as it is"
    );
}

/// An encrypted record cannot be decrypted, or a record that should be encrypted is not. The 1st,
/// the 2nd, the 4th, the 8th and so on are warnings, so that a lost key does not flood the log.
#[cfg(feature = "encryption")]
pub(crate) fn unopened_record(id: RecordId, reason: &'static str, count: u64) {
    if count.is_power_of_two() {
        event!(
            warn,
            "unopened_record",
            record = %id,
            reason,
            count,
            "a stored record counts as no session, because it cannot be decrypted, or is not \
             encrypted where it should be; it stays as it is"
        );
    } else {
        event!(debug, "unopened_record", record = %id, reason, count, "a stored record was not opened");
    }
}

/// Counts from 1.
#[cfg(feature = "encryption")]
#[derive(Debug, Default)]
pub(crate) struct Count(std::sync::atomic::AtomicU64);

#[cfg(feature = "encryption")]
impl Count {
    pub(crate) fn next(&self) -> u64 {
        1 + self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// A file or a function that is watched gives no good keys. `count` says how often in a row that
/// was.
pub(crate) fn keys_rejected(kind: &'static str, error: &ConfigError, count: u64) {
    let cause = error.source().map(tracing::field::display);
    if count.is_power_of_two() {
        event!(
            warn,
            "keys_rejected",
            kind,
            error = %error,
            cause,
            count,
            "the new keys are no good, so the old ones stay"
        );
    } else {
        event!(debug, "keys_rejected", kind, error = %error, cause, count, "no new keys");
    }
}

/// A file or a function that is watched gives other keys than before, or good keys again.
pub(crate) fn keys_accepted(kind: &'static str, changed: bool) {
    event!(
        info,
        "keys_accepted",
        kind,
        changed,
        "the keys were read again"
    );
}

/// The feed of the store may have lost notices, so the near cache forgot what it had.
#[cfg(feature = "near-cache")]
pub(crate) fn near_cache_emptied() {
    event!(
        info,
        "near_cache_emptied",
        "the near cache forgot all records, because notices may be lost"
    );
}

pub(crate) fn store_error(operation: &'static str, error: &StoreError) {
    let cause = error.source().map(tracing::field::display);
    event!(error, "store_error", operation, error = %error, cause, "the session store failed");
}

/// The application's users could not be asked.
#[cfg(feature = "login")]
pub(crate) fn users_error(error: &SessionError) {
    let cause = error.source().map(tracing::field::display);
    event!(error, "users_error", error = %error, cause, "the look-up of the user failed");
}

/// The users have stamps, but the login of a session has none.
#[cfg(feature = "login")]
pub(crate) fn login_without_stamp(name: &str) {
    event!(
        warn,
        "login_without_stamp",
        cookie = name,
        "a session counts as a visitor's, because its login has no stamp and the user has one: log in \
         with `session.log_in(Db::account(&user))` of `login::Users`; this warning comes once"
    );
}

/// A session error is the response: the layer put it in the place of the handler's response, or the
/// handler returned it.
pub(crate) fn refused(error: &SessionError) {
    // Some failures were logged when they occurred, and a 4xx is the client's fault.
    let is_logged = match error.kind() {
        SessionErrorKind::Store => true,
        #[cfg(feature = "login")]
        SessionErrorKind::Users => true,
        _ => false,
    };
    if error.status().is_server_error() && !is_logged {
        let cause = error.source().map(tracing::field::display);
        event!(error, "refused", error = %error, cause, "a session error is the response");
    }
}

/// The span in which the layer verifies a token and loads its session. `None` if nobody listens, so
/// that it costs nothing.
pub(crate) fn load_span() -> Option<Span> {
    only_if_on(|| tracing::debug_span!(target: "cloakroom", "session_load"))
}

/// The span in which the layer writes a request's changes. `None` if nobody listens.
pub(crate) fn commit_span() -> Option<Span> {
    only_if_on(|| tracing::debug_span!(target: "cloakroom", "session_commit"))
}

fn only_if_on(span: impl FnOnce() -> Span) -> Option<Span> {
    // Even a span that is off takes long to make. If nobody listens to any span, a look at the
    // level takes a tenth of that.
    if LevelFilter::current() < Level::DEBUG {
        return None;
    }
    Some(span()).filter(|span| !span.is_disabled())
}

/// Measures how long a store call takes. Without metrics nobody asks, and it does not read the
/// clock.
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

/// The memory store was full and removed a visitor's session. Each removal is a debug event. The
/// 1st, the 2nd, the 4th, the 8th and so on are warnings, so that a flood of bots does not flood
/// the log.
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
