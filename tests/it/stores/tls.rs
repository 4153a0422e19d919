//! TLS to PostgreSQL, MariaDB and Redis, with the URLs from `docs/operations.md`. Only this test
//! has the authority that signs the certificates.
//!
//! MariaDB does not have MySQL's own login, `caching_sha2_password`. So `.github/workflows/ci.yml`
//! runs the contract on MySQL.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cloakroom::{AnyStore, Notice, RedisStore, SessionFeed, StoreError, UserIndex, conformance};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redis::aio::ConnectionManager;
use redis::{Client, TlsCertificates};
use support::processes::one_test;
use support::program::binary;
use support::program::{Program, cookie};
use support::servers::{Certificate, Server};
use tempfile::TempDir;

const PAGE: &str = include_str!("../../../docs/operations.md");
const TRUSTED: &str = "/etc/ssl/store-ca.pem";
const PASSWORD: &str = "secret";

/// An authority: its certificate in a file, and the key that it signs with.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), pem).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for the address 127.0.0.1, without a name.
    fn certificate(&self) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate {
            pem: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The URL in the documentation that begins with this scheme.
fn documented(scheme: &str) -> &'static str {
    let (_, section) = PAGE.split_once("# TLS to the store").unwrap();
    let at = section.find(scheme).unwrap();
    section[at..].split(['`', '"']).next().unwrap()
}

/// The text with a part replaced. The text must contain the part.
fn with(text: &str, part: &str, other: &str) -> String {
    assert!(text.contains(part), "{text} has no {part}");
    text.replace(part, other)
}

/// The URL from the documentation, with this server's host and port and this authority's file.
fn url_of_database(scheme: &str, address: &str, authority: &Path) -> String {
    let login = format!("cloakroom:{PASSWORD}@{address}/cloakroom");
    let url = with(documented(scheme), "app:secret@db.example/app", &login);
    with(&url, TRUSTED, authority.to_str().unwrap())
}

fn url_of_redis(host: &str, redis: &Server) -> String {
    let address = format!("{host}:{}", redis.tls_port());
    with(documented("rediss://"), "cache.example:6379", &address)
}

async fn opened(url: &str) -> Arc<dyn UserIndex> {
    let store = AnyStore::connect(url).await.unwrap();
    store.user_index().unwrap()
}

/// Checks what a network could change: records of every size, and many connections at once.
async fn keeps_the_contract(store: Arc<dyn UserIndex>) {
    // This check comes first, because it needs an empty store.
    conformance::sessions_are_listed_by_user(store.clone()).await;
    conformance::a_new_record_is_loaded_as_it_was_inserted(store.clone()).await;
    conformance::a_replace_of_the_expected_version_writes_the_whole_record(store.clone()).await;
    conformance::a_touch_moves_the_expiry_and_nothing_else(store.clone()).await;
    conformance::a_removed_record_stays_missing(store.clone()).await;
    conformance::data_of_64_kib_is_kept(store.clone()).await;
    conformance::sixty_four_tasks_lose_no_change(store).await;
}

/// The error with all its causes, as an application would log it.
fn told(error: &StoreError) -> String {
    let mut text = format!("{error}\n{error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!("\n{cause}");
        source = cause.source();
    }
    text
}

#[track_caller]
fn assert_says(text: &str, advice: &str) {
    assert!(text.contains(advice), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
}

const FOREIGN: &str =
    "this process does not trust the authority that signed the server's certificate";
const ANOTHER_HOST: &str = "the server's certificate is for another host";

/// A database with a certificate. Some connections work, and the client refuses the others.
async fn databases_certificate_is_verified(
    server: &Server,
    authority: &Authority,
    scheme: &str,
    option: &str,
) {
    let refused = async |url: String| told(&AnyStore::connect(&url).await.unwrap_err());
    let (here, by_name) = (server.address(), format!("localhost:{}", server.port()));

    // Another authority has the same name, but a different key.
    for other in [Authority::new("other"), Authority::new("own")] {
        let error = refused(url_of_database(scheme, &here, &other.file())).await;
        assert_says(&error, FOREIGN);
        assert_says(&error, &format!("in the URL, with {option}="));
    }

    // Without a file, the client trusts the authorities of the operating system. This authority
    // does not belong to them.
    let url = url_of_database(scheme, &here, &authority.file());
    let (without, _) = url.rsplit_once('&').unwrap();
    assert_says(&refused(without.to_owned()).await, FOREIGN);

    let error = refused(url_of_database(scheme, &by_name, &authority.file())).await;
    assert_says(&error, ANOTHER_HOST);

    keeps_the_contract(opened(&url).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_reached_over_tls_and_a_wrong_certificate_is_refused() {
    let authority = Authority::new("own");
    let server = Server::postgres_with(&authority.certificate());
    databases_certificate_is_verified(&server, &authority, "postgres://", "sslrootcert").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_reached_over_tls_and_a_wrong_certificate_is_refused() {
    let authority = Authority::new("own");
    let server = Server::mariadb_with(&authority.certificate());
    databases_certificate_is_verified(&server, &authority, "mysql://", "ssl-ca").await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_the_url_asks_for_it() {
    let (authority, server) = (Authority::new("own"), Server::postgres());
    let url = url_of_database("postgres://", &server.address(), &authority.file());
    let error = told(&AnyStore::connect(&url).await.unwrap_err());
    assert_says(&error, "server does not support TLS");
}

/// The client library has no provider for TLS, and panics without one. If the features of all
/// stores are on, another library brings a provider.
#[test]
fn redis_alone_has_what_encrypts() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "cloakroom",
            "--edges",
            "normal",
        ])
        .args([
            "--no-default-features",
            "--features",
            "redis,tls",
            "--invert",
            "ring",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("rustls v"), "{output:?}");
}

fn redis(authority: &Authority) -> Server {
    Server::redis_with(&authority.certificate(), &["--requirepass", PASSWORD])
}

/// The process's environment names the trusted authorities. So this test runs a program.
#[test]
fn redis_is_reached_over_tls_and_a_wrong_certificate_is_refused() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let redis = redis(&authority);
    let program = binary("two_nodes");
    let setting = documented("SSL_CERT_FILE=");
    let (variable, file) = setting.split_once('=').unwrap();
    assert_eq!(file, TRUSTED);

    let refused = |host, authority: &Authority| {
        let output = Command::new(&program)
            .env("REDIS_URL", url_of_redis(host, &redis))
            .env(variable, authority.file())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refused("127.0.0.1", &other);
    assert_says(&error, FOREIGN);
    assert_says(&error, "in the environment variable SSL_CERT_FILE");
    assert_says(&refused("localhost", &authority), ANOTHER_HOST);

    let keys = "5e".repeat(64);
    let node = Program::start(
        &program,
        &[
            ("REDIS_URL", &url_of_redis("127.0.0.1", &redis)),
            (variable, authority.file().to_str().unwrap()),
            ("SESSION_KEYS", &keys),
        ],
    );
    let (status, head, body) = node.send("GET", "/visit", "");
    assert!(status == 200 && body.starts_with("visit 1,"), "{body}");
    let (_, _, body) = node.send("GET", "/visit", &cookie(&head));
    assert!(body.starts_with("visit 2,"), "{body}");
}

/// The feed's own connection uses the settings of the store's: TLS, the authority and the password.
#[tokio::test]
async fn a_feed_of_redis_is_told_over_tls() {
    let variable = "CLOAKROOM_TEST_FEED_OVER_TLS";
    if let Ok(url) = env::var(variable) {
        let store = RedisStore::connect(&url).await.unwrap();
        let mut feed = store.subscribe().await.unwrap();
        let ping = feed.ping();
        assert_eq!(feed.next().await, Some(Notice::Pong(ping)));
        return;
    }
    let authority = Authority::new("own");
    let redis = redis(&authority);
    // Only a process of its own trusts the authority.
    let output = one_test(module_path!(), "a_feed_of_redis_is_told_over_tls")
        .env(variable, url_of_redis("127.0.0.1", &redis))
        .env("SSL_CERT_FILE", authority.file())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("1 passed"), "{printed}");
}

/// The documentation shows how only the sessions' connection trusts an authority.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_over_tls_by_a_connection_with_its_own_authority() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let redis = redis(&authority);
    let connect = async |authority: &Authority| {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(fs::read(authority.file()).unwrap()),
        };
        let client = Client::build_with_tls(url_of_redis("127.0.0.1", &redis), certificates)?;
        let config = redis::aio::ConnectionManagerConfig::new().set_number_of_retries(0);
        ConnectionManager::new_with_config(client, config).await
    };
    assert!(connect(&other).await.is_err());
    let store = RedisStore::from_connection(connect(&authority).await.unwrap());
    keeps_the_contract(Arc::new(store)).await;
}
