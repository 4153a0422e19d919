//! The page for administrators: with scripts, without them, and on a phone.

use support::program::{Program, binary};

use super::*;
use crate::examples::long::ExampleClient;

impl Chromium {
    async fn open_admin(&self, site: &Program) -> Result<(), CmdError> {
        self.0.goto(site.page("/").as_str()).await?;
        self.send(&[("name", "ada"), ("password", "cloakroom")])
            .await?;
        self.click("main a[href='/admin']").await?;
        assert_eq!(self.path().await?, "/admin");
        Ok(())
    }

    async fn count(&self, selector: &str) -> Result<usize, CmdError> {
        Ok(self.0.find_all(Locator::Css(selector)).await?.len())
    }

    /// Waits until the page says something that begins so.
    async fn wait_for_news(&self, expected: &str) -> Result<(), CmdError> {
        let started = std::time::Instant::now();
        loop {
            let text = self.text("#news").await?;
            if text.starts_with(expected) {
                return Ok(());
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{text:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn log_in(site: &Program, name: &str, agent: &str) -> ExampleClient {
    let mut browser = ExampleClient::new();
    let form = [("name", name), ("password", "cloakroom")];
    let login = site.page("/login");
    let headers = [("User-Agent", agent)];
    let post = http::Method::POST;
    let reply = browser.send(post, &login, &headers, &form).await;
    assert_eq!(reply.location(), "/");
    browser
}

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
    "curl/8.14.1",
    "AVeryLongNameOfAProgramWithoutAnySpacesThatSomebodyHasWrittenAndThatMustNotMakeThePageWiderThanAPhone/1.0",
];

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn an_administrator_finds_and_ends_sessions_without_scripts_on_a_phone() {
    let site = Program::start(binary("admin"), &[]);
    for agent in AGENTS {
        log_in(&site, "grace", agent).await;
    }
    log_in(&site, "linus", AGENTS[0]).await;
    tell_without_demo(|driver| async move {
        let browser = driver.browser().await;
        browser.resize(360, 740, 2).await;
        browser.open_admin(&site).await?;
        assert_eq!(browser.count("#sessions > li").await?, 6);
        assert!(
            !browser
                .0
                .find(Locator::Css("#news"))
                .await?
                .is_displayed()
                .await?
        );

        browser.send(&[("user", "grace")]).await?;
        assert_eq!(browser.count("#sessions > li").await?, 4);
        browser.click("a#count").await?;
        assert_eq!(browser.text("#count").await?, "4 sessions in all.");
        let width = browser.devtools("Page.getLayoutMetrics", json!({})).await;
        let width = width["cssContentSize"]["width"].as_u64().unwrap();
        assert!(width <= 360, "the page is {width} wide");
        browser.click("#sessions li button.danger").await?;
        assert_eq!(
            browser.text(".note.success").await?,
            "A session of grace is ended."
        );
        assert_eq!(browser.count("#sessions > li").await?, 3);
        assert!(browser.address().await?.starts_with("/admin?user=grace"));

        browser.click("#end").await?;
        assert_eq!(browser.text("h1").await?, "End 3 sessions?");
        browser.click("form button.danger").await?;
        assert_eq!(
            browser.text(".note.success").await?,
            "3 sessions are ended."
        );
        assert_eq!(browser.text(".empty").await?, "There is no such session.");

        // What the browser lets through, the server refuses.
        let bad = site.page("/admin?user=grace&after=abc");
        browser.0.goto(bad.as_str()).await?;
        assert!(browser.text("[role='alert']").await?.contains("cursor"));
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn the_open_page_shows_what_comes_and_goes_and_no_button_moves() {
    let site = Program::start(binary("admin"), &[]);
    let mut grace = log_in(&site, "grace", AGENTS[0]).await;
    tell_without_demo(|driver| async move {
        let browser = driver.browser_with_scripts().await;
        browser.open_admin(&site).await?;
        assert_eq!(browser.count("#sessions > li").await?, 2);
        let other = "#sessions form[action='/admin/revoke'] button";
        let button = browser.0.find(Locator::Css(other)).await?;
        let before = button.rectangle().await?;

        log_in(&site, "linus", AGENTS[2]).await;
        browser.wait_for_news("1 new, 0 gone.").await?;
        assert_eq!(browser.count("#sessions > li").await?, 2);
        // Its logout gives grace the session of a visitor.
        grace.post(&site.page("/logout"), &[]).await;
        browser.wait_for_news("2 new, 1 gone.").await?;
        assert_eq!(browser.count("#sessions > li.gone").await?, 1);
        assert!(!button.is_enabled().await?);
        let after = button.rectangle().await?;
        assert_eq!((before.0, before.2), (after.0, after.2));

        browser.click("#news a").await?;
        assert_eq!(browser.count("#sessions > li").await?, 3);
        assert_eq!(browser.count("#sessions > li.gone").await?, 0);

        // The page says when it is no longer live.
        let logout = "const form = document.querySelector('header form');\
                      return fetch(form.action, { method: 'POST' });";
        browser.0.execute(logout, Vec::new()).await?;
        browser
            .wait_for_news("This page is no longer live.")
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "takes pictures for people to look at, in target/screenshots"]
async fn pictures_of_the_page_for_administrators() {
    let site = Program::start(binary("admin"), &[]);
    for agent in AGENTS {
        log_in(&site, "grace", agent).await;
        let mut visitor = log_in(&site, "linus", agent).await;
        visitor.post(&site.page("/logout"), &[]).await;
    }
    let mut linus = log_in(&site, "linus", AGENTS[1]).await;
    tell_without_demo(|driver| async move {
        let browser = driver.browser_with_scripts().await;
        browser.0.goto(site.page("/").as_str()).await?;
        browser.picture("admin-login").await?;
        browser.open_admin(&site).await?;
        linus.post(&site.page("/logout"), &[]).await;
        browser.wait_for_news("1 new, 1 gone.").await?;
        browser.picture("admin-list").await?;
        for (path, name) in [
            ("/admin?who=users&limit=3&bound=no&count=yes", "admin-found"),
            ("/admin?user=nobody", "admin-nobody"),
            ("/admin?who=users&created_since=x", "admin-problem"),
            ("/admin/end?who=users", "admin-end"),
            ("/admin/end?usr=ada", "admin-refused"),
        ] {
            browser.0.goto(site.page(path).as_str()).await?;
            browser.picture(name).await?;
        }
        Ok(())
    })
    .await;
}
