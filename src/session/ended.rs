//! How a socket, a stream or a task learns after the response that its session has ended.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::Session;
use super::detached::DetachedSession;
use crate::binding::rotation;
use crate::commit::lookup::LoadedSession;
use crate::live::until_ended::UntilEnded;
use crate::live::{Ended, Facts, Watch};
use crate::record::Version;

/// # The end of the session
impl DetachedSession {
    /// Waits until the session has ended, whatever the reason: a logout on any node, a revocation,
    /// an expiry, or a login that gave the client another token.
    ///
    /// If the store has a [feed](crate::SessionFeed), this is ready some milliseconds after an end
    /// on another node. Waiting then costs one store call at the start, and none while nothing
    /// happens. Without a feed, the layer asks the store at the
    /// [poll interval](crate::SessionLayerBuilder::poll_interval), for all waiting sessions of the
    /// process in one batch. Waiting does not count as a use of the session. While the store cannot
    /// be reached, the session counts as live.
    ///
    /// For a visitor without a session, the future is never ready: there is nothing to end. If the
    /// request itself makes the session, the future begins to wait at the response.
    ///
    /// The future does not borrow the handle. When the future is dropped, nothing is left of it.
    ///
    /// # Panics
    ///
    /// If the future is polled outside of a Tokio runtime.
    ///
    /// ```
    /// use cloakroom::{DetachedSession, Ended, SessionError};
    /// # async fn next_message() -> Option<String> { None }
    ///
    /// async fn serve(session: DetachedSession) -> Option<Ended> {
    ///     let mut ended = std::pin::pin!(session.ended());
    ///     loop {
    ///         tokio::select! {
    ///             ended = &mut ended => return Some(ended),
    ///             message = next_message() => match message {
    ///                 Some(message) => println!("{message}"),
    ///                 None => return None,
    ///             },
    ///         }
    ///     }
    /// }
    /// ```
    #[doc(alias("closed", "on_logout", "revoked"))]
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + use<> {
        let waiting = self.wait_for(None);
        async move {
            match waiting.await {
                Err(ended) => ended,
                // It returns this only to a caller who has seen a version.
                Ok(()) => pending().await,
            }
        }
    }

    /// Waits until somebody else has changed the session: until the store has another version than
    /// this handle had at its last [`reload`](Self::reload) or [`save`](Self::save). The handle
    /// stays as it is: call [`reload`](Self::reload) next.
    ///
    /// The layer hears of a change as it hears of an end: see [`ended`](Self::ended). This may
    /// return once for several changes. A touch does not count as a change.
    ///
    /// The future does not borrow the handle. When the future is dropped, nothing is left of it.
    ///
    /// # Errors
    ///
    /// The session has ended, or it has another token: see [`Ended`].
    ///
    /// # Panics
    ///
    /// If the future is polled outside of a Tokio runtime.
    ///
    /// ```
    /// use cloakroom::{DetachedSession, SessionError};
    ///
    /// async fn show_cart(mut session: DetachedSession) -> Result<(), SessionError> {
    ///     session.reload().await?;
    ///     loop {
    ///         println!("{:?}", session.get::<u32>("cart")?);
    ///         if session.changed().await.is_err() {
    ///             return Ok(());
    ///         }
    ///         session.reload().await?;
    ///     }
    /// }
    /// ```
    pub fn changed(&self) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        let own = self.work.state().session().cloned();
        // Whoever has no session yet has seen no version.
        let seen = own.map_or(Version::NONE, |own| own.record.version());
        self.wait_for(Some(seen))
    }

    fn wait_for(
        &self,
        seen: Option<Version>,
    ) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        let origin = self.origin.clone();
        let own = self.work.state().session().cloned();
        async move {
            let own = match own {
                Some(own) => Some(own),
                None => {
                    origin.finished().await;
                    origin.state().session().cloned()
                }
            };
            match own {
                Some(own) => next(origin, own, seen).await,
                None => pending().await,
            }
        }
    }

    /// Makes a stream that yields what `stream` yields, and ends when the session ends. Use it for
    /// server-sent events, or for the messages that go to a socket. It waits as
    /// [`ended`](Self::ended) does, and panics as `ended` does.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use axum::response::sse::{Event, Sse};
    /// use cloakroom::{CurrentUser, Session};
    /// use futures_util::stream::{self, Stream};
    ///
    /// async fn events(
    ///     session: Session,
    ///     _user: CurrentUser,
    /// ) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    ///     let news = stream::pending(); // … your stream …
    ///     Sse::new(session.detach().until_ended(news))
    /// }
    /// ```
    pub fn until_ended<S>(&self, stream: S) -> UntilEnded<S> {
        UntilEnded::new(stream, Box::pin(self.ended()))
    }
}

/// Waits until the session has ended, or has another version than the caller has seen.
async fn next(origin: Session, own: LoadedSession, seen: Option<Version>) -> Result<(), Ended> {
    let live = origin.context().live();
    let mut watch = live.watch(own.id());
    let next = next_of_own(&origin, &own, &mut watch, seen);
    let Some(actor) = own.record.fields().actor() else {
        return next.await;
    };
    // If the user who acts logs out, the session in which they act is over as well.
    let mut actors = live.watch(actor.session);
    let mut actors_end = pin!(actors.next(
        |facts| facts.user.as_ref() == Some(&actor.user),
        Version::NONE,
        None,
    ));
    let mut next = pin!(next);
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Pending => actors_end.as_mut().poll(cx),
        ready => ready,
    })
    .await
}

async fn next_of_own(
    origin: &Session,
    own: &LoadedSession,
    watch: &mut Watch,
    seen: Option<Version>,
) -> Result<(), Ended> {
    let has_token = |facts: &Facts, session: &LoadedSession| {
        let generations = facts.generations.as_deref();
        rotation::is_of_this_login(&facts.secret_hash, generations, &session.token)
    };
    loop {
        // The request itself may have rotated the token, and then the client has the new one.
        let is_same = |facts: &Facts| {
            let newer = origin.state().session().cloned();
            let newer = newer.filter(|newer| newer.id() == own.id());
            has_token(facts, own) || newer.is_some_and(|newer| has_token(facts, &newer))
        };
        // Only now: the request may finish while this waits.
        let was_finished = origin.is_finished();
        let next = watch.next(is_same, own.record.version(), seen).await;
        if next != Err(Ended::Superseded) || was_finished {
            return next;
        }
        // The record of the rotation is in the store, and its answer may be under way.
        origin.finished().await;
    }
}

impl Session {
    /// Whether the layer has finished the request: what the request did is stored, or never will be.
    fn is_finished(&self) -> bool {
        self.state().is_settled()
    }

    /// Waits until the layer has finished the request. It always does, also if nobody answers the
    /// request.
    async fn finished(&self) {
        let waiting = {
            let mut state = self.state();
            if state.is_settled() {
                return;
            }
            state.waiting().notified_owned()
        };
        waiting.await;
    }
}
