//! The programs of `docs/moving_over` give the same answers before and after the move, except where
//! the page says otherwise.

use std::fs;
use std::path::Path;

use support::program::Program;

const BEFORE: [&str; 3] = [
    env!("CARGO_BIN_EXE_axum_login_before"),
    env!("CARGO_BIN_EXE_axum_session_before"),
    env!("CARGO_BIN_EXE_actix_session_before"),
];
const AFTER: &str = env!("CARGO_BIN_EXE_after");

/// Keeps cookies, and follows no redirect.
#[derive(Clone)]
struct ShopClient<'a> {
    program: &'a Program,
    cookies: Vec<(String, String)>,
}

/// The status and the body.
type Answer = (u16, String);

impl<'a> ShopClient<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            cookies: Vec::new(),
        }
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    fn post(&mut self, path: &str, form: &str) -> Answer {
        self.send("POST", path, form)
    }

    fn send(&mut self, method: &str, path: &str, form: &str) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let header = format!("Cookie: {}\r\n", cookies.join("; "));
        let (status, head, body) = self.program.send_form(method, path, &header, form);
        for line in head.lines() {
            let (header, value) = line.split_once(": ").unwrap_or_default();
            if header.eq_ignore_ascii_case("set-cookie") {
                self.keep(value);
            }
        }
        (status, body)
    }

    fn keep(&mut self, set_cookie: &str) {
        let (pair, attributes) = set_cookie.split_once(';').unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        self.cookies.retain(|(kept, _)| kept != name);
        if !attributes.contains("Max-Age=0") {
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Whether a request with these cookies is logged in.
    fn is_logged_in(&self) -> bool {
        match self.clone().get("/account").0 {
            200 => true,
            // 409: a login has just replaced the token, and cloakroom asks the client to try again.
            401 | 409 => false,
            other => panic!("{other}"),
        }
    }
}

/// What a customer does, and the answers.
fn shop(program: &Program) -> Vec<(&'static str, Answer)> {
    let mut browser = ShopClient::new(program);
    let mut other = ShopClient::new(program);
    let steps: [(&str, &str, &str); 18] = [
        ("GET", "/", ""),
        ("GET", "/account", ""),
        ("GET", "/stock", ""),
        ("POST", "/cart", "item=tea"),
        ("GET", "/", ""),
        ("GET", "/", ""),
        ("POST", "/login", "name=bob&password=wrong"),
        ("GET", "/account", ""),
        ("POST", "/login", "name=bob&password=hunter2"),
        ("GET", "/", ""),
        ("GET", "/account", ""),
        ("GET", "/stock", ""),
        ("POST", "/cart", "item=milk"),
        ("GET", "/", ""),
        ("POST", "/logout", ""),
        ("GET", "/", ""),
        ("POST", "/login", "name=ada&password=lovelace"),
        ("GET", "/stock", ""),
    ];
    let mut seen = Vec::new();
    for (method, path, form) in steps {
        seen.push((path, browser.send(method, path, form)));
        assert_eq!(other.get("/account").0, 401, "{path}");
    }
    seen
}

#[test]
fn the_shop_is_the_same_before_and_after() {
    let expected = [
        ("/", 200, "\nIn your cart: .\n"),
        ("/account", 401, ""),
        ("/stock", 401, ""),
        ("/cart", 303, ""),
        ("/", 200, "Added tea.\nIn your cart: tea.\n"),
        ("/", 200, "\nIn your cart: tea.\n"),
        ("/login", 401, ""),
        ("/account", 401, ""),
        ("/login", 303, ""),
        ("/", 200, "Hello, bob.\nIn your cart: tea.\n"),
        ("/account", 200, "You are bob.\n"),
        ("/stock", 403, ""),
        ("/cart", 303, ""),
        ("/", 200, "Added milk.\nIn your cart: tea, milk.\n"),
        ("/logout", 303, ""),
        ("/", 200, "\nIn your cart: .\n"),
        ("/login", 303, ""),
        ("/stock", 200, "ada may change the stock.\n"),
    ]
    .map(|(path, status, body)| (path, (status, body.to_owned())));
    for binary in BEFORE.into_iter().chain([AFTER]) {
        let program = Program::start(binary, &[]);
        assert_eq!(shop(&program), expected, "{binary}");
    }
}

#[test]
fn the_shop_loses_no_item_of_parallel_requests_after() {
    let program = Program::start(AFTER, &[]);
    let mut browser = ShopClient::new(&program);
    browser.post("/login", "name=ada&password=lovelace");
    std::thread::scope(|scope| {
        for item in 0..32 {
            let mut tab = browser.clone();
            scope.spawn(move || {
                let form = format!("item={item}");
                assert_eq!(tab.post("/cart", &form).0, 303);
            });
        }
    });
    let home = browser.get("/").1;
    let cart = home.split_once("In your cart: ").unwrap().1;
    let mut items: Vec<u32> = cart
        .trim_end_matches(".\n")
        .split(", ")
        .map(|item| item.parse().unwrap())
        .collect();
    items.sort();
    assert_eq!(items, Vec::from_iter(0..32));
}

#[test]
fn a_login_replaces_the_cookie_before_and_after() {
    for binary in BEFORE.into_iter().chain([AFTER]) {
        let program = Program::start(binary, &[]);
        let mut browser = ShopClient::new(&program);
        browser.post("/cart", "item=tea");
        let anonymous = browser.clone();
        browser.post("/login", "name=ada&password=lovelace");
        assert_ne!(browser.cookies, anonymous.cookies, "{binary}");
        assert!(browser.is_logged_in(), "{binary}");
        assert!(!anonymous.is_logged_in(), "{binary}");
    }
}

/// The next user logs in without a logout of the last one. Returns whether the cookies changed, and
/// the home page.
fn second_login(binary: &str) -> (bool, String) {
    let program = Program::start(binary, &[]);
    let mut browser = ShopClient::new(&program);
    browser.post("/login", "name=ada&password=lovelace");
    browser.post("/cart", "item=tea");
    let first = browser.cookies.clone();
    browser.post("/login", "name=bob&password=hunter2");
    assert_eq!(browser.get("/account").1, "You are bob.\n", "{binary}");
    let replaced = browser.cookies != first;
    (replaced, browser.get("/").1)
}

#[test]
fn with_axum_login_the_next_user_finds_the_cart_and_the_session_id_of_the_last_one() {
    let (replaced, home) = second_login(env!("CARGO_BIN_EXE_axum_login_before"));
    assert!(!replaced);
    assert_eq!(home, "Hello, bob.\nIn your cart: tea.\n");
}

#[test]
fn with_renew_the_next_user_finds_the_cart_of_the_last_one() {
    for binary in &BEFORE[1..] {
        let (replaced, home) = second_login(binary);
        assert!(replaced, "{binary}");
        assert_eq!(home, "Hello, bob.\nIn your cart: tea.\n", "{binary}");
    }
}

#[test]
fn with_cloakroom_the_next_user_starts_with_an_empty_session_of_another_token() {
    let (replaced, home) = second_login(AFTER);
    assert!(replaced);
    assert_eq!(home, "Hello, bob.\nIn your cart: .\n");
}

#[test]
fn only_with_a_session_in_the_cookie_does_a_stolen_cookie_survive_the_logout() {
    for binary in BEFORE.into_iter().chain([AFTER]) {
        let program = Program::start(binary, &[]);
        let mut browser = ShopClient::new(&program);
        browser.post("/login", "name=ada&password=lovelace");
        let stolen = browser.clone();
        assert!(stolen.is_logged_in(), "{binary}");
        browser.post("/logout", "");
        let in_cookie = binary == env!("CARGO_BIN_EXE_actix_session_before");
        assert_eq!(stolen.is_logged_in(), in_cookie, "{binary}");
    }
}

#[test]
fn side_by_side_the_old_login_becomes_a_new_one_and_ends_with_it() {
    let program = Program::start(env!("CARGO_BIN_EXE_side_by_side"), &[]);
    let mut browser = ShopClient::new(&program);
    assert_eq!(browser.get("/account").0, 401);
    browser.post("/login_as_before/ada", "");
    let old = browser.clone();
    assert_eq!(old.cookies.len(), 1);
    let account = "You are ada, with tea.\n".to_owned();
    assert_eq!(browser.get("/account"), (200, account));
    // The browser shows the new cookie. Now the old cookie goes, and its session ends.
    assert_eq!(browser.cookies.len(), 2);
    assert_eq!(browser.get("/account").0, 200);
    let names: Vec<_> = browser.cookies.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["session"]);
    assert!(!old.is_logged_in());
    assert!(browser.is_logged_in());
    browser.post("/logout", "");
    assert!(!browser.is_logged_in());
}

/// The page gives these counts, and the command that makes them.
#[test]
fn the_programs_have_as_many_lines_as_the_page_says() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = fs::read_to_string(docs.join("moving_over.md")).unwrap();
    let mut counts = Vec::new();
    for name in [
        "axum_login_before",
        "axum_session_before",
        "actix_session_before",
        "after",
    ] {
        let lines = lines_of_code(&docs.join("moving_over").join(name).with_extension("rs"));
        let row = format!("[`{name}`](crate::docs::moving_over::{name}) | {lines} |");
        assert!(page.contains(&row), "{name} has {lines}");
        counts.push(lines);
    }
    assert!(counts[3] < counts[0], "{counts:?}");

    let example = docs.join("../examples/permissions");
    let lines = lines_of_code(&example.join("main.rs")) + lines_of_code(&example.join("db.rs"));
    let text = format!("It has {lines} lines");
    assert!(page.contains(&text), "the permissions have {lines}");
}

/// Counts what `grep -vcE '^\s*(//|$)'` counts: lines that are neither blank nor comments.
fn lines_of_code(file: &Path) -> usize {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}
