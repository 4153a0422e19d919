//! [`Sessions::export_user`]: what the store holds of a user.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Sessions;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::IntoUserId;
use crate::store::{SessionStore, UserIndex};

#[derive(Serialize)]
struct Exported {
    id: RecordId,
    record: Box<RawValue>,
}

/// # For the user who asks
impl<St: SessionStore> Sessions<St> {
    /// The personal data that the store holds of a user's sessions, as JSON: the values, the login,
    /// the client and the times. It is for a user who asks for their data (GDPR, articles 15 and
    /// 20). To erase all of it, call [`revoke_user`](Self::revoke_user).
    ///
    /// The text is an array with an object for each session: `id`, and `record` as
    /// [`Record::to_json`](crate::Record::to_json) shows it. Names may change with the version of
    /// this crate. Sessions that are over are in it, as long as the store has them.
    ///
    /// No token, no hash of a token's secret and no stamp is in it. A session in which this user
    /// acts as another belongs to the other user, and is not in it.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::InvalidUserId`]. [`SessionErrorKind::Store`].
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionError, Sessions};
    /// # async fn example(sessions: Sessions<MemoryStore>, user: i64) -> Result<String, SessionError> {
    /// let json = sessions.export_user(user).await?;
    /// # Ok(json) }
    /// ```
    #[doc(alias("gdpr", "personal_data", "dump"))]
    pub async fn export_user(&self, user: impl IntoUserId) -> Result<String, SessionError>
    where
        St: UserIndex,
    {
        let user = self.stored_user(user)?;
        let mut sessions = self.context.find_all_by_user(&*self.store, &user).await?;
        sessions.sort_unstable_by_key(|(id, _)| *id);
        let exported = |(id, record): &(RecordId, Record)| {
            let record = RawValue::from_string(record.to_json())?;
            Ok(Exported { id: *id, record })
        };
        let exported: Result<Vec<_>, _> = sessions.iter().map(exported).collect();
        let json = exported.and_then(|exported| serde_json::to_string(&exported));
        json.map_err(|error: serde_json::Error| {
            SessionError::new(SessionErrorKind::Unserializable).with_source(error)
        })
    }
}
