//! [`ClientFacts`]: what a request shows of its client.

use crate::token::transport::ClientTransport;

/// What a request shows of its client, besides a good token.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientFacts {
    /// The client presented something as its token, good or not.
    pub(crate) presents_token: bool,
    /// The client is a browser that came over plain HTTP, from another host than its own.
    pub(crate) is_on_plain_http: bool,
    /// How the client sends its token, if the layer has both transports.
    pub(crate) transport: ClientTransport,
}
