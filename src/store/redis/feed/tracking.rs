//! [`Tracking`]: a connection over which a server names each key that changes.

use std::sync::Arc;

use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError,
    RedisResult, Value, cmd, from_redis_value,
};
use tokio::sync::Notify;

use super::super::link::{CONNECTION_TIMEOUT, RESPONSE_TIMEOUT};
use super::super::servers::{Source, Wire, line_of};
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;
use crate::store::feed::FeedSender;

/// A connection over which a server names each key that changes.
///
/// At most one command waits for its answer. The proof of [`prove`](Self::prove) needs that.
pub(super) struct Tracking(MultiplexedConnection);

/// Who is told what a server says.
#[derive(Clone)]
pub(super) struct Listener {
    /// What the keys of sessions begin with.
    keys: Arc<str>,
    sender: FeedSender,
    /// Notified when a connection ends.
    closed: Arc<Notify>,
}

impl Listener {
    pub(super) fn new(keys: Arc<str>, sender: FeedSender) -> Self {
        Self {
            keys,
            sender,
            closed: Arc::default(),
        }
    }

    /// The same for other connections: the end of one of these does not matter to them.
    pub(super) fn renewed(&self) -> Self {
        Self::new(Arc::clone(&self.keys), self.sender.clone())
    }

    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Takes what the server sent without a question.
    ///
    /// The client calls this while it reads, before it reads what came later. So the feed tells it
    /// before anybody sees the answer to a question that the server answered later.
    fn take(&self, push: &PushInfo) {
        match (&push.kind, push.data.first()) {
            (PushKind::Disconnection, _) => self.closed.notify_one(),
            (PushKind::Invalidate, Some(Value::Array(keys))) => self.changed(keys),
            // The server lost all its keys, for example by FLUSHALL.
            (PushKind::Invalidate, Some(Value::Nil)) => self.sender.gap(),
            _ => events::feed::ignored("redis", 1),
        }
    }

    fn changed(&self, keys: &[Value]) {
        let mut ignored = 0;
        for key in keys {
            match self.record_of(key) {
                Some(id) => self.sender.changed(id),
                None => ignored += 1,
            }
        }
        if ignored > 0 {
            events::feed::ignored("redis", ignored);
        }
    }

    /// The record of a key. `None` if no session has such a key.
    fn record_of(&self, key: &Value) -> Option<RecordId> {
        let Value::BulkString(key) = key else {
            return None;
        };
        let id = key.strip_prefix(self.keys.as_bytes())?;
        str::from_utf8(id).ok()?.parse().ok()
    }
}

impl Tracking {
    /// A connection that the server does not yet tell anything.
    pub(super) async fn open(source: &mut Source, listener: &Listener) -> RedisResult<Self> {
        let listener = listener.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            // A server that does not answer in this time counts as lost.
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_push_sender(move |push: PushInfo| {
                listener.take(&push);
                Ok::<_, SendError>(())
            });
        match source.connect(&config).await? {
            Wire::Server(connection) => Ok(Self(connection)),
            Wire::Cluster(_) => Err((
                ErrorKind::InvalidClientConfig,
                "a cluster has a connection for each node",
            )
                .into()),
        }
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut connection = self.0.clone();
        let answer = connection.send_packed_command(command).await?;
        Ok(from_redis_value(answer.extract_error()?)?)
    }

    /// From now on, the server names each key with this beginning that is written, touched or
    /// removed, or that expires.
    pub(super) async fn start(&self, listener: &Listener) -> RedisResult<()> {
        let mut tracking = cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST");
        self.ask(tracking.arg("PREFIX").arg(&*listener.keys)).await
    }

    /// Asks this question and then `PING`. The answer is that of the question. When this returns,
    /// all changes that the server answered before the call have been told.
    ///
    /// One question would not be enough. A server collects the keys that change in one turn of its
    /// event loop, and names them before it sleeps (`trackingBroadcastInvalidationMessages` in
    /// `beforeSleep`, server.c of Redis and Valkey). In the same turn, it may answer a question
    /// before it names the keys. It may also answer the write early: the I/O threads of Valkey 8
    /// and Redis 8 do so (`trySendWriteToIOThreads` in `beforeNextClient`, networking.c of
    /// Valkey). So a write is answered, the question comes, and its answer overtakes the key.
    ///
    /// The second question is sent when the first one was answered. So the server reads it in a
    /// later turn, which begins after the keys of the turn before have been named. What the server
    /// sends over one connection arrives in the order in which the server wrote it.
    pub(super) async fn prove<T: FromRedisValue>(&self, question: &Cmd) -> RedisResult<T> {
        let answer = self.ask(question).await?;
        let _: Value = self.ask(&cmd("PING")).await?;
        Ok(answer)
    }

    /// The error to report if the server refused what a feed needs. It names the version of a
    /// server that is older than this.
    pub(super) async fn refused(&self, error: RedisError, needed: u32) -> StoreError {
        let info = self.ask::<String>(cmd("INFO").arg("server")).await;
        let version = info.as_deref().ok().and_then(version);
        match version {
            Some((version, number)) if number < needed => too_old(version, needed, error),
            _ => failed(error),
        }
    }
}

/// The version in an answer to `INFO`, and its first number.
fn version(info: &str) -> Option<(&str, u32)> {
    let version = line_of(info, "redis_version")?;
    let number = version.split('.').next()?.parse().ok()?;
    Some((version, number))
}

pub(super) fn too_old(version: &str, needed: u32, error: RedisError) -> StoreError {
    StoreError::new(format!(
        "the Redis server has the version {version}, and a feed needs Redis {needed}"
    ))
    .with_source(error)
}

pub(super) fn failed(error: RedisError) -> StoreError {
    StoreError::new("could not subscribe to the changes of sessions in Redis").with_source(error)
}
