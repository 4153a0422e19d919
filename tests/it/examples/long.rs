//! The longer examples. Each one runs as a process, and the tests use it like a browser.

use std::time::Duration;

use axum::body::Bytes;
use cookie_store::CookieStore;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use support::program::Program;
use support::program::binary;
use url::{Url, form_urlencoded};

/// Keeps cookies, and follows a redirect only if a test asks for that. From the moment of cloning,
/// a clone has its own jar.
#[derive(Clone)]
pub(super) struct ExampleClient {
    pub(super) cookies: CookieStore,
    http: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub(super) struct ExampleReply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl ExampleReply {
    #[track_caller]
    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    /// The place that a redirect leads to.
    #[track_caller]
    pub(super) fn location(&self) -> &str {
        assert_eq!(self.status, 303, "{self:?}");
        self.header(LOCATION)
    }
}

impl ExampleClient {
    pub(super) fn new() -> Self {
        Self {
            cookies: CookieStore::default(),
            http: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(super) async fn get(&mut self, url: &Url) -> ExampleReply {
        self.send(Method::GET, url, &[], &[]).await
    }

    pub(super) async fn post(&mut self, url: &Url, form: &[(&str, &str)]) -> ExampleReply {
        self.send(Method::POST, url, &[], form).await
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        form: &[(&str, &str)],
    ) -> ExampleReply {
        let cookies: Vec<_> = self
            .cookies
            .get_request_values(url)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut request = Request::builder().method(method).uri(url.as_str());
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))
            .unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(60), self.http.request(request));
        let (parts, body) = answered.await.unwrap().unwrap().into_parts();
        for cookie in parts.headers.get_all(SET_COOKIE) {
            self.cookies.parse(cookie.to_str().unwrap(), url).unwrap();
        }
        let body = body.collect().await.unwrap().to_bytes();
        ExampleReply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.into()).unwrap(),
        }
    }
}

/// The form that shows errors.
mod form {
    use super::*;

    const GOOD: [(&str, &str); 3] = [
        ("name", "Ada"),
        ("email", "ada@example.com"),
        ("password", "analytical"),
    ];
    /// The first name would be markup.
    const BAD: [(&str, &str); 3] = [
        ("name", "<b>\"Ada"),
        ("email", "ada.example.com"),
        ("password", "engine"),
    ];
    const ERRORS: [&str; 2] = ["A mail address has an @ in it.", "A password needs 8"];
    const HTMX: &[(&str, &str)] = &[("HX-Request", "true")];

    #[track_caller]
    fn assert_shows_the_bad_form(body: &str) {
        assert!(body.contains("value=\"&#60;b&#62;&#34;Ada\""), "{body}");
        assert!(body.contains("value=\"ada.example.com\""), "{body}");
        for error in ERRORS {
            assert!(body.contains(error), "{body}");
        }
        assert!(!body.contains("Please enter your name."));
        assert!(!body.contains("engine"));
    }

    #[tokio::test]
    async fn errors_and_entries_are_shown_once_after_a_redirect_and_the_password_never() {
        let site = Program::start(binary("form"), &[]);
        let mut browser = ExampleClient::new();
        let page = site.page("/");
        let empty = browser.get(&page).await;
        assert!(empty.headers.get(SET_COOKIE).is_none());

        assert_eq!(browser.post(&page, &BAD).await.location(), "/");
        let shown = browser.get(&page).await;
        assert_eq!(shown.status, 200);
        assert_shows_the_bad_form(&shown.body);
        assert_eq!(browser.get(&page).await.body, empty.body);
    }

    #[tokio::test]
    async fn with_htmx_a_bad_form_is_answered_at_once_and_leaves_nothing_in_the_session() {
        let site = Program::start(binary("form"), &[]);
        let mut browser = ExampleClient::new();
        let page = site.page("/");
        let reply = browser.send(Method::POST, &page, HTMX, &BAD).await;
        assert_eq!(reply.status, 422);
        assert!(reply.headers.get(SET_COOKIE).is_none());
        assert!(reply.body.starts_with("<form") && reply.body.ends_with("</form>"));
        assert_shows_the_bad_form(&reply.body);
        assert!(!browser.get(&page).await.body.contains("ada.example.com"));
    }

    #[tokio::test]
    async fn a_good_form_leads_to_a_notice_that_is_shown_once_with_htmx_and_without() {
        let site = Program::start(binary("form"), &[]);
        let page = site.page("/");
        for headers in [&[], HTMX] {
            let mut browser = ExampleClient::new();
            let reply = browser.send(Method::POST, &page, headers, &GOOD).await;
            match headers {
                [] => assert_eq!(reply.location(), "/"),
                _ => assert_eq!((reply.status, reply.header("hx-redirect")), (200, "/")),
            }
            assert!(browser.get(&page).await.body.contains("Welcome, Ada."));
            assert!(!browser.get(&page).await.body.contains("Welcome"));
        }
    }

    #[tokio::test]
    async fn a_form_of_another_site_is_refused() {
        let site = Program::start(binary("form"), &[]);
        let page = site.page("/");
        let elsewhere = [("Sec-Fetch-Site", "cross-site")];
        let mut browser = ExampleClient::new();
        let reply = browser.send(Method::POST, &page, &elsewhere, &GOOD).await;
        assert_eq!(reply.status, 403);
        assert!(!browser.get(&page).await.body.contains("Welcome"));
    }
}

/// The nodes that share one Redis.
mod two_nodes {
    use super::*;
    use support::servers::Server;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// This is longer than a test may take. So the drain time does not end anything during the
    /// test.
    const DRAIN_SECONDS: &str = "600";

    fn start(redis: &Server) -> [Program; 2] {
        let url = format!("redis://{}/", redis.address());
        let keys = "5e".repeat(64);
        let environment = [
            ("REDIS_URL", &*url),
            ("SESSION_KEYS", &*keys),
            ("DRAIN_SECONDS", DRAIN_SECONDS),
        ];
        [(); 2].map(|()| Program::start(binary("two_nodes"), &environment))
    }

    fn terminate(node: &Program) {
        let pid = rustix::process::Pid::from_child(&node.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    impl ExampleClient {
        async fn visit(&mut self, node: &Program) -> String {
            let reply = self.get(&node.page("/visit")).await;
            assert_eq!(reply.status, 200);
            reply.body
        }

        /// Begins an upload of five bytes. When this returns, the handler is running and waits for
        /// the bytes.
        async fn begin_upload(&self, node: &Program) -> TcpStream {
            let url = node.page("/upload");
            let (name, value) = self.cookies.get_request_values(&url).next().unwrap();
            let mut stream = TcpStream::connect(&node.address).await.unwrap();
            let head = format!(
                "POST /upload HTTP/1.1\r\nHost: {}\r\nCookie: {name}={value}\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n",
                &node.address
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            let mut answer = vec![0; go_on.len()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, go_on);
            stream
        }
    }

    /// Asks again until the answer is yes. That happens soon after some other event.
    async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
        let asked = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, asked).await.unwrap();
    }

    #[tokio::test]
    async fn a_session_goes_on_from_node_to_node() {
        let redis = Server::redis(&[]);
        let nodes = start(&redis);
        let mut browser = ExampleClient::new();
        for (visit, node) in (1..=6).zip(nodes.iter().cycle()) {
            let expected = format!(
                "visit {visit}, 0 bytes uploaded, says node {}\n",
                &node.address
            );
            assert_eq!(browser.visit(node).await, expected);
        }
    }

    /// A socket of this browser to this node.
    async fn open_socket(
        browser: &ExampleClient,
        node: &Program,
    ) -> tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>> {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let url = node.page("/socket");
        let (name, value) = browser.cookies.get_request_values(&url).next().unwrap();
        let mut request = format!("ws://{}/socket", node.address)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert(
            "origin",
            format!("http://{}", node.address).parse().unwrap(),
        );
        headers.insert(COOKIE, format!("{name}={value}").parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        socket
    }

    #[tokio::test]
    async fn a_logout_on_one_node_closes_the_sockets_of_its_session_on_both_and_no_others() {
        use futures_util::StreamExt;
        use tokio_tungstenite::tungstenite::Message;
        let redis = Server::redis(&[]);
        let nodes = start(&redis);
        let mut browsers = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..2 {
            let mut browser = ExampleClient::new();
            assert_eq!(
                browser.post(&nodes[0].page("/login"), &[]).await.status,
                204
            );
            for node in &nodes {
                let mut socket = open_socket(&browser, node).await;
                assert!(socket.next().await.unwrap().unwrap().is_text());
                sockets.push(socket);
            }
            browsers.push(browser);
        }
        browsers[0].post(&nodes[0].page("/logout"), &[]).await;
        for (socket, expected) in sockets.iter_mut().zip(["this", "another"]) {
            let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await;
            let Some(Ok(Message::Close(Some(frame)))) = next.unwrap() else {
                panic!("the socket stays open");
            };
            assert_eq!(frame.reason, format!("ended by {expected} node"));
            // The client answers the close.
            assert!(socket.next().await.is_none());
        }
        for node in &nodes {
            let sockets = node.page("/sockets");
            until(|| async { ExampleClient::new().get(&sockets).await.body == "1" }).await;
        }
        // The cache of the other node does not let anybody in.
        let visit = browsers[0].get(&nodes[1].page("/visit")).await;
        assert!(visit.body.starts_with("visit 1,"), "{}", visit.body);
    }

    #[tokio::test]
    async fn a_node_that_leaves_says_so_and_finishes_what_is_under_way() {
        let redis = Server::redis(&[]);
        let [mut leaving, other] = start(&redis);
        let mut browser = ExampleClient::new();
        browser.visit(&leaving).await;
        let ready = leaving.page("/ready");
        assert_eq!(browser.get(&ready).await.status, 200);
        let mut upload = browser.begin_upload(&leaving).await;

        terminate(&leaving);
        until(|| async { ExampleClient::new().get(&ready).await.status == 503 }).await;
        assert_eq!(browser.get(&other.page("/ready")).await.status, 200);
        // The balancer needs some time to notice. Until then, requests still come.
        assert!(browser.visit(&leaving).await.starts_with("visit 2,"));
        terminate(&leaving);
        let host = leaving.address.clone();
        until(|| async { TcpStream::connect(&host).await.is_err() }).await;

        assert!(browser.visit(&other).await.starts_with("visit 3, 0 bytes"));
        upload.write_all(b"bytes").await.unwrap();
        let mut answer = String::new();
        upload.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("5 bytes uploaded"), "{answer}");

        let ended = tokio::task::spawn_blocking(move || leaving.process.wait().unwrap());
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(ended.unwrap().unwrap().success());
        assert!(browser.visit(&other).await.starts_with("visit 4, 5 bytes"));
    }
}

/// The page for administrators.
mod admin {
    use super::*;

    impl ExampleClient {
        async fn logged_in(site: &Program, name: &str) -> Self {
            let mut browser = Self::new();
            let form = [("name", name), ("password", "cloakroom")];
            let agent = format!("the browser of {name}");
            let headers = [("User-Agent", &*agent)];
            let login = site.page("/login");
            let reply = browser.send(Method::POST, &login, &headers, &form).await;
            assert_eq!(reply.location(), "/");
            browser
        }

        async fn is_logged_in(&mut self, site: &Program) -> bool {
            let home = self.get(&site.page("/")).await;
            home.body.contains("You are ")
        }

        async fn do_as_admin(
            &mut self,
            site: &Program,
            what: &str,
            form: &[(&str, &str)],
        ) -> ExampleReply {
            self.post(&site.page(&format!("/admin/{what}")), form).await
        }
    }

    /// The record ids of a user's sessions. The administrator's own session is left out, because
    /// its form has no button.
    fn sessions<'a>(page: &'a ExampleReply, user: &str) -> Vec<&'a str> {
        let field =
            format!("name=\"user\" value=\"{user}\"><input type=\"hidden\" name=\"id\" value=\"");
        let forms = page.body.split(&field).skip(1);
        let with_button =
            forms.filter(|form| form.split("</form>").next().unwrap().contains("<button>"));
        with_button
            .map(|form| form.split_once('"').unwrap().0)
            .collect()
    }

    #[tokio::test]
    async fn a_session_that_is_revoked_is_logged_out_at_its_next_request_and_no_other() {
        let site = Program::start(binary("admin"), &[]);
        let mut admin = ExampleClient::logged_in(&site, "ada").await;
        let mut first = ExampleClient::logged_in(&site, "grace").await;
        let page = admin.get(&site.page("/admin")).await;
        let [id] = sessions(&page, "grace")[..] else {
            panic!("{}", page.body)
        };
        assert!(page.body.contains("the browser of grace from 127.0.0.1"));
        let mut second = ExampleClient::logged_in(&site, "grace").await;

        // An id from another user's session, and a text that is not an id.
        admin
            .do_as_admin(&site, "revoke", &[("user", "linus"), ("id", id)])
            .await;
        let page = admin.get(&site.page("/admin")).await;
        assert!(page.body.contains("There is no such session any more."));
        assert_eq!(sessions(&page, "grace").len(), 2);
        let reply = admin
            .do_as_admin(&site, "revoke", &[("user", "grace"), ("id", "1")])
            .await;
        assert_eq!(reply.status, 404);
        assert!(first.is_logged_in(&site).await);

        let reply = admin
            .do_as_admin(&site, "revoke", &[("user", "grace"), ("id", id)])
            .await;
        assert_eq!(reply.location(), "/admin");
        assert!(!first.is_logged_in(&site).await);
        assert!(second.is_logged_in(&site).await);
        let page = admin.get(&site.page("/admin")).await;
        assert!(page.body.contains("A session of grace is ended."));
        assert_eq!(sessions(&page, "grace").len(), 1);
    }

    #[tokio::test]
    async fn all_sessions_of_a_user_are_revoked_at_once_and_ones_own_stays() {
        let site = Program::start(binary("admin"), &[]);
        let mut admin = ExampleClient::logged_in(&site, "ada").await;
        let mut elsewhere = ExampleClient::logged_in(&site, "ada").await;
        let mut graces = [
            ExampleClient::logged_in(&site, "grace").await,
            ExampleClient::logged_in(&site, "grace").await,
        ];
        let mut linus = ExampleClient::logged_in(&site, "linus").await;

        admin
            .do_as_admin(&site, "revoke-all", &[("user", "grace")])
            .await;
        let page = admin.get(&site.page("/admin")).await;
        assert!(page.body.contains("2 sessions of grace are ended."));
        for grace in &mut graces {
            assert!(!grace.is_logged_in(&site).await);
        }
        assert!(linus.is_logged_in(&site).await);

        admin
            .do_as_admin(&site, "revoke-all", &[("user", "ada")])
            .await;
        assert!(!elsewhere.is_logged_in(&site).await);
        admin.do_as_admin(&site, "purge", &[]).await;
        let page = admin.get(&site.page("/admin")).await;
        assert!(page.body.contains("0 expired sessions are removed."));
        assert_eq!((page.status, sessions(&page, "ada").len()), (200, 0));
    }

    /// Checks that `who` cannot do any of the things that an administrator can do.
    async fn assert_denied(
        site: &Program,
        who: &mut ExampleClient,
        id: &str,
        headers: &[(&str, &str)],
        answer: (u16, Option<&str>),
    ) {
        let form = [("user", "linus"), ("id", id)];
        for what in ["revoke", "revoke-all", "purge"] {
            let url = site.page(&format!("/admin/{what}"));
            let reply = who.send(Method::POST, &url, headers, &form).await;
            let location = reply
                .headers
                .get(LOCATION)
                .map(|path| path.to_str().unwrap());
            assert_eq!((reply.status, location), answer, "{what}");
        }
    }

    #[tokio::test]
    async fn nobody_else_is_let_in_and_no_other_site() {
        let site = Program::start(binary("admin"), &[]);
        let mut admin = ExampleClient::logged_in(&site, "ada").await;
        let mut linus = ExampleClient::logged_in(&site, "linus").await;
        let page = admin.get(&site.page("/admin")).await;
        let [id] = sessions(&page, "linus")[..] else {
            panic!("{}", page.body)
        };

        let mut grace = ExampleClient::logged_in(&site, "grace").await;
        assert_eq!(grace.get(&site.page("/admin")).await.status, 404);
        assert_denied(&site, &mut grace, id, &[], (404, None)).await;
        let mut visitor = ExampleClient::new();
        assert_eq!(visitor.get(&site.page("/admin")).await.location(), "/");
        assert_denied(&site, &mut visitor, id, &[], (303, Some("/"))).await;
        for from in [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Origin", "http://127.0.0.1:1"),
        ] {
            assert_denied(&site, &mut admin, id, &[from], (403, None)).await;
        }
        assert!(linus.is_logged_in(&site).await);
    }

    #[tokio::test]
    async fn a_stale_login_is_asked_for_the_password_again_before_anything_happens() {
        let site = Program::start(binary("admin"), &[("FRESH_SECONDS", "1")]);
        let mut admin = ExampleClient::logged_in(&site, "ada").await;
        let mut linus = ExampleClient::logged_in(&site, "linus").await;
        let url = site.page("/admin");
        let mut page = admin.get(&url).await;
        let id = sessions(&page, "linus")
            .first()
            .map(|id| (*id).to_owned())
            .unwrap_or_default();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while page.status == 200 {
            assert!(std::time::Instant::now() < deadline);
            page = admin.get(&url).await;
        }
        assert_eq!(page.location(), "/confirm");
        assert_denied(&site, &mut admin, &id, &[], (303, Some("/confirm"))).await;
        assert!(linus.is_logged_in(&site).await);

        let confirm = site.page("/confirm");
        let reply = admin.post(&confirm, &[("password", "wrong")]).await;
        assert_eq!(reply.status, 422);
        assert_eq!(admin.get(&url).await.location(), "/confirm");
        // The machine may be busy, so that a second passes between the two requests.
        let mut is_let_in = false;
        for _ in 0..10 {
            let reply = admin.post(&confirm, &[("password", "cloakroom")]).await;
            assert_eq!(reply.location(), "/admin");
            is_let_in |= admin.get(&url).await.status == 200;
        }
        assert!(is_let_in);
    }
}
