//! The handlers to register, log in and out, confirm and change the password, and delete the
//! account.

use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::Session;
use cloakroom::login::{Auth, Next, Users};
use serde::Deserialize;

use crate::app::{App, Devices};
use crate::error::Error;
use crate::pages::{self, FLASH, Flash, Frame, THEME, page, problem_page};
use crate::users::{self, Db, User};

/// This text does not say which part was wrong. Otherwise anybody could find out who has an
/// account.
const WRONG: &str = "Wrong user name or password.";

/// The form for a new account or a login. It has no `Debug`, since it holds a password.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    username: String,
    password: String,
    /// A checkbox. The browser sends it only if the user ticks it.
    remember: Option<String>,
}

/// `GET /register`
pub(crate) async fn register_form(frame: Frame, next: Next) -> Result<Response, Error> {
    if frame.user.is_some() {
        return Ok(Redirect::to(next.path()).into_response());
    }
    page(&pages::Register {
        frame,
        next,
        username: String::new(),
        problem: None,
    })
}

/// `POST /register`
pub(crate) async fn register(
    State(app): State<App>,
    session: Session,
    frame: Frame,
    next: Next,
    Form(form): Form<Credentials>,
) -> Result<Response, Error> {
    let name = form.username.trim();
    let made = match users::check_name(name).and_then(|()| users::check_password(&form.password)) {
        Err(problem) => Err(problem),
        Ok(()) => {
            let user = app.db.register(name, &form.password).await?;
            user.ok_or_else(|| "That user name is taken.".to_owned())
        }
    };
    match made {
        Ok(user) => {
            let welcome = format!("Welcome, {}. Your account is made.", user.name);
            enter(&session, &user, form.remember.is_some(), welcome)?;
            Ok(Redirect::to(next.path()).into_response())
        }
        Err(problem) => problem_page(&pages::Register {
            frame,
            next,
            username: name.to_owned(),
            problem: Some(problem),
        }),
    }
}

/// `GET /login`
pub(crate) async fn log_in_form(frame: Frame, next: Next) -> Result<Response, Error> {
    if frame.user.is_some() {
        return Ok(Redirect::to(next.path()).into_response());
    }
    page(&pages::LogIn {
        frame,
        next,
        username: String::new(),
        problem: None,
    })
}

/// `POST /login`
pub(crate) async fn log_in(
    State(app): State<App>,
    session: Session,
    frame: Frame,
    next: Next,
    Form(form): Form<Credentials>,
) -> Result<Response, Error> {
    let name = form.username.trim();
    match app.db.authenticate(name, &form.password).await? {
        Some(user) => {
            let welcome = format!("Welcome back, {}.", user.name);
            enter(&session, &user, form.remember.is_some(), welcome)?;
            Ok(Redirect::to(next.path()).into_response())
        }
        None => problem_page(&pages::LogIn {
            frame,
            next,
            username: name.to_owned(),
            problem: Some(WRONG.to_owned()),
        }),
    }
}

/// Logs in a user whose password was checked.
fn enter(session: &Session, user: &User, remember: bool, welcome: String) -> Result<(), Error> {
    // The session gets a new token. An attacker may have planted the old token before the login,
    // and the old token is worth nothing now.
    session.log_in(Db::account(user))?;
    session.set_remembered(remember)?;
    session.insert(FLASH, Flash::done(welcome))?;
    Ok(())
}

/// `POST /logout`
pub(crate) async fn log_out(session: Session) -> Result<Redirect, Error> {
    leave(&session, "You are logged out.")
}

/// Ends the session, and keeps the theme for the visitor.
fn leave(session: &Session, notice: &str) -> Result<Redirect, Error> {
    let theme = session.get(THEME)?;
    session.log_out()?;
    // An insert after the end of a session makes a new session, without a user.
    if let Some(theme) = theme {
        session.insert(THEME, theme)?;
    }
    session.insert(FLASH, Flash::done(notice))?;
    Ok(Redirect::to("/"))
}

/// `GET /confirm`
pub(crate) async fn confirm_form(frame: Frame) -> Result<Response, Error> {
    page(&pages::Confirm {
        frame,
        problem: None,
    })
}

#[derive(Deserialize)]
pub(crate) struct Confirmation {
    password: String,
}

/// `POST /confirm`
pub(crate) async fn confirm(
    State(app): State<App>,
    Auth(user): Auth<Db>,
    session: Session,
    frame: Frame,
    next: Next,
    Form(form): Form<Confirmation>,
) -> Result<Response, Error> {
    let Some(user) = app.db.authenticate(&user.name, &form.password).await? else {
        return problem_page(&pages::Confirm {
            frame,
            problem: Some("That is not your password.".to_owned()),
        });
    };
    // The user logs in again, so the login is recent from now on.
    session.log_in(Db::account(&user))?;
    // A form that was sent too late has no `next`. All such forms are on this page.
    Ok(Redirect::to(next.or("/password")).into_response())
}

/// `GET /password`
pub(crate) async fn password_form(frame: Frame) -> Result<Response, Error> {
    page(&pages::Password {
        frame,
        problem: None,
    })
}

#[derive(Deserialize)]
pub(crate) struct NewPassword {
    current: String,
    new: String,
}

/// `POST /password`
pub(crate) async fn change_password(
    State(app): State<App>,
    Auth(user): Auth<Db>,
    session: Session,
    frame: Frame,
    Form(form): Form<NewPassword>,
) -> Result<Response, Error> {
    let changed = match users::check_password(&form.new) {
        Err(problem) => Err(problem),
        Ok(()) => new_password(&app, &user, &form)
            .await?
            .ok_or_else(|| "Your current password is another one.".to_owned()),
    };
    let user = match changed {
        Ok(user) => user,
        Err(problem) => {
            return problem_page(&pages::Password {
                frame,
                problem: Some(problem),
            });
        }
    };
    // With the new password, nobody is logged in with the stamp of the old one. So the other
    // sessions are worth nothing already. This takes them off the list of devices at once.
    if let (Some(own), Devices::Listed(sessions)) = (session.id(), &app.devices) {
        sessions.revoke_others(user.id, own).await?;
    }
    // The current session gets the new stamp, and a new token: somebody may have a copy of the old
    // token.
    session.log_in(Db::account(&user))?;
    let notice = "Your password is changed, and all your other sessions are ended.";
    session.insert(FLASH, Flash::done(notice))?;
    Ok(Redirect::to("/").into_response())
}

/// Returns the user with the new password, or `None` if the current password is wrong.
async fn new_password(app: &App, user: &User, form: &NewPassword) -> Result<Option<User>, Error> {
    match app.db.authenticate(&user.name, &form.current).await? {
        Some(checked) => app.db.set_password(&checked, &form.new).await,
        None => Ok(None),
    }
}

/// `POST /delete`
pub(crate) async fn delete(
    State(app): State<App>,
    Auth(user): Auth<Db>,
    session: Session,
) -> Result<Redirect, Error> {
    // Without the account, nobody is logged in with its sessions. They are not needed any more.
    app.db.delete(&user).await?;
    if let (Some(own), Devices::Listed(sessions)) = (session.id(), &app.devices) {
        sessions.revoke_others(user.id, own).await?;
    }
    leave(&session, "Your account is deleted.")
}
