//! [`Server`]: the subscription at the server that the store uses.

use std::collections::HashMap;

use redis::{Cmd, RedisResult, Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::super::link::{Observer, RESPONSE_TIMEOUT};
use super::super::servers::{Source, line_of};
use super::tracking::{Listener, Tracking, failed};
use crate::error::StoreError;

/// The oldest version of Redis with `CLIENT TRACKING`.
const NEEDED: u32 = 6;

/// The subscription at the server that the store uses, as long as the store uses it.
pub(super) struct Server {
    tracking: Tracking,
    /// The number of the store's connection.
    pub(super) number: u64,
}

impl Server {
    pub(super) async fn open(
        source: &mut Source,
        store: &Observer,
        listener: &Listener,
    ) -> Result<Self, StoreError> {
        let number = store.connected().await.map_err(failed)?;
        let tracking = Tracking::open(source, listener).await.map_err(failed)?;
        // The address of a server may lead to another server since the store connected.
        let mine = identity(tracking.ask(&info()).await).map_err(failed)?;
        let theirs = timeout(RESPONSE_TIMEOUT, store.ask(number, &info())).await;
        let theirs = theirs.ok().and_then(|answer| {
            let answer = answer.and_then(|answer| Ok(from_redis_value(answer.extract_error()?)?));
            identity(answer).ok()
        });
        if theirs != Some(mine) {
            // The store asks again which server to use.
            store.doubt(number);
            return Err(StoreError::new(
                "the feed has reached another Redis server than the store uses",
            ));
        }
        let server = Self { tracking, number };
        if let Err(error) = server.tracking.start(listener).await {
            return Err(server.tracking.refused(error, NEEDED).await);
        }
        server.prove(store).await?;
        Ok(server)
    }

    /// See [`Tracking::prove`]. It fails if the store uses another server now, or has to.
    pub(super) async fn prove(&self, store: &Observer) -> Result<(), StoreError> {
        // This look comes first: a write that the store made at another server, before this call,
        // would not be told here.
        if !store.is_present(self.number) {
            return Err(reconnected());
        }
        // `ROLE` and `INFO` would say the same, but not to users without dangerous commands.
        let hello = self.tracking.prove(cmd("HELLO").arg(3)).await;
        let hello: HashMap<String, Value> = hello.map_err(failed)?;
        let is_replica = hello.get("role").is_some_and(|role| {
            from_redis_value(role.clone()).is_ok_and(|role: String| role == "replica")
        });
        if is_replica {
            store.doubt(self.number);
            return Err(StoreError::new("the Redis server is a replica now"));
        }
        Ok(())
    }
}

pub(super) fn reconnected() -> StoreError {
    StoreError::new("the store has connected again, perhaps to another Redis server")
}

fn info() -> Cmd {
    let mut info = cmd("INFO");
    info.arg("server");
    info
}

/// What tells servers apart. `None` if the server does not say it, or not to this user.
fn identity(info: RedisResult<String>) -> RedisResult<Option<String>> {
    match info {
        Ok(info) => Ok(line_of(&info, "run_id").map(str::to_owned)),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
