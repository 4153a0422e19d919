//! The settings of the rotation of tokens.

use std::time::Duration;

use http::{Extensions, HeaderMap};

use super::SessionLayerBuilder;
use crate::binding::rotation::Rotation;
use crate::context::describe::DescribeClient;
use crate::error::ConfigError;
use crate::record::client::Client;
use crate::store::SessionStore;

/// # Stolen tokens
impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// Replaces the token of a session that is used, whenever the token is older than this
    /// interval. By default, the layer does not do that. The interval is at least a minute. 10
    /// minutes are a good choice.
    ///
    /// A token that somebody copied is worth little then. Once the user and the thief have both
    /// gone on, one of them comes with a token that was replaced. The layer then ends the session,
    /// calls the hooks with [`SessionEventKind::Reuse`](crate::SessionEventKind::Reuse), and treats
    /// both as visitors. That takes two intervals and a minute at most, and about twice as long in
    /// a page whose scripts alone use the session.
    ///
    /// The old token stays good until its client uses the new one, and for a minute after that. So
    /// parallel requests do not disturb each other, and an answer that is lost logs nobody out. A
    /// login, [`regenerate`](crate::Session::regenerate) and another lifetime still kill the old
    /// token at once.
    ///
    /// A rotation is part of the write or touch that a request makes anyway. A request that makes
    /// none writes once for the rotation. The next request with the new token writes once to say
    /// that the client has it. The layer gives a browser the new token with a navigation
    /// (`Sec-Fetch-Mode`), and with any request if the token is twice as old. A client with a
    /// bearer token must take the new one from any response. If a rotation fails, the old token
    /// stays good, and the response is as the handler made it.
    ///
    /// The clocks of nodes may differ by half a minute.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cloakroom::{MemoryStore, SessionEventKind, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .rotate_every(Duration::from_secs(600))
    ///     .on_event(|event| {
    ///         if event.kind() == SessionEventKind::Reuse {
    ///             eprintln!("Somebody has stolen a token of user {:?}.", event.user());
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("rotation", "refresh_token", "renew", "reuse_detection"))]
    pub fn rotate_every(mut self, interval: Duration) -> Self {
        self.rotate_every = Some(interval);
        self
    }

    /// How the layer learns who the client of a request is: its user agent and its address. Without
    /// this function the layer records nothing of clients by itself.
    ///
    /// The layer calls the function once for each request. It records the client with a login,
    /// unless the handler calls [`Session::set_client`](crate::Session::set_client). It records the
    /// client again with each [rotation](Self::rotate_every), in place of what the handler recorded
    /// at the login. If two clients have the same token, hooks hear of both.
    ///
    /// Take the address from where only your own servers write: from axum's `ConnectInfo`, or from
    /// the header that your proxy sets.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use cloakroom::{Client, MemoryStore, SessionLayer, SigningKey};
    /// use http::{Extensions, HeaderMap, header::USER_AGENT};
    ///
    /// fn client(headers: &HeaderMap, extensions: &Extensions) -> Client {
    ///     let mut client = Client::new();
    ///     if let Some(agent) = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) {
    ///         client = client.with_user_agent(agent);
    ///     }
    ///     if let Some(ConnectInfo(address)) = extensions.get::<ConnectInfo<SocketAddr>>() {
    ///         client = client.with_address(&address.ip().to_string());
    ///     }
    ///     client
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .client_from(client)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn client_from(
        mut self,
        describe: impl Fn(&HeaderMap, &Extensions) -> Client + Send + Sync + 'static,
    ) -> Self {
        self.describe = Some(DescribeClient::new(describe));
        self
    }

    /// Refuses an interval that is too short.
    pub(super) fn check_rotation(&self) -> Result<(), ConfigError> {
        if self.rotate_every.is_some_and(|every| every < Rotation::MIN) {
            return Err(ConfigError::new(
                "rotate_every",
                "it must be at least a minute: an answer may be under way for so long",
            ));
        }
        Ok(())
    }
}
