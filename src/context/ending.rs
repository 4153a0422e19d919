//! Every way to end a session that is in the store, and [`Ending`]: why it ends.

use std::sync::Arc;

use super::LayerContext;
use super::report::who;
use crate::clock::Timestamp;
use crate::error::SessionError;
use crate::events::{self, Who};
use crate::hooks::cause::EndCause;
use crate::hooks::event::SessionEventKind;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::client::Client;
use crate::record::user::UserId;
use crate::store::{Replaced, UserIndex};

/// Why a session ends, and what the caller knows of the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending<'a> {
    pub(crate) cause: EndCause,
    /// The record, as far as the caller has it.
    pub(crate) record: Option<&'a Record>,
    /// Who asked for the end, if the caller knows a name.
    pub(crate) asked_by: Option<&'a str>,
}

impl<'a> Ending<'a> {
    pub(crate) fn new(cause: EndCause) -> Self {
        Self {
            cause,
            record: None,
            asked_by: None,
        }
    }

    pub(crate) fn with_record(self, record: Option<&'a Record>) -> Self {
        Self { record, ..self }
    }

    pub(crate) fn asked_by(self, asked_by: Option<&'a str>) -> Self {
        Self { asked_by, ..self }
    }

    fn or_record(self, record: Option<&'a Record>) -> Self {
        Self {
            record: self.record.or(record),
            ..self
        }
    }

    fn who(self) -> Who<'a> {
        Who {
            asked_by: self.asked_by,
            ..self.record.map(who).unwrap_or_default()
        }
    }
}

/// Store calls that end sessions. As with all store calls, a future that is dropped may or may not
/// have taken effect.
impl LayerContext {
    /// Ends a session. Returns whether it was there.
    ///
    /// If the store fails, the session may have ended without a report.
    pub(crate) async fn remove(
        &self,
        id: RecordId,
        ending: Ending<'_>,
    ) -> Result<bool, SessionError> {
        let loaded = self.load_for_hooks(id, ending).await;
        let ending = ending.or_record(loaded.as_ref());
        let removed = self.remove_record(id, ending.cause).await?;
        if removed {
            self.ended(id, ending);
        }
        Ok(removed)
    }

    /// Removes the record, and tells those who wait for the end of the session.
    async fn remove_record(&self, id: RecordId, cause: EndCause) -> Result<bool, SessionError> {
        let _ending = self.live.ending(id, cause);
        let removed = self.bounded("remove", self.store().remove(id)).await;
        if let Ok(true) = removed {
            self.live.ended(id, cause);
        }
        removed
    }

    /// Ends a session, and tries once more if the call fails, because only the answer may be lost.
    pub(crate) async fn remove_with_retry(
        &self,
        id: RecordId,
        ending: Ending<'_>,
    ) -> Result<bool, SessionError> {
        let loaded = self.load_for_hooks(id, ending).await;
        let ending = ending.or_record(loaded.as_ref());
        let removed = match self.remove_record(id, ending.cause).await {
            Ok(removed) => removed,
            Err(_) => {
                self.remove_record(id, ending.cause).await?;
                // The call whose answer was lost may have ended it. An end that is reported twice
                // is better than one that is not.
                self.live.ended(id, ending.cause);
                true
            }
        };
        if removed {
            self.ended(id, ending);
        }
        Ok(removed)
    }

    /// Ends a session whose token two clients have, unless somebody has changed the record since it
    /// was read. Returns whether the session is over. `presented_by` is the client that has just
    /// come with the token.
    pub(crate) async fn end_reused(
        &self,
        id: RecordId,
        record: &Record,
        presented_by: Option<&Arc<Client>>,
    ) -> Result<bool, SessionError> {
        let cause = EndCause::TokenReused;
        let _ending = self.live.ending(id, cause);
        let old = record.fields();
        let mut over = old.next(old.data().clone());
        // It is over by every clock.
        over.set_ends_by(Some(Timestamp::from_millis(0)));
        over.keep_later_expiry();
        let over = Record::new(over);
        let replaced = match self.replace(id, record.version(), &over).await {
            Ok(replaced) => replaced,
            // If only the answer is lost, the session is over, and nobody would hear of the reuse.
            Err(error) => match self.reload(id).await? {
                Some(now) if now.fields().ends_by() == over.fields().ends_by() => Replaced::Done,
                _ => return Err(error),
            },
        };
        match replaced {
            Replaced::Conflict => return Ok(false),
            Replaced::Missing => return Ok(true),
            Replaced::Done => {}
        }
        self.report_reuse(id, record, presented_by);
        // The session is over even if the store cannot remove it now, and a failure has an event.
        let ending = Ending::new(cause).with_record(Some(record));
        let _ = self.remove(id, ending).await;
        Ok(true)
    }

    /// Ends all sessions of a user, or all except one.
    pub(crate) async fn remove_by_user(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
        except: Option<RecordId>,
        ending: Ending<'_>,
    ) -> Result<u64, SessionError> {
        let _ending = self.live.ending_all(user, except, ending.cause);
        // A hook gets one event for each session, and the store only counts them. If another
        // request ends one of them at the same time, the hooks can hear of that session twice.
        let listed = match self.hooks() {
            None => Ok(Vec::new()),
            Some(_) => Box::pin(self.find_by_user(index, user)).await,
        };
        let removed = self
            .bounded("remove_by_user", index.remove_by_user(user, except))
            .await;
        let removed = removed?;
        if removed > 0 {
            let who = Who {
                user: Some(user.name()),
                ..ending.who()
            };
            events::ended_all(removed, ending.cause.as_str(), who);
            self.ended_by_user(user, except, listed.ok(), ending);
        }
        Ok(removed)
    }

    /// The record of a session that is about to end, if there is a hook and the caller has not got
    /// the record. If the load fails, the session still ends, and the event says less.
    async fn load_for_hooks(&self, id: RecordId, ending: Ending<'_>) -> Option<Record> {
        if ending.record.is_some() || self.hooks().is_none() {
            return None;
        }
        Box::pin(self.load(id)).await.ok().flatten()
    }

    /// A session has ended. Each session that this layer ends by its id comes here.
    fn ended(&self, id: RecordId, ending: Ending<'_>) {
        events::ended(id, ending.cause.as_str(), ending.who());
        // The hooks have heard already that it has expired.
        if ending.cause != EndCause::Expired {
            self.raise_ended(Some(id), ending);
        }
    }

    /// All sessions of a user have ended, or all except one. `listed` has them if there is a hook,
    /// unless the store could not list them.
    fn ended_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
        listed: Option<Vec<(RecordId, Record)>>,
        ending: Ending<'_>,
    ) {
        let Some(listed) = listed else {
            self.raise(SessionEventKind::Ended, |event| {
                event.with_user(user).ended(ending.cause, ending.asked_by)
            });
            return;
        };
        for (id, record) in listed.iter().filter(|(id, _)| Some(*id) != except) {
            self.raise_ended(Some(*id), ending.with_record(Some(record)));
        }
    }

    fn raise_ended(&self, id: Option<RecordId>, ending: Ending<'_>) {
        self.raise(SessionEventKind::Ended, |event| {
            event
                .of(id, ending.record)
                .ended(ending.cause, ending.asked_by)
        });
    }
}
