//! The demo. The tests send it the same HTTP requests as its users' browsers.

mod acting;
pub(crate) mod client;
pub(crate) mod process;
mod tls;

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use client::DemoClient;
use process::Demo;
use support::program::binary;
use support::servers::{Server, run_redis};
use url::form_urlencoded;

#[test]
fn a_new_user_registers_and_is_logged_in() {
    let demo = Demo::start();
    let mut browser = DemoClient::new(&demo);
    assert_eq!(browser.get("/register").status, 200);
    assert_eq!(browser.register("grace", "nanoseconds").location(), "/");
    assert_eq!(browser.user().as_deref(), Some("grace"));
}

#[test]
fn a_taken_or_unfit_name_and_a_short_password_are_refused_with_a_reason() {
    let demo = Demo::start();
    let mut browser = DemoClient::new(&demo);
    for (name, password, reason) in [
        ("Ada", "long enough", "That user name is taken."),
        ("<b>", "long enough", "A user name has"),
        ("grace", "short", "A password needs 8 characters or more."),
        (
            "grace",
            &"x".repeat(129),
            "A password cannot have more than 128 bytes.",
        ),
    ] {
        let reply = browser.register(name, password);
        assert_eq!(reply.status, 422);
        assert!(reply.body.contains(reason), "{}", reply.body);
        assert!(!reply.body.contains("<b>"));
    }
    assert_eq!(browser.user(), None);
}

#[test]
fn a_login_gives_a_new_token_and_keeps_what_was_in_the_session() {
    let demo = Demo::start();
    let mut browser = DemoClient::new(&demo);
    assert_eq!(browser.get("/").visits(), 1);
    let before = browser.cookies.clone();
    assert_eq!(browser.log_in("ada", "lovelace").location(), "/");
    assert_eq!(browser.get("/").visits(), 2);
    assert_eq!(browser.user().as_deref(), Some("ada"));

    // Somebody planted this token before the login. It gives no access.
    browser.cookies = before;
    // Right after the login, the request could be one that was already on its way. So the layer
    // refuses its changes, and does not lose them silently.
    let reply = browser.get("/");
    assert_eq!(reply.status, 409);
    assert!(!reply.body.contains("id=\"user\""));
    assert_eq!(browser.user(), None);
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let demo = Demo::start();
    let problem = |name| {
        let reply = DemoClient::new(&demo).log_in(name, "a wrong one");
        assert_eq!(reply.status, 422);
        // The form still shows the name that the user typed.
        reply.body.replace(&format!("value=\"{name}\""), "")
    };
    let wrong = problem("ada");
    assert!(wrong.contains("Wrong user name or password."));
    assert_eq!(wrong, problem("bob"));
}

#[test]
fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let demo = Demo::start();
    let fastest = |name| {
        let attempt = |_| {
            let started = Instant::now();
            DemoClient::new(&demo).log_in(name, "a wrong one");
            started.elapsed()
        };
        (0..2).map(attempt).min().unwrap()
    };
    // Hashing takes about a hundred times as long as everything else. The machine may be busy, so a
    // tenth of the time is enough proof.
    assert!(fastest("bob") > fastest("ada") / 10);
}

#[test]
fn a_remembered_login_has_a_persistent_cookie_and_another_has_none() {
    let demo = Demo::start();
    let form = [
        ("username", "ada"),
        ("password", "lovelace"),
        ("remember", "on"),
    ];
    let cookie = |form: &[(&str, &str)]| {
        let reply = DemoClient::new(&demo).post("/login", form);
        reply.header("set-cookie").unwrap().to_owned()
    };
    let remembered = cookie(&form);
    assert!(remembered.contains("; Max-Age="), "{remembered}");
    let other = cookie(&form[..2]);
    assert!(
        !other.contains("Max-Age") && !other.contains("Expires"),
        "{other}"
    );
    assert!(
        other.starts_with("session=")
            && other.contains("HttpOnly")
            && other.contains("SameSite=Lax"),
        "{other}"
    );
}

#[test]
fn behind_tls_the_cookie_has_the_host_prefix() {
    let demo = Demo::start_with(&["--behind-tls"]);
    let reply = DemoClient::new(&demo).get("/");
    let cookie = reply.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-session=") && cookie.contains("; Secure"),
        "{cookie}"
    );
}

#[test]
fn a_private_page_leads_to_the_login_and_back() {
    let demo = Demo::start();
    let mut browser = DemoClient::new(&demo);
    let reply = browser.get("/private");
    // A visitor who only asks for the page costs no record.
    assert_eq!(reply.header("set-cookie"), None);
    let login = reply.location().to_owned();
    assert_eq!(login, "/login?next=%2Fprivate");
    let refused = browser.log_in_at(&login, "ada", "a wrong one");
    assert_eq!(refused.status, 422);
    // The other form leads back as well.
    let register = "href=\"/register?next=%2Fprivate\"";
    assert!(refused.body.contains(register), "{}", refused.body);
    let reply = browser.log_in_at(&login, "ada", "lovelace");
    assert_eq!(reply.location(), "/private");
    let page = browser.get("/private");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-store"));

    // The page is in the address, so another login does not lead there.
    browser.post("/logout", &[]);
    assert_eq!(browser.log_in("ada", "lovelace").location(), "/");
}

#[test]
fn no_redirect_leads_to_another_site() {
    let demo = Demo::start();
    for target in [
        "//evil.example/private",
        "/private?next=https://evil.example",
        "http://evil.example/private",
        "/\\evil.example",
    ] {
        let mut browser = DemoClient::new(&demo);
        let reply = browser.get(target);
        let login = match reply.status {
            303 => reply.location().to_owned(),
            _ => "/login".to_owned(),
        };
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("next", target)
            .finish();
        for login in [login, format!("/login?{query}")] {
            let reply = browser.log_in_at(&login, "ada", "lovelace");
            let location = reply.location();
            let path = location.split('?').next().unwrap();
            assert!(
                ["/", "/private"].contains(&path),
                "{target} leads to {location}"
            );
        }
    }
    let mut browser = DemoClient::new(&demo);
    let mut back = |path| {
        browser
            .post("/theme", &[("theme", "dark"), ("back", path)])
            .location()
            .to_owned()
    };
    for path in [
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "https://evil.example/",
        "login",
        "",
        "/\r\nX: y",
    ] {
        assert_eq!(back(path), "/", "{path:?}");
    }
    assert_eq!(back("/é"), "/%C3%A9");
    assert_eq!(back("/login?next=%2Fprivate"), "/login?next=%2Fprivate");
    assert_eq!(back("/login"), "/login");
}

#[test]
fn a_notice_is_shown_once() {
    let demo = Demo::start();
    let mut browser = DemoClient::ada(&demo);
    assert!(browser.get("/").body.contains("Welcome back, ada."));
    assert!(!browser.get("/").body.contains("Welcome back, ada."));
}

#[test]
fn the_theme_is_kept_on_every_page_and_over_a_logout() {
    let demo = Demo::start();
    let mut browser = DemoClient::ada(&demo);
    assert!(!browser.get("/").body.contains("data-theme"));
    assert_eq!(
        browser
            .post("/theme", &[("theme", "dark"), ("back", "/devices")])
            .location(),
        "/devices"
    );
    for path in ["/", "/devices", "/no/such/page"] {
        assert!(
            browser
                .get(path)
                .body
                .contains("<html lang=\"en\" data-theme=\"dark\">"),
            "{path}"
        );
    }
    browser.post("/logout", &[]);
    assert!(browser.get("/").body.contains("data-theme=\"dark\""));
    assert_eq!(
        browser.post("/theme", &[("theme", "\"><script>")]).status,
        422
    );
}

#[test]
fn the_token_of_a_session_that_was_logged_out_opens_nothing() {
    let demo = Demo::start();
    let mut browser = DemoClient::ada(&demo);
    assert_eq!(browser.get("/private").status, 200);
    let stolen = browser.cookies.clone();
    assert_eq!(browser.post("/logout", &[]).location(), "/");
    assert!(browser.get("/").body.contains("You are logged out."));
    assert_eq!(browser.user(), None);

    browser.cookies = stolen;
    assert_eq!(browser.get("/private").location(), "/login?next=%2Fprivate");
    assert_eq!(browser.user(), None);
}

#[test]
fn a_user_sees_own_sessions_and_ends_one() {
    let demo = Demo::start();
    let mut desk = DemoClient::ada(&demo);
    let mut phone = DemoClient::new(&demo);
    phone.user_agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1";
    phone.log_in("ada", "lovelace");

    let page = desk.get("/devices");
    assert!(
        page.body
            .contains("Firefox on Linux <span class=\"badge\">This device</span>"),
        "{}",
        page.body
    );
    assert!(page.body.contains("Safari on iPhone</h2>"), "{}", page.body);
    assert!(page.body.contains("127.0.0.1"));
    let [id] = &page.revocable()[..] else {
        panic!("{}", page.body)
    };

    assert_eq!(
        desk.post("/devices/revoke", &[("id", id)]).location(),
        "/devices"
    );
    assert!(
        desk.get("/devices")
            .body
            .contains("That device is logged out.")
    );
    assert_eq!(phone.user(), None);
    assert_eq!(desk.user().as_deref(), Some("ada"));
}

#[test]
fn nobody_ends_another_users_session() {
    let demo = Demo::start();
    let mut ada = DemoClient::ada(&demo);
    let id = ada.get("/private").between("<code>", "</code>").to_owned();
    let mut grace = DemoClient::new(&demo);
    grace.register("grace", "nanoseconds");

    for id in [id.as_str(), "no record id", ""] {
        assert_eq!(
            grace.post("/devices/revoke", &[("id", id)]).location(),
            "/devices"
        );
        assert!(
            grace
                .get("/devices")
                .body
                .contains("There is no such session, or it has ended already.")
        );
    }
    assert_eq!(ada.user().as_deref(), Some("ada"));
    assert_eq!(
        DemoClient::new(&demo)
            .post("/devices/revoke", &[("id", &id)])
            .status,
        401
    );
    assert_eq!(ada.user().as_deref(), Some("ada"));
}

#[test]
fn ending_all_other_sessions_keeps_this_one() {
    let demo = Demo::start();
    let mut others = [DemoClient::ada(&demo), DemoClient::ada(&demo)];
    let mut grace = DemoClient::new(&demo);
    grace.register("grace", "nanoseconds");
    let mut browser = DemoClient::ada(&demo);

    assert_eq!(
        browser.post("/devices/revoke-others", &[]).location(),
        "/devices"
    );
    assert!(
        browser
            .get("/devices")
            .body
            .contains("2 other sessions are ended.")
    );
    assert_eq!(browser.user().as_deref(), Some("ada"));
    assert!(others.iter_mut().all(|other| other.user().is_none()));
    assert_eq!(grace.user().as_deref(), Some("grace"));
}

#[test]
fn a_new_password_ends_all_other_sessions_and_the_old_token() {
    let demo = Demo::start();
    let mut other = DemoClient::ada(&demo);
    let mut browser = DemoClient::ada(&demo);
    let stolen = browser.cookies.clone();
    assert_eq!(browser.get("/password").status, 200);

    let wrong = browser.post(
        "/password",
        &[("current", "a wrong one"), ("new", "analytical")],
    );
    assert!(
        wrong.body.contains("Your current password is another one."),
        "{}",
        wrong.body
    );
    assert_eq!(
        browser
            .post("/password", &[("current", "lovelace"), ("new", "short")])
            .status,
        422
    );
    assert_eq!(other.user().as_deref(), Some("ada"));

    assert_eq!(
        browser
            .post(
                "/password",
                &[("current", "lovelace"), ("new", "analytical")]
            )
            .location(),
        "/"
    );
    assert_eq!(browser.user().as_deref(), Some("ada"));
    assert_eq!(other.user(), None);
    browser.cookies = stolen;
    assert_eq!(browser.user(), None);
    assert_eq!(browser.log_in("ada", "lovelace").status, 422);
    assert_eq!(browser.log_in("ada", "analytical").location(), "/");
}

/// Two nodes have the same users and sessions. One node checks the logins, and stops before it
/// writes them. On the other node the password changes at that time.
#[cfg(unix)]
#[test]
fn a_login_with_the_old_password_that_is_written_after_the_change_opens_nothing() {
    let redis = Server::redis(&[]);
    let url = format!("redis://{}", redis.address());
    let demo = Demo::start_with(&["--store", &url]);
    let mut node = demo.another(&["--store", &url]);
    let mut owner = DemoClient::ada(&demo);

    // The node reads all logins at once, and checks two at a time.
    let (answered, first) = mpsc::channel();
    let logins = [(); 6].map(|()| {
        let mut browser = DemoClient::new(&node);
        let answered = answered.clone();
        thread::spawn(move || {
            let status = browser.log_in("ada", "lovelace").status;
            // The test waits only for the first one.
            let _ = answered.send(());
            (browser, status)
        })
    });
    first.recv().unwrap();
    node.signal("STOP");
    let form = [("current", "lovelace"), ("new", "analytical")];
    assert_eq!(owner.post("/password", &form).location(), "/");
    let mut written_later = 0;
    let are_late = logins.each_ref().map(|login| !login.is_finished());
    node.signal("CONT");

    for (login, is_late) in logins.into_iter().zip(are_late) {
        let (mut browser, status) = login.join().unwrap();
        written_later += u32::from(is_late && status == 303);
        browser.base = demo.url().clone();
        assert_eq!(browser.user(), None);
        assert_eq!(browser.get("/private").location(), "/login?next=%2Fprivate");
        // The browser cannot see the owner's sessions, and cannot end them.
        assert_eq!(browser.get("/devices").location(), "/login?next=%2Fdevices");
        assert_eq!(browser.post("/devices/revoke-others", &[]).status, 401);
        assert_eq!(browser.post("/password", &form).status, 401);
        // The browser can still open the login page.
        assert_eq!(browser.get("/login").status, 200);
    }
    assert!(written_later > 0, "no login was in flight");
    assert_eq!(owner.user().as_deref(), Some("ada"));
    assert_eq!(owner.get("/private").status, 200);
}

#[test]
fn of_two_new_passwords_that_are_set_at_once_one_counts() {
    let demo = Demo::start();
    let changes = ["analytical", "difference"].map(|new| {
        let mut browser = DemoClient::ada(&demo);
        thread::spawn(move || {
            let form = [("current", "lovelace"), ("new", new)];
            browser.post("/password", &form).status
        })
    });
    let [first, second] = changes.map(|change| change.join().unwrap() == 303);
    assert_ne!(first, second, "one of the two was told that it is set");
    let can_log_in = |password| DemoClient::new(&demo).log_in("ada", password).status == 303;
    assert_eq!(can_log_in("analytical"), first);
    assert_eq!(can_log_in("difference"), second);
}

#[tokio::test]
async fn a_database_of_an_earlier_demo_is_taken_over() {
    let mut demo = Demo::start();
    let url = format!("sqlite://{}", demo.database().display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    DemoClient::new(&demo).register("grace", "nanoseconds");
    sqlx::raw_sql(
        "ALTER TABLE users DROP COLUMN is_staff;
        ALTER TABLE users ADD COLUMN password_version INTEGER NOT NULL DEFAULT 1",
    )
    .execute(&pool)
    .await
    .unwrap();
    demo.restart();
    let mut ada = DemoClient::ada(&demo);
    assert_eq!(ada.user().as_deref(), Some("ada"));
    assert_eq!(ada.get("/users").status, 200);
    let mut grace = DemoClient::logged_in(&demo, "grace", "nanoseconds");
    assert_eq!(grace.get("/users").status, 403);
}

#[test]
fn an_old_login_has_to_be_confirmed_before_the_password_changes() {
    // This time is long enough for a slow machine to confirm and change.
    let demo = Demo::start_with(&["--fresh-for", "5"]);
    let mut browser = DemoClient::ada(&demo);
    let deadline = Instant::now() + Duration::from_secs(30);
    while browser.get("/password").status == 200 {
        assert!(Instant::now() < deadline, "the login stays recent");
        thread::sleep(Duration::from_millis(250));
    }
    let form = [("current", "lovelace"), ("new", "analytical")];
    assert_eq!(browser.post("/password", &form).location(), "/confirm");
    assert_eq!(browser.post("/delete", &[]).location(), "/confirm");
    assert_eq!(browser.get("/confirm").status, 200);
    assert_eq!(
        browser
            .post("/confirm", &[("password", "a wrong one")])
            .status,
        422
    );
    let confirm = browser.get("/password?from=menu").location().to_owned();
    assert_eq!(confirm, "/confirm?next=%2Fpassword%3Ffrom%3Dmenu");

    assert_eq!(
        browser
            .post(&confirm, &[("password", "lovelace")])
            .location(),
        "/password?from=menu"
    );
    // A form that was sent too late has no page in its address. It leads to the form again.
    assert_eq!(
        browser
            .post("/confirm", &[("password", "lovelace")])
            .location(),
        "/password"
    );
    assert_eq!(browser.post("/password", &form).location(), "/");
}

#[test]
fn a_restart_keeps_everybody_logged_in() {
    let mut demo = Demo::start();
    let mut ada = DemoClient::ada(&demo);
    let mut visitor = DemoClient::new(&demo);
    assert_eq!(visitor.get("/").visits(), 1);
    demo.restart();
    ada.base = demo.url().clone();
    visitor.base = demo.url().clone();
    assert_eq!(ada.user().as_deref(), Some("ada"));
    assert_eq!(visitor.get("/").visits(), 2);
}

#[cfg(unix)]
#[test]
fn it_stops_in_good_order_when_asked_to() {
    let mut demo = Demo::start();
    demo.signal("TERM");
    assert!(demo.process().wait().unwrap().success());
}

#[test]
fn a_post_from_another_site_is_refused_before_anything_happens() {
    let demo = Demo::start();
    let mut browser = DemoClient::ada(&demo);
    for headers in [
        &[
            ("Sec-Fetch-Site", "cross-site"),
            ("Origin", "https://evil.example"),
        ][..],
        &[("Sec-Fetch-Site", "same-site")],
        // The same host on another port is the same site. So a browser sends the cookie.
        &[("Origin", "http://127.0.0.1:1")],
        &[("Origin", "null")],
    ] {
        let reply = browser.post_with("/logout", headers, &[]);
        assert_eq!(reply.status, 403, "{headers:?}");
        assert!(reply.body.contains("from another site"), "{}", reply.body);
        assert_eq!(reply.header("set-cookie"), None);
    }
    assert_eq!(browser.user().as_deref(), Some("ada"));
    let origin = browser.base.origin().ascii_serialization();
    let own = [
        ("Sec-Fetch-Site", "same-origin"),
        ("Origin", origin.as_str()),
    ];
    assert_eq!(browser.post_with("/logout", &own, &[]).location(), "/");
}

#[test]
fn errors_have_a_page_and_every_page_has_its_security_headers() {
    let demo = Demo::start();
    let mut browser = DemoClient::new(&demo);
    let replies = [
        (browser.get("/"), 200),
        (browser.get("/style.css"), 200),
        (browser.get("/no/such/page"), 404),
        (browser.get("/logout"), 405),
        (browser.post("/devices/revoke-others", &[]), 401),
        (
            browser.post("/login", &[("username", &"x".repeat(10_000))]),
            413,
        ),
    ];
    for (reply, status) in replies {
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(
            reply
                .header("content-security-policy")
                .unwrap()
                .starts_with("default-src 'none'")
        );
        if status >= 400 {
            assert_eq!(
                reply.header("content-type"),
                Some("text/html; charset=utf-8")
            );
            assert!(
                reply
                    .body
                    .contains(&format!("<p class=\"number\">{status}</p>")),
                "{}",
                reply.body
            );
        }
    }
}

#[tokio::test]
async fn a_broken_database_is_a_page_without_inner_detail() {
    let demo = Demo::start();
    let mut browser = DemoClient::ada(&demo);
    let url = format!("sqlite://{}", demo.database().display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let answers = [("users", 503), ("cloakroom_sessions", 503)];
    for (table, status) in answers {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {table}")))
            .execute(&pool)
            .await
            .unwrap();
        let reply = browser.get("/private");
        assert_eq!(reply.status, status);
        assert!(
            reply
                .body
                .contains(&format!("<p class=\"number\">{status}</p>")),
            "{}",
            reply.body
        );
        assert!(!reply.body.contains("table"), "{}", reply.body);
        // The session may still be good, so the cookie stays.
        assert_eq!(reply.header("set-cookie"), None);
        assert_eq!(reply.header("retry-after").is_some(), status == 503);
    }
}

#[cfg(unix)]
#[test]
fn the_key_and_the_database_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let demo = Demo::start();
    for file in [demo.key_file(), demo.database()] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn what_the_files_hold_is_no_session_token_and_no_password() {
    let demo = Demo::start();
    let browser = DemoClient::ada(&demo);
    let (_, token) = browser
        .cookies
        .get_request_values(&browser.base)
        .next()
        .unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(demo.database().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        for secret in [token, "lovelace"] {
            assert!(
                !bytes
                    .windows(secret.len())
                    .any(|window| window == secret.as_bytes())
            );
        }
    }
    assert!(files > 1);
}

#[test]
fn sessions_are_kept_where_the_option_says() {
    let (redis, memcached) = (Server::redis(&[]), Server::memcached(&[]));
    let redis_url = format!("redis://{}", redis.address());
    let memcached_url = format!("memcache://{}", memcached.address());
    for url in ["memory:", &redis_url, &memcached_url] {
        let demo = Demo::start_with(&["--store", url]);
        let mut browser = DemoClient::ada(&demo);
        assert_eq!(browser.user().as_deref(), Some("ada"), "{url}");
        let devices = browser.get("/devices");
        assert_eq!(devices.status, 200);
        let knows_devices = devices.body.contains("This device");
        assert_eq!(knows_devices, url != memcached_url, "{url}: {devices:?}");
    }
    let keys = run_redis(&redis.address(), &["DBSIZE"]);
    assert_ne!(keys, "0");
}

#[test]
fn a_store_that_cannot_be_opened_is_an_error_that_says_why() {
    let output = Command::new(binary("login"))
        .args(["--listen", "127.0.0.1:0", "--store", "mongodb://localhost"])
        .current_dir(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("\"mongodb\"") && said.contains("redis:"),
        "{said}"
    );
}

#[test]
fn an_unknown_argument_is_refused_with_the_usage() {
    let run = |args: &[&str]| Command::new(binary("login")).args(args).output().unwrap();
    for (args, reason) in [
        (&["--verbose"][..], "unknown argument: --verbose"),
        (&["--listen"], "--listen needs a value"),
        (
            &["--fresh-for", "soon"],
            "--fresh-for needs a number of seconds",
        ),
        (&["--tls", "--key", "k.pem"], "--cert and --key go together"),
        (
            &["--cert", "c.pem", "--key", "k.pem"],
            "--cert and --key need --tls",
        ),
        (
            &["--tls", "--behind-tls"],
            "--tls and --behind-tls exclude each other",
        ),
    ] {
        let output = run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            said.starts_with(reason) && said.contains("Usage:"),
            "{said}"
        );
    }
    let help = run(&["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"Usage:"));
}
