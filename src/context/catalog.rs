//! Store calls that look at all sessions, for administration.

use super::LayerContext;
use crate::error::SessionError;
use crate::id::RecordId;
use crate::record::Record;
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};

impl LayerContext {
    /// Some of all sessions: see [`SessionCatalog::scan`].
    pub(crate) async fn scan(
        &self,
        catalog: &dyn SessionCatalog,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, SessionError> {
        let accept_readable =
            |id: RecordId, record: &Record| self.can_read(record) && accept(id, record);
        let scan = catalog.scan(after, limit, &accept_readable);
        self.bounded("scan", scan).await
    }

    /// The sessions of an external id.
    pub(crate) async fn find_by_external_id(
        &self,
        catalog: &dyn SessionCatalog,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, SessionError> {
        let found = catalog.find_by_external_id(external_id);
        let mut found = self.bounded("find_by_external_id", found).await?;
        found.retain(|(_, record)| self.can_read(record));
        Ok(found)
    }
}
