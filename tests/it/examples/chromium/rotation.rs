//! The rotation of tokens with a real browser and a thief. The application runs in this process, so
//! that the test moves the clock.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloakroom::{
    Client, CurrentUser, MemoryStore, Session, SessionError, SessionEvent, SessionEventKind,
    SessionLayer, SigningKey, TestClock,
};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::super::demo::client::DemoClient;
use super::tell_without_demo;

const INTERVAL: Duration = Duration::from_secs(10 * 60);
const STEP: Duration = Duration::from_secs(2 * 60);

/// A small application over TLS, with a clock that the test moves.
struct Site {
    url: Url,
    clock: TestClock,
    reuses: Arc<Mutex<Vec<SessionEvent>>>,
    public_key_hash: String,
    dir: TempDir,
}

impl Site {
    async fn start() -> Self {
        let (clock, reuses) = (TestClock::new(), Arc::new(Mutex::new(Vec::new())));
        let alarms = Arc::clone(&reuses);
        let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate().unwrap())
            .clock(clock.clone())
            .rotate_every(INTERVAL)
            .client_from(|headers, _| {
                let agent = headers[http::header::USER_AGENT].to_str().unwrap();
                Client::new().with_user_agent(agent)
            })
            .on_event(move |event| {
                if event.kind() == SessionEventKind::Reuse {
                    alarms.lock().unwrap().push(event.clone());
                }
            })
            .build()
            .unwrap();
        let log_in = async |session: Session| -> Result<Html<&'static str>, SessionError> {
            session.log_in("ada")?;
            Ok(Html("<p id=in>in</p>"))
        };
        let page = async |user: Option<CurrentUser>| {
            let user = user.map_or("nobody".to_owned(), |CurrentUser(user)| user.to_string());
            Html(format!("<p id=user>{user}</p>"))
        };
        let app = Router::new()
            .route("/", get(page))
            .route("/login", get(log_in))
            .layer(layer);

        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let public_key = made.signing_key.subject_public_key_info();
        tokio::spawn(serve(
            listener,
            app,
            made.cert.der().clone(),
            made.signing_key,
        ));
        Self {
            url: format!("https://{address}").parse().unwrap(),
            clock,
            reuses,
            public_key_hash: STANDARD.encode(Sha256::digest(public_key)),
            dir,
        }
    }
}

async fn serve(
    listener: TcpListener,
    app: Router,
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: KeyPair,
) {
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, app) = (acceptor.clone(), app.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let service = TowerToHyperService::new(app);
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = served.await;
            }
        });
    }
}

/// Whom the page names, to a client that is not a browser.
fn user_of(client: &mut DemoClient) -> String {
    // The client blocks its thread.
    let page = tokio::task::block_in_place(|| client.get("/"));
    assert_eq!(page.status, 200, "{page:?}");
    page.between("<p id=user>", "<").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium and chromium-driver; ./check runs it"]
async fn a_copied_token_ends_the_session_within_two_intervals_and_names_the_user() {
    tell_without_demo(|driver| async move {
        let site = Site::start().await;
        let browser = driver.browser_with_device(&site.public_key_hash).await;
        browser
            .0
            .goto(site.url.join("/login").unwrap().as_str())
            .await?;
        assert_eq!(browser.text("#in").await?, "in");

        let mut thief = DemoClient::of(&site.url, Some(&site.dir.path().join("cert.pem")));
        for cookie in browser.0.get_all_cookies().await? {
            let cookie = format!("{}={}; Path=/; Secure", cookie.name(), cookie.value());
            thief.cookies.parse(&cookie, &thief.base).unwrap();
        }
        let mut passed = Duration::ZERO;
        let named = loop {
            browser.0.goto(site.url.as_str()).await?;
            let named = (browser.text("#user").await?, user_of(&mut thief));
            if named != ("ada".to_owned(), "ada".to_owned()) {
                break named;
            }
            assert!(site.reuses.lock().unwrap().is_empty());
            site.clock.advance(STEP);
            passed += STEP;
            assert!(passed <= 2 * INTERVAL + Duration::from_secs(60) + STEP);
        };
        // The copy worked until the first rotation at least.
        assert!(passed >= INTERVAL, "{passed:?}: {named:?}");

        // The session is over for both.
        browser.0.goto(site.url.as_str()).await?;
        assert_eq!(browser.text("#user").await?, "nobody");
        assert_eq!(user_of(&mut thief), "nobody");
        let reuses = site.reuses.lock().unwrap().clone();
        let [reuse] = &*reuses else {
            panic!("one alarm, and not {reuses:?}");
        };
        assert_eq!(reuse.user().unwrap().to_string(), "ada");
        let agent = |client: Option<&Client>| client.unwrap().user_agent().unwrap().to_owned();
        let mut agents = [agent(reuse.client()), agent(reuse.presented_by())];
        agents.sort_by_key(|agent| agent.contains("Firefox"));
        assert!(agents[0].contains("Chrome"), "{agents:?}");
        assert_eq!(agents[1], thief.user_agent);
        Ok(())
    })
    .await;
}
