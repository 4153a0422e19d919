//! The handlers to register, log in and out, and confirm and change the password.

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::{Client, Session};
use serde::Deserialize;

use crate::app::{App, Devices};
use crate::error::Error;
use crate::member::{self, Member, ThisClient};
use crate::pages::{self, FLASH, Flash, Frame, THEME, page};
use crate::users::{self, User};

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
pub(crate) async fn register_form(
    State(app): State<App>,
    session: Session,
) -> Result<Response, Error> {
    if member::current(&app, &session).await?.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    register_page(&session, String::new(), None)
}

/// `POST /register`
pub(crate) async fn register(
    State(app): State<App>,
    ThisClient(client): ThisClient,
    session: Session,
    Form(form): Form<Credentials>,
) -> Result<Response, Error> {
    let name = form.username.trim().to_owned();
    if let Err(problem) =
        users::check_name(&name).and_then(|()| users::check_password(&form.password))
    {
        return register_page(&session, name, Some(problem));
    }
    let Some(user) = app.users.register(&name, &form.password).await? else {
        return register_page(&session, name, Some("That user name is taken.".to_owned()));
    };
    let welcome = format!("Welcome, {}. Your account is made.", user.name);
    enter(&session, &user, client, form.remember.is_some(), welcome)
}

fn register_page(
    session: &Session,
    username: String,
    problem: Option<String>,
) -> Result<Response, Error> {
    let frame = Frame::new(session, None, "/register")?;
    page(
        form_status(problem.as_ref()),
        &pages::Register {
            frame,
            username,
            problem,
        },
    )
}

/// `GET /login`
pub(crate) async fn log_in_form(
    State(app): State<App>,
    session: Session,
) -> Result<Response, Error> {
    if member::current(&app, &session).await?.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    let frame = Frame::new(&session, None, "/login")?;
    let (username, problem) = (String::new(), None);
    page(
        StatusCode::OK,
        &pages::LogIn {
            frame,
            username,
            problem,
        },
    )
}

/// `POST /login`
pub(crate) async fn log_in(
    State(app): State<App>,
    ThisClient(client): ThisClient,
    session: Session,
    Form(form): Form<Credentials>,
) -> Result<Response, Error> {
    let username = form.username.trim().to_owned();
    let Some(user) = app.users.authenticate(&username, &form.password).await? else {
        let frame = Frame::new(&session, None, "/login")?;
        let problem = Some(WRONG.to_owned());
        return page(
            form_status(problem.as_ref()),
            &pages::LogIn {
                frame,
                username,
                problem,
            },
        );
    };
    let welcome = format!("Welcome back, {}.", user.name);
    enter(&session, &user, client, form.remember.is_some(), welcome)
}

/// Logs a user in, and redirects to the page that the user wanted.
fn enter(
    session: &Session,
    user: &User,
    client: Client,
    remember: bool,
    welcome: String,
) -> Result<Response, Error> {
    let path = member::take_return_path(session)?;
    member::log_in(session, user)?;
    session.set_remembered(remember)?;
    session.set_client(client)?;
    session.insert(FLASH, Flash::done(welcome))?;
    Ok(Redirect::to(&path).into_response())
}

/// `POST /logout`
pub(crate) async fn log_out(session: Session) -> Result<Redirect, Error> {
    let theme = session.get(THEME)?;
    session.log_out()?;
    // An insert after the end of a session makes a new session, without a user.
    if let Some(theme) = theme {
        session.insert(THEME, theme)?;
    }
    session.insert(FLASH, Flash::done("You are logged out."))?;
    Ok(Redirect::to("/"))
}

/// `GET /confirm`
pub(crate) async fn confirm_form(
    Member(user): Member,
    session: Session,
) -> Result<Response, Error> {
    let frame = Frame::new(&session, Some(&user), "/confirm")?;
    page(
        StatusCode::OK,
        &pages::Confirm {
            frame,
            problem: None,
        },
    )
}

#[derive(Deserialize)]
pub(crate) struct Confirmation {
    password: String,
}

/// `POST /confirm`
pub(crate) async fn confirm(
    State(app): State<App>,
    Member(user): Member,
    session: Session,
    Form(form): Form<Confirmation>,
) -> Result<Response, Error> {
    let Some(user) = app.users.authenticate(&user.name, &form.password).await? else {
        let frame = Frame::new(&session, Some(&user), "/confirm")?;
        let problem = Some("That is not your password.".to_owned());
        return page(
            form_status(problem.as_ref()),
            &pages::Confirm { frame, problem },
        );
    };
    let path = member::take_return_path(&session)?;
    // The user logs in again, so the login is recent from now on.
    member::log_in(&session, &user)?;
    Ok(Redirect::to(&path).into_response())
}

/// `GET /password`
pub(crate) async fn password_form(
    State(app): State<App>,
    Member(user): Member,
    session: Session,
) -> Result<Response, Error> {
    member::require_recent_login(&app, &session, "/password")?;
    let frame = Frame::new(&session, Some(&user), "/password")?;
    page(
        StatusCode::OK,
        &pages::Password {
            frame,
            problem: None,
        },
    )
}

#[derive(Deserialize)]
pub(crate) struct NewPassword {
    current: String,
    new: String,
}

/// `POST /password`
pub(crate) async fn change_password(
    State(app): State<App>,
    Member(user): Member,
    session: Session,
    Form(form): Form<NewPassword>,
) -> Result<Response, Error> {
    member::require_recent_login(&app, &session, "/password")?;
    // Change the password first, and end the other sessions after that. In the other order,
    // somebody with the old password could log in between the two steps.
    let changed = match users::check_password(&form.new) {
        Err(problem) => Err(problem),
        Ok(()) => new_password(&app, &user, &form)
            .await?
            .ok_or_else(|| "Your current password is another one.".to_owned()),
    };
    let user = match changed {
        Ok(user) => user,
        Err(problem) => {
            let frame = Frame::new(&session, Some(&user), "/password")?;
            let problem = Some(problem);
            return page(
                form_status(problem.as_ref()),
                &pages::Password { frame, problem },
            );
        }
    };
    // A parallel login may have checked the old password, and may write its session only after
    // `revoke_others`. Then `revoke_others` does not end that session. But that session has an old
    // password version, so nobody is logged in with it.
    let notice = match (session.id(), &app.devices) {
        (Some(own), Devices::Listed(sessions)) => {
            sessions.revoke_others(user.id, own).await?;
            "Your password is changed, and all your other sessions are ended."
        }
        _ => {
            "Your password is changed. Log out on your other devices; this site cannot do so for you."
        }
    };
    member::keep(&session, &user)?;
    session.insert(FLASH, Flash::done(notice))?;
    Ok(Redirect::to("/").into_response())
}

/// Returns the user with the new password, or `None` if the current password is wrong.
async fn new_password(app: &App, user: &User, form: &NewPassword) -> Result<Option<User>, Error> {
    match app.users.authenticate(&user.name, &form.current).await? {
        Some(checked) => app.users.set_password(&checked, &form.new).await,
        None => Ok(None),
    }
}

/// A form with a problem is not a success, so its status is 422. Browsers show the page of a 422
/// too.
fn form_status(problem: Option<&String>) -> StatusCode {
    match problem {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    }
}
