//! Examples whose connections live longer than a request: `chat` with its sockets, and `events`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use futures_util::{SinkExt, StreamExt};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use support::program::binary;
use support::program::{Program, cookie};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The time that an event may take on a busy machine. After this time, the event counts as missing.
const BOUND: Duration = Duration::from_secs(30);

/// A browser with an open chat.
struct Visitor<'a> {
    example: &'a Program,
    cookie: String,
}

impl<'a> Visitor<'a> {
    fn log_in(example: &'a Program, name: &str) -> Self {
        let mut visitor = Self {
            example,
            cookie: String::new(),
        };
        visitor.log_in_again(name);
        visitor
    }

    fn log_in_again(&mut self, name: &str) {
        let form = format!("name={name}");
        let (status, head, _) = self
            .example
            .send_form("POST", "/login", &self.cookie, &form);
        assert_eq!(status, 303);
        self.cookie = cookie(&head);
    }

    fn log_out(&self) {
        assert_eq!(self.example.send("POST", "/logout", &self.cookie).0, 303);
    }

    fn rename(&self, name: &str) {
        let form = format!("name={name}");
        let (status, ..) = self.example.send_form("POST", "/name", &self.cookie, &form);
        assert_eq!(status, 204);
    }

    fn get(&self, path: &str) -> String {
        let (status, _, body) = self.example.send("GET", path, &self.cookie);
        assert_eq!(status, 200);
        body
    }

    /// Asks for an upgrade, as a page of this origin would.
    async fn try_open(&self, origin: Option<&str>) -> Result<Socket, tungstenite::Error> {
        let url = format!("ws://{}/socket", self.example.address);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        if let Some(origin) = origin {
            headers.insert("origin", HeaderValue::from_str(origin).unwrap());
        }
        if let Some(cookie) = self.cookie.trim().strip_prefix("Cookie: ") {
            headers.insert("cookie", HeaderValue::from_str(cookie).unwrap());
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Socket(socket))
    }

    /// Opens a socket. Returns it, and the greeting.
    async fn open(&self) -> (Socket, String) {
        let mut socket = self.try_open(Some(&own(self.example))).await.unwrap();
        let welcome = socket.next_text().await;
        (socket, welcome)
    }

    async fn status_of_upgrade(&self, origin: Option<&str>) -> u16 {
        match self.try_open(origin).await {
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
            Ok(_) => 101,
        }
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Socket {
    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(BOUND, self.0.next()).await;
        next.expect("nothing came").unwrap().unwrap()
    }

    async fn next_text(&mut self) -> String {
        self.next().await.into_text().unwrap().to_string()
    }

    /// The reason why the server closes the socket. The close must be the next message.
    async fn closed(&mut self) -> (CloseCode, String) {
        match self.next().await {
            Message::Close(Some(frame)) => (frame.code, frame.reason.to_string()),
            other => panic!("not closed: {other:?}"),
        }
    }
}

/// The origin of the example's own pages.
fn own(example: &Program) -> String {
    format!("http://{}", example.address)
}

fn chat() -> Program {
    Program::start(binary("chat"), &[])
}

#[tokio::test]
async fn a_message_gets_from_one_user_to_another_under_the_name_of_the_session() {
    let example = chat();
    let (ada, grace) = (
        Visitor::log_in(&example, "ada"),
        Visitor::log_in(&example, "grace"),
    );
    let (mut adas, welcome) = ada.open().await;
    assert_eq!(welcome, "You are ada. Messages sent: 0.");
    let (mut graces, _) = grace.open().await;
    adas.say("good morning").await;
    assert_eq!(graces.next_text().await, "ada: good morning");
    assert_eq!(adas.next_text().await, "ada: good morning");
    ada.rename("countess");
    adas.say("good evening").await;
    assert_eq!(graces.next_text().await, "countess: good evening");
    assert_eq!(ada.get("/me"), "You are countess. Messages sent: 2.");
    assert_eq!(grace.get("/me"), "You are grace. Messages sent: 0.");
    assert_eq!(ada.open().await.1, "You are countess. Messages sent: 2.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_sockets_and_requests_write_at_once_is_in_the_session_afterwards() {
    const EACH: usize = 20;
    let example = chat();
    let ada = Visitor::log_in(&example, "ada");
    let (mut first, _) = ada.open().await;
    let (mut second, _) = ada.open().await;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..EACH {
                ada.rename(&format!("ada{n}"));
            }
        });
        let talk = async {
            for _ in 0..EACH {
                tokio::join!(first.say("one"), second.say("two"));
            }
            for _ in 0..2 * EACH {
                first.next_text().await;
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(talk));
    });
    assert_eq!(ada.get("/me"), "You are ada19. Messages sent: 40.");
}

#[tokio::test]
async fn a_logout_closes_the_idle_sockets_of_its_session_and_no_others() {
    let example = chat();
    let (ada, grace) = (
        Visitor::log_in(&example, "ada"),
        Visitor::log_in(&example, "grace"),
    );
    let (mut first, _) = ada.open().await;
    let (mut second, _) = ada.open().await;
    let (mut graces, _) = grace.open().await;
    ada.log_out();
    for socket in [&mut first, &mut second] {
        assert_eq!(
            socket.closed().await,
            (CloseCode::Policy, "the session has ended".into())
        );
    }
    graces.say("still here").await;
    assert_eq!(graces.next_text().await, "grace: still here");
    assert_eq!(ada.status_of_upgrade(Some(&own(&example))).await, 401);
}

#[tokio::test]
async fn nothing_is_said_in_a_session_that_is_over() {
    let example = chat();
    let (ada, grace) = (
        Visitor::log_in(&example, "ada"),
        Visitor::log_in(&example, "grace"),
    );
    let (mut adas, _) = ada.open().await;
    let (mut graces, _) = grace.open().await;
    ada.log_out();
    adas.say("after the end").await;
    assert_eq!(
        adas.closed().await,
        (CloseCode::Policy, "the session has ended".into())
    );
    graces.say("anybody?").await;
    assert_eq!(graces.next_text().await, "grace: anybody?");
}

#[tokio::test]
async fn a_socket_of_an_older_token_is_closed() {
    let example = chat();
    let mut ada = Visitor::log_in(&example, "ada");
    let (mut socket, _) = ada.open().await;
    ada.log_in_again("ada");
    assert_eq!(
        socket.closed().await,
        (CloseCode::Policy, "the session has another token".into())
    );
    ada.open().await;
}

#[tokio::test]
async fn an_upgrade_from_a_foreign_origin_is_refused() {
    let example = chat();
    let ada = Visitor::log_in(&example, "ada");
    let own = own(&example);
    let with_tls = own.replace("http:", "https:");
    for foreign in [
        "http://evil.example",
        "http://127.0.0.1:1", // the same site: SameSite lets the cookie through
        &with_tls,
        &format!("{own}.evil.example"),
        "null",
    ] {
        assert_eq!(ada.status_of_upgrade(Some(foreign)).await, 403, "{foreign}");
    }
    assert_eq!(ada.status_of_upgrade(None).await, 403);
    assert_eq!(ada.status_of_upgrade(Some(&own)).await, 101);
}

#[tokio::test]
async fn an_outage_of_the_store_is_no_logout_and_loses_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.sqlite3");
    let store = format!("sqlite:{}", file.display());
    let settings = [("STORE", store.as_str())];
    let (example, errors) = Program::start_to_listen(binary("chat"), &settings);
    let ada = Visitor::log_in(&example, "ada");
    let (mut socket, _) = ada.open().await;

    let options = SqliteConnectOptions::new().filename(&file);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("ALTER TABLE cloakroom_sessions RENAME TO elsewhere")
        .execute(&mut database)
        .await
        .unwrap();
    socket.say("are you well?").await;
    for _ in 0..2 {
        let error = errors.recv_timeout(BOUND).unwrap();
        assert_eq!(error, "the session store failed; trying again");
    }
    sqlx::query("ALTER TABLE elsewhere RENAME TO cloakroom_sessions")
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(socket.next_text().await, "ada: are you well?");
    assert_eq!(ada.get("/me"), "You are ada. Messages sent: 1.");
}

/// A stream of events, from its request on.
struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    fn open(visitor: &Visitor<'_>) -> Self {
        Self::try_open(visitor).expect("nobody is logged in")
    }

    /// Opens a stream. Returns `None` if nobody is logged in.
    fn try_open(visitor: &Visitor<'_>) -> Option<Self> {
        Self::try_open_at(visitor, "/events")
    }

    fn try_open_at(visitor: &Visitor<'_>, path: &str) -> Option<Self> {
        let address = &visitor.example.address;
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\n",
            visitor.cookie
        )
        .unwrap();
        let mut lines = BufReader::new(stream).lines();
        match lines.next().unwrap().unwrap().as_str() {
            "HTTP/1.1 200 OK" => Some(Self(lines)),
            "HTTP/1.1 401 Unauthorized" => None,
            status => panic!("{status}"),
        }
    }

    /// The data of the next event, or `None` if the stream ends. It is a failure if nothing comes
    /// in time.
    fn next(&mut self) -> Option<String> {
        let asked = Instant::now();
        loop {
            let line = self.0.next()?.unwrap();
            // Comments keep the connection alive. So the read's timeout does not come, and this
            // check must look.
            assert!(asked.elapsed() < BOUND, "nothing came");
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.to_owned());
            }
        }
    }
}

#[test]
fn a_stream_shows_what_other_requests_change_and_ends_after_a_logout() {
    let example = Program::start(binary("events"), &[]);
    let ada = Visitor::log_in(&example, "ada");
    let mut events = Events::open(&ada);
    assert_eq!(events.next().as_deref(), Some("0"));
    for n in 1..4 {
        assert_eq!(example.send("POST", "/add", &ada.cookie).0, 303);
        assert_eq!(events.next(), Some(n.to_string()));
    }
    ada.log_out();
    assert_eq!(events.next(), None);
    assert_eq!(example.send("GET", "/events", &ada.cookie).0, 401);
}

#[test]
fn a_stream_of_an_older_token_ends_and_goes_on_with_the_new_one() {
    let example = Program::start(binary("events"), &[]);
    let mut ada = Visitor::log_in(&example, "ada");
    let mut events = Events::open(&ada);
    assert_eq!(events.next().as_deref(), Some("0"));
    ada.log_in_again("ada");
    assert_eq!(events.next(), None);
    assert_eq!(Events::open(&ada).next().as_deref(), Some("0"));
}

#[test]
fn a_stream_that_stays_open_does_not_keep_its_session_alive() {
    let settings = [("IDLE_MS", "2000")];
    let example = Program::start(binary("events"), &settings);
    let ada = Visitor::log_in(&example, "ada");
    let mut events = Events::open(&ada);
    assert_eq!(events.next().as_deref(), Some("0"));
    assert_eq!(events.next(), None);
}

#[test]
fn streams_that_are_opened_again_and_again_do_not_keep_their_session_alive() {
    let settings = [("IDLE_MS", "2000")];
    let example = Program::start(binary("events"), &settings);
    let ada = Visitor::log_in(&example, "ada");
    let started = Instant::now();
    while let Some(mut events) = Events::try_open(&ada) {
        events.next();
        assert!(started.elapsed() < BOUND, "the session does not end");
    }
}

#[test]
fn the_page_for_administrators_is_told_of_others_and_no_longer_than_its_own_session() {
    let example = Program::start(binary("admin"), &[]);
    let log_in = |name: &str| {
        let form = format!("name={name}&password=cloakroom");
        let (status, head, _) = example.send_form("POST", "/login", "", &form);
        assert_eq!(status, 303);
        Visitor {
            example: &example,
            cookie: cookie(&head),
        }
    };
    let ada = log_in("ada");
    let mut news = Events::try_open_at(&ada, "/admin/changes").unwrap();
    let grace = log_in("grace");
    assert_eq!(news.next().as_deref(), Some("changed"));
    grace.log_out();
    assert_eq!(news.next().as_deref(), Some("changed"));
    // The stream may still have news of before. Then it ends.
    ada.log_out();
    while news.next().is_some() {}
}
