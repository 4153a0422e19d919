//! The shop with `actix-web` and `actix-session`.

use std::future::{Ready, ready};

use actix_session::storage::CookieSessionStore;
use actix_session::{Session, SessionExt, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::dev::Payload;
use actix_web::error::{ErrorForbidden, ErrorInternalServerError, ErrorUnauthorized};
use actix_web::web::{Form, Redirect, get, post};
use actix_web::{App, Either, FromRequest, HttpRequest, HttpResponse, HttpServer};
use serde::Deserialize;

#[derive(Clone, Debug)]
struct User {
    name: &'static str,
    password: &'static str, // hashed, in a real application
    is_staff: bool,
}

const USERS: [User; 2] = [
    User {
        name: "ada",
        password: "lovelace",
        is_staff: true,
    },
    User {
        name: "bob",
        password: "hunter2",
        is_staff: false,
    },
];

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

fn authenticate(credentials: &Credentials) -> Option<User> {
    let user = find_user(&credentials.name)?;
    (user.password == credentials.password).then_some(user)
}

fn find_user(name: &str) -> Option<User> {
    USERS.into_iter().find(|user| user.name == name)
}

fn logged_in(request: &HttpRequest) -> Result<User, actix_web::Error> {
    let name: Option<String> = request.get_session().get("user")?;
    name.and_then(|name| find_user(&name))
        .ok_or_else(|| ErrorUnauthorized(""))
}

/// The user who is logged in, as an extractor. Visitors get a 401.
impl FromRequest for User {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(logged_in(request))
    }
}

/// A user who may change the stock. Other users get a 403.
struct Staff(User);

impl FromRequest for Staff {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match logged_in(request) {
            Ok(user) if user.is_staff => Ok(Self(user)),
            Ok(_) => Err(ErrorForbidden("")),
            Err(error) => Err(error),
        })
    }
}

async fn home(session: Session) -> Result<String, actix_web::Error> {
    let notice: String = match session.remove_as("notice") {
        Some(notice) => notice.map_err(ErrorInternalServerError)?,
        None => String::new(),
    };
    let cart: Vec<String> = session.get("cart")?.unwrap_or_default();
    Ok(format!("{notice}\nIn your cart: {}.\n", cart.join(", ")))
}

#[derive(Deserialize)]
struct Item {
    item: String,
}

async fn add(session: Session, Form(new): Form<Item>) -> Result<Redirect, actix_web::Error> {
    session.insert("notice", format!("Added {}.", new.item))?;
    let mut cart: Vec<String> = session.get("cart")?.unwrap_or_default();
    cart.push(new.item);
    session.insert("cart", cart)?;
    Ok(Redirect::to("/").see_other())
}

async fn log_in(
    session: Session,
    Form(credentials): Form<Credentials>,
) -> Result<Either<Redirect, HttpResponse>, actix_web::Error> {
    let Some(user) = authenticate(&credentials) else {
        return Ok(Either::Right(HttpResponse::Unauthorized().finish()));
    };
    session.renew();
    session.insert("user", user.name)?;
    session.insert("notice", format!("Hello, {}.", user.name))?;
    Ok(Either::Left(Redirect::to("/").see_other()))
}

async fn log_out(session: Session) -> Redirect {
    session.purge();
    Redirect::to("/").see_other()
}

async fn account(user: User) -> String {
    format!("You are {}.\n", user.name)
}

async fn stock(Staff(user): Staff) -> String {
    format!("{} may change the stock.\n", user.name)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = Key::generate();
    let server = HttpServer::new(move || {
        let sessions = SessionMiddleware::builder(CookieSessionStore::default(), key.clone())
            // For plain HTTP on this machine.
            .cookie_secure(false)
            .build();
        App::new()
            .route("/", get().to(home))
            .route("/cart", post().to(add))
            .route("/login", post().to(log_in))
            .route("/logout", post().to(log_out))
            .route("/account", get().to(account))
            .route("/stock", get().to(stock))
            .wrap(sessions)
    });

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let server = server.workers(1).bind(format!("127.0.0.1:{port}"))?;
    for address in server.addrs() {
        println!("http://{address}");
    }
    Ok(server.run().await?)
}
