//! The example `starter` runs as a process, and the tests use it like a browser.

use support::program::binary;
use support::program::{Program, cookie, value};

const ADA: &str = "name=ada&password=lovelace";
const BOB: &str = "name=bob&password=hunter2";

/// What a browser sends with a request for a page.
const PAGE: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

/// Logs in, and returns the `Cookie` header of the new session.
fn log_in(starter: &Program, user: &str) -> String {
    let (status, head, _) = starter.send_form("POST", "/login", "", user);
    assert_eq!((status, &*value(&head, "location")), (303, "/"));
    cookie(&head)
}

#[test]
fn starter_leads_to_the_login_page_and_back() {
    let starter = Program::start(binary("starter"), &[]);
    let (status, head, _) = starter.send("GET", "/private?tab=2&sort=up", PAGE);
    let login = value(&head, "location");
    assert_eq!(status, 303);
    assert_eq!(login, "/login?next=%2Fprivate%3Ftab%3D2%26sort%3Dup");
    assert!(!head.contains("set-cookie"), "{head}");

    let (status, _, page) = starter.send("GET", &login, "");
    assert_eq!(status, 200);
    assert!(page.contains("<form method=post>"));

    let (status, head, page) =
        starter.send_form("POST", &login, "", "name=bob&password=wrong&remember=on");
    assert_eq!(status, 401);
    assert!(page.contains("The name or the password is wrong."));
    assert!(page.contains("<form method=post>"));
    assert!(!head.contains("set-cookie"), "{head}");

    let form = format!("{BOB}&remember=on");
    let (status, head, _) = starter.send_form("POST", &login, "", &form);
    assert_eq!(status, 303);
    assert_eq!(value(&head, "location"), "/private?tab=2&sort=up");
    assert!(head.contains("Max-Age="), "{head}");

    let cookie = cookie(&head);
    let (status, _, page) = starter.send("GET", "/private?tab=2&sort=up", &cookie);
    assert_eq!((status, &*page), (200, "This page is for bob.\n"));
    assert_eq!(starter.send("GET", "/api/me", &cookie).2, "\"bob\"");

    assert_eq!(starter.send("POST", "/logout", &cookie).0, 303);
    let page = format!("{PAGE}{cookie}");
    assert_eq!(starter.send("GET", "/private", &page).0, 303);
}

#[test]
fn starter_remembers_nobody_who_does_not_ask_for_it() {
    let starter = Program::start(binary("starter"), &[]);
    let (_, head, _) = starter.send_form("POST", "/login", "", BOB);
    assert!(!head.contains("Max-Age"), "{head}");
}

#[test]
fn starter_shows_the_staff_pages_to_the_staff_alone() {
    let starter = Program::start(binary("starter"), &[]);
    let (status, head, _) = starter.send("GET", "/admin", PAGE);
    assert_eq!(status, 303);
    assert_eq!(value(&head, "location"), "/login?next=%2Fadmin");
    let bob = log_in(&starter, BOB);
    assert_eq!(starter.send("GET", "/admin", &bob).0, 403);
    let ada = log_in(&starter, ADA);
    let (status, _, page) = starter.send("GET", "/admin", &ada);
    assert_eq!((status, &*page), (200, "ada belongs to the staff.\n"));
}

#[test]
fn starter_answers_401_to_calls_of_the_api() {
    let starter = Program::start(binary("starter"), &[]);
    let (status, head, _) = starter.send("GET", "/api/me", "");
    assert_eq!(status, 401);
    assert!(!head.contains("location"), "{head}");
    // A page that a script asks for is no page to the script.
    let (status, head, _) = starter.send("GET", "/private", "Accept: application/json\r\n");
    assert_eq!(status, 401);
    assert!(head.contains("www-authenticate"), "{head}");
    assert!(!head.contains("location"), "{head}");
}

#[test]
fn starter_ends_the_sessions_of_all_browsers() {
    let starter = Program::start(binary("starter"), &[]);
    let (one, other, bob) = (
        log_in(&starter, ADA),
        log_in(&starter, ADA),
        log_in(&starter, BOB),
    );
    let (status, head, _) = starter.send("POST", "/logout-everywhere", &one);
    assert_eq!(status, 303);
    assert!(head.contains("Max-Age=0"), "{head}");
    for cookie in [one, other] {
        assert_eq!(starter.send("GET", "/api/me", &cookie).0, 401);
    }
    assert_eq!(starter.send("GET", "/api/me", &bob).0, 200);
}

#[test]
fn starter_leads_to_no_other_site_after_the_login() {
    let starter = Program::start(binary("starter"), &[]);
    for next in [
        "//evil.example",
        "https://evil",
        "/\\evil",
        "/\t/evil.example",
        "\\\\evil",
        "evil",
        "javascript:alert(1)",
        "",
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let login = format!("/login?next={encoded}");
        let (status, head, _) = starter.send_form("POST", &login, "", BOB);
        assert_eq!((status, &*value(&head, "location")), (303, "/"), "{next:?}");
    }
    // Somebody may write these addresses by hand.
    for login in ["/login?next=//evil.example", "/login?next=/\\evil"] {
        let (_, head, _) = starter.send_form("POST", login, "", BOB);
        assert!(!head.contains("evil"), "{head}");
    }
}

#[test]
fn starter_looks_the_user_up_once_a_request() {
    let (starter, lines) = Program::start_to_listen(binary("starter"), &[]);
    let ada = log_in(&starter, ADA);
    // For this page, two guards and the handler ask who the user is.
    assert_eq!(starter.send("GET", "/admin", &ada).0, 200);
    drop(starter);
    let lookups = lines.iter().filter(|line| line.contains("look-up")).count();
    assert_eq!(lookups, 2, "one for the login, one for the page");
}

/// Counts what `grep -vcE '^\s*(//|$)'` counts: lines that are neither blank nor comments.
#[test]
fn starter_needs_at_most_30_lines_of_glue() {
    let text = include_str!("../../../examples/starter.rs");
    let (_, glue) = text.split_once("// The glue begins here.").unwrap();
    let (glue, _) = glue.split_once("// The glue ends here.").unwrap();
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let lines = glue.lines().filter(is_code).count();
    assert!((20..=30).contains(&lines), "{lines}");
}
