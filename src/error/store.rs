//! [`StoreError`]: the system of a store failed.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::BoxError;

/// The store's system failed. It has no connection or no space, or does not answer in time.
///
/// A record that is missing, expired or undecodable is an answer and not an error. The source of
/// the error is what the backend said.
///
/// ```
/// use cloakroom::StoreError;
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = StoreError::new("could not reach the session database at db:5432").with_source(refused);
/// assert_eq!(error.to_string(), "could not reach the session database at db:5432");
/// assert!(std::error::Error::source(&error).is_some());
/// ```
#[derive(Clone)]
pub struct StoreError(Arc<Failure>);

/// On the heap, because a `Result` is as large as its error, and moves through several futures.
/// Shared, because one failure may be the answer to several calls.
struct Failure {
    what: Cow<'static, str>,
    source: Option<BoxError>,
}

impl StoreError {
    /// An error that says what failed and, where that is known, what to do.
    ///
    /// The text must hold no secret and no session data: it is logged.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Failure {
            what: what.into(),
            source: None,
        }))
    }

    /// The same error with the backend's error as its source. It is logged as well.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self(Arc::new(Failure {
            what: self.0.what.clone(),
            source: Some(source.into()),
        }))
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self::new(format!("the session store did not answer within {after:?}"))
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("what", &self.0.what)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
