//! A client of the demo.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cookie_store::CookieStore;
use url::{Url, form_urlencoded};

use super::process::Demo;

/// A client that keeps cookies. It does not follow redirects by itself.
pub(super) struct DemoClient {
    pub(super) base: Url,
    pub(super) cookies: CookieStore,
    pub(super) user_agent: &'static str,
}

#[derive(Debug)]
pub(super) struct DemoPage {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl DemoPage {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The place that a redirect leads to.
    pub(super) fn location(&self) -> &str {
        assert_eq!(self.status, 303, "{self:?}");
        self.header("location").unwrap()
    }

    /// The text between two other texts.
    pub(super) fn between(&self, before: &str, after: &str) -> &str {
        let (_, rest) = self
            .body
            .split_once(before)
            .unwrap_or_else(|| panic!("no {before:?} in {}", self.body));
        rest.split_once(after).unwrap().0
    }

    pub(super) fn visits(&self) -> u64 {
        self.between("id=\"visits\">", "<").parse().unwrap()
    }

    /// The record ids of the sessions that a list of devices offers to revoke.
    pub(super) fn revocable(&self) -> Vec<String> {
        self.body
            .split("name=\"id\" value=\"")
            .skip(1)
            .map(|rest| rest.split_once('"').unwrap().0.to_owned())
            .collect()
    }
}

impl DemoClient {
    pub(super) fn new(demo: &Demo) -> Self {
        Self {
            base: demo.url().clone(),
            cookies: CookieStore::default(),
            user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        }
    }

    /// A browser with a user logged in.
    pub(super) fn logged_in(demo: &Demo, name: &str, password: &str) -> Self {
        let mut browser = Self::new(demo);
        let reply = browser.log_in(name, password);
        assert_eq!(reply.location(), "/");
        browser
    }

    pub(super) fn ada(demo: &Demo) -> Self {
        Self::logged_in(demo, "ada", "lovelace")
    }

    pub(super) fn get(&mut self, path: &str) -> DemoPage {
        self.send("GET", path, &[], "")
    }

    pub(super) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> DemoPage {
        self.post_with(path, &[], form)
    }

    pub(super) fn post_with(
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

    pub(super) fn log_in(&mut self, name: &str, password: &str) -> DemoPage {
        self.log_in_at("/login", name, password)
    }

    /// Sends the form of the login page at this address. The form goes to the page's own address.
    pub(super) fn log_in_at(&mut self, page: &str, name: &str, password: &str) -> DemoPage {
        self.post(page, &[("username", name), ("password", password)])
    }

    pub(super) fn register(&mut self, name: &str, password: &str) -> DemoPage {
        self.post("/register", &[("username", name), ("password", password)])
    }

    /// The user whom the home page greets.
    pub(super) fn user(&mut self) -> Option<String> {
        let reply = self.get("/");
        let is_member = reply.body.contains("id=\"user\">");
        is_member.then(|| reply.between("id=\"user\">", "<").to_owned())
    }

    pub(super) fn send(
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
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();

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
