//! The settings of how long sessions last.

use std::time::Duration;

use super::SessionLayerBuilder;
use crate::record::lifetime::settings::Timeouts;
use crate::store::SessionStore;

/// # How long sessions last
impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// How long a session lasts without a request.
    ///
    /// It holds for visitors as well, unless [`lifetime`](Self::lifetime) gives them timeouts of
    /// their own. If nobody sets anything, a session ends after 30 minutes, and after 20 minutes if
    /// no user has logged in: most of those are sessions of bots.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.browser.idle = timeout;
        self.follow_with_visitors()
    }

    /// How long a session lasts even if it is used. The time starts when the session is created,
    /// and starts again with a login.
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.browser.absolute = timeout;
        self.follow_with_visitors()
    }

    /// The idle timeout of a session that is remembered.
    pub fn remember_idle_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.remembered.idle = timeout;
        self
    }

    /// The absolute timeout of a session that is remembered. Browsers keep the cookie for at most
    /// 400 days.
    pub fn remember_absolute_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.remembered.absolute = timeout;
        self
    }

    /// The least time between two touches. A touch moves the expiry of a session that was used but
    /// not changed.
    ///
    /// A longer interval saves writes. A session may then expire early, by at most this time.
    pub fn touch_interval(mut self, interval: Duration) -> Self {
        self.lifetimes.touch_interval = Some(interval);
        self.follow_with_visitors()
    }

    /// A lifetime of the application's own: its name, its idle timeout and its absolute timeout.
    /// [`Session::set_lifetime`](crate::Session::set_lifetime) gives it to a session. The cookie
    /// ends with the browser.
    ///
    /// The names `"browser"` (the default), `"visitor"` (until a user logs in) and `"remembered"`
    /// are built in, and this method sets their timeouts too.
    ///
    /// A record keeps the name. So if a later version of the application has other timeouts for the
    /// name, they hold for older sessions too. A session with a name that the layer does not know
    /// has the lifetime `"browser"`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// const MINUTE: Duration = Duration::from_secs(60);
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .lifetime("visitor", 10 * MINUTE, 60 * MINUTE)
    ///     .lifetime("kiosk", 2 * MINUTE, 30 * MINUTE)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn lifetime(self, name: &str, idle: Duration, absolute: Duration) -> Self {
        self.set_lifetime(name, idle, absolute, name == "remembered")
    }

    /// A [`lifetime`](Self::lifetime) whose cookie outlives the browser. Browsers keep a cookie for
    /// at most 400 days.
    pub fn persistent_lifetime(self, name: &str, idle: Duration, absolute: Duration) -> Self {
        self.set_lifetime(name, idle, absolute, true)
    }

    fn set_lifetime(
        mut self,
        name: &str,
        idle: Duration,
        absolute: Duration,
        is_persistent: bool,
    ) -> Self {
        let timeouts = Timeouts {
            idle,
            absolute,
            is_persistent,
        };
        self.lifetimes.set(name, timeouts);
        match name {
            "visitor" => self.sets_visitors = true,
            "browser" => return self.follow_with_visitors(),
            _ => {}
        }
        self
    }

    /// Visitors have the timeouts of all others, unless the application has set theirs.
    fn follow_with_visitors(mut self) -> Self {
        if !self.sets_visitors {
            self.lifetimes.visitor = None;
        }
        self
    }
}
