//! [`LifetimeSettings`]: how long sessions last, as the application set it, and the checks of it.

use std::sync::Arc;
use std::time::Duration;

use super::class::LifetimeClass;
use super::{Lifetime, Lifetimes};
use crate::error::ConfigError;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The longest name of a lifetime, in bytes.
const MAX_NAME: usize = 64;

/// How long a session lasts without a request, and how long it lasts in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) idle: Duration,
    pub(crate) absolute: Duration,
    /// Whether the browser keeps the cookie when it is closed.
    pub(crate) is_persistent: bool,
}

impl Timeouts {
    const fn of_seconds(idle: u64, absolute: u64) -> Self {
        Self {
            idle: Duration::from_secs(idle),
            absolute: Duration::from_secs(absolute),
            is_persistent: false,
        }
    }
}

/// The timeouts of a layer, as the application set them.
#[derive(Clone, Debug)]
pub(crate) struct LifetimeSettings {
    /// For a session in which nobody has logged in. `None`: as in `browser`.
    pub(crate) visitor: Option<Timeouts>,
    /// For a session that ends with the browser.
    pub(crate) browser: Timeouts,
    /// For a session that is remembered.
    pub(crate) remembered: Timeouts,
    /// Those of the application. There are few.
    pub(crate) named: Vec<(Arc<str>, Timeouts)>,
    /// The least time between two touches. If it is not set, it is a tenth of the idle timeout.
    pub(crate) touch_interval: Option<Duration>,
}

impl Default for LifetimeSettings {
    fn default() -> Self {
        Self {
            visitor: Some(Timeouts::of_seconds(20 * MINUTE, 12 * HOUR)),
            browser: Timeouts::of_seconds(30 * MINUTE, 12 * HOUR),
            remembered: Timeouts {
                is_persistent: true,
                ..Timeouts::of_seconds(14 * DAY, 90 * DAY)
            },
            named: Vec::new(),
            touch_interval: None,
        }
    }
}

impl LifetimeSettings {
    /// Sets the timeouts of a name that is built in, or of a name of the application's own.
    pub(crate) fn set(&mut self, name: &str, timeouts: Timeouts) {
        match LifetimeClass::from(name) {
            LifetimeClass::Visitor => self.visitor = Some(timeouts),
            LifetimeClass::Browser => self.browser = timeouts,
            LifetimeClass::Remembered => self.remembered = timeouts,
            LifetimeClass::Named(name) => {
                self.named.retain(|(other, _)| *other != name);
                self.named.push((name, timeouts));
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        const NAMED: [&str; 2] = ["lifetime", "lifetime"];
        let built_in = [
            (
                &self.browser,
                "browser",
                ["idle_timeout", "absolute_timeout"],
            ),
            (
                &self.remembered,
                "remembered",
                ["remember_idle_timeout", "remember_absolute_timeout"],
            ),
        ];
        let visitor = self.visitor.iter();
        let visitor = visitor.map(|timeouts| (timeouts, "visitor", NAMED));
        let named = self.named.iter();
        let named = named.map(|(name, timeouts)| (timeouts, &**name, NAMED));
        for (timeouts, name, settings) in built_in.into_iter().chain(visitor).chain(named) {
            self.check_one(name, settings, timeouts)?;
        }
        Ok(())
    }

    fn check_one(
        &self,
        name: &str,
        [idle_setting, absolute_setting]: [&'static str; 2],
        timeouts: &Timeouts,
    ) -> Result<(), ConfigError> {
        // A record keeps the name.
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(ConfigError::new(
                idle_setting,
                format!("a name must have 1 to {MAX_NAME} bytes"),
            ));
        }
        // A record keeps times in milliseconds.
        for (setting, timeout) in [
            (idle_setting, timeouts.idle),
            (absolute_setting, timeouts.absolute),
        ] {
            if timeout < Duration::from_millis(1) {
                return Err(ConfigError::new(
                    setting,
                    format!("a session that ends at once is of no use; set at least 1 ms ({name})"),
                ));
            }
        }
        if timeouts.idle > timeouts.absolute {
            return Err(ConfigError::new(
                idle_setting,
                format!(
                    "the idle timeout of {name:?} is longer than its absolute timeout \
                     ({absolute_setting}), so that it would never be reached"
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
                    "it must be shorter than each idle timeout, or an active session would end \
                     ({name})"
                ),
            ));
        }
        Ok(())
    }

    /// The lifetimes of these settings, with everything that is computed once.
    pub(crate) fn resolve(&self) -> Lifetimes {
        let lifetime = |timeouts| Lifetime::new(timeouts, self.touch_interval);
        let named = self.named.iter();
        Lifetimes {
            visitor: lifetime(self.visitor.as_ref().unwrap_or(&self.browser)),
            browser: lifetime(&self.browser),
            remembered: lifetime(&self.remembered),
            named: named
                .map(|(name, timeouts)| (name.clone(), lifetime(timeouts)))
                .collect(),
        }
    }
}
