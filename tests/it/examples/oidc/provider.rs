//! The tests as the provider of the example: one that makes mistakes, or lies.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKeyId, PrivateSigningKey};
use serde_json::{Value, json};
use support::base64::encode;
use support::program::{Program, binary};
use tokio::net::TcpListener;

use super::{ADA, ExampleClient, ExampleReply, NOT_CONFIRMED, assert_refused, parameter};

/// What the provider answers.
pub(super) struct Answers {
    pub(super) keys: Vec<Value>,
    pub(super) token: Value,
}

pub(super) type SharedAnswers = Arc<Mutex<Answers>>;

pub(super) struct Provider {
    pub(super) issuer: String,
    pub(super) answers: SharedAnswers,
    pub(super) key: CoreEdDsaPrivateSigningKey,
}

/// An ID token, before it is signed.
pub(super) struct Draft {
    pub(super) header: Value,
    pub(super) claims: Value,
}

pub(super) fn new_key(id: &str) -> CoreEdDsaPrivateSigningKey {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let id = JsonWebKeyId::new(id.to_owned());
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem.serialize_pem(), Some(id)).unwrap()
}

pub(super) fn public(key: &CoreEdDsaPrivateSigningKey) -> Value {
    serde_json::to_value(key.as_verification_key()).unwrap()
}

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Draft {
    pub(super) fn unsigned(&self) -> String {
        let encode = |part: &Value| encode(part.to_string().as_bytes());
        format!("{}.{}", encode(&self.header), encode(&self.claims))
    }

    /// The same with claims that no `Value` can hold.
    pub(super) fn signed_with_claims(
        &self,
        key: &CoreEdDsaPrivateSigningKey,
        claims: &str,
    ) -> String {
        let header = self.header.to_string();
        let text = [header.as_str(), claims].map(|part| encode(part.as_bytes()));
        sign(key, text.join("."))
    }

    pub(super) fn signed(&self, key: &CoreEdDsaPrivateSigningKey) -> String {
        sign(key, self.unsigned())
    }
}

fn sign(key: &CoreEdDsaPrivateSigningKey, text: String) -> String {
    let signature = key.sign(&CoreJwsSigningAlgorithm::EdDsa, text.as_bytes());
    text + "." + &encode(&signature.unwrap())
}

impl Provider {
    /// The provider, and a site that uses it.
    pub(super) async fn start() -> (Self, Program) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = new_key("1");
        let answers = Arc::new(Mutex::new(Answers {
            keys: vec![public(&key)],
            token: Value::Null,
        }));
        let discovery = Json(json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
        }));
        let keys = |State(answers): State<SharedAnswers>| async move {
            Json(json!({ "keys": answers.lock().unwrap().keys }))
        };
        let token = |State(answers): State<SharedAnswers>| async move {
            Json(json!({
                "access_token": "unused",
                "token_type": "bearer",
                "id_token": answers.lock().unwrap().token,
            }))
        };
        let app = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(|| async { discovery }),
            )
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(answers.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let environment = [
            ("ISSUER", &*issuer),
            ("CLIENT_ID", "a site"),
            ("CLIENT_SECRET", "a secret"),
        ];
        let site = Program::start(binary("oidc"), &environment);
        let provider = Self {
            issuer,
            answers,
            key,
        };
        (provider, site)
    }

    /// The right ID token for this login.
    fn draft(&self, nonce: &str) -> Draft {
        Draft {
            header: json!({ "alg": "EdDSA", "kid": "1" }),
            claims: json!({
                "iss": self.issuer,
                "sub": ADA,
                "aud": "a site",
                "exp": now() + 300,
                "iat": now(),
                "nonce": nonce,
                "auth_time": now(),
                "name": "Ada",
            }),
        }
    }

    /// Asks for a page, and comes back with the ID token that `answer` makes.
    pub(super) async fn log_in(
        &self,
        browser: &mut ExampleClient,
        site: &Program,
        page: &str,
        answer: impl FnOnce(Draft) -> Value,
    ) -> ExampleReply {
        let asked = browser.provider(&site.page(page)).await;
        let draft = self.draft(&parameter(&asked, "nonce"));
        self.answers.lock().unwrap().token = answer(draft);
        let state = parameter(&asked, "state");
        let back = site.page(&format!("/callback?state={state}&code=any"));
        browser.get(&back).await
    }

    /// The same, with the right key and other claims. A null removes a claim.
    pub(super) async fn log_in_with(
        &self,
        browser: &mut ExampleClient,
        site: &Program,
        page: &str,
        claims: Value,
    ) -> ExampleReply {
        let answer = |draft| self.signed_with(draft, claims);
        self.log_in(browser, site, page, answer).await
    }

    fn signed_with(&self, mut draft: Draft, claims: Value) -> Value {
        for (name, value) in claims.as_object().unwrap() {
            match value {
                Value::Null => draft.claims.as_object_mut().unwrap().remove(name),
                value => draft
                    .claims
                    .as_object_mut()
                    .unwrap()
                    .insert(name.clone(), value.clone()),
            };
        }
        draft.signed(&self.key).into()
    }

    /// Checks that a site refuses the right ID token once it has each of these claims instead, and
    /// takes the right one.
    pub(super) async fn assert_refuses(claims: impl IntoIterator<Item = Value>) {
        let (provider, site) = Self::start().await;
        let mut browser = ExampleClient::new();
        for claims in claims {
            let reply = provider
                .log_in_with(&mut browser, &site, "/login", claims)
                .await;
            assert_refused(&reply, NOT_CONFIRMED);
            assert_eq!(browser.orders(&site).await, None);
        }
        let reply = provider
            .log_in_with(&mut browser, &site, "/login", json!({}))
            .await;
        assert_eq!(reply.location(), "/");
        assert!(browser.orders(&site).await.is_some());
    }
}
