//! The home page, the theme, and a page for members only.

use std::time::SystemTime;

use axum::Form;
use axum::response::{Redirect, Response};
use cloakroom::login::Next;
use cloakroom::{Key, Session, Timestamp};
use serde::Deserialize;

use crate::error::Error;
use crate::pages::{self, Flash, Frame, THEME, Theme, page};

const VISITS: Key<u64> = Key::new("visits");

/// `GET /`
pub(crate) async fn home(session: Session, frame: Frame) -> Result<Response, Error> {
    // Two tabs may open this page at once. `update` counts both.
    let visits = session.update(VISITS, |visits| visits.unwrap_or(0) + 1)?;
    page(&pages::Home { frame, visits })
}

/// `GET /private`
pub(crate) async fn private(session: Session, frame: Frame) -> Result<Response, Error> {
    let now = Timestamp::from(SystemTime::now());
    let since = session.logged_in_at().map(|at| pages::ago(now.since(at)));
    let ends = session
        .expires_at()
        .map(|at| pages::how_long(at.since(now)));
    let id = session.id().map(|id| id.to_string());
    page(&pages::Private {
        frame,
        since: since.unwrap_or_default(),
        ends: ends.unwrap_or_default(),
        id: id.unwrap_or_default(),
    })
}

/// The extractor refuses a theme that is neither light nor dark.
#[derive(Deserialize)]
pub(crate) struct ThemeForm {
    theme: Theme,
    /// The page with the form. The browser sends it, so it may be the address of another site.
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
    Ok(Redirect::to(Next::new(&form.back).path()))
}
