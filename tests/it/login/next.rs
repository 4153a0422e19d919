//! Which pages a login leads back to, and which it does not.

use axum::Router;
use axum::extract::Form;
use axum::response::Redirect;
use axum::routing::{get, post};
use cloakroom::login::{Next, Users as _, required};
use cloakroom::testing::Browser;
use http::Request;
use http::header::LOCATION;
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::site::{Db, Site, request};

/// What no login may lead to.
const HOSTILE: [&str; 76] = [
    // Other sites, and what browsers take for one.
    "https://evil.example",
    "http://evil.example/a",
    "HTTPS://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "//evil.example",
    "///evil.example",
    "////evil.example/a",
    "//evil.example@localhost",
    "//localhost@evil.example",
    "/\\evil.example",
    "/\\/evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "\\evil.example",
    "/a\\..\\b",
    "//google.com/%2e%2e",
    "//[::1]/",
    "//evil%E3%80%82example",
    // Other schemes.
    "javascript:alert(1)",
    "JavaScript:alert(1)//",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "mailto:ada@example.com",
    "file:///etc/passwd",
    "blob:https://localhost/1",
    "localhost/a",
    "www.evil.example",
    ".evil.example",
    "@evil.example",
    ":8080/a",
    "?next=//evil.example",
    "#top",
    "",
    "a",
    "../a",
    // Browsers drop white space, and it splits headers.
    " /a",
    " //evil.example",
    "\t//evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\n/evil.example",
    "/ /evil.example",
    "/a b",
    "/a\r\nSet-Cookie: a=b",
    "/a\0b",
    "/a\u{7f}",
    "/\u{85}/evil.example",
    "/\u{2028}/evil.example",
    "/\u{3000}/evil.example",
    "/\u{feff}\t/evil.example",
    // The same after somebody has decoded it, once or several times.
    "%2f%2fevil.example",
    "/%2f/evil.example",
    "/%2fevil.example",
    "/%2F%2Fevil.example",
    "/%5cevil.example",
    "/%5C%5cevil.example",
    "/%09/evil.example",
    "/%0a/evil.example",
    "/%0d%0aSet-Cookie:%20a=b",
    "/%00",
    "/%20/evil.example",
    "/%252f/evil.example",
    "/%25252fevil.example",
    "/%25252525252fevil.example",
    "/%25252525252561",
    "/%c0%afevil.example",
    "/%ff/evil.example",
    // Dot segments.
    "/.//evil.example",
    "/..//evil.example",
    "/x/..//evil.example",
    "/%2e//evil.example",
    "/x/%2e%2e//evil.example",
    "/x/.%2e/%2fevil.example",
];

/// What must stay, and how a header has it.
const LEGIT: [(&str, &str); 24] = [
    ("/", "/"),
    ("/a", "/a"),
    ("/a/b/", "/a/b/"),
    ("/a?b=c&d=%20e", "/a?b=c&d=%20e"),
    ("/a?b=c+d", "/a?b=c+d"),
    ("/caf%C3%A9", "/caf%C3%A9"),
    ("/café", "/caf%C3%A9"),
    ("/本?q=本", "/%E6%9C%AC?q=%E6%9C%AC"),
    ("/search?q=http://x", "/search?q=http://x"),
    ("/search?q=//evil.example", "/search?q=//evil.example"),
    ("/search?q=a%0Ab", "/search?q=a%0Ab"),
    ("/search?q=a\\b", "/search?q=a%5Cb"),
    ("/search?q=%5c%2f%2e%2e", "/search?q=%5c%2f%2e%2e"),
    ("/?next=//evil.example", "/?next=//evil.example"),
    ("/a#part", "/a#part"),
    ("/@ada", "/@ada"),
    ("/a:b", "/a:b"),
    ("/a//b", "/a//b"),
    ("/my%20file.txt", "/my%20file.txt"),
    ("/a%2Fb", "/a%2Fb"),
    ("/100%25", "/100%25"),
    ("/.well-known/x", "/.well-known/x"),
    ("/a..b/...", "/a..b/..."),
    ("/it's?q=\"<b>\"", "/it%27s?q=%22%3Cb%3E%22"),
];

fn of_login(value: &str) -> Next {
    let value: String = byte_serialize(value.as_bytes()).collect();
    Next::of(&request("GET", &format!("/login?a=b&next={value}"), &[]))
}

#[test]
fn no_login_leads_to_another_site() {
    for value in HOSTILE {
        for next in [of_login(value), Next::new(value)] {
            assert_eq!(next.get(), None, "{value:?}");
            assert_eq!(next.path(), "/");
            assert_eq!(next.or("/home"), "/home");
            assert_eq!(next.link_to("/register"), "/register");
        }
    }
}

#[test]
fn a_login_leads_back_to_any_page_of_the_site() {
    let site = Url::parse("https://localhost/login").unwrap();
    for (value, expected) in LEGIT {
        for next in [of_login(value), Next::new(value)] {
            assert_eq!(next.get(), Some(expected), "{value:?}");
            assert_eq!(next.path(), expected);
            assert_eq!(next.to_string(), expected);
            assert!(http::HeaderValue::from_str(next.path()).is_ok());
            let page = site.join(next.path()).unwrap();
            assert_eq!(page.origin(), site.origin(), "{value:?}");
        }
    }
}

#[test]
fn what_is_too_long_is_left_out() {
    let page = |len: usize| format!("/{}", "a".repeat(len - 1));
    assert_eq!(of_login(&page(2000)).path().len(), 2000);
    assert_eq!(of_login(&page(2001)).get(), None);
}

#[test]
fn the_login_page_does_not_lead_to_itself() {
    for page in [
        "/login",
        "/login/",
        "/login?next=%2F",
        "/login#form",
        "/%6cogin",
        "/%6Cogin/?a",
    ] {
        assert_eq!(of_login(page).get(), None, "{page}");
        assert!(Next::new(page).get().is_some());
    }
    for page in ["/login/help", "/log", "/a/login"] {
        assert_eq!(of_login(page).get(), Some(page));
    }
}

#[test]
fn only_the_first_parameter_of_the_name_counts() {
    let next = |uri: &str| Next::of(&request("GET", uri, &[])).path().to_owned();
    assert_eq!(next("/login?next=/a&next=//evil.example"), "/a");
    assert_eq!(next("/login?next=//evil.example&next=/a"), "/");
    assert_eq!(next("/login?nexT=/a"), "/");
    assert_eq!(next("/login?n%65xt=%2Fa"), "/a");
    assert_eq!(next("/login?next"), "/");
    assert_eq!(next("/login?"), "/");
    assert_eq!(next("*"), "/");
}

#[test]
fn a_link_keeps_it() {
    let next = Next::new("/cart?page=2&q=a%20b");
    let parameter = "next=%2Fcart%3Fpage%3D2%26q%3Da%2520b";
    assert_eq!(next.link_to("/register"), format!("/register?{parameter}"));
    assert_eq!(
        next.link_to("/register?a=b"),
        format!("/register?a=b&{parameter}")
    );
    assert_eq!(
        next.link_to("/register#form"),
        format!("/register?{parameter}#form")
    );
    let page = format!("/register?{parameter}");
    assert_eq!(Next::of(&request("GET", &page, &[])), next);
}

/// From a page to the login, and back.
#[tokio::test]
async fn a_visitor_comes_back_to_the_page_that_was_asked_for() {
    #[derive(Deserialize)]
    struct Login {
        name: String,
    }
    let site = Site::new();
    let db = site.db.clone();
    let log_in = |session: cloakroom::Session, next: Next, Form(login): Form<Login>| async move {
        session.log_in(Db::account(&db.user(&login.name).unwrap()))?;
        Ok::<_, cloakroom::SessionError>(Redirect::to(next.or("/home")))
    };
    // A nested router for the login, whose URIs lack the beginning.
    let account = Router::new().route("/login", post(log_in));
    let app = Router::new()
        .route("/cart", get("cart"))
        .route_layer(required::<Db>().redirect_to("/account/login"))
        .nest("/account", account)
        .layer(site.layer.clone());
    let mut browser = Browser::new(app);
    let page = Request::get("/cart?page=2").header("accept", "text/html");
    let answer = browser.send(page.body("").unwrap()).await.unwrap();
    let login = answer.headers()[LOCATION].to_str().unwrap().to_owned();
    assert_eq!(login, "/account/login?next=%2Fcart%3Fpage%3D2");
    let answer = browser.post(&login, &[("name", "bob")]).await.unwrap();
    assert_eq!(answer.headers()[LOCATION], "/cart?page=2");
    assert_eq!(browser.get("/cart?page=2").await.unwrap().body(), "cart");

    let circle = "/account/login?next=%2Faccount%2Flogin";
    let answer = browser.post(circle, &[("name", "bob")]).await.unwrap();
    assert_eq!(answer.headers()[LOCATION], "/home");
}
