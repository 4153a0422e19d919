//! [`DetachedSession`]: a session for what goes on after the response.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Session;
use super::key::SessionKey;
use crate::clock::Timestamp;
use crate::commit::commit;
use crate::commit::lookup::{InitialState, LoadedSession, TokenLookup, reload};
use crate::commit::request::CommitRequest;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::UserId;
use crate::token::SessionToken;

/// A session for what goes on after the response: a socket, a stream, a task.
///
/// [`save`](Self::save) writes its changes, and nothing else does. Changes that are not saved are
/// lost. A detached session cannot change the token, because no response can carry a new token.
/// After a rotation of the token, this handle can only fail: the client must open its socket again.
///
/// ```
/// use cloakroom::{Session, SessionError};
///
/// async fn upload(session: Session) -> Result<&'static str, SessionError> {
///     session.insert("upload", "started")?;
///     let mut later = session.detach();
///     tokio::spawn(async move {
///         // … when the work is done, and the response has long been sent:
///         later.reload().await?;
///         later.insert("upload", "done")?;
///         later.save().await
///     });
///     Ok("on its way")
/// }
/// ```
#[derive(Debug)]
#[must_use = "a detached session does nothing until it is saved"]
pub struct DetachedSession {
    /// The request's session, which knows the token that its commit made.
    pub(super) origin: Session,
    pub(super) work: Session,
}

impl DetachedSession {
    pub(super) fn new(origin: Session, work: Session) -> Self {
        Self { origin, work }
    }

    /// As [`Session::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get<T: DeserializeOwned>(
        &self,
        key: impl SessionKey<T>,
    ) -> Result<Option<T>, SessionError> {
        self.work.get(key)
    }

    /// As [`Session::insert`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn insert<T: Serialize>(
        &self,
        key: impl SessionKey<T>,
        value: T,
    ) -> Result<(), SessionError> {
        self.work.insert(key, value)
    }

    /// As [`Session::update`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn update<T, F>(&self, key: impl SessionKey<T>, compute: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        self.work.update(key, compute)
    }

    /// As [`Session::update_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn update_with<T, V, F>(
        &self,
        key: impl SessionKey<T>,
        value: V,
        compute: F,
    ) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        V: Clone + Send + Sync + 'static,
        F: Fn(Option<T>, V) -> T + Send + Sync + 'static,
    {
        self.work.update_with(key, value, compute)
    }

    /// As [`Session::remove`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn remove<T: DeserializeOwned>(
        &self,
        key: impl SessionKey<T>,
    ) -> Result<Option<T>, SessionError> {
        self.work.remove(key)
    }

    /// As [`Session::clear`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn clear(&self) -> Result<(), SessionError> {
        self.work.clear()
    }

    /// The user who was logged in at the last [`reload`](Self::reload) or [`save`](Self::save).
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        self.work.user()
    }

    /// When this user logged in, or `None` for a visitor.
    #[must_use]
    pub fn logged_in_at(&self) -> Option<Timestamp> {
        self.work.logged_in_at()
    }

    /// The record id. `None` if the session was not stored at the last [`reload`](Self::reload) or
    /// [`save`](Self::save).
    ///
    /// ```
    /// # use cloakroom::{DetachedSession, RecordId};
    /// # use std::collections::HashMap;
    /// # struct Socket;
    /// fn remember(sockets: &mut HashMap<RecordId, Socket>, session: &DetachedSession, it: Socket) {
    ///     if let Some(id) = session.id() {
    ///         sockets.insert(id, it);
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn id(&self) -> Option<RecordId> {
        self.work.id()
    }

    /// When the session ends if nobody uses it after the last [`reload`](Self::reload) or
    /// [`save`](Self::save). `None` if it was not stored then.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.work.expires_at()
    }

    /// Writes the changes as the layer does after a handler. No change of a parallel request is
    /// lost. A save is a use of the session.
    ///
    /// If the request itself makes the session, the layer stores the session with the response.
    /// `save` and [`reload`](Self::reload) wait until the layer has done so, at most for the
    /// [`commit_timeout`](crate::SessionLayerBuilder::commit_timeout). So a handler must not wait
    /// for `save` or `reload` before it answers.
    ///
    /// When the future is dropped or fails, the changes stay in this handle, and you can save them
    /// again. But the store may have them already. In that case a second `save` makes each `update`
    /// count twice.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::Ended`] if the session has ended or was never stored.
    /// [`SessionErrorKind::TokenRotated`] if the session has another token by now.
    /// [`SessionErrorKind::Store`] and [`SessionErrorKind::Contended`] as for a request. If another
    /// request has changed the session, each [`update`](Self::update) runs again, and its errors
    /// are those of [`Session::update`].
    pub async fn save(&mut self) -> Result<(), SessionError> {
        let mut base = self.newest().await?;
        if !self.work.state().is_dirty() {
            // If the commit has nothing to write, it does not ask whether the session is still
            // there.
            base.record = self.stored_record(&base.token).await?;
        }
        let mut request = {
            let state = self.work.state();
            let is_current = state
                .session()
                .is_some_and(|own| own.record.version() == base.record.version());
            let request = state.copy_request();
            CommitRequest {
                // The commit computes the data again if the record is another one.
                data: request.data.filter(|_| is_current),
                base: InitialState::Session(base),
                ..request
            }
        };
        let outcome = commit(self.work.context(), &mut request).await?;
        match outcome.into_session() {
            Some(session) => {
                self.work.adopt_committed(Some(session));
                Ok(())
            }
            None => Err(SessionErrorKind::Ended.into()),
        }
    }

    /// Reads the session as it is in the store now, and applies to it the changes that are not
    /// saved yet.
    ///
    /// When the future is dropped, the session is as before.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save), except [`SessionErrorKind::Contended`].
    pub async fn reload(&mut self) -> Result<(), SessionError> {
        let newest = self.newest().await?;
        #[cfg(feature = "dbsc")]
        let is_unproven = newest.is_unproven;
        let token = newest.token;
        let record = self.stored_record(&token).await?;
        let changes = self.work.state().changes().clone();
        // Closures of the application run here. So no lock is held.
        let limit = self.work.context().data_limit();
        let data = changes.apply(record.fields().data(), limit)?;
        let session = LoadedSession {
            token,
            record,
            was_nearly_over: false,
            #[cfg(feature = "dbsc")]
            is_unproven,
        };
        self.work.state().rebase(session, data);
        Ok(())
    }

    /// What the store has for this token now.
    async fn stored_record(&self, token: &SessionToken) -> Result<Record, SessionError> {
        match reload(self.work.context(), token, false).await? {
            TokenLookup::Live(record, _) => Ok(record),
            TokenLookup::Rotated { .. } | TokenLookup::Reused(_) => {
                Err(SessionErrorKind::TokenRotated.into())
            }
            TokenLookup::Gone => Err(SessionErrorKind::Ended.into()),
        }
    }

    /// The newest state of the session that this process knows, with the token that the request's
    /// commit made.
    ///
    /// The request may have switched to another user. A handle of one user's session never goes on
    /// with the session of another.
    async fn newest(&self) -> Result<LoadedSession, SessionError> {
        let own = self.work.state().session().cloned();
        // A visitor's first session is stored with the response, and there may be no response yet.
        let origin = match &own {
            Some(_) => self.origin.state().session().cloned(),
            None => self.origin.settled().await,
        };
        match (origin, own) {
            (Some(origin), Some(own))
                if origin.id() == own.id() && origin.record.version() > own.record.version() =>
            {
                Ok(origin)
            }
            (_, Some(own)) | (Some(own), None) => Ok(own),
            (None, None) => Err(SessionErrorKind::Ended.into()),
        }
    }
}
