//! [`BoundCookies`]: the short-lived cookie that only the browser on the session's device can
//! renew.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderMap;
use smallvec::SmallVec;

use super::headers;
use super::refusal::Refusal;
use super::signed_time::{About, TEXT_LEN, TimeSigner};
use crate::clock::Timestamp;
use crate::error::{ConfigError, SessionError};
use crate::id::RecordId;
use crate::record::device::BoundDevice;
use crate::token::cookie::{Attributes, CookieWriter};
use crate::token::keys::SigningKeys;
use crate::token::random::RandomSource;

/// The bound cookies of a request. If there is none, what the browser says about that.
#[derive(Clone, Default)]
pub(crate) struct PresentedCookies {
    /// The values of the right length. A browser may send several, for several paths or domains.
    values: SmallVec<[[u8; TEXT_LEN]; 1]>,
    /// Whether there was anything under the name.
    is_anything: bool,
    /// What the browser says about a refresh that it left out.
    skipped: Option<Refusal>,
}

impl fmt::Debug for PresentedCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedCookies({})", self.values.len())
    }
}

impl PresentedCookies {
    /// Each costs a MAC.
    const MAX: usize = 4;

    /// Whether the browser has a bound cookie, good or not.
    pub(crate) fn is_anything(&self) -> bool {
        self.is_anything
    }
}

/// Makes and verifies the bound cookies of a layer.
///
/// A cookie is bound to the record id and to the time of the registration. So one cookie is worth
/// nothing for another session, nor for the same session after another registration.
#[derive(Clone, Debug)]
pub(crate) struct BoundCookies {
    cookie: CookieWriter,
    signer: TimeSigner,
    lifetime: Duration,
    /// The lifetime that the browser gets, in seconds.
    max_age: u64,
}

fn bound_name(session_cookie: &str) -> String {
    format!("{session_cookie}-bound")
}

fn signer(keys: &SigningKeys, session_cookie: &str) -> TimeSigner {
    TimeSigner::new(keys, "bound cookie", &bound_name(session_cookie))
}

impl BoundCookies {
    /// The cookie has the attributes of the session cookie, and a name of its own.
    pub(super) fn new(
        keys: &SigningKeys,
        session_cookie: &Attributes,
        lifetime: Duration,
    ) -> Result<Self, ConfigError> {
        let attributes = Attributes {
            name: Some(bound_name(session_cookie.name())),
            ..session_cookie.clone()
        };
        Ok(Self {
            cookie: CookieWriter::new(&attributes)?,
            signer: signer(keys, session_cookie.name()),
            lifetime,
            max_age: max_age(lifetime),
        })
    }

    /// The same with other keys. `name` is that of the session cookie.
    pub(super) fn with_keys(&self, keys: &SigningKeys, name: &str) -> Self {
        Self {
            signer: signer(keys, name),
            ..self.clone()
        }
    }

    pub(crate) fn cookie(&self) -> &CookieWriter {
        &self.cookie
    }

    /// The Set-Cookie header of a new bound cookie.
    pub(crate) fn issue(
        &self,
        id: RecordId,
        device: &BoundDevice,
        now: Timestamp,
        random: &RandomSource,
    ) -> Result<Option<HeaderValue>, SessionError> {
        let ends_at = now + self.lifetime;
        let value = self.signer.sign(about(id, device), ends_at, random)?;
        Ok(self.cookie.set_value(value.as_bytes(), Some(self.max_age)))
    }

    /// What a request presents. `None` if there is nothing, and the browser does not say why.
    pub(crate) fn presented(&self, headers: &HeaderMap) -> Option<Box<PresentedCookies>> {
        let mut presented = PresentedCookies::default();
        self.cookie.each_value(headers, |value| {
            presented.is_anything = true;
            if let Ok(value) = value.try_into()
                && presented.values.len() < PresentedCookies::MAX
            {
                presented.values.push(value);
            }
        });
        // A browser that leaves the refresh out has no cookie any more.
        if !presented.is_anything {
            presented.skipped = headers::skipped(headers);
        }
        let is_there = presented.is_anything || presented.skipped.is_some();
        is_there.then(|| Box::new(presented))
    }

    /// Checks that a request comes from this device.
    pub(crate) fn check(
        &self,
        id: RecordId,
        device: &BoundDevice,
        presented: Option<&PresentedCookies>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(presented) = presented else {
            return Err(Refusal::NoCookie);
        };
        let mut refusal = match presented.is_anything {
            true => Refusal::CookieOfOthers,
            false => Refusal::NoCookie,
        };
        for value in &presented.values {
            match self.signer.verify(about(id, device), value) {
                Some(ends_at) if now < ends_at => return Ok(()),
                Some(_) => refusal = Refusal::CookieOver,
                None => {}
            }
        }
        Err(presented.skipped.unwrap_or(refusal))
    }
}

/// A browser gives the cookie up a little earlier than the layer does. Otherwise a request that it
/// sends in the last moment, or to a node whose clock is ahead, would be refused.
fn max_age(lifetime: Duration) -> u64 {
    let early = (lifetime / 4).min(Duration::from_secs(30));
    lifetime.saturating_sub(early).as_secs().max(1)
}

fn about(id: RecordId, device: &BoundDevice) -> About {
    About {
        id,
        number: device.bound_at.as_millis(),
    }
}
