//! The example `permissions`: it runs as a process, and the tests use it like a browser.

use support::program::binary;
use support::program::{Program, cookie, value};

const PAGE: &str = "Accept: text/html\r\n";

/// Logs in at this address, and returns the `Cookie` header and where the answer leads.
fn log_in(site: &Program, login: &str, name: &str) -> (String, String) {
    let form = format!("name={name}&password=hunter42");
    let (status, head, _) = site.send_form("POST", login, "", &form);
    assert_eq!(status, 303);
    (cookie(&head), value(&head, "location"))
}

#[test]
fn permissions_let_each_user_see_what_the_groups_may_see() {
    let site = Program::start(binary("permissions"), &[]);
    let (status, head, _) = site.send("GET", "/restricted", PAGE);
    let login = value(&head, "location");
    assert_eq!((status, &*login), (303, "/login?next=%2Frestricted"));
    assert_eq!(site.send("GET", "/restricted", "").0, 401);

    let wrong = "name=ferris&password=wrong";
    assert_eq!(site.send_form("POST", &login, "", wrong).0, 401);
    let unknown = "name=nobody&password=hunter42";
    assert_eq!(site.send_form("POST", &login, "", unknown).0, 401);

    let (ferris, _) = log_in(&site, "/login", "ferris");
    let (status, _, page) = site.send("GET", "/", &ferris);
    assert_eq!(status, 200);
    assert!(page.contains("Logged in as ferris, who has the permission protected.read."));
    assert_eq!(site.send("GET", "/restricted", &ferris).0, 403);

    let (admin, next) = log_in(&site, &login, "admin");
    assert_eq!(next, "/restricted");
    let (status, _, page) = site.send("GET", &next, &admin);
    assert_eq!(status, 200);
    assert!(page.contains("Logged in as admin, who has the permission restricted.read."));

    assert_eq!(site.send("POST", "/logout", &admin).0, 303);
    assert_eq!(site.send("GET", "/", &admin).0, 401);
}

#[test]
fn permissions_look_the_user_up_once_a_request() {
    let log = [("RUST_LOG", "sqlx=debug"), ("NO_COLOR", "1")];
    let (site, lines) = Program::start_to_listen(binary("permissions"), &log);
    let (admin, _) = log_in(&site, "/login", "admin");
    // For this page, two guards and the handler ask who the user is.
    assert_eq!(site.send("GET", "/restricted", &admin).0, 200);
    drop(site);
    let lines: Vec<String> = lines.iter().collect();
    let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(count("FROM users WHERE name"), 1, "{lines:#?}");
    assert_eq!(count("FROM users WHERE id"), 1, "{lines:#?}");
    assert_eq!(count("SELECT EXISTS"), 2, "{lines:#?}");
}
