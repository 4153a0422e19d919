//! [`Client`]: where a session is used from.

use serde::Serialize;

/// Where a session is used from, as the application saw it. It is for a "your devices" page.
///
/// cloakroom records nothing by itself. The application does, with
/// [`Session::set_client`](crate::Session::set_client).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Client {
    pub(super) user_agent: Option<Box<str>>,
    pub(super) address: Option<Box<str>>,
}

impl Client {
    const MAX_USER_AGENT: usize = 512;
    const MAX_ADDRESS: usize = 64;

    /// A client of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same client with this user agent, cut to 512 bytes.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = Some(cut(user_agent, Self::MAX_USER_AGENT).into());
        self
    }

    /// The same client with this network address, cut to 64 bytes.
    ///
    /// The application chooses where the address comes from. Behind a proxy, believe only a header
    /// that the proxy itself sets.
    #[must_use]
    pub fn with_address(mut self, address: &str) -> Self {
        self.address = Some(cut(address, Self::MAX_ADDRESS).into());
        self
    }

    /// The user agent, if the application recorded one.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// The network address, if the application recorded one.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}
