//! Run with `cargo run --example starter`, then open <http://127.0.0.1:3000>.
//!
//! What most sites need: a login that leads back to the page that was asked for, "stay logged in",
//! a page for the staff, an API that answers 401, and "log out everywhere". Copy the glue between
//! the two marks into your application. The rest is the application itself.
//!
//! Log in as ada (staff) with the password lovelace, or as bob with the password hunter2.

use axum::extract::{Form, FromRequestParts, OriginalUri, Query, Request, State};
use axum::http::{Method, StatusCode, request::Parts};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::{
    CurrentUser, MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer, Sessions,
    SigningKey,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;
use url::form_urlencoded::byte_serialize;

// The glue begins here.

/// The logged-in user, as an extractor. A request makes one look-up, whoever asks first.
impl FromRequestParts<App> for User {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, SessionError> {
        if let Some(user) = parts.extensions.get::<User>() {
            return Ok(user.clone());
        }
        let id = CurrentUser::from_request_parts(parts, app).await?;
        // The session may outlive its user. A user who was deleted is not logged in.
        let user = app.users.find(id.as_str()).await;
        let user = user.ok_or(SessionErrorKind::NotLoggedIn)?;
        parts.extensions.insert(user.clone());
        Ok(user)
    }
}

/// Around pages: sends visitors to the login page, which sends them back. What is not a page gets
/// the 401, since a redirect loses a form that was sent.
async fn or_log_in(
    user: Result<User, SessionError>,
    OriginalUri(page): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    let is_page = request.method() == Method::GET;
    match user {
        Ok(_) => next.run(request).await,
        Err(error) if error.kind() == SessionErrorKind::NotLoggedIn && is_page => {
            let page = page.path_and_query().map_or("/", |page| page.as_str());
            let next = byte_serialize(page.as_bytes()).collect::<String>();
            Redirect::to(&format!("/login?next={next}")).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Around pages of the staff: 403 for all other users.
async fn only_staff(user: User, request: Request, next: Next) -> Response {
    match user.is_staff {
        true => next.run(request).await,
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

/// The page to go to after the login. Anybody can write a link to the login page, so a `next` that
/// leads to another site is ignored. Browsers read `//host` and `/\host` as another site.
fn page_of_this_site(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.starts_with("/\\")
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_local { next } else { "/" }
}

#[derive(Deserialize)]
struct AfterLogin {
    #[serde(default)]
    next: String,
}

// The glue ends here.

#[derive(Clone)]
struct User {
    name: &'static str,
    password: &'static str, // hashed, in a real application
    is_staff: bool,
}

/// The users: in a real application, a pool of its database.
#[derive(Clone)]
struct Users([User; 2]);

impl Users {
    async fn find(&self, name: &str) -> Option<User> {
        eprintln!("look-up of the user {name}");
        self.0.iter().find(|user| user.name == name).cloned()
    }

    async fn check(&self, login: &Login) -> Option<User> {
        let user = self.find(&login.name).await?;
        (user.password == login.password).then_some(user)
    }
}

#[derive(Clone)]
struct App {
    users: Users,
    sessions: Sessions<MemoryStore>,
}

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
    remember: Option<String>,
}

// Without an `action`, a browser sends the form to the address of the page, with its `next`.
const LOGIN_FORM: &str = "<!doctype html><title>Login</title><form method=post>\
    <p><label>Name <input name=name autocomplete=username></label>\
    <p><label>Password <input name=password type=password></label>\
    <p><label><input name=remember type=checkbox> Stay logged in</label>\
    <p><button>Log in</button></form>";

async fn log_in(
    State(app): State<App>,
    session: Session,
    Query(after): Query<AfterLogin>,
    Form(login): Form<Login>,
) -> Result<Response, SessionError> {
    let Some(user) = app.users.check(&login).await else {
        let page = format!("{LOGIN_FORM}<p>The name or the password is wrong.");
        return Ok((StatusCode::UNAUTHORIZED, Html(page)).into_response());
    };
    session.log_in(user.name)?;
    session.set_remembered(login.remember.is_some())?;
    Ok(Redirect::to(page_of_this_site(&after.next)).into_response())
}

async fn log_out(session: Session) -> Result<Redirect, SessionError> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

async fn log_out_everywhere(
    State(app): State<App>,
    session: Session,
) -> Result<Redirect, SessionError> {
    app.sessions.log_out_everywhere(&session).await?;
    Ok(Redirect::to("/"))
}

async fn home(user: Result<User, SessionError>) -> Html<String> {
    let user = match user {
        Ok(user) => format!(
            "<p>Hello, {}.<form method=post><button formaction=/logout>Log out</button>\
             <button formaction=/logout-everywhere>Log out everywhere</button></form>",
            user.name
        ),
        Err(_) => "<p>Hello. <a href=/login>Log in</a>".to_owned(),
    };
    let links = "<p><a href=/private>Private</a> <a href=/admin>Admin</a>";
    Html(format!(
        "<!doctype html><title>Starter</title>{user}{links}"
    ))
}

async fn private(user: User) -> String {
    format!("This page is for {}.\n", user.name)
}

async fn admin(user: User) -> String {
    format!("{} belongs to the staff.\n", user.name)
}

async fn api_me(user: User) -> Json<&'static str> {
    Json(user.name)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let ada = ("ada", "lovelace", true);
    let bob = ("bob", "hunter2", false);
    let app = App {
        users: Users([ada, bob].map(|(name, password, is_staff)| User {
            name,
            password,
            is_staff,
        })),
        sessions: layer.sessions(),
    };
    let staff = Router::new()
        .route("/admin", get(admin))
        .route_layer(from_fn_with_state(app.clone(), only_staff));
    let pages = Router::new()
        .route("/private", get(private))
        .merge(staff)
        .route_layer(from_fn_with_state(app.clone(), or_log_in));
    let router = Router::new()
        .route("/", get(home))
        .route("/login", get(|| async { Html(LOGIN_FORM) }).post(log_in))
        .route("/logout", post(log_out))
        .route("/logout-everywhere", post(log_out_everywhere))
        .route("/api/me", get(api_me))
        .merge(pages)
        .layer(layer)
        .layer(CsrfLayer::new()) // refuses a form that another site sends
        .with_state(app);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}
