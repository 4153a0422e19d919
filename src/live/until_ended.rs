//! [`UntilEnded`]: a stream that ends with a session.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::FusedStream;
use pin_project_lite::pin_project;

use super::Ended;

pin_project! {
    /// A stream that ends with a session, or when the stream inside it ends. See
    /// [`DetachedSession::until_ended`](crate::DetachedSession::until_ended), which has an example.
    #[must_use = "a stream does nothing until it is polled"]
    pub struct UntilEnded<S> {
        #[pin]
        stream: S,
        // `None` once either of the two has ended.
        session: Option<Pin<Box<dyn Future<Output = Ended> + Send>>>,
        ended: Option<Ended>,
    }
}

impl<S> UntilEnded<S> {
    pub(crate) fn new(stream: S, session: Pin<Box<dyn Future<Output = Ended> + Send>>) -> Self {
        Self {
            stream,
            session: Some(session),
            ended: None,
        }
    }

    /// How the session ended. `None` if the session goes on, or if the inner stream ended first.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }
}

impl<S: Stream> Stream for UntilEnded<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let Some(session) = this.session else {
            return Poll::Ready(None);
        };
        // The session comes first: nothing goes out after its end.
        if let Poll::Ready(ended) = session.as_mut().poll(cx) {
            *this.ended = Some(ended);
            *this.session = None;
            return Poll::Ready(None);
        }
        let item = this.stream.poll_next(cx);
        if let Poll::Ready(None) = item {
            *this.session = None;
        }
        item
    }
}

impl<S: Stream> FusedStream for UntilEnded<S> {
    fn is_terminated(&self) -> bool {
        self.session.is_none()
    }
}

impl<S> fmt::Debug for UntilEnded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntilEnded")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
