//! The page for the staff, acting as another user, and the end of an account.

use super::client::{DemoClient, DemoPage};
use super::process::Demo;

/// The demo with ada, who is of the staff, and with grace, who is not.
fn staff_and_user() -> (Demo, DemoClient, DemoClient) {
    let demo = Demo::start();
    let ada = DemoClient::ada(&demo);
    let mut grace = DemoClient::new(&demo);
    assert_eq!(grace.register("grace", "nanoseconds").location(), "/");
    (demo, ada, grace)
}

/// The id of the first user whom the page for the staff shows.
fn first_id(page: &DemoPage) -> String {
    assert_eq!(page.status, 200, "{page:?}");
    page.between("name=\"id\" value=\"", "\"").to_owned()
}

fn act_as_grace(ada: &mut DemoClient) {
    let id = first_id(&ada.get("/users"));
    assert_eq!(ada.post("/users/act-as", &[("id", &id)]).location(), "/");
}

fn banner(page: &DemoPage) -> Option<String> {
    let is_there = page.body.contains("action=\"/stop-acting\"");
    is_there.then(|| {
        let text = page.between("<p>You are <strong>", "</strong>.</p>");
        text.replace("</strong>", "").replace("<strong>", "")
    })
}

#[test]
fn only_the_staff_get_the_page_of_all_users() {
    let (demo, mut ada, mut grace) = staff_and_user();
    let mut visitor = DemoClient::new(&demo);
    assert_eq!(visitor.get("/users").location(), "/login?next=%2Fusers");
    assert_eq!(visitor.post("/users/act-as", &[("id", "1")]).status, 401);

    let refused = grace.get("/users");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("Not with this ticket"));
    assert!(!grace.get("/").body.contains("href=\"/users\""));
    assert_eq!(grace.post("/users/act-as", &[("id", "1")]).status, 403);
    assert_eq!(grace.user().as_deref(), Some("grace"));

    assert!(ada.get("/").body.contains("href=\"/users\""));
    let page = ada.get("/users");
    assert!(page.body.contains("<h2>grace</h2>"), "{}", page.body);
    assert!(!page.body.contains("<h2>ada</h2>"), "{}", page.body);
}

#[test]
fn one_of_the_staff_acts_as_a_user_and_goes_back() {
    let (_demo, mut ada, mut grace) = staff_and_user();
    let dark = [("theme", "dark"), ("back", "/")];
    assert_eq!(ada.post("/theme", &dark).location(), "/");
    ada.get("/");
    act_as_grace(&mut ada);
    assert_eq!(ada.user().as_deref(), Some("grace"));
    for path in [
        "/",
        "/private",
        "/devices",
        "/users",
        "/password",
        "/no/page",
    ] {
        let page = ada.get(path);
        let said = banner(&page);
        assert_eq!(said.as_deref(), Some("ada and act as grace"), "{path}");
        assert!(page.body.contains("data-theme=\"dark\""), "{path}");
    }
    // The other user sees it, without a banner.
    let devices = grace.get("/devices");
    assert!(devices.body.contains("ada acting</span>"), "{devices:?}");
    assert_eq!(devices.revocable().len(), 1);
    assert_eq!(banner(&devices), None);

    assert_eq!(ada.post("/stop-acting", &[]).location(), "/users");
    let page = ada.get("/users");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("You are yourself again."));
    assert_eq!(banner(&page), None);
    assert_eq!(ada.user().as_deref(), Some("ada"));
    assert!(!grace.get("/devices").body.contains("ada acting"));
}

#[test]
fn who_acts_as_a_user_can_neither_change_the_password_nor_delete_the_account() {
    let (_demo, mut ada, mut grace) = staff_and_user();
    act_as_grace(&mut ada);
    let password = [("current", "nanoseconds"), ("new", "microseconds")];
    let confirmation = [("password", "nanoseconds")];
    for reply in [
        ada.get("/password"),
        ada.post("/password", &password),
        ada.get("/confirm"),
        ada.post("/confirm", &confirmation),
        ada.post("/delete", &[]),
        // The other user is not of the staff.
        ada.get("/users"),
        ada.post("/users/act-as", &[("id", "1")]),
    ] {
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("Not as somebody else"), "{reply:?}");
    }
    assert_eq!(ada.user().as_deref(), Some("grace"));
    assert_eq!(grace.user().as_deref(), Some("grace"));
    grace.post("/logout", &[]);
    assert_eq!(grace.log_in("grace", "nanoseconds").location(), "/");
}

#[test]
fn nobody_acts_as_one_of_the_staff_or_as_a_user_who_is_not_there() {
    let (_demo, mut ada, _grace) = staff_and_user();
    for id in ["1", "99"] {
        assert_eq!(ada.post("/users/act-as", &[("id", id)]).status, 404, "{id}");
    }
    assert_eq!(ada.post("/users/act-as", &[("id", "ada")]).status, 422);
    assert_eq!(ada.post("/stop-acting", &[]).location(), "/users");
    assert_eq!(ada.user().as_deref(), Some("ada"));
    assert_eq!(banner(&ada.get("/")), None);
}

#[test]
fn the_user_ends_the_session_of_one_who_acts() {
    let (demo, mut ada, mut grace) = staff_and_user();
    let mut other = DemoClient::ada(&demo);
    act_as_grace(&mut ada);
    let [id] = &grace.get("/devices").revocable()[..] else {
        panic!("grace sees the session of one who acts")
    };
    grace.post("/devices/revoke", &[("id", id)]);
    assert_eq!(ada.user(), None);
    assert_eq!(other.user().as_deref(), Some("ada"));
}

#[test]
fn a_logout_ends_acting_and_the_own_session() {
    let (_demo, mut ada, mut grace) = staff_and_user();
    let own = ada.cookies.clone();
    act_as_grace(&mut ada);
    assert_eq!(ada.post("/logout", &[]).location(), "/");
    assert_eq!(ada.user(), None);
    ada.cookies = own;
    assert_eq!(ada.user(), None);
    assert_eq!(grace.user().as_deref(), Some("grace"));
}

#[test]
fn who_deletes_the_account_is_nobody_on_all_devices() {
    let (demo, mut ada, mut grace) = staff_and_user();
    let mut phone = DemoClient::logged_in(&demo, "grace", "nanoseconds");
    assert_eq!(DemoClient::new(&demo).post("/delete", &[]).status, 401);
    assert_eq!(grace.post("/delete", &[]).location(), "/");
    let home = grace.get("/");
    assert!(home.body.contains("Your account is deleted."), "{home:?}");
    assert_eq!(grace.user(), None);
    assert_eq!(phone.user(), None);
    assert_eq!(grace.log_in("grace", "nanoseconds").status, 422);
    assert!(!ada.get("/users").body.contains("<h2>grace</h2>"));
    // The name is free again, and a new user with it is another user.
    assert_eq!(grace.register("grace", "nanoseconds").location(), "/");
    assert_eq!(phone.user(), None);
}
