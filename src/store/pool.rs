//! What the stores' own pools of connections have in common.

use std::time::Duration;

/// How many connections a store has to a server. PostgreSQL's default limit is enough for a handful
/// of such nodes.
#[cfg(any(feature = "memcached", feature = "mysql", feature = "postgres"))]
pub(super) const CONNECTIONS: usize = 16;

/// How long a server may take to accept the first connection, or SQLite to open a file.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that idled for longer is tried before use. The trial is a round trip.
pub(super) const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// How long a server may take to answer a statement whose caller has gone away. After this time,
/// the connection may be dead. It is closed, and the pool has room for another one. The time is
/// short, since other callers wait for a connection.
pub(super) const ABANDONED_TIMEOUT: Duration = Duration::from_secs(2);
