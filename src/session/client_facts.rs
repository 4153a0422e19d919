//! [`ClientFacts`]: what a request shows of its client.

use std::sync::Arc;

use crate::binding::rotation::Chance;
use crate::record::client::Client;
use crate::token::transport::ClientTransport;

/// What a request shows of its client, besides a good token.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientFacts {
    /// The client presented something as its token, good or not.
    pub(crate) presents_token: bool,
    /// The client is a browser that came over plain HTTP, from another host than its own.
    pub(crate) is_on_plain_http: bool,
    /// How the client sends its token, if the layer has both transports.
    pub(crate) transport: ClientTransport,
    /// Whether the response can carry a new token, if the layer rotates tokens.
    pub(crate) chance: Chance,
    /// Who the client is, if the layer has a function that says so.
    pub(crate) described: Option<Arc<Client>>,
    /// The client presented a bound cookie, good or not.
    #[cfg(feature = "dbsc")]
    pub(crate) presents_bound_cookie: bool,
}
