//! Real servers, each with its own directory and port, and the proxies in front of them.

mod dynalite;
mod mariadb;
mod memcached;
mod pgbouncer;
mod ports;
mod postgres;
mod process;
mod programs;
mod proxy;
mod redis;
mod templates;

pub use process::{Certificate, Server};
pub use programs::find_program;
pub use proxy::Proxy;
pub use redis::{RedisCluster, RedisSentinel, run_redis};
