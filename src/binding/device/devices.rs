//! [`Devices`]: how one layer binds sessions to devices, with everything that is made once.

use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderMap;
use serde_json::json;

use super::bound_cookie::BoundCookies;
use super::challenge::{Challenges, Purpose};
use super::headers;
use super::refusal::Refusal;
use super::settings::{DeviceBinding, WhenUnbound};
use crate::binding::presented::PresentedProof;
use crate::clock::Timestamp;
use crate::error::{ConfigError, SessionError};
use crate::id::RecordId;
use crate::record::device::BoundDevice;
use crate::token::cookie::Attributes;
use crate::token::keys::SigningKeys;
use crate::token::random::RandomSource;

/// A path that the layer answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Registration,
    Refresh,
}

/// How one layer binds sessions to devices.
#[derive(Clone, Debug)]
pub(crate) struct Devices {
    settings: DeviceBinding,
    cookies: BoundCookies,
    challenges: Challenges,
    /// The name of the session cookie.
    name: String,
}

impl Devices {
    pub(crate) fn new(
        settings: DeviceBinding,
        keys: &SigningKeys,
        session_cookie: &Attributes,
    ) -> Result<Self, ConfigError> {
        settings.check(session_cookie)?;
        Ok(Self {
            cookies: BoundCookies::new(keys, session_cookie, settings.cookie_lifetime)?,
            challenges: Challenges::new(keys, session_cookie.name(), settings.challenge_lifetime),
            name: session_cookie.name().into(),
            settings,
        })
    }

    /// The same with other keys.
    pub(crate) fn with_keys(&self, keys: &SigningKeys) -> Self {
        Self {
            settings: self.settings.clone(),
            cookies: self.cookies.with_keys(keys, &self.name),
            challenges: Challenges::new(keys, &self.name, self.settings.challenge_lifetime),
            name: self.name.clone(),
        }
    }

    pub(crate) fn cookies(&self) -> &BoundCookies {
        &self.cookies
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    pub(crate) fn refuses_unbound(&self) -> bool {
        self.settings.when_unbound == WhenUnbound::Refuse
    }

    /// The endpoint at this path.
    pub(crate) fn endpoint(&self, path: &str) -> Option<Endpoint> {
        if path == self.settings.refresh_path {
            Some(Endpoint::Refresh)
        } else if path == self.settings.registration_path {
            Some(Endpoint::Registration)
        } else {
            None
        }
    }

    /// What a request presents to prove its device.
    pub(crate) fn presented(&self, headers: &HeaderMap) -> PresentedProof {
        PresentedProof {
            client: None,
            arrived_at: None,
            cookies: self.cookies.presented(headers),
            is_waived: false,
        }
    }

    /// Checks that a request comes from this device.
    pub(crate) fn check(
        &self,
        id: RecordId,
        device: &BoundDevice,
        proof: &PresentedProof,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let checked = self
            .cookies
            .check(id, device, proof.cookies.as_deref(), now);
        match checked {
            Err(_) if now.since(device.bound_at) < self.grace_period() => Ok(()),
            checked => checked,
        }
    }

    /// Without this bound, a copy of the session cookie would be good for longer than the lifetime.
    fn grace_period(&self) -> Duration {
        self.settings
            .grace_period
            .min(self.settings.cookie_lifetime)
    }

    /// The header that offers the browser to bind this session.
    pub(crate) fn offer(
        &self,
        id: RecordId,
        login_at: Timestamp,
        now: Timestamp,
        random: &RandomSource,
    ) -> Result<Option<HeaderValue>, SessionError> {
        let purpose = Purpose::Registration { login_at };
        let challenge = self.challenges.issue(purpose, id, now, random)?;
        Ok(headers::registration(
            &self.settings.registration_path,
            &challenge,
        ))
    }

    /// The header that asks the browser for a proof.
    pub(crate) fn ask(
        &self,
        id: RecordId,
        device: &BoundDevice,
        now: Timestamp,
        random: &RandomSource,
    ) -> Result<Option<HeaderValue>, SessionError> {
        let purpose = Purpose::refresh_of(device);
        let challenge = self.challenges.issue(purpose, id, now, random)?;
        Ok(headers::challenge(&challenge, &id.to_string()))
    }

    /// The JSON that tells the browser how to renew the bound cookie.
    pub(crate) fn instructions(&self, id: RecordId) -> String {
        let excluded = self
            .settings
            .excluded
            .iter()
            .map(|path| json!({ "type": "exclude", "domain": "*", "path": path }));
        json!({
            "session_identifier": id,
            "refresh_url": self.settings.refresh_path,
            "scope": {
                "include_site": false,
                "scope_specification": excluded.collect::<Vec<_>>(),
            },
            "credentials": [{
                "type": "cookie",
                "name": self.cookies.cookie().name(),
                "attributes": self.cookies.cookie().attributes(),
            }],
            "allowed_refresh_initiators": [],
        })
        .to_string()
    }
}

/// The JSON that tells the browser that a session is over.
pub(crate) fn over(id: &str) -> String {
    json!({ "session_identifier": id, "continue": false }).to_string()
}
