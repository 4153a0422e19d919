//! The fields that a record may have, between its user and its values.
//!
//! Each field is a number that says which one it is, its length in two bytes, and its bytes. Fields
//! come in the order of their numbers, and 0 ends them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, TryGetError};

use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::record::RecordFields;
use crate::record::client::Client;
use crate::record::device::{BoundDevice, DeviceKey, KeyAlgorithm};
use crate::record::generations::{Generations, KnownToken, Serial};
use crate::record::lifetime::class::LifetimeClass;
use crate::record::login::{Actor, Details, Login, Stamp};
#[cfg(feature = "encryption")]
use crate::record::sealed::SealedHeader;
use crate::record::secret_hash::SecretHash;
use crate::record::user::UserId;

const END: u8 = 0;
const LOGIN_AT: u8 = 1;
const TOKEN_ROTATED_AT: u8 = 2;
const ENDS_BY: u8 = 3;
const LIFETIME: u8 = 4;
/// There is a client, of which nothing need be known.
const CLIENT: u8 = 5;
const USER_AGENT: u8 = 6;
const ADDRESS: u8 = 7;
const PROVED_AT: u8 = 8;
/// The only field that a record can have several times.
const METHOD: u8 = 9;
const LEVEL: u8 = 10;
const STAMP: u8 = 11;
/// The id of the actor's session, and the actor's user.
const ACTOR: u8 = 12;
const ACTOR_STAMP: u8 = 13;
/// Which tokens are known.
const GENERATIONS: u8 = 14;
/// The time of the registration, the time of the last challenge, the algorithm and the key.
const DEVICE: u8 = 15;
/// What somebody else calls the login.
const EXTERNAL_ID: u8 = 16;
/// In an encrypted record: the id of the key, and the nonce. Only the external id may come before
/// it.
#[cfg(feature = "encryption")]
const SEALED: u8 = 20;

/// The algorithms of device keys.
const ES256: u8 = 1;
const RS256: u8 = 2;

/// Something is longer than its length can say.
pub(super) struct TooLong;

/// Why bytes are not a record.
pub(super) struct Damage(pub(super) Cow<'static, str>);

impl From<&'static str> for Damage {
    fn from(reason: &'static str) -> Self {
        Self(reason.into())
    }
}

impl From<TryGetError> for Damage {
    fn from(_: TryGetError) -> Self {
        "it is cut short".into()
    }
}

/// What the fields say.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) login: Option<Login>,
    pub(super) token_rotated_at: Option<Timestamp>,
    pub(super) lifetime: LifetimeClass,
    pub(super) ends_by: Option<Timestamp>,
    pub(super) client: Option<Arc<Client>>,
    pub(super) generations: Option<Arc<Generations>>,
    pub(super) device: Option<Arc<BoundDevice>>,
    #[cfg(feature = "encryption")]
    pub(super) sealed: Option<SealedHeader>,
}

/// Writes the fields that this record has.
pub(super) fn write(record: &RecordFields, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let mut put = |field: u8, bytes: &[u8]| {
        out.put_u8(field);
        out.put_u16(u16::try_from(bytes.len()).map_err(|_| TooLong)?);
        out.put_slice(bytes);
        Ok(())
    };
    #[cfg(feature = "encryption")]
    if let Some(sealed) = &record.sealed {
        if let Some(external_id) = record.external_id() {
            put(EXTERNAL_ID, external_id.as_bytes())?;
        }
        put(SEALED, &sealed.header.to_bytes())?;
        out.put_u8(END);
        return Ok(());
    }
    let time = |time: Timestamp| time.as_millis().to_be_bytes();
    let login = record.login.as_ref();
    if let Some(login) = login {
        put(LOGIN_AT, &time(login.at()))?;
    }
    if let Some(at) = record.token_rotated_at {
        put(TOKEN_ROTATED_AT, &time(at))?;
    }
    if let Some(at) = record.ends_by {
        put(ENDS_BY, &time(at))?;
    }
    if !record.lifetime.is_default() {
        put(LIFETIME, record.lifetime.name().as_bytes())?;
    }
    if let Some(client) = &record.client {
        put(CLIENT, &[])?;
        if let Some(user_agent) = client.user_agent() {
            put(USER_AGENT, user_agent.as_bytes())?;
        }
        if let Some(address) = client.address() {
            put(ADDRESS, address.as_bytes())?;
        }
    }
    if let Some(details) = login.and_then(Login::details) {
        if let Some(at) = details.how.time() {
            put(PROVED_AT, &time(at))?;
        }
        for method in details.how.methods() {
            put(METHOD, method.as_bytes())?;
        }
        if let Some(level) = details.how.level() {
            put(LEVEL, level.as_bytes())?;
        }
        if let Some(stamp) = details.stamp.hash() {
            put(STAMP, stamp.as_bytes())?;
        }
        if let Some(actor) = &details.actor {
            let user = actor.user.as_str().as_bytes();
            put(ACTOR, &[actor.session.as_bytes(), user].concat())?;
            if let Some(stamp) = actor.stamp.hash() {
                put(ACTOR_STAMP, stamp.as_bytes())?;
            }
        }
    }
    if let Some(known) = record.generations() {
        put(GENERATIONS, &generations_bytes(known)?)?;
    }
    if let Some(device) = record.device() {
        let algorithm = match device.key.algorithm {
            KeyAlgorithm::Es256 => ES256,
            KeyAlgorithm::Rs256 => RS256,
        };
        let [bound_at, last] = [device.bound_at, device.last_challenge].map(time);
        put(
            DEVICE,
            &[&bound_at, &last, &[algorithm][..], &device.key.bytes].concat(),
        )?;
    }
    if let Some(external_id) = login.and_then(Login::external_id) {
        put(EXTERNAL_ID, external_id.as_bytes())?;
    }
    out.put_u8(END);
    Ok(())
}

/// Reads the fields of a user's record. The user is empty in a visitor's record.
pub(super) fn read(user: &[u8], rest: &mut &[u8]) -> Result<Fields, Damage> {
    let mut fields = Fields::default();
    let mut login_at = None;
    let mut client = None::<Client>;
    let mut details = None::<Details>;
    let mut last = END;
    #[cfg(feature = "encryption")]
    let mut has_others = false;
    loop {
        let field = rest.try_get_u8()?;
        if field == END {
            break;
        }
        if field < last || field == last && field != METHOD {
            return Err("its fields are in disorder".into());
        }
        #[cfg(feature = "encryption")]
        {
            if last == SEALED || field == SEALED && has_others {
                return Err("it is encrypted, and has other fields".into());
            }
            has_others |= field != EXTERNAL_ID;
        }
        last = field;
        let length = usize::from(rest.try_get_u16()?);
        let bytes = rest.split_off(..length).ok_or("it is cut short")?;
        match field {
            LOGIN_AT => login_at = Some(time(bytes)?),
            TOKEN_ROTATED_AT => fields.token_rotated_at = Some(time(bytes)?),
            ENDS_BY => fields.ends_by = Some(time(bytes)?),
            LIFETIME => fields.lifetime = LifetimeClass::from(text(bytes)?),
            CLIENT => client = Some(Client::default()),
            USER_AGENT | ADDRESS => {
                let client = client.as_mut().ok_or("it has no client")?;
                match field {
                    USER_AGENT => client.user_agent = Some(text(bytes)?.into()),
                    _ => client.address = Some(text(bytes)?.into()),
                }
            }
            PROVED_AT..=ACTOR_STAMP | EXTERNAL_ID => {
                read_detail(field, bytes, details.get_or_insert_default())?;
            }
            GENERATIONS => fields.generations = Some(Arc::new(generations(bytes)?)),
            DEVICE => fields.device = Some(Arc::new(device(bytes)?)),
            #[cfg(feature = "encryption")]
            SEALED => fields.sealed = Some(SealedHeader::from_bytes(array(bytes)?)),
            _ => return Err("it has a field that this version does not know".into()),
        }
    }
    #[cfg(feature = "encryption")]
    if fields.sealed.is_some() {
        // When the user logged in is encrypted.
        let at = Timestamp::from_millis(0);
        fields.login = match (user, details) {
            ([], None) => None,
            ([], Some(_)) => return Err("it has an external id, and no user".into()),
            (user, details) => Some(Login::stored(user_id(user)?, at, details)),
        };
        return Ok(fields);
    }
    fields.client = client.map(Arc::new);
    fields.login = match (user, login_at, details) {
        ([], None, None) => None,
        (user @ [_, ..], Some(at), details) => Some(Login::stored(user_id(user)?, at, details)),
        _ => return Err("its user and its login do not belong together".into()),
    };
    Ok(fields)
}

fn read_detail(field: u8, bytes: &[u8], details: &mut Details) -> Result<(), Damage> {
    match field {
        PROVED_AT => details.how.time = Some(time(bytes)?),
        METHOD => details.how.methods.push(text(bytes)?.into()),
        LEVEL => details.how.level = Some(text(bytes)?.into()),
        STAMP => details.stamp = stamp(bytes)?,
        EXTERNAL_ID => details.external_id = Some(text(bytes)?.into()),
        ACTOR => {
            let (session, user) = bytes.split_first_chunk().ok_or("its actor is cut short")?;
            details.actor = Some(Actor {
                session: RecordId::from_bytes(*session),
                user: user_id(user)?,
                stamp: Stamp::none(),
            });
        }
        _ => details.actor.as_mut().ok_or("it has no actor")?.stamp = stamp(bytes)?,
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Damage> {
    bytes
        .try_into()
        .map_err(|_| "a field has a wrong length".into())
}

fn time(bytes: &[u8]) -> Result<Timestamp, Damage> {
    Ok(Timestamp::from_millis(u64::from_be_bytes(array(bytes)?)))
}

fn text(bytes: &[u8]) -> Result<&str, Damage> {
    str::from_utf8(bytes).map_err(|_| "a field is not text".into())
}

fn user_id(bytes: &[u8]) -> Result<UserId, Damage> {
    Ok(UserId::stored(text(bytes)?.into()))
}

fn stamp(bytes: &[u8]) -> Result<Stamp, Damage> {
    Ok(Stamp::stored(SecretHash::from_bytes(array(bytes)?)))
}

/// First and newest serial, when the newest token was made, whether and when a token of its
/// generation was seen, how many siblings there are, the siblings, and the parents.
fn generations_bytes(known: &Generations) -> Result<Vec<u8>, TooLong> {
    let mut out = Vec::with_capacity(26 + TOKEN_LEN * (known.siblings.len() + known.parents.len()));
    out.put_u32(known.first.as_u32());
    out.put_u32(known.newest.as_u32());
    out.put_u64(known.made_at.as_millis());
    out.put_u8(known.seen_at.is_some().into());
    out.put_u64(known.seen_at.map_or(0, Timestamp::as_millis));
    out.put_u8(u8::try_from(known.siblings.len()).map_err(|_| TooLong)?);
    for token in known.siblings.iter().chain(&known.parents) {
        out.put_u32(token.serial.as_u32());
        out.put_slice(token.secret_hash.as_bytes());
    }
    Ok(out)
}

/// The length of a token that the record knows.
const TOKEN_LEN: usize = Serial::LEN + SecretHash::LEN;

fn generations(mut bytes: &[u8]) -> Result<Generations, Damage> {
    let serial = |bytes: &mut &[u8]| Ok::<_, Damage>(Serial::from_u32(bytes.try_get_u32()?));
    let first = serial(&mut bytes)?;
    let newest = serial(&mut bytes)?;
    let made_at = Timestamp::from_millis(bytes.try_get_u64()?);
    let is_seen = bytes.try_get_u8()? != 0;
    let seen_at = Timestamp::from_millis(bytes.try_get_u64()?);
    let siblings = usize::from(bytes.try_get_u8()?);
    let (siblings, parents) = bytes
        .split_at_checked(siblings.saturating_mul(TOKEN_LEN))
        .ok_or("its tokens are cut short")?;
    Ok(Generations {
        first,
        newest,
        siblings: known_tokens(siblings)?,
        parents: known_tokens(parents)?,
        seen_at: is_seen.then_some(seen_at),
        made_at,
    })
}

fn known_tokens(bytes: &[u8]) -> Result<Vec<KnownToken>, Damage> {
    let known = |mut token: &[u8]| {
        Ok(KnownToken {
            serial: Serial::from_u32(token.try_get_u32()?),
            secret_hash: SecretHash::from_bytes(array(token)?),
        })
    };
    bytes.chunks(TOKEN_LEN).map(known).collect()
}

fn device(bytes: &[u8]) -> Result<BoundDevice, Damage> {
    const SHORT: &str = "its device is cut short";
    let (bound_at, rest) = bytes.split_at_checked(size_of::<u64>()).ok_or(SHORT)?;
    let (last_challenge, rest) = rest.split_at_checked(size_of::<u64>()).ok_or(SHORT)?;
    let (algorithm, key) = rest.split_first().ok_or(SHORT)?;
    let algorithm = match *algorithm {
        ES256 => KeyAlgorithm::Es256,
        RS256 => KeyAlgorithm::Rs256,
        _ => return Err("its device has an algorithm that this version does not know".into()),
    };
    Ok(BoundDevice {
        key: DeviceKey {
            algorithm,
            bytes: key.into(),
        },
        bound_at: time(bound_at)?,
        last_challenge: time(last_challenge)?,
    })
}
