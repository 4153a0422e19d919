//! How long a session lasts: timeouts, when a touch is due, and the cookie's Max-Age.

use std::time::Duration;

use super::{Record, RecordFields};
use crate::clock::Timestamp;
use crate::error::ConfigError;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The longest that a browser keeps a cookie (RFC 6265bis, section 5.5).
const MAX_COOKIE_AGE: Duration = Duration::from_secs(400 * DAY);

/// How far the clocks of well-kept nodes differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(MINUTE);

/// How long a session lasts without a request, and how long it lasts in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) idle: Duration,
    pub(crate) absolute: Duration,
}

/// The timeouts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Lifetimes {
    /// For a session that ends with the browser.
    pub(crate) browser: Timeouts,
    /// For a session that is remembered.
    pub(crate) remembered: Timeouts,
    /// The least time between two touches. If it is not set, it is a tenth of the idle timeout.
    pub(crate) touch_interval: Option<Duration>,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            browser: Timeouts {
                idle: Duration::from_secs(30 * MINUTE),
                absolute: Duration::from_secs(12 * HOUR),
            },
            remembered: Timeouts {
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
                self.remembered,
            ),
        ];
        for (idle_setting, absolute_setting, timeouts) in settings {
            // A record keeps times in milliseconds.
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

    fn timeouts(&self, is_remembered: bool) -> Timeouts {
        if is_remembered {
            self.remembered
        } else {
            self.browser
        }
    }

    fn touch_interval(&self, is_remembered: bool) -> Duration {
        self.touch_interval
            .unwrap_or_else(|| self.timeouts(is_remembered).idle / 10)
    }

    /// The idle timeout as a record keeps it.
    pub(crate) fn idle_millis(&self, is_remembered: bool) -> u64 {
        u64::try_from(self.timeouts(is_remembered).idle.as_millis()).unwrap_or(u64::MAX)
    }

    /// The expiry of a session that is used now.
    pub(crate) fn expiry(&self, is_remembered: bool, now: Timestamp) -> Timestamp {
        now + self.timeouts(is_remembered).idle
    }

    /// When the session ends if nobody uses it any more.
    pub(crate) fn expires_at(&self, record: &Record) -> Timestamp {
        record.expires_at().min(self.absolute_end(record))
    }

    /// When the session ends even if somebody uses it.
    fn absolute_end(&self, record: &Record) -> Timestamp {
        let fields = record.fields();
        fields.created_at() + self.timeouts(fields.is_remembered()).absolute
    }

    pub(crate) fn is_over(&self, record: &Record, now: Timestamp) -> bool {
        now >= self.expires_at(record)
    }

    /// Whether the session is over for a request that came some time ago.
    ///
    /// A slow request must not outlive its session. So if little of the idle timeout was left when
    /// the request came, the session lasts longer for this request, by the buffer.
    pub(crate) fn is_over_for_request(
        &self,
        record: &Record,
        was_nearly_over: bool,
        now: Timestamp,
    ) -> bool {
        let as_of = match was_nearly_over {
            true => now.before(self.buffer(record.fields().is_remembered())),
            false => now,
        };
        self.is_over(record, as_of)
    }

    /// Whether so little of the idle timeout is left that a slow request could outlive the session.
    pub(crate) fn is_nearly_over(&self, record: &Record, now: Timestamp) -> bool {
        record.expires_at().since(now) < self.buffer(record.fields().is_remembered())
    }

    /// A third of the idle timeout. Every request has at least so much time until its session is
    /// over.
    fn buffer(&self, is_remembered: bool) -> Duration {
        self.timeouts(is_remembered).idle / 3
    }

    /// When the session was last used, as far as the record knows. The real time may be up to a
    /// touch interval later.
    pub(crate) fn last_seen_at(&self, record: &Record) -> Timestamp {
        let fields = record.fields();
        fields
            .expires_at()
            .before(self.timeouts(fields.is_remembered()).idle)
            .max(fields.created_at())
    }

    /// Where a use of the session now moves the expiry to. `None` if that is not worth a write.
    ///
    /// The stored expiry can be later than the timeout allows, if a layer with a longer timeout
    /// wrote it. Then the expiry moves back.
    pub(crate) fn renewal(&self, fields: &RecordFields, now: Timestamp) -> Option<Timestamp> {
        let renewed = self.expiry(fields.is_remembered(), now);
        // By this node's clock, the session was used in the future: this clock is behind, or
        // another node's is ahead. If this clock is behind, an expiry that moves back would end the
        // session for all other nodes.
        if renewed < fields.expires_at() && fields.was_used_after(now) {
            return None;
        }
        let moves = renewed.distance(fields.expires_at());
        let is_due = moves > Duration::ZERO && moves >= self.touch_interval(fields.is_remembered());
        is_due.then_some(renewed)
    }

    /// Whether a login is too long ago.
    ///
    /// A login in the future was dated by another clock, and nobody knows how old it is. The clocks
    /// of nodes may differ a little.
    pub(crate) fn is_login_too_old(at: Timestamp, max_age: Duration, now: Timestamp) -> bool {
        now.since(at) > max_age || at.since(now) > CLOCK_DIFFERENCE
    }

    /// The cookie's Max-Age in seconds, or `None` for a cookie that ends with the browser.
    ///
    /// The cookie lasts until the absolute end of the session. It could end with the idle timeout,
    /// but then the layer would have to send it again while the token is in use, and such a cookie
    /// could overwrite the newer token of a parallel request.
    pub(crate) fn max_age(&self, record: &Record, now: impl FnOnce() -> Timestamp) -> Option<u64> {
        record.fields().is_remembered().then(|| {
            self.absolute_end(record)
                .since(now())
                .min(MAX_COOKIE_AGE)
                .as_secs()
        })
    }
}
