//! The example with OpenID Connect. It runs as a process. A test uses it like a browser, and some
//! tests are the provider as well: one that makes mistakes, or lies.

use http::header::SET_COOKIE;
use support::program::{Program, binary};
use url::Url;

use super::long::{ExampleClient, ExampleReply};

mod back_channel;
mod id_tokens;
mod provider;
mod step_up;

const ADA: &str = "1815";
const GRACE: &str = "1906";

impl ExampleClient {
    /// Opens a page that leads to the provider, and logs in there as this user. Returns the way
    /// back.
    async fn answer_as(&mut self, page: &Url, user: &str) -> Url {
        let provider = self.provider(page).await;
        self.answer_at(&provider, &[("user", user)]).await
    }

    /// Where this page leads to, if that is not a page of the site.
    async fn provider(&mut self, page: &Url) -> Url {
        Url::parse(self.get(page).await.location()).unwrap()
    }

    /// Fills in the form of the provider, if the provider asks at all.
    async fn answer_at(&mut self, provider: &Url, form: &[(&str, &str)]) -> Url {
        let mut reply = self.get(provider).await;
        if reply.status == 200 {
            reply = self.post(provider, form).await;
        }
        Url::parse(reply.location()).unwrap()
    }

    async fn body(&mut self, shop: &Program, path: &str) -> Option<String> {
        let reply = self.get(&shop.page(path)).await;
        (reply.status == 200).then_some(reply.body)
    }

    async fn orders(&mut self, shop: &Program) -> Option<String> {
        self.body(shop, "/orders").await
    }
}

fn start() -> Program {
    Program::start(binary("oidc"), &[])
}

fn parameter(url: &Url, name: &str) -> String {
    has_parameter(url, name).unwrap_or_else(|| panic!("no {name} in {url}"))
}

fn has_parameter(url: &Url, name: &str) -> Option<String> {
    let (_, value) = url.query_pairs().find(|(other, _)| other == name)?;
    Some(value.into_owned())
}

fn with_parameter(url: &Url, name: &str, value: &str) -> Url {
    let others: Vec<_> = url
        .query_pairs()
        .filter(|(other, _)| other != name)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut url = url.clone();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair(name, value);
    url
}

#[track_caller]
fn assert_refused(reply: &ExampleReply, reason: &str) {
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.body.contains(reason), "{}", reply.body);
}

const NOT_BEGUN_HERE: &str = "was not begun here";
const NOT_CONFIRMED: &str = "did not confirm";

#[tokio::test]
async fn a_login_replaces_the_token_and_leads_to_the_page_that_was_asked_for() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let first = browser.get(&shop.page("/orders?page=2")).await;
    // Browsers would not send a Strict cookie on the way back.
    assert!(first.header(SET_COOKIE).contains("SameSite=Lax"));
    let provider = Url::parse(first.location()).unwrap();
    assert_eq!(parameter(&provider, "code_challenge_method"), "S256");
    let back = browser.answer_at(&provider, &[("user", ADA)]).await;

    let before = browser.cookies.clone();
    let reply = browser.get(&back).await;
    assert_eq!(reply.location(), "/orders?page=2");
    assert_eq!(
        browser.orders(&shop).await.unwrap(),
        "The orders of user 1815.\n"
    );
    let home = browser.get(&shop.page("/")).await;
    assert!(home.body.contains("<b id=\"name\">Ada</b>"));

    // An attacker may have planted the token from before the login. It gives no access.
    let mut planted = ExampleClient::new();
    planted.cookies = before;
    let home = planted.get(&shop.page("/")).await;
    assert!(home.body.contains("You are not logged in."));
}

#[tokio::test]
async fn a_way_back_with_a_wrong_or_missing_state_or_into_another_browser_is_refused() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    let code = parameter(&back, "code");

    let missing = shop.page(&format!("/callback?code={code}"));
    let wrong = with_parameter(&back, "state", "wrong");
    let empty = with_parameter(&back, "state", "");
    for forged in [missing, wrong, empty] {
        assert_refused(&browser.get(&forged).await, NOT_BEGUN_HERE);
    }
    // Ada gives her way back, as a link, to somebody else.
    let mut other = ExampleClient::new();
    assert_refused(&other.get(&back).await, NOT_BEGUN_HERE);
    other.answer_as(&shop.page("/login"), GRACE).await;
    assert_refused(&other.get(&back).await, NOT_BEGUN_HERE);
    assert_eq!(other.orders(&shop).await, None);

    // Ada's own login still works.
    assert_eq!(browser.get(&back).await.location(), "/");
}

#[tokio::test]
async fn a_state_is_good_once_whether_the_login_succeeds_or_not() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    assert_eq!(browser.get(&back).await.location(), "/");
    assert_refused(&browser.get(&back).await, NOT_BEGUN_HERE);

    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    let failed = browser.get(&with_parameter(&back, "code", "wrong")).await;
    assert_refused(&failed, NOT_CONFIRMED);
    assert_refused(&browser.get(&back).await, NOT_BEGUN_HERE);

    assert_eq!(browser.orders(&shop).await, None);

    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), "").await;
    assert_refused(&browser.get(&back).await, "You were not logged in.");
    assert_refused(&browser.get(&back).await, NOT_BEGUN_HERE);
    assert_eq!(browser.orders(&shop).await, None);
}

#[tokio::test]
async fn a_code_of_another_login_is_worth_nothing_without_its_verifier() {
    let shop = start();
    let theirs = ExampleClient::new()
        .answer_as(&shop.page("/login"), ADA)
        .await;
    let mut browser = ExampleClient::new();
    let own = browser.answer_as(&shop.page("/login"), GRACE).await;
    let injected = with_parameter(&own, "code", &parameter(&theirs, "code"));
    assert_refused(&browser.get(&injected).await, NOT_CONFIRMED);
    assert_eq!(browser.orders(&shop).await, None);
}

#[tokio::test]
async fn five_tabs_log_in_each_for_itself_and_a_sixth_pushes_out_the_first() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let mut tabs = Vec::new();
    for tab in 0..6 {
        let page = shop.page(&format!("/orders?tab={tab}"));
        tabs.push(browser.answer_as(&page, ADA).await);
    }
    assert_refused(&browser.get(&tabs[0]).await, NOT_BEGUN_HERE);
    // The logins end in another order than they began.
    for tab in [3, 5, 1, 4, 2] {
        let reply = browser.get(&tabs[tab]).await;
        assert_eq!(reply.location(), format!("/orders?tab={tab}"));
    }
    assert!(browser.orders(&shop).await.is_some());
}

#[tokio::test]
async fn nothing_in_the_url_says_where_a_login_leads() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let elsewhere = "return_to=https://example.com&next=//example.com";
    let page = shop.page(&format!("/login?{elsewhere}"));
    let back = browser.answer_as(&page, ADA).await;
    let back = shop.page(&format!("/callback?{}&{elsewhere}", back.query().unwrap()));
    assert_eq!(browser.get(&back).await.location(), "/");
}

#[tokio::test]
async fn a_code_is_good_once() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let used = browser.answer_as(&shop.page("/login"), ADA).await;
    assert_eq!(browser.get(&used).await.location(), "/");
    let mut other = ExampleClient::new();
    for browser in [&mut browser, &mut other] {
        let own = browser.answer_as(&shop.page("/login"), ADA).await;
        let replayed = with_parameter(&own, "code", &parameter(&used, "code"));
        assert_refused(&browser.get(&replayed).await, NOT_CONFIRMED);
    }
    assert_eq!(other.orders(&shop).await, None);
}

#[tokio::test]
async fn a_login_that_takes_too_long_is_over() {
    let shop = Program::start(binary("oidc"), &[("LOGIN_SECONDS", "0")]);
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    assert_refused(&browser.get(&back).await, NOT_BEGUN_HERE);
    assert_eq!(browser.orders(&shop).await, None);
}

#[tokio::test]
async fn every_login_has_a_state_a_nonce_and_a_challenge_of_its_own() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let first = browser.provider(&shop.page("/login")).await;
    let second = browser.provider(&shop.page("/login")).await;
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(parameter(&first, name), parameter(&second, name));
        assert!(parameter(&first, name).len() >= 22, "{first}");
    }
    assert_eq!(parameter(&first, "response_type"), "code");
    assert_eq!(parameter(&first, "scope"), "openid profile");
}

#[tokio::test]
async fn a_logout_from_another_site_is_refused() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    browser.get(&back).await;
    let logout = shop.page("/logout");
    for from in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "http://127.0.0.1:1"),
    ] {
        let reply = browser
            .send(http::Method::POST, &logout, &[from], &[])
            .await;
        assert_eq!(reply.status, 403);
    }
    assert!(browser.orders(&shop).await.is_some());
}

#[tokio::test]
async fn the_provider_sends_codes_to_the_shop_only() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let provider = browser.provider(&shop.page("/login")).await;
    for (name, value) in [
        ("redirect_uri", "http://127.0.0.1:1/callback"),
        ("client_id", "other"),
        ("code_challenge_method", "plain"),
        ("response_type", "token"),
    ] {
        let asked = with_parameter(&provider, name, value);
        assert_eq!(browser.get(&asked).await.status, 400, "{name}");
        let reply = browser.post(&asked, &[("user", ADA)]).await;
        assert_eq!(reply.status, 400, "{name}");
    }
    let elsewhere = [("Sec-Fetch-Site", "cross-site")];
    let form = [("user", ADA)];
    let post = http::Method::POST;
    let reply = browser.send(post, &provider, &elsewhere, &form).await;
    assert_eq!(reply.status, 403);
}
