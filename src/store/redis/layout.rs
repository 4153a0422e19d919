//! What is kept under a session's key.

use redis::{RedisResult, RedisWrite, ToRedisArgs};

use crate::clock::Timestamp;
use crate::record::{Record, UserId, Version};
use crate::report;
use crate::token::RecordId;

/// The most bytes of writes' names that are kept.
pub(super) const LONGEST_WRITES: usize = 256;

/// Where the names of the last writes begin. The expiry ends before.
pub(super) const WRITES: usize = 2 * Number::LEN;

/// The NUL behind the longest names.
pub(super) const WRITES_END: usize = WRITES + LONGEST_WRITES;

/// The NUL behind the longest user.
pub(super) const USER_END: usize = WRITES_END + 1 + UserId::STORED_LEN;

/// The value of a session's key.
pub(super) enum Value {
    Missing,
    Text(Vec<u8>),
    /// Something of another type, which is a corrupt record and no error.
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
            report::corrupt_record(id, "its key holds something else");
            return None;
        };
        let record = Record::decode(id, stored.record)?;
        let user = record.user().map_or("", UserId::as_str);
        if stored.version != record.version() || stored.user != user.as_bytes() {
            report::corrupt_record(id, "it is not the record of its version or user");
            return None;
        }
        Some(record.with_expires_at(stored.expires_at))
    }
}

/// A session as it is kept: what the scripts have to know stands before the record's bytes, at
/// places that they know.
///
/// These are the version and the expiry, each of [`Number::LEN`] digits; then the names of the last
/// writes to a cluster, a NUL, the user, and another NUL. None of the texts holds one. Another
/// layout has to begin with another character than a digit, and is then no record to the scripts.
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
            version: Version::from_number(number(version)?),
            expires_at: Timestamp::from_millis(number(expires_at)?),
            user,
            record,
        })
    }
}

/// A number of always as many digits, so that scripts find what follows it, and compare it as a
/// text: a Lua number has 53 bits.
pub(super) struct Number(pub(super) u64);

impl Number {
    /// Those of `i64::MAX`, which neither versions nor times exceed.
    pub(super) const LEN: usize = 19;
}

impl ToRedisArgs for Number {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("{:0width$}", self.0, width = Self::LEN));
    }
}
