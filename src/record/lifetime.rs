//! How long a session lasts: timeouts, when a touch is due, and the cookie's Max-Age.

pub(crate) mod class;
pub(crate) mod settings;

use std::sync::Arc;
use std::time::Duration;

use self::class::LifetimeClass;
use self::settings::Timeouts;
use super::{Record, RecordFields};
use crate::clock::Timestamp;

/// The longest that a browser keeps a cookie (RFC 6265bis, section 5.5).
const MAX_COOKIE_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// How far the clocks of well-kept nodes differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// How long the sessions of one class last. Times are milliseconds, as records and clocks have
/// them.
#[derive(Clone, Debug)]
struct Lifetime {
    idle: u64,
    absolute: u64,
    /// A third of the idle timeout. Every request has at least so much time until its session is
    /// over.
    buffer: u64,
    /// The least time between two touches.
    touch_interval: u64,
    /// Whether the browser keeps the cookie when it is closed.
    is_persistent: bool,
}

impl Lifetime {
    fn new(timeouts: &Timeouts, touch_interval: Option<Duration>) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            idle: millis(timeouts.idle),
            absolute: millis(timeouts.absolute),
            buffer: millis(timeouts.idle / 3),
            // Two touches at the same millisecond would move nothing.
            touch_interval: millis(touch_interval.unwrap_or(timeouts.idle / 10)).max(1),
            is_persistent: timeouts.is_persistent,
        }
    }
}

/// The lifetimes of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Lifetimes {
    visitor: Lifetime,
    browser: Lifetime,
    remembered: Lifetime,
    named: Vec<(Arc<str>, Lifetime)>,
}

impl Lifetimes {
    /// The class of this name, if the layer has it.
    pub(crate) fn class(&self, name: &str) -> Option<LifetimeClass> {
        match LifetimeClass::from(name) {
            LifetimeClass::Named(name) => {
                // The name that the layer has is used again, and not copied.
                let mut names = self.named.iter().map(|(own, _)| own);
                let own = names.find(|own| **own == name)?;
                Some(LifetimeClass::Named(own.clone()))
            }
            built_in => Some(built_in),
        }
    }

    /// The lifetime of a session. If another layer has given it a name that this layer does not
    /// know, it has that of a session that ends with the browser.
    fn of(&self, fields: &RecordFields) -> &Lifetime {
        match fields.lifetime() {
            LifetimeClass::Browser if fields.login().is_some() => &self.browser,
            LifetimeClass::Browser | LifetimeClass::Visitor => &self.visitor,
            LifetimeClass::Remembered => &self.remembered,
            LifetimeClass::Named(name) => {
                let mut named = self.named.iter();
                let own = named.find(|(own, _)| own == name);
                own.map_or(&self.browser, |(_, lifetime)| lifetime)
            }
        }
    }

    /// The idle timeout as a record keeps it.
    pub(crate) fn idle_millis(&self, fields: &RecordFields) -> u64 {
        self.of(fields).idle
    }

    /// The expiry of a session that is used now.
    pub(crate) fn expiry(&self, fields: &RecordFields, now: Timestamp) -> Timestamp {
        now.plus_millis(self.of(fields).idle)
    }

    /// When the session ends if nobody uses it any more.
    pub(crate) fn expires_at(&self, record: &Record) -> Timestamp {
        record.expires_at().min(self.absolute_end(record))
    }

    /// When the session ends even if somebody uses it.
    fn absolute_end(&self, record: &Record) -> Timestamp {
        let fields = record.fields();
        let end = fields.created_at().plus_millis(self.of(fields).absolute);
        fields.ends_by().map_or(end, |ends_by| ends_by.min(end))
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
            true => now.minus_millis(self.of(record.fields()).buffer),
            false => now,
        };
        self.is_over(record, as_of)
    }

    /// Whether so little of the idle timeout is left that a slow request could outlive the session.
    pub(crate) fn is_nearly_over(&self, record: &Record, now: Timestamp) -> bool {
        record.expires_at() < now.plus_millis(self.of(record.fields()).buffer)
    }

    /// When the session was last used, as far as the record knows. The real time may be up to a
    /// touch interval later.
    pub(crate) fn last_seen_at(&self, record: &Record) -> Timestamp {
        let fields = record.fields();
        // A layer with another idle timeout may have written the record, or touched it. Of the two
        // times, the earlier one is not in the future.
        let idle = self.of(fields).idle.max(fields.idle_timeout());
        fields
            .expires_at()
            .minus_millis(idle)
            .max(fields.created_at())
    }

    /// Where a use of the session now moves the expiry to. `None` if that is not worth a write.
    ///
    /// The stored expiry can be later than the timeout allows, if a layer with a longer timeout
    /// wrote it. Then the expiry moves back.
    pub(crate) fn renewal(&self, fields: &RecordFields, now: Timestamp) -> Option<Timestamp> {
        let lifetime = self.of(fields);
        let renewed = now.plus_millis(lifetime.idle);
        // By this node's clock, the session was used in the future: this clock is behind, or
        // another node's is ahead. If this clock is behind, an expiry that moves back would end the
        // session for all other nodes.
        if renewed < fields.expires_at() && fields.was_used_after(now) {
            return None;
        }
        let moves = renewed
            .as_millis()
            .abs_diff(fields.expires_at().as_millis());
        (moves >= lifetime.touch_interval).then_some(renewed)
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
        self.of(record.fields()).is_persistent.then(|| {
            self.absolute_end(record)
                .since(now())
                .min(MAX_COOKIE_AGE)
                .as_secs()
        })
    }
}
