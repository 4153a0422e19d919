//! TLS to PostgreSQL, MariaDB and Redis, with a certificate of an authority that only this test has, and by the URLs of
//! `docs/operations.md`.
//!
//! MySQL's own login, `caching_sha2_password`, is one that MariaDB has not: `.github/workflows/ci.yml` runs the contract on
//! MySQL.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/program.rs"]
mod program;
#[path = "support/demo.rs"]
mod programs;
#[path = "support/servers.rs"]
mod servers;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cloakroom::{AnyStore, RedisStore, StoreError, UserIndex, conformance};
use program::{Program, cookie};
use programs::binary;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redis::aio::ConnectionManager;
use redis::{Client, TlsCertificates};
use servers::{Certificate, Server};
use tempfile::TempDir;

const PAGE: &str = include_str!("../docs/operations.md");
const TRUSTED: &str = "/etc/ssl/store-ca.pem";
const PASSWORD: &str = "secret";

/// What an authority has: its certificate in a file, and what it signs with.
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

    /// A certificate for 127.0.0.1, and no name.
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

/// The URL of the documentation that begins like this.
fn documented(scheme: &str) -> &'static str {
    let (_, section) = PAGE.split_once("# TLS to the store").unwrap();
    let at = section.find(scheme).unwrap();
    section[at..].split(['`', '"']).next().unwrap()
}

/// A text with a part replaced, which it must have.
fn with(text: &str, part: &str, other: &str) -> String {
    assert!(text.contains(part), "{text} has no {part}");
    text.replace(part, other)
}

/// The URL of the documentation, for a server at this host and port, and with this authority's file.
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
    match AnyStore::open(url).await.unwrap() {
        AnyStore::WithIndex(store) => store,
        AnyStore::WithoutIndex(store) => panic!("{store:?} has no index"),
    }
}

/// What the network could change: records of every size, and many connections at once.
async fn keeps_the_contract(store: Arc<dyn UserIndex>) {
    // First, while nothing else is in the store.
    conformance::sessions_are_listed_by_user(store.clone()).await;
    conformance::a_new_record_is_loaded_as_it_was_inserted(store.clone()).await;
    conformance::a_replace_of_the_expected_version_writes_the_whole_record(store.clone()).await;
    conformance::a_touch_moves_the_expiry_and_nothing_else(store.clone()).await;
    conformance::a_removed_record_stays_missing(store.clone()).await;
    conformance::data_of_64_kib_is_kept(store.clone()).await;
    conformance::sixty_four_tasks_lose_no_change(store).await;
}

/// An error with all that it comes from, as an application would log it.
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

/// A database with a certificate: what is kept there, and what is refused.
async fn databases_certificate_is_verified(
    server: &Server,
    authority: &Authority,
    scheme: &str,
    option: &str,
) {
    let refused = async |url: String| told(&AnyStore::open(&url).await.unwrap_err());
    let (here, by_name) = (server.address(), format!("localhost:{}", server.port()));

    // An authority of the same name has another key.
    for other in [Authority::new("other"), Authority::new("own")] {
        let error = refused(url_of_database(scheme, &here, &other.file())).await;
        assert_says(&error, FOREIGN);
        assert_says(&error, &format!("in the URL, with {option}="));
    }

    // Without a file, the authorities of the operating system are trusted, which this one is none of.
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
    let error = told(&AnyStore::open(&url).await.unwrap_err());
    assert_says(&error, "server does not support TLS");
}

/// The client library brings none, and panics without. With the features of all stores another one brings it.
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

/// What trusts an authority is the process's environment, so that this runs a program.
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
    let (status, head, body) = node.send("GET", "/", "");
    assert!(status == 200 && body.starts_with("visit 1,"), "{body}");
    let (_, _, body) = node.send("GET", "/", &cookie(&head));
    assert!(body.starts_with("visit 2,"), "{body}");
}

/// As the documentation shows for an authority that only the sessions' connection trusts.
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
    let store = RedisStore::new(connect(&authority).await.unwrap());
    keeps_the_contract(Arc::new(store)).await;
}
