//! The example `admin`: the page for administrators, as a browser without scripts uses it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use http::header::{CONTENT_SECURITY_POLICY, LOCATION};
use support::program::{Program, binary};
use url::Url;

use super::long::{ExampleClient, ExampleReply};

fn start(environment: &[(&str, &str)]) -> Program {
    Program::start(binary("admin"), environment)
}

impl ExampleClient {
    async fn logged_in(site: &Program, name: &str) -> Self {
        Self::logged_in_with(site, name, &format!("the browser of {name}")).await
    }

    async fn logged_in_with(site: &Program, name: &str, agent: &str) -> Self {
        let mut browser = Self::new();
        let form = [("name", name), ("password", "cloakroom")];
        let headers = [("User-Agent", agent)];
        let login = site.page("/login");
        let reply = browser.send(Method::POST, &login, &headers, &form).await;
        assert_eq!(reply.location(), "/");
        browser
    }

    /// After its logout, a browser has the session of a visitor.
    async fn visitor(site: &Program) -> Self {
        let mut browser = Self::logged_in(site, "linus").await;
        let reply = browser.post(&site.page("/logout"), &[]).await;
        assert_eq!(reply.location(), "/");
        browser
    }

    async fn is_logged_in(&mut self, site: &Program) -> bool {
        let home = self.get(&site.page("/")).await;
        home.body.contains("You are ")
    }

    async fn admin_page(&mut self, site: &Program, query: &str) -> ExampleReply {
        self.get(&site.page(&format!("/admin{query}"))).await
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

/// The record ids of the sessions on a page.
fn ids(page: &ExampleReply) -> Vec<&str> {
    let items = page.body.split("<li data-id=\"").skip(1);
    items.map(|item| item.split_once('"').unwrap().0).collect()
}

/// The record ids of a user's sessions. The administrator's own session is left out, because its
/// form does not end a session of others.
fn sessions<'a>(page: &'a ExampleReply, user: &str) -> Vec<&'a str> {
    let field =
        format!("name=\"user\" value=\"{user}\"><input type=\"hidden\" name=\"id\" value=\"");
    let forms = page.body.split(&field).skip(1);
    forms.map(|form| form.split_once('"').unwrap().0).collect()
}

/// The address of a link with this id.
fn link(page: &ExampleReply, id: &str) -> Option<String> {
    let (_, tag) = page.body.split_once(&format!("<a id=\"{id}\""))?;
    let (_, address) = tag.split_once("href=\"")?;
    Some(address.split_once('"')?.0.replace("&#38;", "&"))
}

#[tokio::test]
async fn a_session_that_is_revoked_is_logged_out_at_its_next_request_and_no_other() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    let mut first = ExampleClient::logged_in(&site, "grace").await;
    let page = admin.admin_page(&site, "").await;
    let [id] = sessions(&page, "grace")[..] else {
        panic!("{}", page.body)
    };
    let client = "<span>the browser of grace</span> from 127.0.0.1";
    assert!(page.body.contains(client), "{}", page.body);
    let mut second = ExampleClient::logged_in(&site, "grace").await;

    // An id from another user's session, or a visitor's, and a text that is not an id.
    for user in ["linus", ""] {
        admin
            .do_as_admin(&site, "revoke", &[("user", user), ("id", id)])
            .await;
        let page = admin.admin_page(&site, "").await;
        assert!(page.body.contains("There is no such session any more."));
        assert_eq!(sessions(&page, "grace").len(), 2);
    }
    let reply = admin
        .do_as_admin(&site, "revoke", &[("user", "grace"), ("id", "1")])
        .await;
    assert_eq!(reply.status, 404);
    assert!(first.is_logged_in(&site).await);

    let form = [("user", "grace"), ("id", id), ("back", "/admin?who=users")];
    let reply = admin.do_as_admin(&site, "revoke", &form).await;
    assert_eq!(reply.location(), "/admin?who=users");
    assert!(!first.is_logged_in(&site).await);
    assert!(second.is_logged_in(&site).await);
    let page = admin.admin_page(&site, "").await;
    assert!(page.body.contains("A session of grace is ended."));
    assert_eq!(sessions(&page, "grace").len(), 1);
}

#[tokio::test]
async fn the_way_back_to_the_list_leads_nowhere_else() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    for back in [
        "https://evil.example/",
        "//evil.example",
        "/admin?x=1",
        "a b",
    ] {
        let form = [
            ("user", "grace"),
            ("id", "AAAAAAAAAAAAAAAAAAAAAA"),
            ("back", back),
        ];
        let reply = admin.do_as_admin(&site, "revoke", &form).await;
        assert_eq!(reply.location(), "/admin", "{back}");
    }
}

#[tokio::test]
async fn pages_show_each_session_once_and_keep_the_filter() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    for _ in 0..5 {
        ExampleClient::logged_in(&site, "grace").await;
    }
    ExampleClient::visitor(&site).await;

    let mut seen = BTreeSet::new();
    let mut page = admin.admin_page(&site, "?user=grace&limit=2").await;
    assert!(page.body.contains("name=\"user\" value=\"grace\""));
    let mut pages = 1;
    loop {
        assert!(ids(&page).len() <= 2);
        for id in ids(&page) {
            assert!(seen.insert(id.to_owned()), "{id} is there twice");
        }
        let Some(next) = link(&page, "next") else {
            break;
        };
        assert!(
            next.starts_with("/admin?user=grace&limit=2&after="),
            "{next}"
        );
        page = admin.get(&site.page(&next)).await;
        assert_eq!(page.status, 200);
        pages += 1;
    }
    assert_eq!((seen.len(), pages), (5, 3));
}

#[tokio::test]
async fn each_condition_leaves_the_sessions_it_means_and_a_link_counts_them() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    ExampleClient::logged_in_with(&site, "grace", "A Phone/2 <b>").await;
    ExampleClient::visitor(&site).await;
    for (query, expected) in [
        ("", 3),
        ("?user=&who=&client=&created_since=&bound=", 3),
        ("?who=users", 2),
        ("?who=visitors", 1),
        ("?user=grace", 1),
        ("?user=nobody", 0),
        ("?client=phone%2f2", 1),
        ("?client=127.0.0.1", 2),
        ("?bound=yes", 0),
        ("?bound=no&who=users", 2),
        ("?external_id=sid", 0),
        ("?created_since=2020-01-01T00:00", 3),
        ("?created_before=2020-01-01T00:00:30", 0),
        ("?seen_since=2020-01-01T00:00", 3),
        ("?seen_before=2020-01-01T00:00", 0),
    ] {
        let page = admin.admin_page(&site, query).await;
        assert_eq!((page.status, ids(&page).len()), (200, expected), "{query}");
        // Nothing counts until somebody asks.
        assert!(!page.body.contains("in all."));
        let counted = link(&page, "count").unwrap();
        let page = admin.get(&site.page(&counted)).await;
        let count = format!("<strong>{expected}</strong> session");
        assert!(page.body.contains(&count), "{query}: {}", page.body);
        assert_eq!(
            page.body.contains("There is no such session."),
            expected == 0
        );
    }
    let page = admin.admin_page(&site, "?user=grace").await;
    assert!(page.body.contains("<span>A Phone/2 &#60;b&#62;</span>"));
}

/// What is wrong with a query, and a part of what the page says of it.
const BAD: [(&str, &str); 13] = [
    ("who=somebody", "users or visitors"),
    ("bound=perhaps", "yes or no"),
    ("user=%00", "user id"),
    ("created_since=yesterday", "“Created since” needs a time"),
    (
        "seen_before=2026-13-01T00:00",
        "“Not seen since” needs a time",
    ),
    (
        "created_since=2026-03-02T00:00&created_before=2026-03-01T00:00",
        "not before",
    ),
    ("user=grace&who=visitors", "no visitor has a user"),
    ("user=grace&after=!", "cursor"),
    ("user=grace&after=abc", "cursor"),
    ("limit=0&user=grace", "1 to 200"),
    ("limit=many&user=grace", "1 to 200"),
    ("usr=grace", "unknown field"),
    ("user=grace&user=linus", "duplicate field"),
];

#[tokio::test]
async fn a_bad_filter_or_cursor_is_explained_and_ends_nothing() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    let mut grace = ExampleClient::logged_in(&site, "grace").await;
    let mut linus = ExampleClient::logged_in(&site, "linus").await;
    for (query, reason) in BAD {
        let page = admin.admin_page(&site, &format!("?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        assert!(page.body.contains(reason), "{query}: {}", page.body);
        assert!(page.body.contains("Nothing has ended"), "{query}");
        assert!(ids(&page).is_empty() && link(&page, "end").is_none());
        if query.contains("after=") || query.contains("limit=") {
            continue; // they are of no meaning to the other page
        }
        let page = admin.admin_page(&site, &format!("/end?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        let form = Url::parse(&format!("http://form/?{query}")).unwrap();
        let form: Vec<_> = form.query_pairs().collect();
        let form: Vec<_> = form
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let reply = admin.do_as_admin(&site, "end", &form).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.body.contains("Nothing has ended"), "{query}");
    }
    // Without any condition, all sessions are meant, and nobody means that.
    for form in [
        &[][..],
        &[("user", "")],
        &[("limit", "5"), ("keep_own", "yes")],
    ] {
        let reply = admin.do_as_admin(&site, "end", form).await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("the filter has no condition"));
    }
    assert_eq!(admin.admin_page(&site, "/end").await.status, 400);
    let page = admin.admin_page(&site, "").await;
    assert_eq!((ids(&page).len(), link(&page, "end")), (3, None));
    assert!(grace.is_logged_in(&site).await && linus.is_logged_in(&site).await);
}

#[tokio::test]
async fn what_the_preview_shows_ends_at_once_and_ones_own_stays_if_one_says_so() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    let mut elsewhere = ExampleClient::logged_in(&site, "ada").await;
    let mut graces = Vec::new();
    for _ in 0..11 {
        graces.push(ExampleClient::logged_in(&site, "grace").await);
    }
    let mut linus = ExampleClient::logged_in(&site, "linus").await;

    let page = admin.admin_page(&site, "?user=grace").await;
    let page = admin.get(&site.page(&link(&page, "end").unwrap())).await;
    assert!(
        page.body.contains("<h1>End 11 sessions?</h1>"),
        "{}",
        page.body
    );
    assert!(page.body.contains("And 1 more."));
    assert!(page.body.contains("name=\"user\" value=\"grace\""));
    assert!(!page.body.contains("Your own session is one of them."));
    // Until here, nothing has ended.
    for grace in &mut graces {
        assert!(grace.is_logged_in(&site).await);
    }
    let reply = admin.do_as_admin(&site, "end", &[("user", "grace")]).await;
    assert_eq!(reply.location(), "/admin?user=grace");
    let page = admin.admin_page(&site, "").await;
    assert!(page.body.contains("11 sessions are ended."));
    for grace in &mut graces {
        assert!(!grace.is_logged_in(&site).await);
    }
    assert!(linus.is_logged_in(&site).await);

    let page = admin.admin_page(&site, "/end?user=ada").await;
    assert!(page.body.contains("Your own session is one of them."));
    let form = [("user", "ada"), ("keep_own", "yes")];
    admin.do_as_admin(&site, "end", &form).await;
    assert!(!elsewhere.is_logged_in(&site).await);
    admin.do_as_admin(&site, "purge", &[]).await;
    let page = admin.admin_page(&site, "").await;
    assert!(page.body.contains("1 session is ended."));
    assert!(page.body.contains("0 expired sessions are removed."));
    assert_eq!((page.status, sessions(&page, "ada").len()), (200, 0));

    let reply = admin.do_as_admin(&site, "end", &[("who", "users")]).await;
    assert_eq!(reply.location(), "/");
    assert!(!admin.is_logged_in(&site).await);
    assert!(!linus.is_logged_in(&site).await);
}

#[tokio::test]
async fn the_session_of_a_visitor_ends_only_while_it_is_a_visitors() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    ExampleClient::visitor(&site).await;
    let page = admin.admin_page(&site, "?who=visitors").await;
    let [id] = sessions(&page, "")[..] else {
        panic!("{}", page.body)
    };
    admin
        .do_as_admin(&site, "revoke", &[("user", "linus"), ("id", id)])
        .await;
    assert_eq!(
        ids(&admin.admin_page(&site, "?who=visitors").await).len(),
        1
    );
    admin
        .do_as_admin(&site, "revoke", &[("user", ""), ("id", id)])
        .await;
    let page = admin.admin_page(&site, "?who=visitors").await;
    assert!(page.body.contains("A session of a visitor is ended."));
    assert!(ids(&page).is_empty());
}

#[tokio::test]
async fn the_list_of_a_store_in_a_file_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let site = start(&[("STORE", &url)]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    let mut grace = ExampleClient::logged_in(&site, "grace").await;
    let page = admin.admin_page(&site, "?limit=1").await;
    assert_eq!(ids(&page).len(), 1);
    let next = link(&page, "next").unwrap();
    assert_eq!(ids(&admin.get(&site.page(&next)).await).len(), 1);
    admin.do_as_admin(&site, "end", &[("user", "grace")]).await;
    assert!(!grace.is_logged_in(&site).await);
}

#[tokio::test]
async fn the_script_of_the_open_page_takes_no_message_away() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    admin.do_as_admin(&site, "purge", &[]).await;
    let (url, live) = (site.page("/admin"), [("x-live", "yes")]);
    let page = admin.send(Method::GET, &url, &live, &[]).await;
    assert!(!page.body.contains("expired sessions are removed."));
    let page = admin.admin_page(&site, "").await;
    assert!(page.body.contains("expired sessions are removed."));
    let policy = page.header(CONTENT_SECURITY_POLICY);
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"));
    assert!(!page.body.contains("<style") && !page.body.contains(" style="));
    assert!(!page.body.contains("<script>") && !page.body.contains("onclick"));
}

/// Checks that `who` cannot do any of the things that an administrator can do.
async fn assert_denied(
    site: &Program,
    who: &mut ExampleClient,
    id: &str,
    headers: &[(&str, &str)],
    answer: (u16, Option<&str>),
) {
    for (what, form) in [
        ("revoke", &[("user", "linus"), ("id", id)][..]),
        ("end", &[("user", "linus")]),
        ("end", &[]),
        ("purge", &[]),
    ] {
        let url = site.page(&format!("/admin/{what}"));
        let reply = who.send(Method::POST, &url, headers, form).await;
        let location = reply
            .headers
            .get(LOCATION)
            .map(|path| path.to_str().unwrap());
        assert_eq!((reply.status, location), answer, "{what}");
    }
}

#[tokio::test]
async fn nobody_else_is_let_in_and_no_other_site() {
    let site = start(&[]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    let mut linus = ExampleClient::logged_in(&site, "linus").await;
    let page = admin.admin_page(&site, "").await;
    let [id] = sessions(&page, "linus")[..] else {
        panic!("{}", page.body)
    };

    let mut grace = ExampleClient::logged_in(&site, "grace").await;
    let mut visitor = ExampleClient::new();
    for path in ["", "/end?user=linus", "/changes", "?user=%00"] {
        assert_eq!(grace.admin_page(&site, path).await.status, 404, "{path}");
        let reply = visitor.admin_page(&site, path).await;
        assert_eq!(reply.location(), "/", "{path}");
    }
    assert_denied(&site, &mut grace, id, &[], (404, None)).await;
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
    let site = start(&[("FRESH_SECONDS", "1")]);
    let mut admin = ExampleClient::logged_in(&site, "ada").await;
    let mut linus = ExampleClient::logged_in(&site, "linus").await;
    let url = site.page("/admin");
    let mut page = admin.get(&url).await;
    let id = sessions(&page, "linus")
        .first()
        .map(|id| (*id).to_owned())
        .unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(60);
    while page.status == 200 {
        assert!(Instant::now() < deadline);
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
