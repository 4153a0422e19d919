//! [`EndCause`]: why a session ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a session ended. Its text, and its form in serde, is one word, such as `logged_out`.
///
/// ```
/// use cloakroom::EndCause;
///
/// fn says_goodbye(cause: EndCause) -> &'static str {
///     match cause {
///         EndCause::LoggedOut | EndCause::LoggedOutEverywhere => "Goodbye.",
///         EndCause::SessionLimit => "You have logged in on another device.",
///         _ => "Your session has ended.",
///     }
/// }
/// assert_eq!(EndCause::SessionLimit.to_string(), "session_limit");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndCause {
    /// The user logged out: [`Session::log_out`](crate::Session::log_out).
    LoggedOut,
    /// A handler ended it: [`Session::destroy`](crate::Session::destroy).
    Destroyed,
    /// The user logged out on all devices:
    /// [`Sessions::log_out_everywhere`](crate::Sessions::log_out_everywhere).
    LoggedOutEverywhere,
    /// Somebody ended it through [`Sessions`](crate::Sessions), such as an admin, or the user on
    /// another device.
    Revoked,
    /// Another user logged in, in the same browser.
    SwitchedUser,
    /// The client came with the tokens of several live sessions, and a login took their place.
    Replaced,
    /// In this session a user acted as another one, and went back to their own session.
    StoppedActing,
    /// In this session a user acted as another one, and their own session is over.
    ActorEnded,
    /// It was the oldest session of its user, and a login exceeded the session limit.
    SessionLimit,
    /// It is the session of a login that was refused, because a parallel login had just reached the
    /// session limit. No client got its token.
    LoginRefused,
    /// It is the session of a login that failed after it was stored. No client got its token.
    LoginFailed,
    /// The credentials of its user changed: see [`Stamp`](crate::Stamp).
    CredentialsChanged,
    /// Two clients had a token of it, so one of them had stolen it. The event
    /// [`SessionEventKind::Reuse`](crate::SessionEventKind::Reuse) comes before.
    TokenReused,
    /// Its time was over. The event is of the kind
    /// [`SessionEventKind::Expired`](crate::SessionEventKind::Expired), and not `Ended`.
    Expired,
}

impl EndCause {
    /// The cause as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Destroyed => "destroyed",
            Self::LoggedOutEverywhere => "logged_out_everywhere",
            Self::Revoked => "revoked",
            Self::SwitchedUser => "switched_user",
            Self::Replaced => "replaced",
            Self::StoppedActing => "stopped_acting",
            Self::ActorEnded => "actor_ended",
            Self::SessionLimit => "session_limit",
            Self::LoginRefused => "login_refused",
            Self::LoginFailed => "login_failed",
            Self::CredentialsChanged => "credentials_changed",
            Self::TokenReused => "token_reused",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
