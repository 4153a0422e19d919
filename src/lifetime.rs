//! How long a session lasts: timeouts, when a touch is due, and the cookie's Max-Age.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::ConfigError;
use crate::record::{Content, Record};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The longest that a browser keeps a cookie (RFC 6265bis, section 5.5).
const MAX_COOKIE_AGE: Duration = Duration::from_secs(400 * DAY);

/// How far the clocks of nodes differ that are well kept.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(MINUTE);

/// How long a session lasts without a request, and at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) idle: Duration,
    pub(crate) absolute: Duration,
}

/// The timeouts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Lifetimes {
    /// Of a session that ends with the browser.
    pub(crate) browser: Timeouts,
    /// Of a session that is remembered.
    pub(crate) remember: Timeouts,
    /// How long activity goes unrecorded. A tenth of the idle timeout where none is set.
    pub(crate) touch_interval: Option<Duration>,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            browser: Timeouts {
                idle: Duration::from_secs(30 * MINUTE),
                absolute: Duration::from_secs(12 * HOUR),
            },
            remember: Timeouts {
                idle: Duration::from_secs(14 * DAY),
                absolute: Duration::from_secs(90 * DAY),
            },
            touch_interval: None,
        }
    }
}

impl Lifetimes {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let settings = [
            ("idle_timeout", "absolute_timeout", self.browser),
            (
                "remember_idle_timeout",
                "remember_absolute_timeout",
                self.remember,
            ),
        ];
        for (idle_setting, absolute_setting, timeouts) in settings {
            // Times are kept in milliseconds.
            for (setting, timeout) in [
                (idle_setting, timeouts.idle),
                (absolute_setting, timeouts.absolute),
            ] {
                if timeout < Duration::from_millis(1) {
                    return Err(ConfigError::new(
                        setting,
                        "a session that ends at once is of no use; set at least 1 ms",
                    ));
                }
            }
            if timeouts.idle > timeouts.absolute {
                return Err(ConfigError::new(
                    idle_setting,
                    format!(
                        "it is longer than {absolute_setting}, so that it would never be reached"
                    ),
                ));
            }
            if self
                .touch_interval
                .is_some_and(|interval| interval >= timeouts.idle)
            {
                return Err(ConfigError::new(
                    "touch_interval",
                    format!(
                        "it must be shorter than {idle_setting}, or an active session would end"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn timeouts(&self, remember: bool) -> Timeouts {
        if remember {
            self.remember
        } else {
            self.browser
        }
    }

    fn touch_interval(&self, remember: bool) -> Duration {
        self.touch_interval
            .unwrap_or_else(|| self.timeouts(remember).idle / 10)
    }

    /// The idle timeout as a record keeps it.
    pub(crate) fn idle_millis(&self, remember: bool) -> u64 {
        u64::try_from(self.timeouts(remember).idle.as_millis()).unwrap_or(u64::MAX)
    }

    /// The expiry of a session that is active now.
    pub(crate) fn expiry(&self, remember: bool, now: Timestamp) -> Timestamp {
        now + self.timeouts(remember).idle
    }

    /// When the session ends if nothing happens any more.
    pub(crate) fn ends_at(&self, record: &Record) -> Timestamp {
        record.expires_at().min(self.absolute_end(record))
    }

    /// When the session ends in any case.
    fn absolute_end(&self, record: &Record) -> Timestamp {
        let content = record.content();
        content.created_at + self.timeouts(content.remember).absolute
    }

    pub(crate) fn is_over(&self, record: &Record, now: Timestamp) -> bool {
        now >= self.ends_at(record)
    }

    /// Whether so little of the idle timeout is left that a slow request could outlive the session.
    pub(crate) fn is_nearly_over(&self, record: &Record, now: Timestamp) -> bool {
        record.expires_at().since(now) < self.reserve(record.content().remember)
    }

    /// The time by which a request's session is live or over: now. A request whose session was nearly
    /// over when it came counts from its arrival, for as long as a reserve.
    pub(crate) fn as_of(&self, remember: bool, was_nearly_over: bool, now: Timestamp) -> Timestamp {
        match was_nearly_over {
            true => now.before(self.reserve(remember)),
            false => now,
        }
    }

    /// A third of the idle timeout: what a request has at least until its session is over.
    fn reserve(&self, remember: bool) -> Duration {
        self.timeouts(remember).idle / 3
    }

    /// When the session was last active, within a touch interval.
    pub(crate) fn last_seen(&self, record: &Record) -> Timestamp {
        let content = record.content();
        content
            .expires_at
            .before(self.timeouts(content.remember).idle)
            .max(content.created_at)
    }

    /// Where activity now moves the expiry to, or `None` where that is not worth a write. A later
    /// expiry than the timeout gives comes from a layer with a longer one, and moves back.
    pub(crate) fn renewal(&self, record: &Content, now: Timestamp) -> Option<Timestamp> {
        let renewed = self.expiry(record.remember, now);
        // The session was used in the future: the clock here is behind, or the other one is ahead. Where
        // it is this one, an expiry that moves back would end the session for all others.
        if renewed < record.expires_at && record.was_used_after(now) {
            return None;
        }
        let moves = renewed.distance(record.expires_at);
        let is_due = moves > Duration::ZERO && moves >= self.touch_interval(record.remember);
        is_due.then_some(renewed)
    }

    /// Whether a login is too long ago. One that lies ahead was dated by another clock than the one
    /// here, and nobody knows how old it is; nodes may differ a little.
    pub(crate) fn is_login_too_old(at: Timestamp, max_age: Duration, now: Timestamp) -> bool {
        now.since(at) > max_age || at.since(now) > CLOCK_DIFFERENCE
    }

    /// The cookie's Max-Age in seconds, or `None` for one that ends with the browser.
    ///
    /// It reaches to the absolute end, though the session may be idle for too long before: a cookie that had to be sent again
    /// while a token is in use could overwrite the newer token of a parallel request.
    pub(crate) fn max_age(&self, record: &Record, now: impl FnOnce() -> Timestamp) -> Option<u64> {
        record.content().remember.then(|| {
            self.absolute_end(record)
                .since(now())
                .min(MAX_COOKIE_AGE)
                .as_secs()
        })
    }
}
