//! The list of sessions, and how they end.

use std::time::SystemTime;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::{
    Cursor, RecordId, SessionCatalog, SessionError, SessionErrorKind, SessionFilter, SessionInfo,
    SessionPage, Sessions, Timestamp,
};
use serde::Deserialize;

use crate::App;
use crate::filter::Fields;
use crate::pages::{self, Failure, Row, page};
use crate::users::Admin;

/// How many sessions the page shows that asks whether they shall end.
const PREVIEW: usize = 10;

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// `GET /admin`
pub(crate) async fn show(
    State(app): State<App>,
    admin: Admin,
    headers: HeaderMap,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Failure> {
    // If the script of the open page asks, that is no use of the session, and nobody reads a
    // message.
    let is_script = headers.contains_key("x-live");
    if is_script {
        admin.session.skip_touch()?;
    }
    let read = match Fields::of(&uri) {
        Ok(fields) => (read(&app.sessions, &fields).await, fields),
        Err(failure) => (Err(failure), Fields::default()),
    };
    let (found, fields) = read;
    let (found, problem) = match found {
        Ok(found) => (found, None),
        // The form shows what was typed, and what is wrong with it.
        Err(failure) => (Found::default(), Some(failure.into_problem()?)),
    };
    let own = admin.session.id();
    let now = now();
    let rows = found.sessions.iter().map(|info| Row::new(info, own, now));
    let html = page(&pages::List {
        rows: rows.collect(),
        count: found.count,
        next: found.next.as_ref().map(|next| fields.next_page(next)),
        is_live: app.store.session_feed().is_some(),
        messages: if is_script {
            Vec::new()
        } else {
            admin.flash.take()?
        },
        clock: now.to_string().chars().skip(11).take(8).collect(),
        time: now.to_string(),
        problem: problem.clone(),
        fields,
    })?;
    Ok(match problem {
        None => html,
        Some(_) => (StatusCode::BAD_REQUEST, html).into_response(),
    })
}

#[derive(Default)]
struct Found {
    sessions: Vec<SessionInfo>,
    next: Option<Cursor>,
    count: Option<u64>,
}

async fn read<St: SessionCatalog>(
    sessions: &Sessions<St>,
    fields: &Fields,
) -> Result<Found, Failure> {
    let filter = fields.filter()?;
    let (after, limit) = (fields.after()?, fields.limit()?);
    let SessionPage {
        sessions: page,
        next,
    } = sessions.page(&filter, after.as_ref(), limit).await?;
    // A count looks at all sessions, which takes long in a large store. So the page counts only if
    // somebody asks.
    let count = match fields.wants_count() {
        true => Some(sessions.count(&filter).await?),
        false => None,
    };
    Ok(Found {
        sessions: page,
        next,
        count,
    })
}

#[derive(Deserialize)]
pub(crate) struct Revocation {
    /// Empty for a visitor.
    user: String,
    id: String,
    /// The address of the list.
    #[serde(default)]
    back: String,
}

/// `POST /admin/revoke`: ends a session. The next request with its token is a visitor's. A request
/// that is under way keeps its answer, and loses its changes.
pub(crate) async fn revoke(
    State(app): State<App>,
    admin: Admin,
    form: Result<Form<Revocation>, FormRejection>,
) -> Result<Redirect, Failure> {
    let Form(form) = form?;
    let id = form.id.parse::<RecordId>().map_err(|_| Failure::NotFound)?;
    let sessions = admin.acts_on(&app.sessions);
    // `revoke` would end the session, whichever user it belongs to. The page may be old, and the
    // session may belong to somebody else by now.
    let is_ended = match &*form.user {
        "" => match sessions.get(id).await? {
            Some(info) if info.user().is_none() => sessions.revoke(id).await?,
            _ => false,
        },
        user => sessions.revoke_owned(user, id).await?,
    };
    if !is_ended {
        admin.flash.warning("There is no such session any more.")?;
    } else if form.user.is_empty() {
        admin.flash.success("A session of a visitor is ended.")?;
    } else {
        let text = format!("A session of {} is ended.", form.user);
        admin.flash.success(text)?;
    }
    Ok(Redirect::to(&back_to(&form.back)))
}

/// The address of the list that a form names. It comes from the client, so it is taken apart.
fn back_to(address: &str) -> String {
    let uri = address.parse::<Uri>().unwrap_or_default();
    match Fields::of(&uri) {
        Ok(fields) => fields.here(),
        Err(_) => "/admin".to_owned(),
    }
}

/// `GET /admin/end`: shows which sessions match the filter, and asks whether they shall end.
pub(crate) async fn preview(
    State(app): State<App>,
    admin: Admin,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Failure> {
    let fields = Fields::of(&uri)?;
    let filter = condition(&fields)?;
    let (own, now) = (admin.session.id(), now());
    let (mut rows, mut count, mut has_own) = (Vec::new(), 0_u64, false);
    let mut after = None;
    loop {
        let found = page_of(&app.sessions, &filter, after.as_ref()).await?;
        for info in &found.sessions {
            count += 1;
            has_own |= own == Some(info.id());
            if rows.len() < PREVIEW {
                rows.push(Row::new(info, own, now));
            }
        }
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    page(&pages::End {
        more: count - rows.len() as u64,
        rows,
        count,
        has_own,
        fields,
    })
}

/// `POST /admin/end`: ends the sessions that match the filter. To ban a user, mark the ban in the
/// table of users first: a login that is under way may still make a session afterwards.
pub(crate) async fn end(
    State(app): State<App>,
    admin: Admin,
    form: Result<Form<Fields>, FormRejection>,
) -> Result<Redirect, Failure> {
    let Form(fields) = form?;
    let filter = condition(&fields)?;
    let sessions = admin.acts_on(&app.sessions);
    let own = admin.session.id();
    let ended = match own {
        Some(own) if fields.keeps_own() => end_others(&sessions, &filter, own).await?,
        _ => sessions.end(&filter).await?,
    };
    // The administrator's own session has ended too.
    if let Some(own) = own
        && app.sessions.get(own).await?.is_none()
    {
        admin.session.log_out()?;
        return Ok(Redirect::to("/"));
    }
    let text = match ended {
        1 => "1 session is ended.".to_owned(),
        _ => format!("{ended} sessions are ended."),
    };
    admin.flash.success(text)?;
    Ok(Redirect::to(&fields.first_page()))
}

/// A filter that has a condition: nobody ends the sessions of all by an empty form.
fn condition(fields: &Fields) -> Result<SessionFilter, Failure> {
    let filter = fields.filter()?;
    if filter.is_empty() {
        let text = "Say which sessions shall end: the filter has no condition.";
        return Err(Failure::Bad(text.to_owned()));
    }
    Ok(filter)
}

/// Ends the sessions that match the filter, except one.
async fn end_others<St: SessionCatalog>(
    sessions: &Sessions<St>,
    filter: &SessionFilter,
    own: RecordId,
) -> Result<u64, SessionError> {
    let mut ended = 0;
    let mut after = None;
    loop {
        let found = page_of(sessions, filter, after.as_ref()).await?;
        for info in found.sessions.iter().filter(|info| info.id() != own) {
            ended += u64::from(sessions.revoke(info.id()).await?);
        }
        after = found.next;
        if after.is_none() {
            return Ok(ended);
        }
    }
}

async fn page_of<St: SessionCatalog>(
    sessions: &Sessions<St>,
    filter: &SessionFilter,
    after: Option<&Cursor>,
) -> Result<SessionPage, SessionError> {
    let size = Sessions::<St>::MAX_PAGE;
    sessions.page(filter, after, size).await
}

/// `POST /admin/purge`: removes expired sessions to free their room.
pub(crate) async fn purge(State(app): State<App>, admin: Admin) -> Result<Redirect, Failure> {
    let count = app.sessions.purge_expired().await?;
    let text = format!("{count} expired sessions are removed.");
    admin.flash.success(text)?;
    Ok(Redirect::to("/admin"))
}

/// Whether an error is the fault of the filter, and what it says.
pub(crate) fn problem_of(error: &SessionError) -> Option<String> {
    match error.kind() {
        SessionErrorKind::InvalidFilter | SessionErrorKind::InvalidCursor => {
            Some(error.to_string())
        }
        _ => None,
    }
}
