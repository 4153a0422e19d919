//! Every store keeps the contract. The test starts the server, or an environment variable names it:
//! `CLOAKROOM_TEST_POSTGRES=postgres://…`, and so on. `tests/with_servers.rs` starts servers for
//! all of these tests.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use ::redis::AsyncCommands;
use cloakroom::conformance as contract;
use cloakroom::testing::FaultyStore;
use cloakroom::{
    AnyStore, DynamoDbStore, EncryptedStore, EncryptionKey, MemcachedStore, MemoryStore,
    MySqlStore, NearCache, PostgresStore, RedisStore, SessionCatalog, SessionStore, SqliteStore,
    UserHashKey, UserId, UserIndex,
};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use support::dynamodb::Wire;
use support::processes::one_test;
use support::servers::{RedisCluster, RedisSentinel, Server, run_redis};
use tokio::runtime::Runtime;

cloakroom::conformance_tests! { memory: MemoryStore::new(), with catalog, with feed }
cloakroom::conformance_tests! { near_cache: NearCache::open(MemoryStore::new()).await.unwrap(), with catalog, with feed }

cloakroom::conformance_tests! { encrypted: encrypted(MemoryStore::new()), with catalog, with feed }
cloakroom::conformance_tests! { encrypted_with_hashed_users: hashed(MemoryStore::new()), with catalog, with feed }

cloakroom::conformance_tests! {
    near_cache_around_encrypted: NearCache::open(hashed(MemoryStore::new())).await.unwrap(), with catalog, with feed
}

cloakroom::conformance_tests! {
    encrypted_around_near_cache: encrypted(NearCache::open(MemoryStore::new()).await.unwrap()), with catalog, with feed
}

cloakroom::conformance_tests! {
    encrypted_sqlite: hashed(SqliteStore::open(":memory:").await.unwrap()), with catalog, with feed
}

cloakroom::conformance_tests! {
    encrypted_redis: hashed(Place::named_by("REDIS", redis).redis().await), with catalog, with feed
}

cloakroom::conformance_tests! {
    encrypted_memcached: encrypted(
        Place::named_by("MEMCACHED", memcached).memcached().await
    ), without user index
}

// A store around another store passes every call on.
cloakroom::conformance_tests! { boxed: Box::new(MemoryStore::new()) as Box<dyn UserIndex> }
cloakroom::conformance_tests! {
    boxed_catalog: Box::new(MemoryStore::new()) as Box<dyn SessionCatalog>, with catalog
}

cloakroom::conformance_tests! { any: AnyStore::new(MemoryStore::new()), without user index }

cloakroom::conformance_tests! { faulty: FaultyStore::new(MemoryStore::new()), with catalog }

cloakroom::conformance_tests! {
    sqlite_in_memory: SqliteStore::open(":memory:").await.unwrap(), with catalog, with feed
}

cloakroom::conformance_tests! {
    sqlite_file: SqliteStore::open(scratch_file()).await.unwrap(), with catalog, with feed
}

cloakroom::conformance_tests! {
    postgres: Place::named_by("POSTGRES", postgres).postgres().await, with catalog, with feed
}

cloakroom::conformance_tests! { pgbouncer: Place::named_by("PGBOUNCER", pgbouncer).postgres().await, with catalog, with feed }

cloakroom::conformance_tests! {
    mysql: Place::named_by("MYSQL", mariadb).mysql().await, with catalog
}

cloakroom::conformance_tests! {
    redis: Place::named_by("REDIS", redis).redis().await, with catalog, with feed
}

cloakroom::conformance_tests! {
    redis_cluster: Place::named_by("REDIS_CLUSTER", redis_cluster).redis().await, with catalog, with feed
}

cloakroom::conformance_tests! {
    redis_sentinel: Place::named_by("REDIS_SENTINEL", redis_sentinel).redis().await, with catalog, with feed
}

cloakroom::conformance_tests! {
    memcached: Place::named_by("MEMCACHED", memcached).memcached().await, without user index
}

cloakroom::conformance_tests! {
    dynamodb: Place::named_by("DYNAMODB", dynalite).dynamodb().await, with catalog
}

fn encrypted<S: SessionStore>(store: S) -> EncryptedStore<S> {
    EncryptedStore::new(store, EncryptionKey::from_bytes(&[1; 32]).unwrap())
}

fn hashed<S: SessionStore>(store: S) -> EncryptedStore<S> {
    encrypted(store).hash_users(UserHashKey::from_bytes(&[2; 32]).unwrap())
}

/// The other servers are as the ones above to a store around them. So one test has the contract's
/// parts that look at what a record says of itself.
#[test]
fn encrypted_records_in_postgres_mysql_a_redis_cluster_and_dynamodb_keep_the_contract() {
    async fn check(store: impl SessionCatalog) {
        let store = Arc::new(store);
        contract::a_new_record_is_loaded_as_it_was_inserted(store.clone()).await;
        contract::a_replace_of_the_expected_version_writes_the_whole_record(store.clone()).await;
        contract::a_replace_of_another_version_changes_nothing(store.clone()).await;
        contract::a_replace_that_keeps_a_later_expiry_never_moves_it_back(store.clone()).await;
        contract::a_touch_moves_the_expiry_and_nothing_else(store.clone()).await;
        contract::a_purge_keeps_what_was_touched_in_time(store.clone()).await;
        contract::data_of_any_text_is_kept(store.clone()).await;
        contract::data_of_64_kib_is_kept(store.clone()).await;
        let ada = UserId::new("ada").unwrap();
        store.remove_by_user(&ada, None).await.unwrap();
        contract::user_ids_are_compared_byte_for_byte(store.clone()).await;
        contract::sessions_are_listed_by_user(store.clone()).await;
        for user in [ada, UserId::new("grace").unwrap()] {
            store.remove_by_user(&user, None).await.unwrap();
        }
        contract::all_sessions_of_a_user_are_removed_and_no_others(store.clone()).await;
        contract::external_ids_are_compared_byte_for_byte(store.clone()).await;
        contract::a_session_is_found_by_its_last_external_id_alone(store.clone()).await;
        contract::a_cursor_of_another_store_is_refused(store.clone()).await;
    }
    contract::run(async {
        let place = Place::named_by("POSTGRES", postgres);
        check(hashed(place.postgres().await)).await;
        let place = Place::named_by("MYSQL", mariadb);
        check(hashed(place.mysql().await)).await;
        let place = Place::named_by("REDIS_CLUSTER", redis_cluster);
        check(hashed(place.redis().await)).await;
        let place = Place::named_by("DYNAMODB", dynalite);
        check(hashed(place.dynamodb().await)).await;
    });
}

/// Runs one of these tests in a process with this variable. Returns whether it passes.
fn passes(test: &str, variable: &str, url: &str) -> bool {
    let output = one_test(module_path!(), test)
        .env(variable, url)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("running 1 test\n"), "{printed}");
    output.status.success()
}

#[tokio::test]
async fn a_server_that_a_variable_names_is_used_and_left_as_it_was() {
    let tests = [
        ("POSTGRES", postgres()),
        ("MYSQL", mariadb()),
        ("REDIS", redis()),
        ("MEMCACHED", memcached()),
        ("DYNAMODB", dynalite()),
    ];
    run_redis(&REDIS.address(), &["SET", "theirs", "1"]);
    for (kind, addresses) in tests {
        let test = format!("{}::data_of_64_kib_is_kept", kind.to_lowercase());
        let variable = format!("CLOAKROOM_TEST_{kind}");
        let url = url_of(kind, &addresses);
        assert!(passes(&test, &variable, &url), "{test}");
        let (scheme, _) = url.split_once(':').unwrap();
        // No server listens at this address.
        let nowhere = format!("{scheme}://user:secret@127.0.0.1:1/database");
        assert!(!passes(&test, &variable, &nowhere), "{test}");
    }

    let mut postgres = PgConnection::connect(&url_of("POSTGRES", &postgres()))
        .await
        .unwrap();
    let mut mariadb = MySqlConnection::connect(&url_of("MYSQL", &mariadb()))
        .await
        .unwrap();
    let tables =
        "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'cloakroom%'";
    let of_postgres: i64 = sqlx::query_scalar(tables)
        .fetch_one(&mut postgres)
        .await
        .unwrap();
    let of_mariadb: i64 = sqlx::query_scalar(tables)
        .fetch_one(&mut mariadb)
        .await
        .unwrap();
    assert_eq!((of_postgres, of_mariadb), (0, 0));
    assert_eq!(run_redis(&REDIS.address(), &["KEYS", "*"]), "theirs");
    let tables = Wire::to(&DYNALITE).client().list_tables().send().await;
    assert_eq!(tables.unwrap().table_names(), [""; 0]);
}

/// A new file for each test, in a directory that the system clears.
fn scratch_file() -> std::path::PathBuf {
    tempfile::tempdir().unwrap().keep().join("sessions.sqlite3")
}

// The servers for all tests of this process. They end with the process.
static POSTGRES: LazyLock<Server> = LazyLock::new(Server::postgres);
static PGBOUNCER: LazyLock<Server> =
    LazyLock::new(|| Server::pgbouncer(&POSTGRES, &["pool_mode = session"]));
static MARIADB: LazyLock<Server> = LazyLock::new(Server::mariadb);
static REDIS: LazyLock<Server> = LazyLock::new(|| Server::redis(&[]));
static REDIS_CLUSTER: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);
static REDIS_SENTINEL: LazyLock<RedisSentinel> = LazyLock::new(RedisSentinel::start);
static MEMCACHED: LazyLock<[Server; 2]> =
    LazyLock::new(|| [Server::memcached(&[]), Server::memcached(&[])]);
static DYNALITE: LazyLock<Server> = LazyLock::new(Server::dynalite);

fn postgres() -> String {
    POSTGRES.address()
}

/// PgBouncer's default pool has room for all connections of one store.
fn pgbouncer() -> String {
    PGBOUNCER.address()
}

fn mariadb() -> String {
    MARIADB.address()
}

fn redis() -> String {
    REDIS.address()
}

fn redis_cluster() -> String {
    REDIS_CLUSTER.addresses().join(",")
}

fn redis_sentinel() -> String {
    REDIS_SENTINEL.sentinels().join(",")
}

fn memcached() -> String {
    let addresses: Vec<_> = MEMCACHED.iter().map(Server::address).collect();
    addresses.join(",")
}

fn dynalite() -> String {
    DYNALITE.address()
}

/// The URL of the servers of this kind at these addresses.
fn url_of(kind: &str, addresses: &str) -> String {
    match kind {
        "POSTGRES" | "PGBOUNCER" => {
            format!("postgres://cloakroom:secret@{addresses}/cloakroom")
        }
        "MYSQL" => format!("mysql://cloakroom:secret@{addresses}/cloakroom"),
        "REDIS" => format!("redis://{addresses}"),
        "REDIS_CLUSTER" => format!("redis+cluster://{addresses}"),
        "REDIS_SENTINEL" => format!("redis+sentinel://{addresses}/cloakroom"),
        "MEMCACHED" => format!("memcache://{addresses}"),
        "DYNAMODB" => format!("dynamodb://{addresses}"),
        other => panic!("{other}"),
    }
}

/// A table or a key prefix that no other test uses.
///
/// Each test makes its own place in the statement that runs the test. The place is dropped at the
/// end of that statement. The test then removes its data from a server that it did not start.
struct Place {
    url: String,
    name: String,
    is_foreign: bool,
}

impl Place {
    /// A place on the server that `CLOAKROOM_TEST_` and the kind names by its URL. Without this
    /// variable, it is on the server that the program `with_servers` has started, or on one that
    /// the test starts.
    fn named_by(kind: &str, start: impl FnOnce() -> String) -> Self {
        // An empty variable counts as missing. A workflow's matrix leaves a variable out in this
        // way.
        let variable = |name: &str| {
            let value = env::var(format!("CLOAKROOM_{name}_{kind}"));
            value.ok().filter(|value| !value.is_empty())
        };
        match (variable("TEST"), variable("SHARED")) {
            (Some(url), _) => Self::at(url, true),
            (None, Some(addresses)) => Self::at(url_of(kind, &addresses), false),
            (None, None) => Self::at(url_of(kind, &start()), false),
        }
    }

    fn at(url: String, is_foreign: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Other processes may run tests on the same server.
        let process = RandomState::new().hash_one(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            url,
            name: format!("cloakroom_test_{process:016x}_{number}"),
            is_foreign,
        }
    }

    async fn postgres(&self) -> PostgresStore {
        let store = PostgresStore::connect(&self.url).await.unwrap();
        let store = store.with_table(&self.name).unwrap();
        store.migrate().await.unwrap();
        store.migrate_feed().await.unwrap();
        store
    }

    async fn mysql(&self) -> MySqlStore {
        let store = MySqlStore::connect(&self.url).await.unwrap();
        let store = store.with_table(&self.name).unwrap();
        store.migrate().await.unwrap();
        store
    }

    async fn redis(&self) -> RedisStore {
        let store = RedisStore::connect(&self.url).await.unwrap();
        store.with_prefix(&self.name)
    }

    async fn memcached(&self) -> MemcachedStore {
        let store = MemcachedStore::connect(&self.url).await.unwrap();
        store.with_prefix(&self.name).unwrap()
    }

    async fn dynamodb(&self) -> DynamoDbStore {
        wire_of(&self.url).store(&self.name).await
    }
}

fn wire_of(url: &str) -> Wire {
    Wire::to_address(url.strip_prefix("dynamodb://").unwrap())
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_foreign {
            return;
        }
        let (url, name) = (self.url.clone(), self.name.clone());
        // This code uses a new runtime, because the test's own runtime may be the one that drops
        // this value.
        let cleared = thread::spawn(move || Runtime::new().unwrap().block_on(clear(&url, &name)));
        let cleared = cleared.join();
        // If the test has already failed, it shows its own failure and not this one.
        assert!(
            thread::panicking() || cleared.is_ok(),
            "{} stays",
            self.name
        );
    }
}

/// Removes a table, or all keys with a prefix.
async fn clear(url: &str, name: &str) {
    let drop_table = AssertSqlSafe(format!("DROP TABLE IF EXISTS {name}"));
    match url.split(':').next().unwrap() {
        "postgres" | "postgresql" => {
            let mut connection = PgConnection::connect(url).await.unwrap();
            connection.execute(drop_table).await.unwrap();
            let drop_function = format!("DROP FUNCTION IF EXISTS {name}_feed");
            connection
                .execute(AssertSqlSafe(drop_function))
                .await
                .unwrap();
        }
        "mysql" | "mariadb" => {
            let mut connection = MySqlConnection::connect(url).await.unwrap();
            connection.execute(drop_table).await.unwrap();
        }
        "dynamodb" => {
            let client = wire_of(url).client();
            let delete = client.delete_table().table_name(name);
            delete.send().await.unwrap();
            // The server takes a moment. The table is gone once nobody can describe it.
            let describe = || client.describe_table().table_name(name).send();
            while describe().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // Memcached cannot list keys. The keys expire, or make room for other keys.
        "memcache" | "memcached" => {}
        _ => {
            let client = ::redis::Client::open(url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let mut keys = Vec::<String>::new();
            let mut found = connection.scan_match(format!("{name}*")).await.unwrap();
            while let Some(key) = found.next_item().await {
                keys.push(key.unwrap());
            }
            drop(found);
            if !keys.is_empty() {
                let () = connection.unlink(keys).await.unwrap();
            }
        }
    }
}
