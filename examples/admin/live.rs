//! What the open page learns of changes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use cloakroom::{Feed, Notice, RecordId, SessionError};
use futures_util::FutureExt;
use futures_util::stream::{Stream, unfold};

use crate::App;
use crate::pages::Failure;
use crate::users::Admin;

/// A busy site has many changes a second. The page asks for the list after each event.
const PAUSE: Duration = Duration::from_secs(1);

/// `GET /admin/changes`: tells the page that sessions have changed, until the administrator's own
/// session ends.
pub(crate) async fn changes(State(app): State<App>, admin: Admin) -> Result<Response, Failure> {
    // A page that is left open must not keep the session alive.
    admin.session.skip_touch()?;
    let Some(feed) = app.store.session_feed() else {
        // With this status, the browser does not ask again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let feed = feed.subscribe().await.map_err(SessionError::from)?;
    let news = news(feed, admin.session.id());
    let news = admin.session.detach().until_ended(Box::pin(news));
    Ok(Sse::new(news)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// An event after a change, and at most one in each pause. The administrator's own session is left
/// out, since the page itself uses it.
fn news(feed: Feed, own: Option<RecordId>) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let is_news = move |notice| match notice {
        Notice::Changed(id) => Some(id) != own,
        Notice::Gap => true,
        Notice::Pong(_) => false,
    };
    unfold((feed, false), move |(mut feed, was_told)| async move {
        if was_told {
            tokio::time::sleep(PAUSE).await;
        }
        while !is_news(feed.next().await?) {}
        // What has come meanwhile is part of the same news.
        while let Some(Some(_)) = feed.next().now_or_never() {}
        Some((Ok(Event::default().data("changed")), (feed, true)))
    })
}
