//! What is kept under a session's key.

use redis::{RedisResult, RedisWrite, ToRedisArgs};

use crate::clock::Timestamp;
use crate::events;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};

// The places of a value's parts: see `Stored`. They are bytes from the beginning, and the scripts
// use them too.

/// The first byte of the expiry. The version ends before it.
pub(super) const EXPIRY_AT: usize = Number::LEN;

/// The first byte of the names of the last writes. The expiry ends before it.
pub(super) const WRITES_AT: usize = EXPIRY_AT + Number::LEN;

/// How many bytes of names are kept.
pub(super) const WRITES_MAX: usize = 256;

/// The NUL behind the names, if they are the longest.
pub(super) const WRITES_END: usize = WRITES_AT + WRITES_MAX;

/// The NUL behind the user, if the names and the user are the longest.
pub(super) const USER_END: usize = WRITES_END + 1 + UserId::STORED_LEN;

/// The value of a session's key.
pub(super) enum Value {
    Missing,
    Text(Vec<u8>),
    /// Something of another type. It is a corrupt record, and not an error.
    Foreign,
}

impl Value {
    pub(super) fn of(answer: RedisResult<Option<Vec<u8>>>) -> RedisResult<Self> {
        match answer {
            Ok(text) => Ok(text.map_or(Self::Missing, Self::Text)),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Self::Foreign),
            Err(error) => Err(error),
        }
    }

    fn stored(&self) -> Option<Stored<'_>> {
        match self {
            Self::Text(text) => Stored::parse(text),
            Self::Missing | Self::Foreign => None,
        }
    }

    pub(super) fn is_of(&self, user: &UserId) -> bool {
        self.stored()
            .is_some_and(|stored| stored.user == user.as_str().as_bytes())
    }

    pub(super) fn decode(&self, id: RecordId) -> Option<Record> {
        if matches!(self, Self::Missing) {
            return None;
        }
        let Some(stored) = self.stored() else {
            events::corrupt_record(id, "its key holds something else");
            return None;
        };
        let record = Record::decode(id, stored.record)?;
        let user = record.user().map_or("", UserId::as_str);
        if stored.version != record.version() || stored.user != user.as_bytes() {
            events::corrupt_record(id, "it is not the record of its version or user");
            return None;
        }
        Some(record.with_expires_at(stored.expires_at))
    }
}

/// The parts of a session's value. Those that the scripts need come before the record's bytes:
///
/// 1. the version, of [`Number::LEN`] digits
/// 2. the expiry, of as many digits
/// 3. the names of the last writes, and a NUL; only in a cluster, writes have names
/// 4. the user, and a NUL; a visitor's session has an empty user
/// 5. the record
///
/// Neither a name nor a user holds a NUL. A later layout must begin with something else than a
/// digit: then scripts of today take it for a missing record.
struct Stored<'a> {
    version: Version,
    expires_at: Timestamp,
    user: &'a [u8],
    record: &'a [u8],
}

impl<'a> Stored<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (version, rest) = text.split_at_checked(Number::LEN)?;
        let (expires_at, rest) = rest.split_at_checked(Number::LEN)?;
        let mut parts = rest.splitn(3, |&byte| byte == 0);
        let (_writes, user, record) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |digits| str::from_utf8(digits).ok()?.parse().ok();
        Some(Self {
            version: Version::from_u64(number(version)?),
            expires_at: Timestamp::from_millis(number(expires_at)?),
            user,
            record,
        })
    }
}

/// A number that always has the same number of digits. Scripts find what follows it, and compare
/// it as a text: a number of Lua has only 53 bits.
pub(super) struct Number(pub(super) u64);

impl Number {
    /// The digits of `i64::MAX`. No version and no time is larger.
    pub(super) const LEN: usize = 19;
}

impl ToRedisArgs for Number {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("{:0width$}", self.0, width = Self::LEN));
    }
}
