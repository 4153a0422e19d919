//! [`Outcome`]: whether a handler succeeded, so that its changes are written.

use std::fmt;
use std::sync::Arc;

use http::response::Parts;
use http::{Response, StatusCode};

/// A gRPC error is an HTTP response of status 200 with another number than 0 in this header.
const GRPC_STATUS: &str = "grpc-status";

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed(DropReason),
}

/// Why a request's changes are not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The handler answered with a 5xx, a 408 or a gRPC error, or its service failed.
    HandlerFailed,
    /// The application's rule said so.
    RefusedByRule,
    /// The request was never answered: its client went away, or its handler panicked.
    Unanswered,
    /// Another request ended the session.
    SessionEnded,
    /// Another request replaced the token.
    TokenReplaced,
    /// The request itself ended the session, after it had changed it.
    EndedByRequest,
    /// The request logged in another user than the one whose session it had changed.
    OtherUser,
    /// The commit failed. Another event gives the error.
    CommitFailed,
}

impl DropReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::HandlerFailed => "the handler failed",
            Self::RefusedByRule => "`commit_when` refused the response",
            Self::Unanswered => "the request was dropped before it was answered",
            Self::SessionEnded => "the session was ended",
            Self::TokenReplaced => "the token was replaced",
            Self::EndedByRequest => "the same request ended the session",
            Self::OtherUser => "the same request logged in another user",
            Self::CommitFailed => "the changes could not be stored",
        }
    }
}

/// Which responses are those of a handler that succeeded.
#[derive(Clone, Default)]
pub(crate) enum CommitRule {
    /// All but 5xx, 408 (a `TimeoutLayer` inside gave up midway) and gRPC errors.
    #[default]
    Default,
    /// Those that the application says.
    Own(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
}

impl CommitRule {
    pub(crate) fn judge<B: Default>(&self, response: &mut Response<B>) -> Outcome {
        match self {
            Self::Default if is_failure(response) => Outcome::Failed(DropReason::HandlerFailed),
            Self::Default => Outcome::Succeeded,
            Self::Own(commits) => {
                // The rule may look at the whole head, which a response lends only in parts.
                let (parts, body) = std::mem::take(response).into_parts();
                let outcome = match commits(&parts) {
                    true => Outcome::Succeeded,
                    false => Outcome::Failed(DropReason::RefusedByRule),
                };
                *response = Response::from_parts(parts, body);
                outcome
            }
        }
    }
}

fn is_failure<B>(response: &Response<B>) -> bool {
    let status = response.status();
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        // A look at each name costs less than a look-up: a response has few headers.
        || response.headers().iter().any(|(name, code)| {
            name.as_str() == GRPC_STATUS && code.as_bytes().trim_ascii() != b"0"
        })
}

impl fmt::Debug for CommitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "Default",
            Self::Own(_) => "Own(..)",
        })
    }
}
