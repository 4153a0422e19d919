//! Every store keeps the contract.

#![allow(clippy::unwrap_used)]

mod support {
    pub mod servers;
}

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cloakroom::{MemcachedStore, MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore};
use support::servers::{RedisCluster, RedisSentinel, Server};

cloakroom::conformance_tests! { memory: MemoryStore::new() }

cloakroom::conformance_tests! { sqlite_in_memory: SqliteStore::open(":memory:").await.unwrap() }

cloakroom::conformance_tests! { sqlite_file: SqliteStore::open(scratch_file()).await.unwrap() }

cloakroom::conformance_tests! { postgres: postgres().await }

cloakroom::conformance_tests! { mysql: mysql().await }

cloakroom::conformance_tests! { redis: redis(&format!("redis://{}", REDIS.address())).await }

cloakroom::conformance_tests! { redis_cluster: redis(&redis_cluster()).await }

cloakroom::conformance_tests! { redis_sentinel: redis(&redis_sentinel()).await }

cloakroom::conformance_tests! { memcached: memcached().await, without user index }

/// A file of its own for each test, in a directory that the system clears.
fn scratch_file() -> std::path::PathBuf {
    tempfile::tempdir().unwrap().keep().join("sessions.sqlite3")
}

// The servers of all tests of this process, which end with it.
static POSTGRES: LazyLock<Server> = LazyLock::new(Server::postgres);
static MARIADB: LazyLock<Server> = LazyLock::new(Server::mariadb);
static REDIS: LazyLock<Server> = LazyLock::new(|| Server::redis(&[]));
static REDIS_CLUSTER: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);
static REDIS_SENTINEL: LazyLock<RedisSentinel> = LazyLock::new(RedisSentinel::start);
static MEMCACHED: LazyLock<[Server; 2]> =
    LazyLock::new(|| [Server::memcached(&[]), Server::memcached(&[])]);

/// A table, or a prefix of keys, that no other test has.
fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("sessions_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn postgres() -> PostgresStore {
    let url = format!(
        "postgres://cloakroom:secret@{}/cloakroom",
        POSTGRES.address()
    );
    let store = PostgresStore::open(&url)
        .await
        .unwrap()
        .with_table(fresh_name());
    store.migrate().await.unwrap();
    store
}

async fn mysql() -> MySqlStore {
    let url = format!("mysql://cloakroom:secret@{}/cloakroom", MARIADB.address());
    let store = MySqlStore::open(&url)
        .await
        .unwrap()
        .with_table(fresh_name());
    store.migrate().await.unwrap();
    store
}

async fn redis(url: &str) -> RedisStore {
    RedisStore::open(url)
        .await
        .unwrap()
        .with_prefix(&fresh_name())
}

fn redis_cluster() -> String {
    format!("redis+cluster://{}", REDIS_CLUSTER.addresses().join(","))
}

fn redis_sentinel() -> String {
    format!(
        "redis+sentinel://{}/cloakroom",
        REDIS_SENTINEL.sentinels().join(",")
    )
}

async fn memcached() -> MemcachedStore {
    let addresses: Vec<_> = MEMCACHED.iter().map(Server::address).collect();
    let url = format!("memcache://{}", addresses.join(","));
    MemcachedStore::open(&url)
        .await
        .unwrap()
        .with_prefix(&fresh_name())
}
