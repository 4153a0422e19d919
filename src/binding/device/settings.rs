//! [`DeviceBinding`]: the settings of binding sessions to devices.

use std::time::Duration;

use crate::error::ConfigError;
use crate::token::cookie::Attributes;

/// What a layer does with a request that has the token of a bound session, and does not prove that
/// it comes from the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenUnbound {
    /// The request is a visitor's. Its changes fail with a 401
    /// ([`DeviceUnproven`](crate::SessionErrorKind::DeviceUnproven)), and it gets no cookie. A
    /// logout still ends the session, and a login still begins a new one. This is the default.
    #[default]
    Refuse,
    /// The request has the session. [`Session::device`](crate::Session::device) says that the
    /// device is not proven, and the application decides.
    Allow,
}

/// The settings of binding sessions to devices. See
/// [`bind_to_device`](crate::SessionLayerBuilder::bind_to_device).
///
/// | setting | default |
/// | --- | --- |
/// | [`registration_path`](Self::registration_path) | `/session/bind` |
/// | [`refresh_path`](Self::refresh_path) | `/session/refresh` |
/// | [`cookie_lifetime`](Self::cookie_lifetime) | 10 minutes |
/// | [`challenge_lifetime`](Self::challenge_lifetime) | 5 minutes |
/// | [`grace_period`](Self::grace_period) | 30 seconds |
/// | [`when_unbound`](Self::when_unbound) | [`WhenUnbound::Refuse`] |
/// | [`exclude`](Self::exclude) | nothing |
///
/// ```
/// use std::time::Duration;
/// use cloakroom::{DeviceBinding, WhenUnbound};
///
/// let binding = DeviceBinding::default()
///     .cookie_lifetime(Duration::from_secs(5 * 60))
///     .when_unbound(WhenUnbound::Allow)
///     .exclude("/static");
/// ```
#[derive(Clone, Debug)]
#[must_use = "hand it to `bind_to_device`"]
pub struct DeviceBinding {
    pub(super) registration_path: String,
    pub(super) refresh_path: String,
    pub(super) cookie_lifetime: Duration,
    pub(super) challenge_lifetime: Duration,
    pub(super) grace_period: Duration,
    pub(super) when_unbound: WhenUnbound,
    pub(super) excluded: Vec<String>,
}

impl Default for DeviceBinding {
    fn default() -> Self {
        Self {
            registration_path: "/session/bind".to_owned(),
            refresh_path: "/session/refresh".to_owned(),
            cookie_lifetime: Duration::from_secs(10 * 60),
            challenge_lifetime: Duration::from_secs(5 * 60),
            grace_period: Duration::from_secs(30),
            when_unbound: WhenUnbound::default(),
            excluded: Vec::new(),
        }
    }
}

impl DeviceBinding {
    /// The path at which the browser registers the key of its device. The layer answers it itself.
    ///
    /// The browser and the layer must see the same path. So put the layer around the whole router,
    /// and not around one that is nested under a prefix.
    ///
    /// The default is `/session/bind`.
    pub fn registration_path(mut self, path: impl Into<String>) -> Self {
        self.registration_path = path.into();
        self
    }

    /// The path at which the browser renews its bound cookie. The layer answers it itself.
    ///
    /// The default is `/session/refresh`.
    pub fn refresh_path(mut self, path: impl Into<String>) -> Self {
        self.refresh_path = path.into();
        self
    }

    /// How long a bound cookie is good. A thief who has copied all cookies has the session for that
    /// time at most. The browser gets a shorter lifetime: by a quarter, and by 30 seconds at most.
    /// So it asks for a new bound cookie a little earlier, and no request in the last moment fails.
    ///
    /// The default is 10 minutes. The browser gets whole seconds. With less than 5 minutes,
    /// Chromium can use up its quota of proofs: see [stolen cookies](crate::docs::stolen_cookies).
    pub fn cookie_lifetime(mut self, lifetime: Duration) -> Self {
        self.cookie_lifetime = lifetime;
        self
    }

    /// How long a challenge is good. The browser has this time to answer a login's offer.
    ///
    /// The default is 5 minutes.
    pub fn challenge_lifetime(mut self, lifetime: Duration) -> Self {
        self.challenge_lifetime = lifetime;
        self
    }

    /// How long after the registration a request without the bound cookie still counts as bound.
    /// The browser may have sent it before the cookie came. A copy of the session cookie is good
    /// for that time as well. The period is never longer than the
    /// [lifetime](Self::cookie_lifetime).
    ///
    /// The default is 30 seconds.
    pub fn grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// What happens to a request that does not prove its device.
    ///
    /// The default is [`WhenUnbound::Refuse`].
    pub fn when_unbound(mut self, when: WhenUnbound) -> Self {
        self.when_unbound = when;
        self
    }

    /// The browser does not hold requests below this path for a refresh. Use it for paths that need
    /// no session, such as static files. Each call adds one path.
    ///
    /// With [`WhenUnbound::Refuse`], such a request can be a visitor's, because the bound cookie
    /// may be over.
    pub fn exclude(mut self, path: impl Into<String>) -> Self {
        self.excluded.push(path.into());
        self
    }

    /// Refuses settings that make no sense, or that a browser would not understand.
    pub(super) fn check(&self, cookie: &Attributes) -> Result<(), ConfigError> {
        if !cookie.secure {
            let reason = "browsers bind a session to the device over HTTPS only";
            return Err(ConfigError::new("secure", reason));
        }
        if cookie.partitioned {
            let reason = "browsers bind no session with a Partitioned cookie to the device";
            return Err(ConfigError::new("partitioned", reason));
        }
        let paths = [
            ("registration_path", &self.registration_path),
            ("refresh_path", &self.refresh_path),
        ];
        let excluded = self.excluded.iter().map(|path| ("exclude", path));
        for (setting, path) in paths.into_iter().chain(excluded) {
            let is_path =
                path.starts_with('/') && !path.starts_with("//") && path.bytes().all(is_path_byte);
            if !is_path {
                let reason = "it must be a path: one slash, then visible ASCII without ? and #";
                return Err(ConfigError::new(setting, reason));
            }
        }
        for (setting, path) in paths {
            if !is_within(path, &cookie.path) {
                let reason =
                    "browsers do not send the session cookie there: it is outside of `cookie_path`";
                return Err(ConfigError::new(setting, reason));
            }
        }
        if self.registration_path == self.refresh_path {
            let reason = "it is the same path as `registration_path`";
            return Err(ConfigError::new("refresh_path", reason));
        }
        if self.cookie_lifetime < Duration::from_secs(1) {
            let reason = "a bound cookie must last for a second at least";
            return Err(ConfigError::new("cookie_lifetime", reason));
        }
        if self.challenge_lifetime.is_zero() {
            let reason = "no browser could answer in no time";
            return Err(ConfigError::new("challenge_lifetime", reason));
        }
        Ok(())
    }
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"?#\"\\".contains(&byte)
}

/// Whether a browser sends a cookie of this path there (RFC 6265, section 5.1.4).
fn is_within(path: &str, cookie_path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| cookie_path.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}
