//! Runs a command, such as a whole test run, with servers that the tests of the stores' contract
//! share. Without it, each process of these tests starts servers of its own. The servers end with
//! the command.
//!
//! `cargo test -p cloakroom --all-features --test with_servers -- cargo nextest run`

use std::env;
use std::process::ExitCode;

use support::program::without_variables_of_cargo;
use support::servers::{RedisCluster, RedisSentinel, Server};

/// More than one store is open at a time, and each has some connections.
const ROOM_IN_POOL: &[&str] = &["pool_mode = session", "default_pool_size = 80"];

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("which command shall run with the servers?");
        return ExitCode::FAILURE;
    };
    let postgres = Server::postgres();
    let pooled = Server::postgres();
    let pgbouncer = Server::pgbouncer(&pooled, ROOM_IN_POOL);
    let mariadb = Server::mariadb();
    let redis = Server::redis(&[]);
    let cluster = RedisCluster::start();
    let sentinel = RedisSentinel::start();
    let memcached = [Server::memcached(&[]), Server::memcached(&[])];
    let dynalite = Server::dynalite();
    let variables = [
        ("POSTGRES", postgres.address()),
        ("PGBOUNCER", pgbouncer.address()),
        ("MYSQL", mariadb.address()),
        ("REDIS", redis.address()),
        ("REDIS_CLUSTER", cluster.addresses().join(",")),
        ("REDIS_SENTINEL", sentinel.sentinels().join(",")),
        (
            "MEMCACHED",
            memcached.each_ref().map(Server::address).join(","),
        ),
        ("DYNAMODB", dynalite.address()),
    ];
    let status = without_variables_of_cargo(program)
        .args(arguments)
        .envs(variables.map(|(name, at)| (format!("CLOAKROOM_SHARED_{name}"), at)))
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("the command does not start: {error}");
            ExitCode::FAILURE
        }
    }
}
