//! Each short example does what its first lines say. `streams.rs` has the examples whose
//! connections live longer than a request.

use support::program::binary;
use support::program::{Program, cookie, value};

#[test]
fn counter_and_custom_store_count_each_visitors_visits() {
    for name in ["counter", "custom_store"] {
        let example = Program::start(binary(name), &[]);
        let (_, head, body) = example.send("GET", "/", "");
        assert_eq!(body, "This is your visit number 1.\n");
        let cookie = cookie(&head);
        for n in 2..4 {
            let (_, _, body) = example.send("GET", "/", &cookie);
            assert_eq!(body, format!("This is your visit number {n}.\n"));
        }
        assert_eq!(
            example.send("GET", "/", "").2,
            "This is your visit number 1.\n"
        );
    }
}

#[test]
fn typed_keys_keeps_a_cart() {
    let example = Program::start(binary("typed_keys"), &[]);
    let (_, head, body) = example.send("GET", "/add/7", "");
    assert_eq!(body, "In your cart now: [7]\n");
    let cookie = cookie(&head);
    assert_eq!(
        example.send("GET", "/add/8", &cookie).2,
        "In your cart now: [7, 8]\n"
    );
    assert_eq!(
        example.send("GET", "/", &cookie).2,
        "In your cart: [7, 8]\n"
    );
    assert_eq!(
        example.send("GET", "/empty", &cookie).2,
        "Out of your cart: [7, 8]\n"
    );
    assert_eq!(example.send("GET", "/", &cookie).2, "In your cart: []\n");
}

#[test]
fn flash_shows_its_messages_once_after_the_redirect() {
    let example = Program::start(binary("flash"), &[]);
    let (_, head, page) = example.send("GET", "/", "");
    assert!(page.contains("<ul></ul>"), "{page}");
    assert!(!head.contains("set-cookie"), "{head}");
    let (status, head, _) = example.send_form("POST", "/save", "", "note=%3Cb%3E%26");
    assert_eq!((status, &*value(&head, "location")), (303, "/"));
    let cookie = cookie(&head);
    assert_eq!(example.send("POST", "/delete", &cookie).0, 303);
    assert_eq!(example.send_form("POST", "/save", &cookie, "note=+").0, 303);
    let page = example.send("GET", "/", &cookie).2;
    let list = "<ul><li class=\"success\">The note &#60;b&#62;&#38; is saved.</li>\
                <li class=\"info\">Others see it in a minute.</li>\
                <li class=\"warning\">The bin is nearly full.</li>\
                <li class=\"error\">Nothing was deleted.</li>\
                <li class=\"error\">A note needs a text.</li></ul>";
    assert!(page.contains(list), "{page}");
    let page = example.send("GET", "/", &cookie).2;
    assert!(page.contains("<ul></ul>"), "{page}");
}

#[test]
fn flash_shows_the_messages_of_all_parallel_requests() {
    let example = Program::start(binary("flash"), &[]);
    let cookie = cookie(&example.send("POST", "/delete", "").1);
    std::thread::scope(|scope| {
        for _ in 0..7 {
            scope.spawn(|| assert_eq!(example.send("POST", "/delete", &cookie).0, 303));
        }
    });
    let page = example.send("GET", "/", &cookie).2;
    assert_eq!(page.matches("<li class=\"warning\">").count(), 8, "{page}");
    assert_eq!(page.matches("<li class=\"error\">").count(), 8, "{page}");
}

#[test]
fn bearer_gives_a_token_in_a_header_and_takes_it_in_another() {
    let example = Program::start(binary("bearer"), &[]);
    assert_eq!(example.send("GET", "/me", "").0, 401);
    let (status, head, _) = example.send("POST", "/login/ada", "");
    assert_eq!(status, 204);
    let token = format!(
        "Authorization: Bearer {}\r\n",
        value(&head, "x-session-token")
    );
    assert_eq!(example.send("GET", "/me", &token).2, "You are ada.\n");
    assert_eq!(example.send("POST", "/logout", &token).0, 204);
    assert_eq!(example.send("GET", "/me", &token).0, 401);
}

/// `chromium/cross_origin.rs` opens both pages in a browser.
#[test]
fn cross_origin_gives_its_own_page_a_cookie_and_the_other_page_a_bearer_token() {
    let mut example = Program::start(binary("cross_origin"), &[]);
    let origin = example.next_line();
    let other = format!("Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\n");

    let log_in = |headers: &str| example.send_form("POST", "/login", headers, "name=ada");
    let (status, head, _) = log_in("Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(status, 204);
    assert!(!head.contains("x-session-token: "), "{head}");
    let own = cookie(&head);
    assert_eq!(example.send("GET", "/me", &own).2, "ada");

    let (status, head, _) = log_in(&format!("{other}X-Session-Transport: bearer\r\n"));
    assert_eq!(status, 204);
    assert!(!head.contains("set-cookie"), "{head}");
    assert_eq!(value(&head, "access-control-allow-origin"), origin);
    let exposed = value(&head, "access-control-expose-headers");
    assert_eq!(exposed, "x-session-token");
    let bearer = |head: &str| {
        let token = value(head, "x-session-token");
        format!("{other}Authorization: Bearer {token}\r\n")
    };
    let old = bearer(&head);
    let (status, head, _) = example.send("POST", "/renew", &old);
    assert_eq!(status, 204);
    let new = bearer(&head);
    assert_ne!(new, old);
    assert_eq!(example.send("GET", "/me", &new).2, "ada");
    assert_eq!(example.send("POST", "/logout", &new).0, 204);
    assert_eq!(example.send("GET", "/me", &new).0, 401);

    let hostile = format!("{own}Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n");
    assert_eq!(example.send("POST", "/logout", &hostile).0, 403);
    assert_eq!(example.send("GET", "/me", &own).2, "ada");

    assert!(
        example
            .send("GET", "/", "")
            .2
            .contains("The page of the API")
    );
    let api = format!("\"http://{}\"", example.address);
    example.address = origin.trim_start_matches("http://").to_owned();
    assert!(example.send("GET", "/", "").2.contains(&api));
}

#[test]
fn hyper_counts_each_visitors_visits_and_makes_no_session_where_none_is_asked_for() {
    let example = Program::start(binary("hyper"), &[]);
    let (status, head, body) = example.send("GET", "/", "");
    assert_eq!(
        (status, body.as_str()),
        (200, "This is your visit number 1.\n")
    );
    let cookie = cookie(&head);
    for n in 2..4 {
        let (_, _, body) = example.send("GET", "/", &cookie);
        assert_eq!(body, format!("This is your visit number {n}.\n"));
    }
    let (status, head, body) = example.send("GET", "/health", "");
    assert_eq!((status, body.as_str()), (200, "well\n"));
    assert!(!head.contains("set-cookie"));
    assert_eq!(example.send("GET", "/nowhere", &cookie).0, 404);
    assert_eq!(
        example.send("GET", "/", "").2,
        "This is your visit number 1.\n"
    );
}

#[test]
fn every_example_begins_with_how_to_run_it() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let main = if path.is_dir() {
            path.join("main.rs")
        } else {
            path
        };
        let text = std::fs::read_to_string(&main).unwrap();
        assert!(
            text.starts_with("//! Run with `cargo run --example "),
            "{}",
            main.display()
        );
        seen += 1;
    }
    assert!(seen >= 9);
}

/// The README's program is compiled twice: as a doctest, and as the example. This test runs the
/// example.
#[test]
fn readme_is_the_program_of_the_readme_and_does_what_its_text_says() {
    let readme = include_str!("../../../README.md");
    let begin = "<!-- program: the same as examples/readme.rs -->\n\n```rust,no_run\n";
    let (_, rest) = readme.split_once(begin).unwrap();
    let (program, _) = rest.split_once("```\n\n<!-- program: end -->").unwrap();
    let example = include_str!("../../../examples/readme.rs");
    assert!(
        example.ends_with(program),
        "the README and examples/readme.rs differ"
    );

    let example = Program::start(binary("readme"), &[]);
    let (_, head, body) = example.send("GET", "/", "");
    assert_eq!(body, "This is your visit number 1.\n");
    let visitor = cookie(&head);
    let (_, _, body) = example.send("GET", "/", &visitor);
    assert_eq!(body, "This is your visit number 2.\n");
    assert_eq!(example.send("GET", "/me", &visitor).0, 401);
    let (status, head, _) = example.send("POST", "/login/ada", &visitor);
    assert_eq!(status, 200);
    let ada = cookie(&head);
    assert_eq!(example.send("GET", "/me", &ada).2, "You are ada.\n");
    // The old token is dead.
    assert_ne!(example.send("GET", "/me", &visitor).0, 200);
    assert_eq!(example.send("POST", "/logout", &ada).0, 200);
    assert_eq!(example.send("GET", "/me", &ada).0, 401);
}
