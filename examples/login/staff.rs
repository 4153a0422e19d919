//! The page for the staff, and how they act as another user to help them.

use axum::Form;
use axum::extract::State;
use axum::response::{Redirect, Response};
use cloakroom::login::{Auth, Users};
use cloakroom::{Key, Session};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::error::Error;
use crate::pages::{self, FLASH, Flash, Frame, THEME, page};
use crate::users::Db;

/// The names for the banner. A session in which one user acts as another is a session of its own,
/// and only such a session has this value.
pub(crate) const ACTING: Key<Acting> = Key::new("acting");

#[derive(Serialize, Deserialize)]
pub(crate) struct Acting {
    pub(crate) actor: String,
    pub(crate) user: String,
}

/// `GET /users`
pub(crate) async fn list(State(app): State<App>, frame: Frame) -> Result<Response, Error> {
    let customers = app.db.customers().await?;
    page(&pages::Users { frame, customers })
}

#[derive(Deserialize)]
pub(crate) struct Whom {
    id: i64,
}

/// `POST /users/act-as`
pub(crate) async fn act_as(
    State(app): State<App>,
    Auth(actor): Auth<Db>,
    session: Session,
    Form(form): Form<Whom>,
) -> Result<Redirect, Error> {
    // The id comes from the client. Nobody acts as one of the staff.
    let user = app.db.by_id(form.id).await?.filter(|user| !user.is_staff);
    let user = user.ok_or(Error::NotFound)?;
    let theme = session.get(THEME)?;
    session.act_as(Db::account(&user))?;
    // From here on, the request changes the session of the other user.
    let names = Acting {
        actor: actor.name,
        user: user.name,
    };
    session.insert(ACTING, names)?;
    if let Some(theme) = theme {
        session.insert(THEME, theme)?;
    }
    Ok(Redirect::to("/"))
}

/// `POST /stop-acting`
pub(crate) async fn stop_acting(session: Session) -> Result<Redirect, Error> {
    if session.stop_acting().await? {
        session.insert(FLASH, Flash::done("You are yourself again."))?;
    }
    Ok(Redirect::to("/users"))
}
