//! Back-channel logout: what the provider sends ends the sessions that it names, and nothing else
//! does.

use futures_util::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::Sha256;
use support::base64::encode;
use support::program::Program;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use url::Url;

use super::provider::{Draft, Provider, new_key, now, public};
use super::{ADA, ExampleClient, GRACE, start};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn socket(site: &Program, browser: &ExampleClient, origin: &str) -> Result<Socket, Error> {
    let url = site.page("/live").to_string().replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    let page = site.page("/");
    let cookies = browser.cookies.get_request_values(&page);
    let cookies: Vec<_> = cookies
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    headers.insert("cookie", cookies.join("; ").parse().unwrap());
    headers.insert("origin", origin.parse().unwrap());
    let (socket, _) = tokio_tungstenite::connect_async(request).await?;
    Ok(socket)
}

async fn open_socket(site: &Program, browser: &ExampleClient) -> Socket {
    let origin = site.page("/").origin().ascii_serialization();
    let mut socket = socket(site, browser, &origin).await.unwrap();
    let welcome = socket.next().await.unwrap().unwrap();
    assert_eq!(welcome, Message::text("Welcome."));
    socket
}

async fn assert_closed(mut socket: Socket) {
    let closed = async {
        loop {
            if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
                return frame.unwrap();
            }
        }
    };
    let bound = std::time::Duration::from_secs(30);
    let frame = tokio::time::timeout(bound, closed).await.unwrap();
    assert_eq!(frame.code, CloseCode::Policy);
    assert_eq!(frame.reason, "your session has ended");
}

impl Provider {
    /// The right logout token, before it is signed.
    fn logout(&self) -> Draft {
        Draft {
            header: json!({ "alg": "EdDSA", "kid": "1", "typ": "logout+jwt" }),
            claims: json!({
                "iss": self.issuer,
                "aud": "a site",
                "iat": now(),
                "exp": now() + 60,
                "jti": format!("jti of {:?}", std::time::Instant::now()),
                "events": { EVENT: {} },
                "sid": "sid of ada",
            }),
        }
    }

    fn logout_with(&self, claims: &Value) -> String {
        let mut draft = self.logout();
        for (name, value) in claims.as_object().unwrap() {
            let all = draft.claims.as_object_mut().unwrap();
            match value {
                Value::Null => all.remove(name),
                value => all.insert(name.clone(), value.clone()),
            };
        }
        draft.signed(&self.key)
    }

    /// Logs a user in to the site, by a session with this name at the provider.
    async fn visitor(&self, site: &Program, user: &str, sid: &str) -> ExampleClient {
        let mut browser = ExampleClient::new();
        let claims = json!({ "sub": user, "sid": sid });
        self.log_in_with(&mut browser, site, "/login", claims).await;
        assert!(browser.orders(site).await.is_some());
        browser
    }
}

/// Sends a logout token as a provider does: without a cookie.
async fn tell(site: &Program, token: &str) -> u16 {
    let mut nobody = ExampleClient::new();
    let reply = nobody
        .post(
            &site.page("/backchannel_logout"),
            &[("logout_token", token)],
        )
        .await;
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(nobody.cookies.iter_any().count(), 0);
    reply.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_at_the_provider_ends_the_sessions_and_closes_their_sockets() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    browser.get(&back).await;
    assert!(browser.orders(&shop).await.is_some());
    let open = open_socket(&shop, &browser).await;
    let mut grace = ExampleClient::new();
    let back = grace.answer_as(&shop.page("/login"), GRACE).await;
    grace.get(&back).await;

    // The page of the provider, where the browser is logged in as well.
    let provider = browser.provider(&shop.page("/login")).await;
    let page = Url::parse(&provider.origin().ascii_serialization()).unwrap();
    let shown = browser.get(&page).await;
    assert!(shown.body.contains("You are logged in here."), "{shown:?}");
    browser.post(&page.join("/log_out").unwrap(), &[]).await;
    assert_closed(open).await;
    assert_eq!(browser.orders(&shop).await, None);
    assert!(grace.orders(&shop).await.is_some());
    let shown = browser.get(&page).await;
    assert!(shown.body.contains("You are not logged in here."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_on_its_way_comes_to_nothing_after_a_logout_at_the_provider() {
    let (provider, site) = Provider::start().await;
    let ends = json!({ "sid": "sid of ada" });
    let ends_all = json!({ "sid": null, "sub": "ada" });
    for (ends, claims, is_refused) in [
        (&ends, json!({ "sub": "ada", "sid": "sid of ada" }), true),
        (&ends, json!({ "sub": "ada", "sid": "another sid" }), false),
        (
            &ends_all,
            json!({ "sub": "ada", "sid": "a third sid" }),
            true,
        ),
        (&ends_all, json!({ "sub": "ada", "sid": null }), true),
        (
            &ends_all,
            json!({ "sub": "grace", "sid": "of grace" }),
            false,
        ),
        // It was made after the logout.
        (&ends_all, json!({ "sub": "ada", "iat": now() + 20 }), false),
    ] {
        assert_eq!(tell(&site, &provider.logout_with(ends)).await, 200);
        let mut browser = ExampleClient::new();
        let reply = provider
            .log_in_with(&mut browser, &site, "/login", claims)
            .await;
        let user = browser.orders(&site).await;
        match is_refused {
            true => {
                super::assert_refused(&reply, "You have logged out at the provider.");
                assert_eq!(user, None);
            }
            false => assert!(user.is_some(), "{reply:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_another_site_or_without_a_login_is_refused() {
    let shop = start();
    let mut browser = ExampleClient::new();
    let back = browser.answer_as(&shop.page("/login"), ADA).await;
    browser.get(&back).await;
    let refused = |answer: Result<Socket, Error>| match answer {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("{other:?}"),
    };
    let foreign = socket(&shop, &browser, "http://evil.example").await;
    assert_eq!(refused(foreign), StatusCode::FORBIDDEN.as_u16());
    let own = shop.page("/").origin().ascii_serialization();
    let visitor = socket(&shop, &ExampleClient::new(), &own).await;
    assert_eq!(refused(visitor), StatusCode::UNAUTHORIZED.as_u16());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sid_ends_its_session_and_a_sub_all_sessions_of_the_user() {
    let (provider, site) = Provider::start().await;
    let mut phone = provider.visitor(&site, ADA, "phone").await;
    let mut laptop = provider.visitor(&site, ADA, "laptop").await;
    let mut tablet = provider.visitor(&site, ADA, "tablet").await;
    let mut grace = provider.visitor(&site, GRACE, "grace").await;

    assert_eq!(
        tell(&site, &provider.logout_with(&json!({ "sid": "phone" }))).await,
        200
    );
    assert_eq!(phone.orders(&site).await, None);
    assert!(laptop.orders(&site).await.is_some());

    // Both must be true of a session.
    let others = json!({ "sid": "laptop", "sub": GRACE });
    assert_eq!(tell(&site, &provider.logout_with(&others)).await, 200);
    assert!(laptop.orders(&site).await.is_some() && grace.orders(&site).await.is_some());
    let both = json!({ "sid": "laptop", "sub": ADA });
    assert_eq!(tell(&site, &provider.logout_with(&both)).await, 200);
    assert_eq!(laptop.orders(&site).await, None);
    assert!(tablet.orders(&site).await.is_some());

    let all = json!({ "sid": null, "sub": ADA });
    assert_eq!(tell(&site, &provider.logout_with(&all)).await, 200);
    assert_eq!(tablet.orders(&site).await, None);
    assert!(grace.orders(&site).await.is_some());
    // Nobody is left, and that is no fault.
    assert_eq!(tell(&site, &provider.logout_with(&all)).await, 200);
}

/// Checks that the site refuses these tokens and ends nothing, and takes the right one.
async fn assert_refused<F>(tokens: F)
where
    F: FnOnce(&Provider) -> Vec<String>,
{
    let (provider, site) = Provider::start().await;
    let mut ada = provider.visitor(&site, ADA, "sid of ada").await;
    for token in tokens(&provider) {
        assert_eq!(tell(&site, &token).await, 400, "{token}");
        assert!(ada.orders(&site).await.is_some(), "{token}");
    }
    let right = provider.logout().signed(&provider.key);
    assert_eq!(tell(&site, &right).await, 200);
    assert_eq!(ada.orders(&site).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_token_without_a_signature_is_refused() {
    assert_refused(|provider| {
        let mut none = provider.logout();
        none.header = json!({ "alg": "none", "typ": "logout+jwt" });
        let unsigned = none.unsigned();
        let signed = provider.logout().signed(&provider.key);
        let (text, _) = signed.rsplit_once('.').unwrap();
        vec![
            format!("{unsigned}."),
            unsigned,
            format!("{text}."),
            text.to_owned(),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_token_that_is_signed_by_another_key_or_algorithm_is_refused() {
    assert_refused(|provider| {
        let other = new_key("1");
        let mut shared = provider.logout();
        shared.header = json!({ "alg": "HS256", "kid": "1", "typ": "logout+jwt" });
        let text = shared.unsigned();
        // The site's secret, and the public key of the provider, as keys of HMAC.
        let public = public(&provider.key)["x"].as_str().unwrap().to_owned();
        let with = |secret: &[u8]| {
            let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            let mac = mac.chain_update(&text).finalize().into_bytes();
            format!("{text}.{}", encode(&mac))
        };
        let mut other_algorithm = provider.logout();
        other_algorithm.header = json!({ "alg": "RS256", "kid": "1", "typ": "logout+jwt" });
        let mut unknown = provider.logout();
        unknown.header = json!({ "alg": "EdDSA", "kid": "2", "typ": "logout+jwt" });
        vec![
            provider.logout().signed(&other),
            with(b"a secret"),
            with(public.as_bytes()),
            other_algorithm.signed(&provider.key),
            unknown.signed(&provider.key),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_token_for_another_site_or_of_another_provider_is_refused() {
    assert_refused(|provider| {
        let claims = [
            json!({ "aud": "another site" }),
            json!({ "aud": ["another site"] }),
            json!({ "aud": [] }),
            json!({ "aud": null }),
            json!({ "iss": "https://evil.example" }),
            json!({ "iss": null }),
        ];
        claims.iter().map(|it| provider.logout_with(it)).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_token_that_is_old_or_of_the_future_is_refused() {
    assert_refused(|provider| {
        let claims = [
            json!({ "iat": now() - 200 }),
            json!({ "iat": now() - 200, "exp": now() + 3600 }),
            json!({ "iat": now() + 120, "exp": now() + 3600 }),
            json!({ "exp": now() - 60 }),
            json!({ "iat": null }),
            json!({ "exp": null }),
            json!({ "iat": "now" }),
            json!({ "nbf": now() + 3600 }),
        ];
        claims.iter().map(|it| provider.logout_with(it)).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_token_is_good_once() {
    let (provider, site) = Provider::start().await;
    let token = provider.logout_with(&json!({ "sid": null, "sub": ADA }));
    let mut ada = provider.visitor(&site, ADA, "sid of ada").await;
    assert_eq!(tell(&site, &token).await, 200);
    assert_eq!(ada.orders(&site).await, None);
    let mut again = ExampleClient::new();
    let after_it = json!({ "sub": ADA, "iat": now() + 20 });
    provider
        .log_in_with(&mut again, &site, "/login", after_it)
        .await;
    assert_eq!(tell(&site, &token).await, 400);
    assert!(again.orders(&site).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_and_other_tokens_of_the_provider_log_nobody_out() {
    assert_refused(|provider| {
        let claims = [
            json!({ "nonce": "any" }),
            json!({ "nonce": "" }),
            json!({ "events": null }),
            json!({ "events": {} }),
            json!({ "events": { EVENT: true } }),
            json!({ "events": { "http://schemas.openid.net/event/other": {} } }),
            json!({ "sid": null }),
            json!({ "sid": "" }),
            json!({ "sid": null, "sub": "" }),
            json!({ "jti": null }),
            json!({ "jti": "" }),
        ];
        let mut tokens: Vec<_> = claims.iter().map(|it| provider.logout_with(it)).collect();
        for header in [
            json!({ "alg": "EdDSA", "kid": "1", "typ": "at+jwt" }),
            json!({ "alg": "EdDSA", "kid": "1", "crit": ["exp"] }),
            json!({ "kid": "1" }),
            json!({ "alg": "EdDSA", "kid": "1", "crit": null }),
        ] {
            let mut draft = provider.logout();
            draft.header = header;
            tokens.push(draft.signed(&provider.key));
        }
        let mut null = provider.logout();
        null.claims["nonce"] = Value::Null;
        tokens.push(null.signed(&provider.key));
        // Of a member that comes twice, nobody can say which one counts.
        for (member, twice) in [
            (format!("\"{EVENT}\":{{}}"), format!("\"{EVENT}\":null")),
            (
                "\"sid\":\"sid of ada\"".to_owned(),
                "\"sid\":\"other\"".to_owned(),
            ),
        ] {
            let claims = provider.logout().claims.to_string();
            assert!(claims.contains(&member), "{claims}");
            let claims = claims.replace(&member, &format!("{twice},{member}"));
            tokens.push(provider.logout().signed_with_claims(&provider.key, &claims));
        }
        tokens
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_is_refused() {
    assert_refused(|provider| {
        let right = provider.logout().signed(&provider.key);
        let twice = right.replacen('.', ".e30.", 1);
        let padded = right.replacen('.', "=.", 1);
        [
            "",
            ".",
            "..",
            "a.b.c",
            "\u{0}",
            &"a.".repeat(9000),
            &twice,
            &padded,
            &format!("{right}A"),
        ]
        .map(str::to_owned)
        .to_vec()
    })
    .await;
    let site = start();
    let mut nobody = ExampleClient::new();
    let page = site.page("/backchannel_logout");
    assert_eq!(nobody.post(&page, &[]).await.status, 400);
    assert_eq!(nobody.get(&page).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_provider_has_changed_is_fetched_once() {
    let (provider, site) = Provider::start().await;
    let mut ada = provider.visitor(&site, ADA, "sid of ada").await;
    let new = new_key("2");
    provider.answers.lock().unwrap().keys = vec![public(&new)];
    let mut draft = provider.logout();
    draft.header = json!({ "alg": "EdDSA", "kid": "2", "typ": "logout+jwt" });
    assert_eq!(tell(&site, &draft.signed(&new)).await, 200);
    assert_eq!(ada.orders(&site).await, None);
    // The old key is worth nothing any more.
    let old = provider.logout().signed(&provider.key);
    assert_eq!(tell(&site, &old).await, 400);
}
