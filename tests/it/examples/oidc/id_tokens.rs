//! What a site takes from a provider: only its own ID tokens, for this login.

use openidconnect::PrivateSigningKey;
use openidconnect::core::{CoreHmacKey, CoreJwsSigningAlgorithm};
use serde_json::{Value, json};
use support::base64::encode;
use support::program::binary;

use super::provider::{Draft, Provider, new_key, now, public};
use super::{ExampleClient, NOT_CONFIRMED, assert_refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_with_a_wrong_nonce_or_none_is_refused() {
    Provider::assert_refuses([
        json!({ "nonce": "of another login" }),
        json!({ "nonce": "" }),
        json!({ "nonce": null }),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_of_the_same_users_other_login_is_refused() {
    let (provider, site) = Provider::start().await;
    let mut browser = ExampleClient::new();
    let mut stolen = Value::Null;
    let answer = |draft: Draft| {
        stolen = draft.signed(&provider.key).into();
        stolen.clone()
    };
    let reply = provider.log_in(&mut browser, &site, "/login", answer).await;
    assert_eq!(reply.location(), "/");
    let mut other = ExampleClient::new();
    for browser in [&mut browser, &mut other] {
        let reply = provider
            .log_in(browser, &site, "/login", |_| stolen.clone())
            .await;
        assert_refused(&reply, NOT_CONFIRMED);
    }
    assert_eq!(other.orders(&site).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_for_another_audience_is_refused() {
    Provider::assert_refuses([
        json!({ "aud": "another site" }),
        json!({ "aud": ["a site", "another site"] }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_of_another_issuer_is_refused() {
    Provider::assert_refuses([
        json!({ "iss": "http://127.0.0.1:1" }),
        json!({ "iss": null }),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_that_has_expired_is_refused() {
    let claims = [json!({ "exp": now() - 1 }), json!({ "exp": null })];
    Provider::assert_refuses(claims).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_without_a_user_is_refused() {
    Provider::assert_refuses([json!({ "sub": null })]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_that_the_provider_has_not_signed_is_refused() {
    type Forge = fn(&Provider, Draft) -> Value;
    let forgeries: [(&str, Forge); 6] = [
        ("another key of the same name", |_, draft| {
            draft.signed(&new_key("1")).into()
        }),
        ("a key that the provider does not have", |_, mut draft| {
            draft.header["kid"] = "2".into();
            draft.signed(&new_key("2")).into()
        }),
        (
            "claims of another user under the old signature",
            |provider, mut draft| {
                let signed = draft.signed(&provider.key);
                draft.claims["sub"] = "1906".into();
                let (_, signature) = signed.rsplit_once('.').unwrap();
                format!("{}.{signature}", draft.unsigned()).into()
            },
        ),
        ("no signature", |_, mut draft| {
            draft.header = json!({ "alg": "none" });
            format!("{}.", draft.unsigned()).into()
        }),
        (
            "a signature with a secret that the provider does not sign with",
            |_, mut draft| {
                draft.header = json!({ "alg": "HS256" });
                let (text, algorithm) = (draft.unsigned(), CoreJwsSigningAlgorithm::HmacSha256);
                let signature = CoreHmacKey::new("a secret").sign(&algorithm, text.as_bytes());
                format!("{text}.{}", encode(&signature.unwrap())).into()
            },
        ),
        ("no ID token at all", |_, _| Value::Null),
    ];
    let (provider, site) = Provider::start().await;
    let mut browser = ExampleClient::new();
    for (name, forge) in forgeries {
        let answer = |draft| forge(&provider, draft);
        let reply = provider.log_in(&mut browser, &site, "/login", answer).await;
        assert_refused(&reply, NOT_CONFIRMED);
        assert_eq!(browser.orders(&site).await, None, "{name}");
    }
    let reply = provider
        .log_in_with(&mut browser, &site, "/login", json!({}))
        .await;
    assert_eq!(reply.location(), "/");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_may_replace_its_key() {
    let (mut provider, site) = Provider::start().await;
    let mut browser = ExampleClient::new();
    for id in ["1", "2"] {
        provider.key = new_key(id);
        provider.answers.lock().unwrap().keys = vec![public(&provider.key)];
        let answer = |mut draft: Draft| {
            draft.header["kid"] = id.into();
            draft.signed(&provider.key).into()
        };
        let reply = provider
            .log_in(&mut browser, &site, "/orders", answer)
            .await;
        assert_eq!(reply.location(), "/orders");
        browser.post(&site.page("/logout"), &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_does_not_start_with_a_provider_of_another_name() {
    // The address is that of the provider, and the document there has another issuer.
    let (provider, _site) = Provider::start().await;
    let other = provider.issuer.replace("127.0.0.1", "localhost");
    let mut site = std::process::Command::new(binary("oidc"));
    let site = site.env("PORT", "0").env("ISSUER", other).output().unwrap();
    assert!(!site.status.success());
    let error = String::from_utf8(site.stderr).unwrap();
    assert!(error.contains("unexpected issuer"), "{error}");
}
