//! The challenge of a 401: what the client must present.

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::TokenTransport;
use crate::error::{PLAIN_CHALLENGE, SessionErrorKind, StepUp};

impl TokenTransport {
    /// Says in a 401 of this crate what the client must present (RFC 9110, section 15.5.2), unless
    /// an inner layer has said so. `is_token_dead` says that the client has presented a token that
    /// leads to no session: with both transports, a bearer token.
    pub(crate) fn challenge(
        &self,
        kind: SessionErrorKind,
        step_up: Option<&StepUp>,
        is_token_dead: bool,
        headers: &mut HeaderMap,
    ) {
        if headers
            .get(WWW_AUTHENTICATE)
            .is_some_and(|value| value != PLAIN_CHALLENGE)
        {
            return;
        }
        let needs_better_login = matches!(
            kind,
            SessionErrorKind::LoginTooOld | SessionErrorKind::LevelTooLow
        );
        let write = |plain: HeaderValue| match needs_better_login {
            true => step_up_challenge(&plain, step_up).unwrap_or(plain),
            false => plain,
        };
        // RFC 6750, section 3.
        let bearer = HeaderValue::from_static(match is_token_dead && !needs_better_login {
            true => "Bearer error=\"invalid_token\"",
            false => "Bearer",
        });
        match self {
            Self::Cookie { challenge, .. } => {
                headers.insert(WWW_AUTHENTICATE, write(challenge.clone()));
            }
            Self::Bearer { .. } => {
                headers.insert(WWW_AUTHENTICATE, write(bearer));
            }
            Self::CookieOrBearer { challenge, .. } => {
                headers.insert(WWW_AUTHENTICATE, write(challenge.clone()));
                headers.append(WWW_AUTHENTICATE, write(bearer));
            }
        }
    }
}

/// What a 401 asks for if the client needs a better login (RFC 9470, section 3). The scheme of the
/// cookie, which no RFC knows, says it in the same way.
fn step_up_challenge(plain: &HeaderValue, step_up: Option<&StepUp>) -> Option<HeaderValue> {
    let mut text = plain.to_str().ok()?.to_owned();
    // The first parameter comes after a space, and the others after a comma.
    text.push_str(if text.contains('=') { ", " } else { " " });
    text.push_str("error=\"insufficient_user_authentication\"");
    if let Some(step_up) = step_up {
        text.push_str(", ");
        text.push_str(step_up.as_str());
    }
    HeaderValue::try_from(text).ok()
}
