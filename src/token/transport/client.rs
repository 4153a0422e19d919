//! [`ClientTransport`]: how one client of a layer with both transports sends its token.

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::Transport;
use crate::token::presented::PresentedTokens;

/// What a token travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Cookie,
    Bearer,
}

/// How a client of a layer with both transports sends its token, and how it wants the next one. The
/// other layers do not need it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientTransport {
    sent: Sent,
    /// What the client chose with [`Transport::CHOICE_HEADER`].
    choice: Option<Carrier>,
}

/// Where the client presented something as its token, good or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sent {
    #[default]
    Nowhere,
    InCookie,
    AsBearer,
    InBoth,
}

impl ClientTransport {
    /// The client that sent this request, and presented this.
    pub(super) fn of(headers: &HeaderMap, presented: &PresentedTokens) -> Self {
        let sent = if presented.is_of_both() {
            Sent::InBoth
        } else if bearer_tokens(headers).is_anything() {
            Sent::AsBearer
        } else if presented.is_anything() {
            Sent::InCookie
        } else {
            Sent::Nowhere
        };
        Self {
            sent,
            choice: choice(headers),
        }
    }

    /// The same client, but it gets the next token as it sent the last one.
    pub(crate) fn without_choice(self) -> Self {
        Self {
            choice: None,
            ..self
        }
    }

    pub(super) fn sends_bearer(self) -> bool {
        matches!(self.sent, Sent::AsBearer | Sent::InBoth)
    }

    pub(super) fn sends_cookie(self) -> bool {
        matches!(self.sent, Sent::InCookie | Sent::InBoth)
    }

    /// Whether the client presented a cookie, and no bearer token.
    pub(crate) fn sends_only_cookie(self) -> bool {
        self.sent == Sent::InCookie
    }

    /// What the client's next token travels in.
    pub(super) fn carrier(self) -> Carrier {
        self.choice.unwrap_or(match self.sends_bearer() {
            true => Carrier::Bearer,
            false => Carrier::Cookie,
        })
    }
}

/// What the client chose with [`Transport::CHOICE_HEADER`].
pub(super) fn choice(headers: &HeaderMap) -> Option<Carrier> {
    let value = headers.get(Transport::CHOICE_HEADER)?.as_bytes();
    if value.eq_ignore_ascii_case(b"bearer") {
        Some(Carrier::Bearer)
    } else if value.eq_ignore_ascii_case(b"cookie") {
        Some(Carrier::Cookie)
    } else {
        None
    }
}

/// The bearer tokens of a request.
pub(super) fn bearer_tokens(headers: &HeaderMap) -> PresentedTokens {
    let mut presented = PresentedTokens::default();
    for header in headers.get_all(AUTHORIZATION) {
        if let Some(token) = bearer_token(header) {
            presented.push(token);
        }
    }
    presented
}

/// The token of an `Authorization` header with the scheme `Bearer`. It is empty if only the scheme
/// is there.
fn bearer_token(header: &HeaderValue) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer";
    // The scheme's name has no case (RFC 9110, section 11.1).
    let (scheme, rest) = header.as_bytes().split_at_checked(SCHEME.len())?;
    let is_bearer =
        scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_none_or(|&byte| byte == b' ');
    is_bearer.then(|| rest.trim_ascii())
}
