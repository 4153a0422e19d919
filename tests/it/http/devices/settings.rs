//! What a layer needs to bind sessions, and which settings it refuses.

use std::time::Duration;

use cloakroom::{DeviceBinding, MemoryStore, SameSite, Transport};
use http::Method;
use support::builder;

use super::*;
use crate::stores::near;

#[test]
fn settings_that_no_browser_would_take_are_refused_by_name() {
    type Binding = DeviceBinding;
    let binding = || Binding::default();
    let error = |binding: Binding| {
        let built = builder(MemoryStore::new()).bind_to_device(binding).build();
        built.unwrap_err().setting().to_owned()
    };
    for (binding, setting) in [
        (binding().registration_path("bind"), "registration_path"),
        (binding().registration_path(""), "registration_path"),
        (
            binding().registration_path("//example.org/bind"),
            "registration_path",
        ),
        (
            binding().registration_path("/bind?x=1"),
            "registration_path",
        ),
        (binding().registration_path("/b\"ind"), "registration_path"),
        (binding().refresh_path("/r\u{e9}"), "refresh_path"),
        (binding().refresh_path("/session/bind"), "refresh_path"),
        (binding().exclude("static"), "exclude"),
        (
            binding().cookie_lifetime(Duration::from_millis(999)),
            "cookie_lifetime",
        ),
        (
            binding().challenge_lifetime(Duration::ZERO),
            "challenge_lifetime",
        ),
    ] {
        assert_eq!(error(binding), setting);
    }
    let builder = || builder(MemoryStore::new()).bind_to_device(binding());
    let setting = |error: cloakroom::ConfigError| error.setting().to_owned();
    let built = builder().secure(false).build();
    assert_eq!(setting(built.unwrap_err()), "secure");
    let partitioned = builder().same_site(SameSite::None).partitioned(true);
    assert_eq!(setting(partitioned.build().unwrap_err()), "partitioned");
    let bearer = builder().transport(Transport::Bearer);
    assert_eq!(setting(bearer.build().unwrap_err()), "transport");
    let narrow = builder().cookie_name("__Secure-id").cookie_path("/app");
    assert_eq!(setting(narrow.build().unwrap_err()), "registration_path");
    let long = builder().cookie_name(format!("__Host-{}", "x".repeat(4020)));
    assert!(long.build().is_err());
}

#[tokio::test]
async fn a_layer_without_a_binding_answers_neither_path_and_offers_nothing() {
    for bound in [false, true] {
        let layer = builder(MemoryStore::new());
        let app = match bound {
            false => routes().layer(layer.build().unwrap()),
            true => routes().layer(layer.bind_to_device(None).build().unwrap()),
        };
        let cookies = BTreeMap::new();
        let mut browser = Browser { app, cookies };
        let reply = browser.get("/log_in/ada").await;
        assert_eq!(offered(&reply), None);
        for path in [BIND, REFRESH] {
            assert_eq!(browser.send(Method::POST, path, &[]).await.status, 404);
        }
    }
}

#[tokio::test]
async fn the_grace_period_is_never_longer_than_the_lifetime_of_the_bound_cookie() {
    let binding = DeviceBinding::default()
        .cookie_lifetime(Duration::from_secs(5))
        .grace_period(Duration::from_secs(60));
    let (site, device) = (Site::new(binding), Device::es256(1));
    let mut browser = site.browser();
    browser.bind("ada", &device).await;
    browser.cookies.remove(BOUND);
    site.clock.advance(Duration::from_millis(4_999));
    browser.get("/user").await.assert(200, "ada");
    site.clock.advance(Duration::from_millis(1));
    browser.get("/user").await.assert(401, "");
}

/// The browser's clock and the server's need not agree, and a request takes time.
#[tokio::test]
async fn the_browser_gives_the_bound_cookie_up_before_the_layer_does() {
    for (lifetime, max_age) in [(1, 1), (4, 3), (60, 45), (120, 90), (600, 570)] {
        let binding = DeviceBinding::default().cookie_lifetime(Duration::from_secs(lifetime));
        let (site, device) = (Site::new(binding), Device::es256(1));
        let mut browser = site.browser();
        let challenge = browser.log_in("ada").await;
        let reply = browser.register(&device.registration(&challenge)).await;
        assert!(reply.cookies()[0].ends_with(&format!("; Max-Age={max_age}")));
        site.clock
            .advance(Duration::from_secs(lifetime) - Duration::from_millis(1));
        browser.get("/user").await.assert(200, "ada");
    }
}

#[tokio::test]
async fn the_paths_and_lifetimes_are_those_of_the_settings() {
    let binding = DeviceBinding::default()
        .registration_path("/auth/bind")
        .refresh_path("/auth/refresh")
        .cookie_lifetime(Duration::from_secs(5))
        .challenge_lifetime(Duration::from_secs(7))
        .grace_period(Duration::ZERO);
    let (site, device) = (Site::new(binding), Device::es256(1));
    let mut browser = site.browser();
    let offer = browser.get("/log_in/ada").await;
    let offer = offer
        .header("secure-session-registration")
        .unwrap()
        .to_owned();
    let challenge = offer
        .strip_prefix("(ES256 RS256);path=\"/auth/bind\";challenge=\"")
        .and_then(|rest| rest.strip_suffix('"'));
    let proof = format!("\"{}\"", device.registration(challenge.unwrap()));
    site.clock.advance(Duration::from_millis(6_999));
    let headers = [("secure-session-response", &*proof)];
    let reply = browser.send(Method::POST, "/auth/bind", &headers).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains("\"refresh_url\":\"/auth/refresh\""));
    assert!(reply.cookies()[0].ends_with("; Max-Age=3"));
    browser.get("/user").await.assert(200, "ada");
    let mut thief = browser.clone();
    thief.cookies.remove(BOUND);
    thief.get("/user").await.assert(401, "");
    site.clock.advance(Duration::from_secs(5));
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn only_a_login_offers_a_binding() {
    let site = site();
    let mut browser = site.browser();
    for path in [
        "/insert/theme/dark",
        "/log_in/ada",
        "/regenerate",
        "/update/visits",
        "/log_out",
    ] {
        let reply = browser.get(path).await;
        assert_eq!(offered(&reply).is_some(), path == "/log_in/ada", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_cache_is_behind_does_not_end_a_new_binding() {
    let (store, clock) = (near::Played::new(), TestClock::new());
    let app = |store| {
        let builder = builder(store).clock(clock.clone());
        let layer = builder.bind_to_device(DeviceBinding::default()).build();
        routes().layer(layer.unwrap())
    };
    // The nodes hear nothing of each other.
    let (here, _here) = near::node(&store).await;
    let (there, _there) = near::node(&store).await;
    let (here, there) = (app(here), app(there));
    let (device, cookies) = (Device::es256(1), BTreeMap::new());
    let mut browser = Browser {
        app: here.clone(),
        cookies,
    };
    let challenge = browser.log_in("ada").await;
    browser.app = there.clone();
    browser.get("/user").await.assert(200, "ada");
    browser.app = here;
    let reply = browser.register(&device.registration(&challenge)).await;
    assert_eq!(reply.status, 200);
    browser.app = there;
    let id = browser.id();
    assert_eq!(browser.renew(id, &device).await.status, 200);
}
