//! Logins that count for what the provider says about them, and pages that need more.

use http::header::{SET_COOKIE, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use url::Url;

use super::provider::{Provider, now};
use super::{ADA, ExampleClient, assert_refused, has_parameter, parameter, start, with_parameter};

/// The 24 hours before now.
const DAY: u64 = 24 * 60 * 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_counts_from_the_time_that_the_provider_says() {
    let (provider, site) = Provider::start().await;
    // A provider that says no time may have asked for the password long ago.
    for time in [
        json!(now() - DAY),
        json!(now() - 10 * 60),
        Value::Null,
        json!(now() + DAY),
    ] {
        let mut browser = ExampleClient::new();
        let old = json!({ "auth_time": time });
        let reply = provider
            .log_in_with(&mut browser, &site, "/login", old.clone())
            .await;
        assert_eq!(reply.location(), "/");
        assert!(browser.orders(&site).await.is_some());

        // A form is not sent away.
        let reply = browser.post(&site.page("/address"), &[]).await;
        assert_eq!(reply.status, 401);
        let challenge = reply.header(WWW_AUTHENTICATE);
        assert!(challenge.contains("insufficient_user_authentication"));
        assert!(challenge.contains("max_age=\"300\""), "{challenge}");

        // The provider does not ask again. So neither the page nor a loop of redirects comes.
        for _ in 0..2 {
            let asked = browser.provider(&site.page("/address")).await;
            assert_eq!(parameter(&asked, "max_age"), "300");
            let reply = provider
                .log_in_with(&mut browser, &site, "/address", old.clone())
                .await;
            assert_refused(&reply, "did not ask you to log in");
        }
        assert!(browser.orders(&site).await.is_some());

        let reply = provider
            .log_in_with(&mut browser, &site, "/address", json!({}))
            .await;
        assert_eq!(reply.location(), "/address");
        let address = browser.body(&site, "/address").await;
        assert_eq!(address.unwrap(), "The address of user 1815.\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_has_the_level_and_the_methods_that_the_provider_says() {
    let (provider, site) = Provider::start().await;
    let mut browser = ExampleClient::new();
    for level in [Value::Null, json!("aal1"), json!("aal22"), json!("")] {
        let low = json!({ "acr": level });
        let reply = provider
            .log_in_with(&mut browser, &site, "/cards", low)
            .await;
        assert_refused(&reply, "did not ask you to log in");
        assert!(browser.orders(&site).await.is_some());
    }
    let reply = browser.post(&site.page("/cards"), &[]).await;
    assert_eq!(reply.status, 401);
    assert!(
        reply
            .header(WWW_AUTHENTICATE)
            .contains("acr_values=\"aal2\"")
    );

    let asked = browser.provider(&site.page("/cards")).await;
    assert_eq!(parameter(&asked, "acr_values"), "aal2");
    assert_eq!(has_parameter(&asked, "max_age"), None);
    let high = json!({ "acr": "aal2", "amr": ["hwk", "pin"] });
    let reply = provider
        .log_in_with(&mut browser, &site, "/cards", high)
        .await;
    assert_eq!(reply.location(), "/cards");
    assert!(browser.body(&site, "/cards").await.is_some());
    let home = browser.body(&site, "/").await.unwrap();
    assert!(
        home.contains("<span id=\"methods\">hwk and pin</span>"),
        "{home}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_up_as_another_user_is_a_login_of_that_user() {
    let (provider, site) = Provider::start().await;
    let mut browser = ExampleClient::new();
    provider
        .log_in_with(&mut browser, &site, "/login", json!({}))
        .await;
    let grace = json!({ "sub": "1906", "name": "Grace", "acr": "aal2" });
    let reply = provider
        .log_in_with(&mut browser, &site, "/cards", grace)
        .await;
    assert_eq!(reply.location(), "/cards");
    let cards = browser.body(&site, "/cards").await;
    assert_eq!(cards.unwrap(), "The cards of user 1906.\n");
    let home = browser.body(&site, "/").await.unwrap();
    assert!(home.contains("Grace") && !home.contains("Ada"), "{home}");
}

#[tokio::test]
async fn a_second_factor_is_asked_for_once_and_for_the_page_that_needs_it() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    browser.get(&back).await;
    assert!(browser.body(&shop, "/address").await.is_some());

    let cards = shop.page("/cards?page=2");
    let provider = browser.provider(&cards).await;
    assert_eq!(parameter(&provider, "acr_values"), "aal2");
    let form = [("user", ADA), ("otp", "yes")];
    let back = browser.answer_at(&provider, &form).await;
    assert_eq!(browser.get(&back).await.location(), "/cards?page=2");
    let page = browser.body(&shop, "/cards?page=2").await;
    assert_eq!(page.unwrap(), "The cards of user 1815.\n");
    let home = browser.body(&shop, "/").await.unwrap();
    assert!(
        home.contains("<span id=\"methods\">pwd and otp</span>"),
        "{home}"
    );
    assert!(browser.orders(&shop).await.is_some());
}

#[tokio::test]
async fn a_user_whom_the_provider_knows_is_not_asked_again_until_the_logout() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    browser.get(&back).await;
    // The shop's session is gone, and the one at the provider is not.
    browser.cookies.remove("127.0.0.1", "/", "session");
    assert_eq!(browser.orders(&shop).await, None);
    let provider = browser.provider(&shop.page("/orders")).await;
    let back = Url::parse(browser.get(&provider).await.location()).unwrap();
    assert_eq!(browser.get(&back).await.location(), "/orders");

    // A link without the `sid` logs nobody out at the provider.
    let reply = browser.post(&shop.page("/logout"), &[]).await;
    let logout = Url::parse(reply.location()).unwrap();
    assert_eq!(browser.orders(&shop).await, None);
    let forged = with_parameter(&logout, "logout_hint", "forged");
    assert_eq!(
        browser.get(&forged).await.location(),
        shop.page("/").as_str()
    );
    assert_eq!(browser.get(&provider).await.status, 303);
    assert_eq!(
        browser.get(&logout).await.location(),
        shop.page("/").as_str()
    );
    assert_eq!(browser.get(&provider).await.status, 200);
}

#[tokio::test]
async fn a_form_of_a_user_who_must_log_in_first_is_not_redirected() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let reply = browser.post(&shop.page("/address"), &[]).await;
    assert_eq!(reply.status, 401);
    assert!(reply.headers.get(SET_COOKIE).is_none());
    assert_eq!(reply.header(WWW_AUTHENTICATE), "Cookie realm=\"session\"");
}
