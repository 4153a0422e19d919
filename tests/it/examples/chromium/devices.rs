//! Sessions that are bound to the device of a real browser, over TLS.
//!
//! Chromium signs 6 proofs in 9 minutes for each site, and then goes on without. It also renews a
//! bound cookie with each page, if the cookie ends within two minutes. So each story here has a few
//! pages, and a browser of its own.

use std::time::{Duration, Instant};

use fantoccini::Locator;
use fantoccini::error::CmdError;

use super::super::demo::client::DemoClient;
use super::super::demo::process::Demo;
use super::{Chromium, tell_with};

/// How long a bound cookie lasts here.
const BOUND_FOR: Duration = Duration::from_secs(4);
const OPTIONS: [&str; 3] = ["--tls", "--bound-for", "4"];

const BOUND_COOKIE: &str = "__Host-session-bound";

impl Chromium {
    async fn has_cookie(&self, name: &str) -> Result<bool, CmdError> {
        let cookies = self.0.get_all_cookies().await?;
        Ok(cookies.iter().any(|cookie| cookie.name() == name))
    }

    /// Waits until the browser has the answer to the registration.
    async fn until_bound(&self) -> Result<(), CmdError> {
        let deadline = Instant::now() + BOUND_FOR;
        while !self.has_cookie(BOUND_COOKIE).await? {
            assert!(Instant::now() < deadline, "the bound cookie does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until the bound cookie has ended in the browser. This sends no request.
    async fn until_bound_cookie_ends(&self) -> Result<(), CmdError> {
        let deadline = Instant::now() + 3 * BOUND_FOR;
        while self.has_cookie(BOUND_COOKIE).await? {
            assert!(Instant::now() < deadline, "the bound cookie does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn event(name: &str) -> String {
    format!("event=\"{name}\"")
}

/// A thief's client with a copy of the whole cookie jar of a browser.
async fn thief_of(browser: &Chromium, demo: &Demo) -> Result<DemoClient, CmdError> {
    let mut thief = DemoClient::new(demo);
    for cookie in browser.0.get_all_cookies().await? {
        let cookie = format!("{}={}; Path=/; Secure", cookie.name(), cookie.value());
        thief.cookies.parse(&cookie, &thief.base).unwrap();
    }
    Ok(thief)
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_browser_binds_its_session_and_renews_the_proof_unnoticed() {
    tell_with(&OPTIONS, |driver, demo| async move {
        let browser = driver.browser_with_device(demo.public_key_hash()).await;
        browser.log_in(&demo, "ada", "lovelace").await?;
        browser.until_bound().await?;
        assert_eq!(demo.count_logged(&event("bound")), 1);

        browser.until_bound_cookie_ends().await?;
        let refreshes = demo.count_logged(&event("device_refreshed"));
        browser.0.goto(demo.page("/devices").as_str()).await?;
        assert!(demo.count_logged(&event("device_refreshed")) > refreshes);
        assert_eq!(
            browser.0.find_all(Locator::Css(".devices li")).await?.len(),
            1
        );
        assert_eq!(browser.text(".badge.bound").await?, "Bound to its device");
        assert!(browser.text(".bound-since").await?.starts_with("Bound "));
        // No request came without a proof.
        assert_eq!(demo.count_logged(&event("unbound")), 0);

        browser.click("#log-out").await?;
        assert_eq!(browser.text(".flash").await?, "You are logged out.");
        // The session is over, so the browser gets no bound cookie any more, whatever it asks for.
        browser.until_bound_cookie_ends().await?;
        let refreshes = demo.count_logged(&event("device_refreshed"));
        browser.0.goto(demo.url().as_str()).await?;
        browser.0.goto(demo.page("/login").as_str()).await?;
        assert_eq!(demo.count_logged(&event("device_refreshed")), refreshes);
        assert!(!browser.has_cookie(BOUND_COOKIE).await?);

        // A new login makes a new binding, of the new session.
        browser.log_in(&demo, "ada", "lovelace").await?;
        demo.until_logged(&event("bound"), 2).await;
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_copy_of_all_cookies_is_worth_nothing_once_the_bound_cookie_has_ended() {
    tell_with(&OPTIONS, |driver, demo| async move {
        let browser = driver.browser_with_device(demo.public_key_hash()).await;
        browser.log_in(&demo, "ada", "lovelace").await?;
        browser.until_bound().await?;
        // The first requests after the registration need no bound cookie. This waits for the end of
        // that time too, since it is as long as the cookie is good.
        browser.until_bound_cookie_ends().await?;
        browser.0.goto(demo.page("/private").as_str()).await?;
        assert_eq!(browser.text("dd").await?, "ada");

        let mut thief = thief_of(&browser, &demo).await?;
        let copied = Instant::now();
        let page = thief.get("/private");
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.body.contains("<dd>ada</dd>"), "{page:?}");
        loop {
            // The cookies of the thief never end by themselves: the server refuses them.
            let page = thief.get("/private");
            // The guard sends visitors to the login.
            if page.status == 303 {
                assert!(
                    page.header("location")
                        .is_some_and(|to| to.starts_with("/login"))
                );
                assert_eq!(page.header("set-cookie"), None);
                break;
            }
            assert_eq!(page.status, 200, "{page:?}");
            assert!(copied.elapsed() < BOUND_FOR + Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(demo.count_logged(&event("unbound")) > 0);
        assert!(!thief.get("/devices").body.contains("ada"));

        // The thief cannot get a new bound cookie, because that takes the key of the device.
        let record = browser_record(&demo);
        let headers = [("Sec-Secure-Session-Id", record.as_str())];
        let reply = thief.post_with("/session/refresh", &headers, &[]);
        assert_eq!(reply.status, 403, "{reply:?}");
        assert_eq!(reply.header("set-cookie"), None);

        // The browser goes on.
        browser.until_bound_cookie_ends().await?;
        browser.0.goto(demo.page("/private").as_str()).await?;
        assert_eq!(browser.text("dd").await?, "ada");
        Ok(())
    })
    .await;
}

/// The record id of the bound session. It is not a secret, and the log has it.
fn browser_record(demo: &Demo) -> String {
    let line = demo.logged(&event("bound"));
    let (_, rest) = line.split_once("record=").unwrap();
    rest.split([' ', ',']).next().unwrap().to_owned()
}
