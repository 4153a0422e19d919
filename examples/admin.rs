//! Run with `cargo run --example admin`, then open <http://127.0.0.1:3000> and log in as ada, and
//! as grace in another browser.
//!
//! A page for administrators. It shows who is logged in, from where and since when, and it can end
//! those sessions. Only an administrator who has logged in a short while ago gets the page
//! (`FRESH_SECONDS`, 300 by default). The application refuses forms that other sites send. While the
//! page is open, it says when sessions have come or gone. That ends with the administrator's own
//! session.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::{ConnectInfo, FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use cloakroom::flash::Message;
use cloakroom::{
    Client, Flash, MemoryStore, Notice, RecordId, Session, SessionError, SessionErrorKind,
    SessionFeed, SessionInfo, SessionLayer, Sessions, SigningKey, Timestamp, UserId,
};
use futures_util::stream::{Stream, StreamExt};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_http::csrf::CsrfLayer;

struct User {
    name: &'static str,
    is_admin: bool,
}

/// The table of users. It says who is an administrator. The session does not say it, so that a
/// demotion holds at once.
const USERS: [User; 3] = [
    User {
        name: "ada",
        is_admin: true,
    },
    User {
        name: "grace",
        is_admin: false,
    },
    User {
        name: "linus",
        is_admin: false,
    },
];

/// The password of all users. The example `login` shows how to keep and check passwords.
const PASSWORD: &str = "cloakroom";

fn find(name: &str) -> Option<&'static User> {
    USERS.iter().find(|user| user.name == name)
}

#[derive(Clone)]
struct App {
    sessions: Sessions<MemoryStore>,
    store: MemoryStore,
    fresh_for: Duration,
}

impl FromRef<App> for Sessions<MemoryStore> {
    fn from_ref(app: &App) -> Self {
        app.sessions.clone()
    }
}

/// An administrator with a fresh login. All handlers below `/admin` begin with this extractor.
struct Admin {
    user: UserId,
    flash: Flash,
    session: Session,
}

impl FromRequestParts<App> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let session = Session::from_request_parts(parts, app).await?;
        let user = session.user().ok_or(Failure::Elsewhere("/"))?;
        if !find(user.as_str()).is_some_and(|user| user.is_admin) {
            // Other users do not learn that this page exists.
            return Err(Failure::NotFound);
        }
        // A browser that was left open is not enough. The administrator must have given the
        // password a short while ago, or must give it again.
        match session.require_recent_login(app.fresh_for) {
            Err(error) if error.kind() == SessionErrorKind::LoginTooOld => {
                Err(Failure::Elsewhere("/confirm"))
            }
            other => {
                other?;
                Ok(Self {
                    user,
                    flash: Flash::new(&session),
                    session,
                })
            }
        }
    }
}

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html><title>Sessions</title>
{% for message in messages %}<p role="status" class="{{ message.level }}">{{ message }}</p>{% endfor %}
{% for (name, rows) in users %}
<h2>{{ name }}</h2>
{% for row in rows %}<form method="post" action="/admin/revoke">
<input type="hidden" name="user" value="{{ name }}"><input type="hidden" name="id" value="{{ row.id }}">
{{ row.client }}, logged in {{ row.created }} s ago, last seen {{ row.last_seen_at }} s ago
{% if row.is_own %}(this one){% else %}<button>Log out</button>{% endif %}</form>
{% else %}<p>is logged in nowhere</p>
{% endfor %}
<form method="post" action="/admin/revoke-all"><button name="user" value="{{ name }}">Log out everywhere</button></form>
{% endfor %}
<hr><form method="post" action="/admin/purge"><button>Remove expired sessions</button></form>
<p id="news" role="status" hidden>Sessions have changed. <a href="/admin">Show them</a></p>
<script>
new EventSource("/admin/changes").onmessage = () => { document.getElementById("news").hidden = false; };
</script>"#
)]
struct Overview {
    messages: Vec<Message>,
    users: Vec<(&'static str, Vec<Row>)>,
}

/// A session, as the page shows it.
struct Row {
    id: RecordId,
    client: String,
    created: u64,
    last_seen_at: u64,
    is_own: bool,
}

impl Row {
    fn new(info: &SessionInfo, own: Option<RecordId>, now: Timestamp) -> Self {
        let client = info.client();
        let browser = client.and_then(Client::user_agent);
        let address = client.and_then(Client::address);
        let unknown = "unknown";
        Self {
            id: info.id(),
            client: format!(
                "{} from {}",
                browser.unwrap_or(unknown),
                address.unwrap_or(unknown)
            ),
            created: now.since(info.created_at()).as_secs(),
            last_seen_at: now.since(info.last_seen_at()).as_secs(),
            is_own: own == Some(info.id()),
        }
    }
}

/// A store finds sessions by their user, and does not list all sessions. So the application goes
/// through its list of users. If there are many users, show one page of them at a time.
async fn overview(
    State(sessions): State<Sessions<MemoryStore>>,
    admin: Admin,
) -> Result<Response, Failure> {
    let own = admin.session.id();
    let now = Timestamp::from(SystemTime::now());
    let mut users = Vec::new();
    for user in &USERS {
        let sessions = sessions.list_for(user.name).await?;
        let rows = sessions.iter().map(|info| Row::new(info, own, now));
        users.push((user.name, rows.collect()));
    }
    let messages = admin.flash.take()?;
    let page = Overview { messages, users }.render()?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Html(page)).into_response())
}

/// Tells the page that sessions have changed, until the administrator's own session ends.
async fn changes(
    State(app): State<App>,
    admin: Admin,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    // A page that is left open must not keep the session alive.
    admin.session.skip_touch()?;
    let own = admin.session.id();
    let notices = app.store.subscribe().await.map_err(SessionError::from)?;
    let news = notices.filter_map(move |notice| async move {
        let is_own = matches!(notice, Notice::Changed(id) if Some(id) == own);
        (!is_own).then(|| Ok(Event::default().data("changed")))
    });
    let news = admin.session.detach().until_ended(Box::pin(news));
    Ok(Sse::new(news).keep_alive(KeepAlive::default()))
}

#[derive(Deserialize)]
struct Revocation {
    user: String,
    id: String,
}

/// Ends a session. The next request with its token is a visitor's. A request that is under way
/// keeps its answer, and loses its changes.
async fn revoke(
    State(sessions): State<Sessions<MemoryStore>>,
    admin: Admin,
    Form(form): Form<Revocation>,
) -> Result<Redirect, Failure> {
    let id = form.id.parse::<RecordId>().map_err(|_| Failure::NotFound)?;
    // `revoke` would end the session, whichever user it belongs to. The page may be old, and the
    // session may belong to another user by now.
    let is_ended = sessions.revoke_owned(form.user.as_str(), id).await?;
    if is_ended {
        let text = format!("A session of {} is ended.", form.user);
        admin.flash.success(text)?;
    } else {
        admin.flash.warning("There is no such session any more.")?;
    }
    Ok(Redirect::to("/admin"))
}

#[derive(Deserialize)]
struct WhoseSessions {
    user: String,
}

/// Ends all sessions of a user. To ban a user, mark the ban in the table of users first: a login
/// that is under way may still make a session after this handler has run.
async fn revoke_user(
    State(sessions): State<Sessions<MemoryStore>>,
    admin: Admin,
    Form(form): Form<WhoseSessions>,
) -> Result<Redirect, Failure> {
    let user = form.user.as_str();
    let count = match admin.session.id() {
        // The administrator's current session stays, because it shows the message.
        Some(own) if admin.user.as_str() == user => sessions.revoke_others(user, own).await?,
        _ => sessions.revoke_user(user).await?,
    };
    let text = format!("{count} sessions of {user} are ended.");
    admin.flash.success(text)?;
    Ok(Redirect::to("/admin"))
}

/// Removes expired sessions to free their room. The layer refuses expired sessions in any case.
/// `Sessions::spawn_purge` removes them from time to time.
async fn purge(
    State(sessions): State<Sessions<MemoryStore>>,
    admin: Admin,
) -> Result<Redirect, Failure> {
    let count = sessions.purge_expired().await?;
    let text = format!("{count} expired sessions are removed.");
    admin.flash.success(text)?;
    Ok(Redirect::to("/admin"))
}

async fn home(session: Session) -> Result<Html<String>, Failure> {
    Ok(Html(match session.user().and_then(|user| find(user.as_str())) {
        Some(User { name, .. }) => format!(
            "<p>You are {name}. <a href=\"/admin\">Sessions</a><form method=post action=/logout><button>Log out</button></form>"
        ),
        None => "<form method=post action=/login>Name <input name=name> Password <input name=password type=password><button>Log in</button></form>".to_owned(),
    }))
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

async fn log_in(
    session: Session,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Result<Redirect, Failure> {
    let user = find(&form.name).filter(|_| form.password == PASSWORD);
    let user = user.ok_or(Failure::WrongPassword)?;
    session.log_in(user.name)?;
    // The page for administrators shows this client.
    let client = Client::new().with_address(&peer.ip().to_string());
    let agent = headers.get(header::USER_AGENT);
    session.set_client(match agent.and_then(|agent| agent.to_str().ok()) {
        Some(agent) => client.with_user_agent(agent),
        None => client,
    })?;
    Ok(Redirect::to("/"))
}

async fn confirm_form() -> Html<&'static str> {
    Html(
        "<form method=post>Your password again, please <input name=password type=password><button>Confirm</button></form>",
    )
}

#[derive(Deserialize)]
struct Confirmation {
    password: String,
}

async fn confirm(session: Session, Form(form): Form<Confirmation>) -> Result<Redirect, Failure> {
    let user = session.user().ok_or(Failure::Elsewhere("/"))?;
    if form.password != PASSWORD {
        return Err(Failure::WrongPassword);
    }
    // The same user logs in again. The login is fresh from now on, and the session has a new token.
    session.log_in(user)?;
    Ok(Redirect::to("/admin"))
}

async fn log_out(session: Session) -> Result<Redirect, Failure> {
    session.log_out()?;
    Ok(Redirect::to("/"))
}

/// The reason why a request does not get its page.
enum Failure {
    /// The user has to do something at this address first.
    Elsewhere(&'static str),
    NotFound,
    WrongPassword,
    Session(SessionError),
    Page(askama::Error),
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<askama::Error> for Failure {
    fn from(error: askama::Error) -> Self {
        Self::Page(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Elsewhere(path) => Redirect::to(path).into_response(),
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::WrongPassword => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "Wrong name or password.\n",
            )
                .into_response(),
            Self::Session(error) => error.into_response(),
            Self::Page(error) => {
                eprintln!("cannot make a page: {error}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let layer = SessionLayer::builder(store.clone(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let fresh_for = std::env::var("FRESH_SECONDS").unwrap_or_else(|_| "300".into());
    let app = App {
        sessions: layer.sessions(),
        store,
        fresh_for: Duration::from_secs(fresh_for.parse()?),
    };
    let app = Router::new()
        .route("/", get(home))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/confirm", get(confirm_form).post(confirm))
        .route("/admin", get(overview))
        .route("/admin/changes", get(changes))
        .route("/admin/revoke", post(revoke))
        .route("/admin/revoke-all", post(revoke_user))
        .route("/admin/purge", post(purge))
        .with_state(app)
        .layer(layer)
        // `CsrfLayer` refuses forms of other sites, and also of other ports and subdomains, before
        // the session layer loads a session. SameSite does not stop other ports and subdomains.
        .layer(CsrfLayer::new());

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, app).await?)
}
