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
