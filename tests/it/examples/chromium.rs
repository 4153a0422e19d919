//! The demo in a real browser. Chromedriver controls Chromium, and scripts are off in its pages,
//! except in `admin.rs`, `cross_origin.rs` and `two_nodes.rs`.

mod admin;
mod cross_origin;
mod devices;
mod login;
mod rotation;
mod two_nodes;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::demo::process::Demo;
use fantoccini::cookies::Cookie;
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;
use url::Url;

/// With these, Chromium runs without a screen, as any user, and does not contact its maker.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
];

/// Debian's Chromium can bind sessions, and does so with this only. The machine of the tests has no
/// hardware for keys.
const BINDS_SESSIONS: &str = "--enable-features=DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting";

/// A name, the width and the height in CSS pixels, and the number of real pixels for each.
const SIZES: [(&str, u32, u32, u32); 2] = [("desk", 1280, 800, 1), ("phone", 390, 844, 2)];

/// A running chromedriver, and the browsers that it has started.
struct Driver {
    process: Child,
    url: String,
    browsers: Mutex<Vec<Client>>,
    /// The browsers' profiles.
    profiles: TempDir,
}

impl Driver {
    fn start() -> Self {
        let found = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .map(|dir| dir.join(program))
                .find(|file| file.exists())
        };
        let (Some(_), Some(chromedriver)) = (found("chromium"), found("chromedriver")) else {
            panic!(
                "this test needs a browser: install the Debian packages `chromium` and `chromium-driver`"
            );
        };
        let mut process = Command::new(chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines
                .next()
                .expect("chromedriver ended without a port")
                .unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // This thread also reads the later output. Otherwise chromedriver would stop at a full
        // pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            browsers: Mutex::default(),
            profiles: tempfile::tempdir().unwrap(),
        }
    }

    /// A browser with its own profile, and without scripts.
    async fn browser(&self) -> Chromium {
        let browser = self.browser_with_scripts().await;
        browser
            .devtools(
                "Emulation.setScriptExecutionDisabled",
                json!({ "value": true }),
            )
            .await;
        browser
    }

    /// A browser with its own profile.
    async fn browser_with_scripts(&self) -> Chromium {
        self.start_browser(&[]).await
    }

    /// A browser that trusts the demo's certificate, and binds sessions to its device. It keeps the
    /// keys in software.
    async fn browser_with_device(&self, public_key_hash: &str) -> Chromium {
        let trust = format!("--ignore-certificate-errors-spki-list={public_key_hash}");
        self.start_browser(&[BINDS_SESSIONS, &trust]).await
    }

    async fn start_browser(&self, more: &[&str]) -> Chromium {
        let mut browsers = self.browsers.lock().await;
        let profile = self.profiles.path().join(browsers.len().to_string());
        let mut arguments: Vec<_> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let Value::Object(capabilities) = json!({
            "goog:chromeOptions": {
                "args": arguments,
                // Debian's Chromium blocks cookies of other sites. Here only SameSite may do that.
                "prefs": { "profile.cookie_controls_mode": 0 },
            },
            // The driver waits for an element while the page is loading.
            "timeouts": { "implicit": 3000 },
        }) else {
            unreachable!()
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&self.url)
            .await
            .unwrap();
        browsers.push(client.clone());
        Chromium(client)
    }

    /// Ends the browsers. A killed chromedriver would leave them running.
    async fn close(&self) {
        for browser in self.browsers.lock().await.drain(..) {
            let _ = browser.close().await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a story with a new demo. Ends all browsers, whether the story succeeds or fails.
async fn tell<F>(story: impl FnOnce(Arc<Driver>, Demo) -> F)
where
    F: Future<Output = Result<(), CmdError>> + Send + 'static,
{
    tell_with(&[], story).await;
}

/// Runs a story with a new demo that has these options.
async fn tell_with<F>(options: &[&str], story: impl FnOnce(Arc<Driver>, Demo) -> F)
where
    F: Future<Output = Result<(), CmdError>> + Send + 'static,
{
    tell_without_demo(|driver| story(driver, Demo::start_with(options))).await;
}

async fn tell_without_demo<F>(story: impl FnOnce(Arc<Driver>) -> F)
where
    F: Future<Output = Result<(), CmdError>> + Send + 'static,
{
    let driver = Arc::new(Driver::start());
    let told = tokio::spawn(story(driver.clone())).await;
    driver.close().await;
    match told {
        Ok(result) => result.unwrap(),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A command of Chromium's own protocol. WebDriver does not offer it.
#[derive(Debug)]
struct DevTools(Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _url: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

#[derive(Clone)]
struct Chromium(Client);

impl Chromium {
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.0
            .issue_cmd(DevTools(json!({ "cmd": command, "params": parameters })))
            .await
            .unwrap()
    }

    /// The path of the current page.
    async fn path(&self) -> Result<String, CmdError> {
        Ok(self.0.current_url().await?.path().to_owned())
    }

    /// The path and the query of the current page.
    async fn address(&self) -> Result<String, CmdError> {
        Ok(self.0.current_url().await?[url::Position::BeforePath..].to_owned())
    }

    async fn text(&self, selector: &str) -> Result<String, CmdError> {
        self.0.find(Locator::Css(selector)).await?.text().await
    }

    async fn has(&self, selector: &str) -> Result<bool, CmdError> {
        Ok(!self.0.find_all(Locator::Css(selector)).await?.is_empty())
    }

    async fn click(&self, selector: &str) -> Result<(), CmdError> {
        let element = self.0.find(Locator::Css(selector)).await?;
        self.leave_by(element).await
    }

    /// Clicks an element that leads to another page. Waits until the browser is there.
    async fn leave_by(&self, element: Element) -> Result<(), CmdError> {
        let page = self.0.find(Locator::Css("html")).await?;
        element.click().await?;
        for _ in 0..400 {
            // After the browser has left a page, its elements give an error.
            if page.tag_name().await.is_err() {
                self.0.find(Locator::Css("body")).await?;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the page did not go away");
    }

    /// Fills in the first form of the page, and sends it with its button, as a user does.
    async fn send(&self, fields: &[(&str, &str)]) -> Result<(), CmdError> {
        let form = self.0.find(Locator::Css("main form")).await?;
        for (name, value) in fields {
            let field = form
                .find(Locator::Css(&format!("input[name='{name}']")))
                .await?;
            field.clear().await?;
            field.send_keys(value).await?;
        }
        let button = form.find(Locator::Css("button")).await?;
        self.leave_by(button).await
    }

    async fn log_in(&self, demo: &Demo, name: &str, password: &str) -> Result<(), CmdError> {
        self.0.goto(demo.page("/login").as_str()).await?;
        self.send(&[("username", name), ("password", password)])
            .await?;
        assert_eq!(self.path().await?, "/");
        assert_eq!(self.text("#user").await?, name);
        Ok(())
    }

    async fn register(&self, demo: &Demo, name: &str, password: &str) -> Result<(), CmdError> {
        self.0.goto(demo.page("/register").as_str()).await?;
        self.send(&[("username", name), ("password", password)])
            .await?;
        assert_eq!(self.text("#user").await?, name);
        Ok(())
    }

    async fn cookie(&self) -> Result<Cookie<'static>, CmdError> {
        self.0.get_named_cookie("session").await
    }

    /// Takes pictures of the whole page, in both sizes and both themes.
    async fn picture(&self, name: &str) -> Result<(), CmdError> {
        for theme in ["light", "dark"] {
            let feature = json!({ "name": "prefers-color-scheme", "value": theme });
            self.devtools(
                "Emulation.setEmulatedMedia",
                json!({ "features": [feature] }),
            )
            .await;
            for (size, width, height, scale) in SIZES {
                self.resize(width, height, scale).await;
                let layout = self.devtools("Page.getLayoutMetrics", json!({})).await;
                let content = &layout["cssContentSize"];
                let length = |side: &str| u32::try_from(content[side].as_u64().unwrap()).unwrap();
                assert!(length("width") <= width, "{name} is wider than the {size}");
                self.resize(width, length("height").max(height), scale)
                    .await;
                let picture = self.0.screenshot().await?;
                std::fs::write(
                    pictures().join(format!("{name}-{size}-{theme}.png")),
                    picture,
                )
                .unwrap();
            }
        }
        self.devtools("Emulation.clearDeviceMetricsOverride", json!({}))
            .await;
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [] }))
            .await;
        Ok(())
    }

    async fn resize(&self, width: u32, height: u32, scale: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": scale > 1 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }
}

/// target/screenshots
fn pictures() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("screenshots");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_user_registers_and_stays_logged_in_over_a_reload_and_a_restart() {
    tell(|driver, mut demo| async move {
        let browser = driver.browser().await;
        browser.0.goto(demo.page("/private").as_str()).await?;
        assert_eq!(browser.path().await?, "/login");
        browser.click("main a[href^='/register']").await?;
        browser
            .send(&[("username", "grace"), ("password", "nanoseconds")])
            .await?;
        assert_eq!(browser.path().await?, "/private");
        assert_eq!(
            browser.text(".flash").await?,
            "Welcome, grace. Your account is made."
        );

        browser.0.refresh().await?;
        assert!(!browser.has(".flash").await?);
        assert_eq!(browser.text("dd").await?, "grace");
        browser.click(".brand").await?;
        assert_eq!(browser.text("#visits").await?, "1");

        demo.restart();
        browser.0.goto(demo.url().as_str()).await?;
        assert_eq!(browser.text("#user").await?, "grace");
        assert_eq!(browser.text("#visits").await?, "2");

        browser.click("button[value='dark']").await?;
        assert_eq!(
            browser
                .0
                .find(Locator::Css("html"))
                .await?
                .css_value("color-scheme")
                .await?,
            "dark"
        );
        browser.click("#log-out").await?;
        assert_eq!(browser.text(".flash").await?, "You are logged out.");
        browser.log_in(&demo, "grace", "nanoseconds").await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_user_logs_one_browser_out_from_another() {
    tell(|driver, demo| async move {
        let (desk, phone) = (driver.browser().await, driver.browser().await);
        desk.log_in(&demo, "ada", "lovelace").await?;
        phone.log_in(&demo, "ada", "lovelace").await?;
        phone.click("nav a[href='/private']").await?;
        assert_eq!(phone.path().await?, "/private");

        desk.click("nav a[href='/devices']").await?;
        assert_eq!(desk.0.find_all(Locator::Css(".devices li")).await?.len(), 2);
        desk.click(".revoke").await?;
        assert_eq!(desk.text(".flash").await?, "That device is logged out.");
        assert_eq!(desk.0.find_all(Locator::Css(".devices li")).await?.len(), 1);

        phone.0.refresh().await?;
        assert_eq!(phone.path().await?, "/login");
        // The address of the login page has the page to come back to.
        phone
            .send(&[("username", "ada"), ("password", "lovelace")])
            .await?;
        assert_eq!(phone.path().await?, "/private");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn after_a_logout_neither_the_back_button_nor_the_old_cookie_shows_anything() {
    tell(|driver, demo| async move {
        let browser = driver.browser().await;
        browser.log_in(&demo, "ada", "lovelace").await?;
        browser.click("nav a[href='/devices']").await?;
        browser.click("nav a[href='/private']").await?;
        assert_eq!(browser.text("dd").await?, "ada");
        let old = browser.cookie().await?;

        browser.click("#log-out").await?;
        assert_eq!(browser.path().await?, "/");
        assert!(!browser.has("#user").await?);
        for _ in ["the private page", "the devices"] {
            browser.0.back().await?;
            assert_eq!(browser.path().await?, "/login");
            assert!(
                !browser.has("dd").await?
                    && !browser.has(".devices").await?
                    && !browser.has("#log-out").await?
            );
        }

        assert_ne!(browser.cookie().await?.value(), old.value());
        browser.0.delete_cookie("session").await?;
        browser.0.add_cookie(old.clone()).await?;
        assert_eq!(browser.cookie().await?.value(), old.value());
        browser.0.goto(demo.page("/private").as_str()).await?;
        assert_eq!(browser.path().await?, "/login");
        browser.0.goto(demo.url().as_str()).await?;
        assert!(!browser.has("#user").await?);
        Ok(())
    })
    .await;
}

/// The pictures are in target/screenshots. A person can look at them there.
#[tokio::test]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn every_page_fits_a_desk_and_a_phone_in_both_themes() {
    tell(|driver, demo| async move {
        let browser = driver.browser().await;
        let open = async |path: &str| browser.0.goto(demo.page(path).as_str()).await;
        for (path, name) in [
            ("/", "home-visitor"),
            ("/register", "register"),
            ("/login", "login"),
            ("/no/such/page", "not-found"),
        ] {
            open(path).await?;
            browser.picture(name).await?;
        }
        open("/login").await?;
        browser
            .send(&[("username", "ada"), ("password", "a wrong one")])
            .await?;
        browser.picture("login-wrong").await?;

        driver
            .browser()
            .await
            .log_in(&demo, "ada", "lovelace")
            .await?;
        browser.log_in(&demo, "ada", "lovelace").await?;
        browser.picture("home").await?;
        open("/users").await?;
        browser.picture("users-none").await?;
        let grace = driver.browser().await;
        grace.register(&demo, "grace", "nanoseconds").await?;
        let long_name = "a-name.of_thirty-two.letters.123";
        driver
            .browser()
            .await
            .register(&demo, long_name, "nanoseconds")
            .await?;
        for (path, name) in [
            ("/private", "private"),
            ("/devices", "devices"),
            ("/password", "password"),
            ("/confirm", "confirm"),
            ("/users", "users"),
        ] {
            open(path).await?;
            browser.picture(name).await?;
        }
        grace.0.goto(demo.page("/users").as_str()).await?;
        grace.picture("users-refused").await?;

        browser.click("[aria-label='Act as grace']").await?;
        browser.picture("acting-home").await?;
        for (path, name) in [
            ("/devices", "acting-devices"),
            ("/password", "acting-refused"),
        ] {
            open(path).await?;
            browser.picture(name).await?;
        }
        grace.0.goto(demo.page("/devices").as_str()).await?;
        grace.picture("devices-of-other").await?;
        browser.click("#stop-acting").await?;
        browser.picture("users-again").await?;
        let act_as = format!("[aria-label='Act as {long_name}']");
        browser.click(&act_as).await?;
        browser.picture("acting-long-name").await?;
        Ok(())
    })
    .await;
}
