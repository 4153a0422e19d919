//! Run with `cargo run --example starter`, then open <http://127.0.0.1:3000>.
//!
//! What most sites need: a login that leads back to the page that was asked for, "stay logged in",
//! a page for the staff, an API that answers 401, and "log out everywhere". Copy the glue between
//! the two marks into your application. The rest is the application itself.
//!
//! Log in as ada (staff) with the password lovelace, or as bob with the password hunter2.

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{Html, Redirect, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::login::{self, Auth, BoxError, Next, Users};
use cloakroom::{
    IntoUserId, MemoryStore, Session, SessionError, SessionLayer, Sessions, SigningKey, Stamp,
    UserId,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

// The glue begins here.

/// How the guards and the handlers find the user of a session.
impl Users for Db {
    type User = User;

    async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
        Ok(self.look_up(id.as_str()))
    }

    fn id(user: &User) -> impl IntoUserId {
        user.name
    }

    /// A new password ends the sessions of before.
    fn credentials(user: &User) -> Stamp {
        Stamp::of(user.password)
    }
}

async fn log_in(
    State(app): State<App>,
    session: Session,
    next: Next, // the page that was asked for; never one of another site
    Form(login): Form<Login>,
) -> Result<Redirect> {
    let user = app.db.check(&login)?;
    session.log_in(Db::account(&user))?;
    session.set_remembered(login.remember.is_some())?;
    Ok(Redirect::to(next.path()))
}

async fn log_out(session: Session) -> Result<Redirect, SessionError> {
    session.log_out().map(|()| Redirect::to("/"))
}

async fn log_out_everywhere(State(app): State<App>, session: Session) -> Result<Redirect> {
    app.sessions.log_out_everywhere(&session).await?;
    Ok(Redirect::to("/"))
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
struct Db([User; 2]);

impl Db {
    fn look_up(&self, name: &str) -> Option<User> {
        eprintln!("look-up of the user {name}");
        self.0.iter().find(|user| user.name == name).cloned()
    }

    /// The user of a name and a password, or the login page with what was wrong.
    fn check(&self, login: &Login) -> Result<User, (StatusCode, Html<String>)> {
        let user = self.look_up(&login.name);
        let user = user.filter(|user| user.password == login.password);
        user.ok_or_else(|| {
            let page = format!("{LOGIN_FORM}<p>The name or the password is wrong.");
            (StatusCode::UNAUTHORIZED, Html(page))
        })
    }
}

/// The state of the router.
#[derive(Clone)]
struct App {
    db: Db,
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

async fn home(user: Option<Auth<Db>>) -> Html<String> {
    let user = match user {
        Some(user) => format!(
            "<p>Hello, {}.<form method=post><button formaction=/logout>Log out</button>\
             <button formaction=/logout-everywhere>Log out everywhere</button></form>",
            user.name
        ),
        None => "<p>Hello. <a href=/login>Log in</a>".to_owned(),
    };
    let links = "<p><a href=/private>Private</a> <a href=/admin>Admin</a>";
    Html(format!(
        "<!doctype html><title>Starter</title>{user}{links}"
    ))
}

async fn private(Auth(user): Auth<Db>) -> String {
    format!("This page is for {}.\n", user.name)
}

async fn admin(Auth(user): Auth<Db>) -> String {
    format!("{} belongs to the staff.\n", user.name)
}

async fn api_me(Auth(user): Auth<Db>) -> Json<&'static str> {
    Json(user.name)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ada = ("ada", "lovelace", true);
    let bob = ("bob", "hunter2", false);
    let db = Db([ada, bob].map(|(name, password, is_staff)| User {
        name,
        password,
        is_staff,
    }));
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .users(db.clone())
        .build()?;
    let app = App {
        db,
        sessions: layer.sessions(),
    };
    let router = Router::new()
        .route("/admin", get(admin))
        .route_layer(login::required::<Db>().when(|user| user.is_staff))
        .route("/private", get(private))
        .route_layer(login::required::<Db>().redirect_to("/login")) // around /admin too
        .route("/", get(home))
        .route("/login", get(|| async { Html(LOGIN_FORM) }).post(log_in))
        .route("/logout", post(log_out))
        .route("/logout-everywhere", post(log_out_everywhere))
        .route("/api/me", get(api_me))
        .layer(layer)
        .layer(CsrfLayer::new()) // refuses a form that another site sends
        .with_state(app);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}
