//! A client of the demo.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cookie_store::CookieStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use url::{Url, form_urlencoded};

use super::process::Demo;

/// A client that keeps cookies. It does not follow redirects by itself.
pub(crate) struct DemoClient {
    pub(crate) base: Url,
    pub(crate) cookies: CookieStore,
    pub(crate) user_agent: &'static str,
    /// For a demo with TLS. The client trusts its certificate, and no other.
    tls: Option<Arc<ClientConfig>>,
}

#[derive(Debug)]
pub(crate) struct DemoPage {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl DemoPage {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The place that a redirect leads to.
    pub(crate) fn location(&self) -> &str {
        assert_eq!(self.status, 303, "{self:?}");
        self.header("location").unwrap()
    }

    /// The text between two other texts.
    pub(crate) fn between(&self, before: &str, after: &str) -> &str {
        let (_, rest) = self
            .body
            .split_once(before)
            .unwrap_or_else(|| panic!("no {before:?} in {}", self.body));
        rest.split_once(after).unwrap().0
    }

    pub(crate) fn visits(&self) -> u64 {
        self.between("id=\"visits\">", "<").parse().unwrap()
    }

    /// The record ids of the sessions that a list of devices offers to revoke.
    pub(crate) fn revocable(&self) -> Vec<String> {
        self.body
            .split("name=\"id\" value=\"")
            .skip(1)
            .map(|rest| rest.split_once('"').unwrap().0.to_owned())
            .collect()
    }
}

impl DemoClient {
    pub(crate) fn new(demo: &Demo) -> Self {
        let certificate = demo.certificate_file();
        let is_tls = demo.url().scheme() == "https";
        Self::of(demo.url(), is_tls.then_some(&*certificate))
    }

    /// A client of another site. It trusts this certificate, and no other.
    pub(crate) fn of(url: &Url, certificate: Option<&Path>) -> Self {
        Self {
            base: url.clone(),
            cookies: CookieStore::default(),
            user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            tls: certificate.map(trusting),
        }
    }

    /// A browser with a user logged in.
    pub(crate) fn logged_in(demo: &Demo, name: &str, password: &str) -> Self {
        let mut browser = Self::new(demo);
        let reply = browser.log_in(name, password);
        assert_eq!(reply.location(), "/");
        browser
    }

    pub(crate) fn ada(demo: &Demo) -> Self {
        Self::logged_in(demo, "ada", "lovelace")
    }

    pub(crate) fn get(&mut self, path: &str) -> DemoPage {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> DemoPage {
        self.post_with(path, &[], form)
    }

    pub(crate) fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        form: &[(&str, &str)],
    ) -> DemoPage {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let mut all = vec![("Content-Type", "application/x-www-form-urlencoded")];
        all.extend(headers);
        self.send("POST", path, &all, &body)
    }

    pub(crate) fn log_in(&mut self, name: &str, password: &str) -> DemoPage {
        self.log_in_at("/login", name, password)
    }

    /// Sends the form of the login page at this address. The form goes to the page's own address.
    pub(crate) fn log_in_at(&mut self, page: &str, name: &str, password: &str) -> DemoPage {
        self.post(page, &[("username", name), ("password", password)])
    }

    pub(crate) fn register(&mut self, name: &str, password: &str) -> DemoPage {
        self.post("/register", &[("username", name), ("password", password)])
    }

    /// The user whom the home page greets.
    pub(crate) fn user(&mut self) -> Option<String> {
        let reply = self.get("/");
        let is_member = reply.body.contains("id=\"user\">");
        is_member.then(|| reply.between("id=\"user\">", "<").to_owned())
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> DemoPage {
        let authority = self.base.authority();
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
        let cookies: Vec<_> = self
            .cookies
            .get_request_values(&self.base)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        let length = body.len().to_string();
        for (name, value) in headers.iter().chain(&[
            ("User-Agent", self.user_agent),
            ("Accept", "text/html,*/*;q=0.8"),
            ("Content-Length", &length),
        ]) {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        request += body;

        let mut stream = TcpStream::connect(authority).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let answer = match &self.tls {
            Some(config) => {
                let name = ServerName::try_from(self.base.host_str().unwrap().to_owned()).unwrap();
                let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
                exchange(&mut StreamOwned::new(connection, stream), &request)
            }
            None => exchange(&mut stream, &request),
        };

        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        for (_, cookie) in headers.iter().filter(|(name, _)| name == "set-cookie") {
            self.cookies.parse(cookie, &self.base).unwrap();
        }
        DemoPage {
            status,
            headers,
            body: body.to_owned(),
        }
    }
}

fn exchange(stream: &mut (impl Read + Write), request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The server closes the connection without the farewell of TLS. The answer has a length.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        read => {
            read.unwrap();
        }
    }
    String::from_utf8(answer).unwrap()
}

fn trusting(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
