//! The home page, the theme, and a page for members only.

use std::time::SystemTime;

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Redirect, Response};
use cloakroom::{Key, Session, Timestamp};
use serde::Deserialize;

use crate::app::App;
use crate::error::Error;
use crate::member::{self, Member, is_local};
use crate::pages::{self, Flash, Frame, THEME, Theme, page};

const VISITS: Key<u64> = Key::new("visits");

/// `GET /`
pub(crate) async fn home(State(app): State<App>, session: Session) -> Result<Response, Error> {
    // Two tabs may open this page at once. `update` counts both.
    let visits = session.update(VISITS, |visits| visits.unwrap_or(0) + 1)?;
    let user = member::current(&app, &session).await?;
    let frame = Frame::new(&session, user.as_ref(), "/")?;
    page(StatusCode::OK, &pages::Home { frame, visits })
}

/// `GET /private`
pub(crate) async fn private(Member(user): Member, session: Session) -> Result<Response, Error> {
    let now = Timestamp::from(SystemTime::now());
    let since = session.logged_in_at().map(|at| pages::ago(now.since(at)));
    let ends = session
        .expires_at()
        .map(|at| pages::how_long(at.since(now)));
    let id = session.id().map(|id| id.to_string());
    let frame = Frame::new(&session, Some(&user), "/private")?;
    let template = pages::Private {
        frame,
        since: since.unwrap_or_default(),
        ends: ends.unwrap_or_default(),
        id: id.unwrap_or_default(),
    };
    page(StatusCode::OK, &template)
}

/// The extractor refuses a theme that is neither light nor dark.
#[derive(Deserialize)]
pub(crate) struct ThemeForm {
    theme: Theme,
    /// The page with the form.
    #[serde(default)]
    back: String,
}

/// `POST /theme`
pub(crate) async fn set_theme(
    session: Session,
    Form(form): Form<ThemeForm>,
) -> Result<Redirect, Error> {
    session.insert(THEME, form.theme)?;
    session.insert(
        pages::FLASH,
        Flash::done(format!("The lights are set to {}.", form.theme)),
    )?;
    Ok(Redirect::to(if is_local(&form.back) {
        &form.back
    } else {
        "/"
    }))
}
