//! [`Record::to_json`]: a record for people.

use serde::Serialize;

use super::Record;
use super::client::Client;
use super::data::Data;
use super::device::BoundDevice;
use super::generations::Generations;
use super::login::{Actor, Login};
use crate::clock::Timestamp;
use crate::id::RecordId;

/// What a person sees of a record, in this order.
#[derive(Serialize)]
struct Shown<'a> {
    version: u64,
    created_at: Timestamp,
    expires_at: Timestamp,
    /// In milliseconds.
    idle_timeout: u64,
    lifetime: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_by: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_rotated_at: Option<Timestamp>,
    /// Where the layer rotates tokens: how many it has made, and when the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_token: Option<ShownToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<ShownLogin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a Client>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<ShownDevice>,
    /// Whether it is encrypted, so that nothing but the version, the expiry and the user is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
    data: &'a Data,
}

#[derive(Serialize)]
struct ShownToken {
    serial: u32,
    made_at: Timestamp,
    is_seen: bool,
}

impl ShownToken {
    fn new(known: &Generations) -> Self {
        Self {
            serial: known.newest.as_u32(),
            made_at: known.made_at,
            is_seen: known.seen_at.is_some(),
        }
    }
}

#[derive(Serialize)]
struct ShownLogin<'a> {
    user: &'a str,
    at: Timestamp,
    proved_at: Timestamp,
    methods: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    has_stamp: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<ShownActor<'a>>,
}

#[derive(Serialize)]
struct ShownActor<'a> {
    user: &'a str,
    session: RecordId,
}

#[derive(Serialize)]
struct ShownDevice {
    algorithm: &'static str,
    bound_at: Timestamp,
    last_challenge: Timestamp,
}

impl From<&BoundDevice> for ShownDevice {
    fn from(device: &BoundDevice) -> Self {
        Self {
            algorithm: device.key.algorithm.as_str(),
            bound_at: device.bound_at,
            last_challenge: device.last_challenge,
        }
    }
}

impl<'a> ShownLogin<'a> {
    fn new(login: &'a Login) -> Self {
        let actor = |actor: &'a Actor| ShownActor {
            user: actor.user.as_str(),
            session: actor.session,
        };
        let methods = login.details().map(|details| details.how.methods());
        Self {
            user: login.user().as_str(),
            at: login.at(),
            proved_at: login.proved_at(),
            methods: methods.unwrap_or_default(),
            level: login.level(),
            has_stamp: !login.stamp().is_none(),
            external_id: login.external_id().map(|id| &**id),
            actor: login.actor().map(actor),
        }
    }
}

impl Record {
    /// Shows what the record holds, as JSON with line breaks, to a person who looks for a fault.
    /// No program should read it: names may change. `examples/show_record.rs` prints it.
    ///
    /// The user has the layer's realm, as [`user`](Self::user) has. Neither the hash of the token's
    /// secret nor the login's [`Stamp`](crate::Stamp) is in it, but the session's values are. So
    /// show it to nobody who may not read the store.
    ///
    /// ```
    /// # use cloakroom::{RecordId, SessionStore, StoreError};
    /// # async fn show(store: impl SessionStore, id: RecordId) -> Result<(), StoreError> {
    /// if let Some(record) = store.load(id).await? {
    ///     println!("{}", record.to_json());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let fields = self.fields();
        let shown = Shown {
            version: self.version().as_u64(),
            created_at: fields.created_at,
            expires_at: fields.expires_at,
            idle_timeout: fields.idle_timeout,
            lifetime: fields.lifetime.name(),
            ends_by: fields.ends_by,
            token_rotated_at: fields.token_rotated_at,
            newest_token: fields.generations().map(ShownToken::new),
            login: fields.login.as_ref().map(ShownLogin::new),
            client: fields.client.as_deref(),
            device: fields.device().map(ShownDevice::from),
            #[cfg(feature = "encryption")]
            encrypted: self.sealed().is_some(),
            #[cfg(not(feature = "encryption"))]
            encrypted: false,
            data: &fields.data,
        };
        // Nothing in it can fail to be JSON.
        escaped(&serde_json::to_string_pretty(&shown).unwrap_or_default())
    }
}

/// The same JSON, in which no character controls a terminal or turns the direction of the text.
/// Clients have chosen some of the texts, such as the user agent.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' => text.push(c),
            _ if turns || c.is_control() => text += &format!("\\u{:04x}", u32::from(c)),
            _ => text.push(c),
        }
    }
    text
}
