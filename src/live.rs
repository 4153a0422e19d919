//! Tells sockets, streams and tasks when their session changes or ends.
//!
//! [`LiveSessions`] knows which sessions somebody in this process waits for. One task follows the
//! feed of the store, or asks the store at an interval.

mod sessions;
mod task;
pub(crate) mod until_ended;

use std::fmt;

use serde::Serialize;

pub(crate) use self::sessions::{Facts, LiveSessions, Watch};
use crate::hooks::cause::EndCause;

/// How a session ended. [`DetachedSession::ended`](crate::DetachedSession::ended) returns it.
///
/// ```
/// use cloakroom::Ended;
///
/// fn reason(ended: Ended) -> &'static str {
///     match ended {
///         Ended::Expired => "You were away for too long.",
///         Ended::Superseded => "Please load the page again.",
///         _ => "You are logged out.",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ended {
    /// This process ended the session, for this reason.
    Here(EndCause),
    /// Another node ended the session, or somebody removed its record from the store. The store
    /// does not say why.
    Elsewhere,
    /// Nobody used the session for its idle timeout, or it reached its absolute timeout.
    Expired,
    /// The session goes on with another token: after a login, or after
    /// [`Session::regenerate`](crate::Session::regenerate). The client has to connect again with
    /// the new token.
    Superseded,
}

impl Ended {
    fn here(cause: EndCause) -> Self {
        match cause {
            EndCause::Expired => Self::Expired,
            cause => Self::Here(cause),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(cause) => write!(f, "the session ended: {cause}"),
            Self::Elsewhere => f.write_str("the session ended on another node"),
            Self::Expired => f.write_str("the session expired"),
            Self::Superseded => f.write_str("the session has another token now"),
        }
    }
}
