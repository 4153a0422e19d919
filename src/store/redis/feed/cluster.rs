//! [`Cluster`]: the subscription at each master of a cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisError, Value, cmd,
    from_redis_value,
};
use tokio::task::JoinSet;

use super::super::servers::{Source, tcp, version_of_old};
use super::tracking::{Listener, Tracking, failed, too_old};
use crate::error::StoreError;

/// The oldest version of Redis with `CLUSTER SHARDS`.
const NEEDED: u32 = 7;

/// The subscription at each master.
pub(super) struct Cluster {
    masters: BTreeMap<String, Arc<Tracking>>,
}

/// The nodes that a feed asks for the masters.
pub(super) struct Seeds {
    /// As the URL names them. They have the login.
    nodes: Vec<ConnectionInfo>,
    /// The masters of the last time.
    known: Vec<ConnectionInfo>,
}

impl Seeds {
    pub(super) fn new(nodes: &[ConnectionInfo]) -> Self {
        let resp3 = |node: &ConnectionInfo| {
            let settings = node.redis_settings().clone();
            let settings = settings.set_protocol(ProtocolVersion::RESP3);
            let node = node.clone().set_redis_settings(settings);
            node.set_tcp_settings(tcp())
        };
        Self {
            nodes: nodes.iter().map(resp3).collect(),
            known: Vec::new(),
        }
    }

    /// What the first node that answers knows of the masters.
    async fn masters(&self, listener: &Listener) -> Result<Masters, StoreError> {
        let mut error = None;
        for node in self.known.iter().chain(&self.nodes) {
            let tracking = match connect(node, listener).await {
                Ok(tracking) => tracking,
                Err(other) => {
                    error = Some(match version_of_old(node, &other).await {
                        Some(version) => too_old(&version, NEEDED, other),
                        None => failed(other),
                    });
                    continue;
                }
            };
            match tracking.ask(&shards()).await {
                Ok(answer) => match Masters::read(answer, node) {
                    Some(masters) => return Ok(masters),
                    None => error = Some(incomplete()),
                },
                Err(other) => error = Some(tracking.refused(other, NEEDED).await),
            }
        }
        Err(error.unwrap_or_else(incomplete))
    }
}

impl Cluster {
    pub(super) async fn open(seeds: &mut Seeds, listener: &Listener) -> Result<Self, StoreError> {
        let found = seeds.masters(&listener.renewed()).await?;
        let mut masters = BTreeMap::new();
        for (id, node) in &found.0 {
            let tracking = connect(node, listener).await.map_err(failed)?;
            let answer: String = tracking
                .ask(cmd("CLUSTER").arg("MYID"))
                .await
                .map_err(failed)?;
            if answer != *id {
                return Err(disagreement());
            }
            if let Err(error) = tracking.start(listener).await {
                return Err(tracking.refused(error, NEEDED).await);
            }
            masters.insert(id.clone(), Arc::new(tracking));
        }
        let cluster = Self { masters };
        cluster.prove().await?;
        seeds.known = found.0.into_values().collect();
        Ok(cluster)
    }

    /// See [`Tracking::prove`]. It fails if there may be a master without a subscription.
    ///
    /// Each write is answered by a master. A node becomes one in three ways:
    ///
    /// - A replica takes over from a master that fails. The majority of the masters votes for it,
    ///   and a master votes only after it marked the old one as failed (`clusterSendFailoverAuth`
    ///   in cluster_legacy.c). Each of these voters is asked here. It still shows a shard whose
    ///   only master failed, or it knows the new master.
    /// - A replica takes over because an operator says so (`CLUSTER FAILOVER`). The new master
    ///   tells all nodes at once. A feed that asks while these messages are on the way does not
    ///   know of it yet.
    /// - A node joins. It takes writes only after slots are given to it, and the subscription is at
    ///   all masters, also at those without slots.
    pub(super) async fn prove(&self) -> Result<(), StoreError> {
        let mut answers = JoinSet::new();
        for tracking in self.masters.values() {
            let tracking = Arc::clone(tracking);
            answers.spawn(async move { tracking.prove::<Value>(&shards()).await });
        }
        let ids: BTreeSet<_> = self.masters.keys().collect();
        while let Some(answer) = answers.join_next().await {
            let answer = answer.map_err(|error| {
                StoreError::new("the runtime ended while a feed asked").with_source(error)
            })?;
            let shards = shards_of(answer.map_err(failed)?).ok_or_else(incomplete)?;
            if shards
                .iter()
                .map(|master| &master.id)
                .collect::<BTreeSet<_>>()
                != ids
            {
                return Err(disagreement());
            }
        }
        Ok(())
    }
}

async fn connect(node: &ConnectionInfo, listener: &Listener) -> Result<Tracking, RedisError> {
    let mut source = Source::Server(Box::new(Client::open(node.clone())?));
    Tracking::open(&mut source, listener).await
}

fn shards() -> Cmd {
    let mut shards = cmd("CLUSTER");
    shards.arg("SHARDS");
    shards
}

/// The masters of a cluster by their id, and how to connect to them.
struct Masters(BTreeMap<String, ConnectionInfo>);

impl Masters {
    fn read(answer: Value, asked: &ConnectionInfo) -> Option<Self> {
        let mut masters = BTreeMap::new();
        for master in shards_of(answer)? {
            let address = master.address(asked.addr())?;
            masters.insert(master.id, asked.clone().set_addr(address));
        }
        Some(Self(masters))
    }
}

/// A master, as `CLUSTER SHARDS` shows it.
struct Master {
    id: String,
    host: Option<String>,
    port: Option<u16>,
    tls_port: Option<u16>,
}

/// The masters that have not failed. `None` if a shard with slots has none, or if the answer is not
/// as `CLUSTER SHARDS` gives it.
fn shards_of(answer: Value) -> Option<Vec<Master>> {
    let mut masters = Vec::new();
    let shards: Vec<HashMap<String, Value>> = from_redis_value(answer).ok()?;
    for mut shard in shards {
        let slots: Vec<u16> = from_redis_value(shard.remove("slots")?).ok()?;
        let nodes: Vec<HashMap<String, Value>> = from_redis_value(shard.remove("nodes")?).ok()?;
        let before = masters.len();
        for node in nodes {
            let text = |name: &str| from_redis_value::<String>(node.get(name)?.clone()).ok();
            let number = |name: &str| from_redis_value::<u16>(node.get(name)?.clone()).ok();
            if text("role")? != "master" || text("health")?.starts_with("fail") {
                continue;
            }
            // A node without a name of its own shows `?`.
            let named = |host: &String| !host.is_empty() && host != "?";
            masters.push(Master {
                id: text("id")?,
                host: text("endpoint").filter(named),
                port: number("port"),
                tls_port: number("tls-port"),
            });
        }
        if masters.len() == before && !slots.is_empty() {
            return None;
        }
    }
    (!masters.is_empty()).then_some(masters)
}

impl Master {
    /// The address, for a client that reaches another node at this one.
    fn address(&self, other: &ConnectionAddr) -> Option<ConnectionAddr> {
        let host = |asked: &String| self.host.clone().unwrap_or_else(|| asked.clone());
        match other {
            ConnectionAddr::Tcp(asked, _) => Some(ConnectionAddr::Tcp(host(asked), self.port?)),
            ConnectionAddr::TcpTls {
                host: asked,
                insecure,
                tls_params,
                ..
            } => Some(ConnectionAddr::TcpTls {
                host: host(asked),
                port: self.tls_port.or(self.port)?,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            }),
            _ => None,
        }
    }
}

fn incomplete() -> StoreError {
    StoreError::new("a shard of the Redis cluster has no master, or its nodes cannot be listed")
}

fn disagreement() -> StoreError {
    StoreError::new("the nodes of the Redis cluster have new masters, or do not agree on them")
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that panics is a test that fails"
    )]

    use std::slice::from_ref;

    use redis::IntoConnectionInfo;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn node(id: &str, fields: &[(&str, Value)]) -> Value {
        let fields = fields.iter().cloned();
        let fields = fields.chain([("id", text(id)), ("port", Value::Int(6379))]);
        Value::Map(fields.map(|(name, value)| (text(name), value)).collect())
    }

    fn with(role: &str, health: &str) -> [(&'static str, Value); 3] {
        [
            ("role", text(role)),
            ("health", text(health)),
            ("endpoint", text("other")),
        ]
    }

    fn shard(slots: &[i64], nodes: Vec<Value>) -> Value {
        let slots = slots.iter().map(|slot| Value::Int(*slot)).collect();
        Value::Map(vec![
            (text("slots"), Value::Array(slots)),
            (text("nodes"), Value::Array(nodes)),
        ])
    }

    fn ids(shards: Vec<Value>) -> Option<Vec<String>> {
        let masters = shards_of(Value::Array(shards))?;
        Some(masters.into_iter().map(|master| master.id).collect())
    }

    #[test]
    fn masters_that_live_are_known_and_each_slot_has_one() {
        let whole = shard(
            &[0, 8000],
            vec![
                node("a", &with("master", "online")),
                node("b", &with("replica", "online")),
            ],
        );
        let without_slots = shard(&[], vec![node("c", &with("master", "online"))]);
        let taken_over = shard(
            &[8001, 16383],
            vec![
                node("d", &with("master", "fail")),
                node("e", &with("master", "online")),
            ],
        );
        // Its slots have another master, and it is still listed.
        let left = shard(&[], vec![node("f", &with("master", "fail"))]);
        let all = vec![whole.clone(), without_slots, taken_over, left];
        assert_eq!(ids(all).unwrap(), ["a", "c", "e"]);

        let failed = vec![
            node("d", &with("master", "fail")),
            node("e", &with("replica", "online")),
        ];
        assert_eq!(ids(vec![whole, shard(&[8001, 16383], failed)]), None);
        assert_eq!(ids(vec![]), None);
        assert_eq!(ids(vec![text("an error")]), None);
    }

    #[test]
    fn a_node_is_reached_as_the_cluster_names_it() {
        let address = |url: &str, fields: &[(&str, Value)]| {
            let mut all = vec![("role", text("master")), ("health", text("online"))];
            all.extend(fields.iter().cloned());
            let shards = Value::Array(vec![shard(&[0, 16383], vec![node("a", &all)])]);
            let masters = Masters::read(shards, &url.into_connection_info().unwrap()).unwrap();
            masters.0["a"].addr().to_string()
        };
        let named = ("endpoint", text("node-a"));
        let tls = ("tls-port", Value::Int(6380));
        assert_eq!(address("redis://seed:1", from_ref(&named)), "node-a:6379");
        // Without a name of its own, it has the one by which it was asked.
        for unnamed in [text("?"), text(""), Value::Nil] {
            assert_eq!(
                address("redis://seed:1", &[("endpoint", unnamed)]),
                "seed:6379"
            );
        }
        let secure = address("rediss://seed:1", &[named.clone(), tls.clone()]);
        assert!(
            secure.contains("node-a") && secure.contains("6380"),
            "{secure}"
        );
        assert_eq!(address("redis://seed:1", &[named, tls]), "node-a:6379");
    }
}
