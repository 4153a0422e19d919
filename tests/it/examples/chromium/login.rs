//! What the guards of the demo do in a real browser, and acting as another user.

use std::time::Instant;

use support::servers::Server;

use super::*;

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_page_leads_to_the_login_and_back_with_its_query() {
    tell(|driver, demo| async move {
        let browser = driver.browser().await;
        let page = "/private?coat=red%20one&hook=7";
        browser.0.goto(demo.page(page).as_str()).await?;
        assert_eq!(browser.path().await?, "/login");
        assert!(browser.0.get_all_cookies().await?.is_empty());
        // Neither a wrong password nor the other theme loses the page.
        browser.click("button[value='dark']").await?;
        browser
            .send(&[("username", "ada"), ("password", "a wrong one")])
            .await?;
        assert!(browser.has("#problem").await?);
        browser
            .send(&[("username", "ada"), ("password", "lovelace")])
            .await?;
        assert_eq!(browser.address().await?, page);
        assert_eq!(browser.text("dd").await?, "ada");

        // A link to another site does not lead there.
        let other = driver.browser().await;
        let hostile = demo.page("/login?next=//evil.example/private");
        other.0.goto(hostile.as_str()).await?;
        other
            .send(&[("username", "ada"), ("password", "lovelace")])
            .await?;
        assert_eq!(other.0.current_url().await?, *demo.url());
        assert_eq!(other.text("#user").await?, "ada");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_user_of_the_wrong_role_gets_a_page_that_says_so() {
    tell(|driver, demo| async move {
        let (ada, grace) = (driver.browser().await, driver.browser().await);
        grace.register(&demo, "grace", "nanoseconds").await?;
        assert!(!grace.has("nav a[href='/users']").await?);
        grace.0.goto(demo.page("/users").as_str()).await?;
        assert_eq!(grace.address().await?, "/users");
        assert_eq!(grace.text(".number").await?, "403");
        assert_eq!(grace.text("h1").await?, "Not with this ticket");
        grace.click("main a").await?;
        assert_eq!(grace.text("#user").await?, "grace");

        ada.log_in(&demo, "ada", "lovelace").await?;
        ada.click("nav a[href='/users']").await?;
        assert_eq!(ada.text("h1").await?, "Users");
        assert_eq!(ada.text(".users h2").await?, "grace");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_login_that_is_too_old_is_confirmed_and_leads_back() {
    // This time is long enough for a slow machine to confirm and change.
    tell_with(&["--fresh-for", "5"], |driver, demo| async move {
        let browser = driver.browser().await;
        browser.log_in(&demo, "ada", "lovelace").await?;
        let page = demo.page("/password?from=menu");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            browser.0.goto(page.as_str()).await?;
            if browser.path().await? != "/password" {
                break;
            }
            assert!(Instant::now() < deadline, "the login stays recent");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        assert_eq!(
            browser.address().await?,
            "/confirm?next=%2Fpassword%3Ffrom%3Dmenu"
        );
        browser.send(&[("password", "a wrong one")]).await?;
        assert_eq!(
            browser.text("#problem").await?,
            "That is not your password."
        );
        // All other pages are still open to the user.
        browser.0.goto(demo.page("/private").as_str()).await?;
        assert_eq!(browser.text("dd").await?, "ada");

        browser.0.goto(page.as_str()).await?;
        browser.send(&[("password", "lovelace")]).await?;
        assert_eq!(browser.address().await?, "/password?from=menu");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn one_of_the_staff_acts_as_a_user_and_is_back_in_the_own_session() {
    tell(|driver, demo| async move {
        let (ada, grace) = (driver.browser().await, driver.browser().await);
        grace.register(&demo, "grace", "nanoseconds").await?;
        ada.log_in(&demo, "ada", "lovelace").await?;
        let visits: u64 = ada.text("#visits").await?.parse().unwrap();
        ada.click("nav a[href='/users']").await?;
        ada.click("[aria-label='Act as grace']").await?;

        assert_eq!(ada.text("#user").await?, "grace");
        assert_eq!(ada.text("#visits").await?, "1");
        let banner = "You are ada and act as grace.";
        assert_eq!(ada.text(".acting p").await?, banner);
        assert!(!ada.has("nav a[href='/password']").await?);
        for path in ["/private", "/devices", "/password", "/users", "/no/page"] {
            ada.0.goto(demo.page(path).as_str()).await?;
            assert_eq!(ada.address().await?, path);
            assert_eq!(ada.text(".acting p").await?, banner, "{path}");
            let is_refused = ["/password", "/users"].contains(&path);
            let title = "Not as somebody else";
            assert_eq!(ada.text("h1").await? == title, is_refused, "{path}");
        }
        grace.click("nav a[href='/devices']").await?;
        assert_eq!(grace.text(".badge.acts").await?, "ada acting");
        assert!(!grace.has(".acting").await?);

        // The banner is on the error page as well.
        ada.click("#stop-acting").await?;
        assert_eq!(ada.path().await?, "/users");
        assert_eq!(ada.text(".flash").await?, "You are yourself again.");
        assert!(!ada.has(".acting").await?);
        ada.click(".brand").await?;
        assert_eq!(ada.text("#user").await?, "ada");
        let counted = ada.text("#visits").await?;
        assert_eq!(counted, (visits + 1).to_string());
        grace.0.refresh().await?;
        assert!(!grace.has(".badge.acts").await?);
        assert_eq!(
            grace.0.find_all(Locator::Css(".devices li")).await?.len(),
            1
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_new_password_ends_the_session_of_another_browser() {
    // This store does not find sessions by user. So the other session ends by its stamp alone.
    let memcached = Server::memcached(&[]);
    let url = format!("memcache://{}", memcached.address());
    for options in [&[][..], &["--store", &url]] {
        tell_with(options, |driver, demo| async move {
            let (desk, phone) = (driver.browser().await, driver.browser().await);
            desk.log_in(&demo, "ada", "lovelace").await?;
            phone.log_in(&demo, "ada", "lovelace").await?;
            desk.click("nav a[href='/password']").await?;
            desk.send(&[("current", "lovelace"), ("new", "analytical")])
                .await?;
            assert_eq!(desk.path().await?, "/");
            assert_eq!(desk.text("#user").await?, "ada");

            phone.click("nav a[href='/private']").await?;
            assert_eq!(phone.address().await?, "/login?next=%2Fprivate");
            phone
                .send(&[("username", "ada"), ("password", "lovelace")])
                .await?;
            assert!(phone.has("#problem").await?);
            phone
                .send(&[("username", "ada"), ("password", "analytical")])
                .await?;
            assert_eq!(phone.address().await?, "/private");
            desk.0.refresh().await?;
            assert_eq!(desk.text("#user").await?, "ada");
            Ok(())
        })
        .await;
    }
}
