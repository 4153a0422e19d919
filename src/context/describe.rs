//! [`DescribeClient`]: how the layer learns who the client of a request is.

use std::fmt;
use std::sync::Arc;

use http::{Extensions, HeaderMap};

use crate::record::client::Client;

type Describe = dyn Fn(&HeaderMap, &Extensions) -> Client + Send + Sync;

/// A function of the application that says who the client of a request is.
#[derive(Clone)]
pub(crate) struct DescribeClient(Arc<Describe>);

impl DescribeClient {
    pub(crate) fn new(
        describe: impl Fn(&HeaderMap, &Extensions) -> Client + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(describe))
    }

    pub(crate) fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> Client {
        (self.0)(headers, extensions)
    }
}

impl fmt::Debug for DescribeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DescribeClient")
    }
}
