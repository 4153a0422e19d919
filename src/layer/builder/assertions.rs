//! The setting of assertions.

use super::SessionLayerBuilder;
use crate::assertion::Assertions;
use crate::store::SessionStore;

/// # Assertions
impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// What [`Session::assertion`](crate::Session::assertion) needs: the issuer, and the keys that
    /// sign. A request that makes no assertion costs as much as without this.
    ///
    /// ```
    /// use cloakroom::assertion::{AssertionKey, AssertionKeys, Assertions};
    /// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = AssertionKeys::new(AssertionKey::generate()?);
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .assertions(Assertions::new("https://example.com", keys))
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "jwt")]
    pub fn assertions(mut self, assertions: Assertions) -> Self {
        self.assertions = Some(assertions);
        self
    }
}
