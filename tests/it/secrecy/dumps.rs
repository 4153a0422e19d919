//! What the stores hold, byte by byte. There is no token, and nothing that could serve as a token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use cloakroom::testing::FaultyStore;
use cloakroom::{
    Client, DynamoDbStore, EncryptedStore, EncryptionKey, MemcachedStore, MemoryStore, MySqlStore,
    PostgresStore, RecordId, RedisStore, SessionLayer, SessionStore, SqliteStore, UserHashKey,
};
use memchr::memmem;
use sqlx::{MySqlPool, PgPool};
use support::base64::{decode, encode};
use support::dynamodb::Wire;
use support::servers::{RedisCluster, RedisSentinel, Server, run_redis};
use support::{Browser, app, builder, key};

/// The tokens of the sessions, and their earlier tokens.
async fn tokens(app: &Router) -> Vec<String> {
    let mut tokens = Vec::new();
    for path in ["/get/theme", "/regenerate", "/log_in/ada", "/remember/ada"] {
        let mut browser = Browser::new(app);
        browser.get("/insert/theme/dark").await.assert(200, "done");
        tokens.push(browser.token());
        assert_eq!(browser.get(path).await.status, 200);
        tokens.push(browser.token());
    }
    tokens.dedup();
    tokens
}

/// The bytes themselves, and the texts that a store or its client could write for them.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    // The last letter also depends on the bytes that follow.
    let base64 = encode(bytes)[..bytes.len() * 4 / 3].to_owned();
    let texts = [
        hex.to_uppercase(),
        hex,
        numbers.join(","),
        numbers.join(", "),
        base64.replace('-', "+").replace('_', "/"),
        base64,
    ];
    let mut forms: Vec<_> = texts.map(String::into_bytes).into();
    forms.push(bytes.to_vec());
    forms
}

#[track_caller]
fn assert_no_token(dump: &[u8], tokens: &[String]) {
    let holds = |needle: &[u8]| memmem::find(dump, needle).is_some();
    for token in tokens {
        let bytes = decode(token);
        let (id, secret, signature) = (&bytes[..16], &bytes[16..32], &bytes[32..]);
        assert!(
            forms(id).iter().any(|form| holds(form)),
            "the record id is not where it should be, so the dump shows nothing"
        );
        for (name, bytes) in [("secret", secret), ("signature", signature)] {
            for form in forms(bytes) {
                assert!(!holds(&form), "the {name} is in the store: {form:?}");
            }
        }
        // These parts are text from the token. There, one letter can hold bits of two parts of the
        // token.
        for part in [&token[22..42], &token[43..]] {
            let standard = part.replace('-', "+").replace('_', "/");
            for text in [part, &standard] {
                assert!(
                    !holds(text.as_bytes()),
                    "the token's {text} is in the store"
                );
            }
        }
    }
}

/// The content of the files in a directory, and in the directories below it. Only files that were
/// written since this time count. A database begins with about a thousand others.
fn files(directory: &Path, since: SystemTime) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            bytes.extend(files(&entry.path(), since));
        } else if metadata.is_file() && metadata.modified().unwrap() >= since {
            let file = std::fs::read(entry.path()).unwrap();
            // Most of a database file is empty.
            let pages = file.chunks(512).filter(|page| *page != [0; 512]);
            bytes.extend(pages.flatten());
        }
    }
    bytes
}

/// What visits a store before the dump. It answers with the tokens of the sessions.
trait Visit<S>: AsyncFnOnce(S) -> Vec<String> {}

impl<S, F: AsyncFnOnce(S) -> Vec<String>> Visit<S> for F {}

/// Visits without encryption.
async fn plainly<S: SessionStore>(store: S) -> Vec<String> {
    tokens(&app(SessionLayer::new(store, key()))).await
}

const USER: &str = "ada-lovelace-1815";
const KEY: &str = "favourite-colour";
const VALUE: &str = "aquamarine-blue";
const USER_AGENT: &str = "Babbage-Browser/7.0";
const ADDRESS: &str = "192.0.2.177";
const OPEN_VALUE: &str = "for-all-to-see";

/// Visits with encryption and hashed users. The session of a layer without encryption shows that a
/// dump is one.
async fn encrypted<S: SessionStore + Clone>(store: S) -> Vec<String> {
    let mut open = Browser::new(&app(SessionLayer::new(store.clone(), key())));
    let path = format!("/insert/open/{OPEN_VALUE}");
    open.get(&path).await.assert(200, "done");

    let store = EncryptedStore::new(store, EncryptionKey::generate().unwrap())
        .hash_users(UserHashKey::generate().unwrap());
    let client = Client::new()
        .with_user_agent(USER_AGENT)
        .with_address(ADDRESS);
    let layer = builder(store)
        .client_from(move |_, _| client.clone())
        .build()
        .unwrap();
    let app = app(layer);
    let mut all = tokens(&app).await;
    let mut browser = Browser::new(&app);
    for path in [
        format!("/insert/{KEY}/{VALUE}"),
        format!("/log_in/{USER}"),
        "/update/visits".to_owned(),
    ] {
        assert_eq!(browser.get(&path).await.status, 200);
    }
    all.extend([browser.token(), open.token()]);
    all
}

#[track_caller]
fn assert_encrypted((dump, tokens): &(Vec<u8>, Vec<String>)) {
    assert_no_token(dump, tokens);
    let holds = |needle: &[u8]| memmem::find(dump, needle).is_some();
    assert!(holds(OPEN_VALUE.as_bytes()), "the dump shows nothing");
    for secret in [USER, KEY, VALUE, USER_AGENT, ADDRESS] {
        for form in forms(secret.as_bytes()) {
            assert!(!holds(&form), "{secret} is in the store");
        }
    }
}

async fn memory_dump(visit: impl Visit<MemoryStore>) -> (Vec<u8>, Vec<String>) {
    let store = MemoryStore::new();
    let tokens = visit(store.clone()).await;
    let mut dump = format!("{store:?}").into_bytes();
    for token in &tokens {
        let id = RecordId::from_bytes(decode(token)[..16].try_into().unwrap());
        let record = store.load(id).await.unwrap().unwrap();
        dump.extend(id.as_bytes());
        dump.extend(record.encode().unwrap());
        dump.extend(format!("{record:?}").into_bytes());
    }
    (dump, tokens)
}

async fn sqlite_dump(visit: impl Visit<SqliteStore>) -> (Vec<u8>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("sessions.db"))
        .await
        .unwrap();
    // Without a store, SQLite would remove its journal.
    let tokens = visit(store.clone()).await;
    let dump = files(directory.path(), SystemTime::UNIX_EPOCH);
    drop(store);
    (dump, tokens)
}

async fn postgres_dump(visit: impl Visit<PostgresStore>) -> (Vec<u8>, Vec<String>) {
    let begin = SystemTime::now();
    let server = Server::postgres();
    let url = format!("postgres://cloakroom:secret@{}/cloakroom", server.address());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let tokens = visit(store).await;
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::query("CHECKPOINT").execute(&pool).await.unwrap();
    (files(server.dir(), begin), tokens)
}

async fn mysql_dump(visit: impl Visit<MySqlStore>) -> (Vec<u8>, Vec<String>) {
    let begin = SystemTime::now();
    let server = Server::mariadb();
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", server.address());
    let store = MySqlStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let tokens = visit(store).await;
    // MySQL writes the table's pages to its file. They stay there while the connection lives.
    let pool = MySqlPool::connect(&url).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("FLUSH TABLES cloakroom_sessions FOR EXPORT")
        .execute(&mut *connection)
        .await
        .unwrap();
    (files(server.dir(), begin), tokens)
}

/// The files of Redis servers: as they are, and after the servers have written them.
fn redis_files(servers: &[&Server]) -> Vec<u8> {
    let mut dump = Vec::new();
    for server in servers {
        for command in [&["CONFIG", "SET", "rdbcompression", "no"][..], &["SAVE"]] {
            assert_eq!(run_redis(&server.address(), command), "OK");
        }
        dump.extend(files(server.dir(), SystemTime::UNIX_EPOCH));
    }
    dump
}

async fn redis_dump(visit: impl Visit<RedisStore>) -> (Vec<u8>, Vec<String>) {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let tokens = visit(RedisStore::connect(&url).await.unwrap()).await;
    (redis_files(&[&server]), tokens)
}

async fn redis_cluster_dump(visit: impl Visit<RedisStore>) -> (Vec<u8>, Vec<String>) {
    let cluster = RedisCluster::start();
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    let tokens = visit(RedisStore::connect(&url).await.unwrap()).await;
    (redis_files(&cluster.nodes()), tokens)
}

async fn redis_sentinel_dump(visit: impl Visit<RedisStore>) -> (Vec<u8>, Vec<String>) {
    let sentinel = RedisSentinel::start();
    let url = format!(
        "redis+sentinel://{}/cloakroom",
        sentinel.sentinels().join(",")
    );
    let tokens = visit(RedisStore::connect(&url).await.unwrap()).await;
    (redis_files(&sentinel.nodes()), tokens)
}

/// All keys of a Memcached server, with their values.
fn memcached_items(server: &Server) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line
    };
    stream.write_all(b"lru_crawler metadump all\r\n").unwrap();
    let mut keys = Vec::new();
    loop {
        let line = line();
        match line.strip_prefix("key=") {
            Some(rest) => keys.push(rest.split(' ').next().unwrap().replace("%3A", ":")),
            None => break assert_eq!(line, "END\r\n"),
        }
    }
    for key in &keys {
        stream
            .write_all(format!("get {key}\r\n").as_bytes())
            .unwrap();
    }
    stream.write_all(b"quit\r\n").unwrap();
    let mut dump = Vec::new();
    reader.read_to_end(&mut dump).unwrap();
    assert_eq!(memmem::find_iter(&dump, b"VALUE ").count(), keys.len());
    dump
}

async fn memcached_dump(visit: impl Visit<MemcachedStore>) -> (Vec<u8>, Vec<String>) {
    let servers = [Server::memcached(&[]), Server::memcached(&[])];
    let addresses = servers.each_ref().map(Server::address).join(",");
    let store = MemcachedStore::connect(&format!("memcache://{addresses}"))
        .await
        .unwrap();
    let tokens = visit(store).await;
    (servers.each_ref().map(memcached_items).concat(), tokens)
}

async fn dynamodb_dump(visit: impl Visit<DynamoDbStore>) -> (Vec<u8>, Vec<String>) {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let tokens = visit(wire.store("sessions").await).await;
    let mut dump = Vec::new();
    let scan = wire.client().scan().table_name("sessions").send().await;
    for (name, value) in scan.unwrap().items.unwrap().into_iter().flatten() {
        dump.extend(name.into_bytes());
        dump.extend(match value {
            AttributeValue::B(bytes) => bytes.into_inner(),
            AttributeValue::S(text) | AttributeValue::N(text) => text.into_bytes(),
            other => panic!("{other:?}"),
        });
        dump.push(b'\n');
    }
    (dump, tokens)
}

#[tokio::test]
async fn a_dump_of_memory_holds_no_token() {
    let (dump, tokens) = memory_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_memory_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&memory_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_sqlite_holds_no_token() {
    let (dump, tokens) = sqlite_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_sqlite_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&sqlite_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_postgres_holds_no_token() {
    let (dump, tokens) = postgres_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_postgres_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&postgres_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_mysql_holds_no_token() {
    let (dump, tokens) = mysql_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_mysql_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&mysql_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_redis_holds_no_token() {
    let (dump, tokens) = redis_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_redis_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&redis_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_a_redis_cluster_holds_no_token() {
    let (dump, tokens) = redis_cluster_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_a_redis_cluster_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&redis_cluster_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_redis_with_sentinels_holds_no_token() {
    let (dump, tokens) = redis_sentinel_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_redis_with_sentinels_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&redis_sentinel_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_memcached_holds_no_token() {
    let (dump, tokens) = memcached_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_memcached_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&memcached_dump(encrypted).await);
}

#[tokio::test]
async fn a_dump_of_dynamodb_holds_no_token() {
    let (dump, tokens) = dynamodb_dump(plainly).await;
    assert_no_token(&dump, &tokens);
}

#[tokio::test]
async fn an_encrypted_dump_of_dynamodb_holds_no_value_no_user_and_no_client() {
    assert_encrypted(&dynamodb_dump(encrypted).await);
}

#[tokio::test]
async fn what_a_store_holds_opens_no_session() {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    let token = decode(&browser.token());
    let id = RecordId::from_bytes(token[..16].try_into().unwrap());
    let record = spy.inner().load(id).await.unwrap().unwrap();
    let bytes = record.encode().unwrap();
    let hash = &bytes[29..45];
    spy.take_calls();
    let (id, nothing) = (&id.as_bytes()[..], &[0; 16][..]);
    for value in [
        [id, hash].concat(),
        [id, hash, hash].concat(),
        [id, hash, nothing].concat(),
        [id, nothing, hash].concat(),
        [id, id, hash].concat(),
        [hash, hash, hash].concat(),
    ] {
        let cookie = format!("__Host-session={}", encode(&value));
        Browser::new(&app)
            .get_with("/user", &[("cookie", &cookie)])
            .await
            .assert(401, "");
    }
    assert_eq!(spy.take_calls(), []);
    browser.get("/user").await.assert(200, "ada");
}
