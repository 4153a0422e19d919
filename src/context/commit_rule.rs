//! [`CommitRule`]: which handlers succeeded, so that the layer writes their changes.

use std::fmt;
use std::sync::Arc;

use http::response::Parts;
use http::{Response, StatusCode};

use crate::events::DropReason;

/// A gRPC error is an HTTP response of status 200 that has another number than 0 in this header.
const GRPC_STATUS: &str = "grpc-status";

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed(DropReason),
}

/// Which responses come from a handler that succeeded.
#[derive(Clone, Default)]
pub(crate) enum CommitRule {
    /// All responses except 5xx, 408 (a `TimeoutLayer` inside gave up midway) and gRPC errors.
    #[default]
    Default,
    /// The responses that the application accepts.
    Own(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
}

impl CommitRule {
    pub(crate) fn judge<B: Default>(&self, response: &mut Response<B>) -> Outcome {
        match self {
            Self::Default if is_failure(response) => Outcome::Failed(DropReason::HandlerFailed),
            Self::Default => Outcome::Succeeded,
            Self::Own(commits) => {
                // The rule may look at the whole head, but a response gives access to one part at a
                // time.
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
        // A response has few headers, so that looking at each costs less than a look-up.
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
