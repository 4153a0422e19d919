//! [`DynamoDbStore`]: sessions in a table of Amazon DynamoDB.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;

use self::failure::Failure;
use self::layout::{Item, Names, attribute};
use self::write::Writes;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::indexed_by::IndexedBy;
use crate::store::{Replaced, SessionStore, UserIndex};

mod catalog;
mod failure;
mod index;
mod layout;
mod table;
mod write;

/// DynamoDB takes keys of up to 2048 bytes, and the user takes some of them.
const LONGEST_PREFIX: usize = 512;

/// DynamoDB takes names of attributes of up to 255 bytes for keys.
const LONGEST_NAME: usize = 255;

/// Sessions in a table of Amazon DynamoDB, for any number of machines.
///
/// The store is for the application's own [`Client`], with its region, its credentials and its HTTP
/// client. The table can be one of the store's own, or one that the application uses as well: see
/// [below](#in-a-table-with-other-items). Clones share the client.
///
/// ```
/// use cloakroom::{DynamoDbStore, SessionLayer, SigningKey};
///
/// async fn sessions(
///     client: aws_sdk_dynamodb::Client,
/// ) -> Result<SessionLayer<DynamoDbStore>, Box<dyn std::error::Error>> {
///     let store = DynamoDbStore::new(client, "sessions")?;
///     store.create_table().await?;
///     Ok(SessionLayer::new(store, SigningKey::generate()?))
/// }
/// ```
///
/// The crate `aws-config` makes such a client, with `Client::new(&aws_config::load_from_env().await)`.
/// cloakroom does not depend on it, and brings neither an HTTP client nor TLS.
///
/// # What is certain
///
/// Each write has a condition on the version, and each read is strongly consistent. So no write is
/// lost, and no session comes back. A new session whose answer was lost is written again, although
/// somebody may have ended the user's sessions since: it counts as [a login in
/// flight](crate::Sessions#logins-in-flight). DynamoDB removes an expired item some days after its
/// time. Until then, the store answers as if the session were missing already.
///
/// In a global table with several regions, this holds only if the table has multi-region strong
/// consistency, or if all nodes use one region. Otherwise, the regions overwrite each other's
/// writes.
///
/// # A user's sessions
///
/// Each session of a user has an entry in the user's own partition, which is read with strong
/// consistency as well. The store writes the entry before the session, so that
/// [`Sessions::revoke_user`](crate::Sessions::revoke_user) finds each session that was written
/// before the call. An entry counts only if its session is there and is the user's.
///
/// A session with an [external id](crate::Session::set_external_id) has a second such entry, in the
/// partition of the external id. Both are written at the same time.
///
/// The entry is an item of its own, and costs a write at a login and one at a logout. Another write
/// of the session does not touch the entry. An entry outlasts its session by a day or more, so a
/// touch writes it once a day or less. A secondary index would cost the same writes. It could only
/// be read with eventual consistency, so `revoke_user` would miss the logins of the last moment. A
/// transaction of both items would cost twice as much.
///
/// A reader removes the entries of sessions that have ended, except those of the last hour. The TTL
/// removes what nobody reads.
///
/// # All sessions
///
/// As a [`SessionCatalog`](crate::SessionCatalog), the store walks through the table with strongly
/// consistent `Scan` calls. Each of them looks at up to 1,000 items or 1 MB. DynamoDB charges for all
/// that a `Scan` looks at: in a table that the application uses too, also for the application's
/// items. If a call has looked at many items and at no session among the last ones, the
/// [`Cursor`](crate::Cursor) names the key of another item, in an encoding that everybody can read.
///
/// # Calls and capacity
///
/// A session of less than 1 KB costs this, in calls that follow each other and in capacity units.
/// A larger one costs one unit more for each further 4 KB read, or for each further 1 KB written:
///
/// | what | calls | read units | write units |
/// | --- | --- | --- | --- |
/// | a read | 1 | 1 | |
/// | a visitor's first write | 1 | | 1 |
/// | a later write, a touch | 1 | | 1 |
/// | a login | 2 | | 2 |
/// | a logout | 1, and 1 for which nobody waits | | 2 |
/// | a login with an external id | 2 | | 3 |
/// | a logout from it | 1, and 2 for which nobody waits | | 3 |
/// | finding *n* sessions by user or external id, up to 100 | 2 | 1 + *n* | |
/// | removing a user's *n* sessions | 1 + *n*/16, and *n* for which nobody waits | 1 | 2 *n* |
///
/// A login with an external id makes its two entries in parallel, so it waits no longer than another
/// one. A walk through all sessions costs a read unit for each 4 KB in the table. A write that finds
/// another version costs its write units all the same. The page on
/// [operations](crate::docs::operations#dynamodb) has the cost of a request, and what other ways to
/// find a user's sessions would cost.
///
/// # Answers that are lost
///
/// The client makes a read again by itself, as its
/// [`RetryConfig`] says. A write is made again by the store, as often as that setting says: when
/// DynamoDB throttles, and when the answer was lost. Each write has a name. So if the first attempt
/// was done after all, the answer is the right one, and the change is in the session once. If other
/// requests have written in between as well, nobody can tell any more, and the write is an error.
/// A removal that is made again may answer that there was no session. So the count of
/// [`remove_by_user`](UserIndex::remove_by_user), and with it that of
/// [`revoke_user`](crate::Sessions::revoke_user), may be smaller than the number of sessions that it
/// has removed.
///
/// When a call is dropped, its write takes effect as a whole or not at all. An entry may be left
/// without its session, which changes nothing.
///
/// # In a table with other items
///
/// The table needs a partition key and a sort key, both of them strings. [`with_key_names`] says how
/// they are called, and [`with_ttl_attribute`] names the attribute of the table's TTL. All partition
/// keys of the store begin with its [prefix](Self::with_prefix):
///
/// | item | partition key | sort key |
/// | --- | --- | --- |
/// | a session | `cloakroom#session#AAECAwQFBgcICQoLDA0ODw` | `session` |
/// | an entry of a user | `cloakroom#user#main:ada` | `session#AAECAwQFBgcICQoLDA0ODw` |
/// | an entry of an external id | `cloakroom#external#08a5019c-17e1-4977-8f42-65a12843ea02` | `session#AAECAwQFBgcICQoLDA0ODw` |
///
/// The other attributes are `record`, `version`, `expires`, `user`, `external_id`, `write`, `entry_at`
/// and `entry_until`. A secondary index of the table with one of these names as its key would list the
/// sessions too.
///
/// The page on [operations](crate::docs::operations#dynamodb) has the rights that the store needs.
///
/// [`with_key_names`]: Self::with_key_names
/// [`with_ttl_attribute`]: Self::with_ttl_attribute
#[derive(Clone)]
#[doc(alias("dynamo", "aws", "DynamoStore"))]
pub struct DynamoDbStore {
    /// It makes a call again by itself.
    reader: Client,
    /// It makes each call once.
    writer: Client,
    names: Arc<Names>,
    writes: Arc<Writes>,
    /// When the newest entry of an index was written.
    last_entry_at: Arc<AtomicU64>,
}

impl DynamoDbStore {
    /// A store in the table of this name, which may be an ARN too. This makes no call.
    ///
    /// The keys of the table are `pk` and `sk`, and its TTL is in the attribute `ttl`, if you do not
    /// name others.
    ///
    /// # Errors
    ///
    /// The name is empty.
    pub fn new(client: Client, table: impl Into<String>) -> Result<Self, StoreError> {
        let table = table.into();
        if table.is_empty() {
            return Err(StoreError::new("the name of the DynamoDB table is empty"));
        }
        let once = client.config().to_builder();
        let once = once.retry_config(RetryConfig::disabled()).build();
        Ok(Self {
            writer: Client::from_conf(once),
            reader: client,
            names: Arc::new(Names {
                table,
                partition_key: "pk".into(),
                sort_key: "sk".into(),
                ttl: "ttl".into(),
                prefix: "cloakroom#".into(),
            }),
            writes: Arc::new(Writes::new()),
            last_entry_at: Arc::default(),
        })
    }

    /// What all partition keys begin with: up to 512 bytes. If this is not called, it is
    /// `cloakroom#`.
    ///
    /// Stores with different prefixes share no session. Do not give one store a prefix that is
    /// another store's prefix followed by `session#`, `user#` or `external#`.
    ///
    /// # Errors
    ///
    /// The prefix is too long.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Result<Self, StoreError> {
        let prefix = prefix.into();
        match prefix.len() {
            ..=LONGEST_PREFIX => Ok(self.with_names(|names| names.prefix = prefix)),
            length => Err(StoreError::new(format!(
                "the prefix of the keys in DynamoDB must have up to {LONGEST_PREFIX} bytes; this \
                 one has {length}"
            ))),
        }
    }

    /// What the partition key and the sort key of the table are called. If this is not called, they
    /// are `pk` and `sk`.
    ///
    /// # Errors
    ///
    /// A name is empty or longer than 255 bytes, or the store has another attribute of this name.
    pub fn with_key_names(
        self,
        partition_key: impl Into<String>,
        sort_key: impl Into<String>,
    ) -> Result<Self, StoreError> {
        let (partition_key, sort_key) = (partition_key.into(), sort_key.into());
        self.with_names(|names| {
            names.partition_key = partition_key;
            names.sort_key = sort_key;
        })
        .if_distinct()
    }

    /// In which attribute the table has its TTL. If this is not called, it is `ttl`.
    ///
    /// # Errors
    ///
    /// The name is empty or longer than 255 bytes, or the store has another attribute of this name.
    pub fn with_ttl_attribute(self, name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        self.with_names(|names| names.ttl = name).if_distinct()
    }

    fn with_names(self, change: impl FnOnce(&mut Names)) -> Self {
        let mut names = Names::clone(&self.names);
        change(&mut names);
        Self {
            names: Arc::new(names),
            ..self
        }
    }

    fn if_distinct(self) -> Result<Self, StoreError> {
        let Names {
            partition_key,
            sort_key,
            ttl,
            ..
        } = &*self.names;
        let mut names = vec![
            attribute::RECORD,
            attribute::VERSION,
            attribute::EXPIRES,
            attribute::USER,
            attribute::EXTERNAL_ID,
            attribute::WRITE,
            attribute::ENTRY_AT,
            attribute::ENTRY_UNTIL,
        ];
        for name in [&**partition_key, sort_key, ttl] {
            if name.is_empty() || name.len() > LONGEST_NAME || names.contains(&name) {
                return Err(StoreError::new(format!(
                    "the store cannot have {name:?} as the name of a key or of the TTL in \
                     DynamoDB; it must have 1 to {LONGEST_NAME} bytes, and must be none of {names:?}"
                )));
            }
            names.push(name);
        }
        Ok(self)
    }

    /// Makes the table, billed on demand, if there is none. Turns on its TTL. Waits up to a minute
    /// until the table can be used.
    ///
    /// Several nodes may call this at once, and each of them at each start. If the table is there
    /// already, this looks at its keys. **In a table that the application uses too, DynamoDB then
    /// removes all items whose TTL attribute holds a time that has passed.**
    ///
    /// An application without the right to make tables does not call this: the page on
    /// [operations](crate::docs::operations#dynamodb) has a command that makes the table.
    ///
    /// When the future is dropped, the table may be there without a TTL. The next call turns it on.
    ///
    /// # Errors
    ///
    /// DynamoDB cannot be reached or refuses a call, the table has other keys or its TTL in another
    /// attribute, or it is not ready after a minute.
    pub async fn create_table(&self) -> Result<(), StoreError> {
        let made = self.make_table().await;
        made.map_err(|failure| {
            let table = &self.names.table;
            StoreError::new(format!("could not make the DynamoDB table {table:?}"))
                .with_source(failure)
        })
    }

    /// An item, as the last write left it.
    async fn read_key(&self, key: Item) -> Result<Option<Item>, Failure> {
        let get = self
            .reader
            .get_item()
            .table_name(&self.names.table)
            .set_key(Some(key))
            .consistent_read(true);
        Ok(get.send().await.map_err(Failure::of)?.item)
    }

    async fn read(&self, id: RecordId) -> Result<Option<Item>, Failure> {
        self.read_key(self.names.session_key(id)).await
    }

    fn failed<'a>(&'a self, what: &'static str) -> impl Fn(Failure) -> StoreError + 'a {
        let table = &self.names.table;
        move |failure| {
            StoreError::new(format!("could not {what} in the DynamoDB table {table:?}"))
                .with_source(failure)
        }
    }
}

#[async_trait]
impl SessionStore for DynamoDbStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let item = self.read(id).await.map_err(self.failed("read a session"))?;
        Ok(item.and_then(|item| self.record_in(id, item, SystemClock.now())))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let put = self.put_new(id, record).await;
        put.map_err(self.failed("write a new session"))
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let put = self.put_over(id, expected, record).await;
        put.map_err(self.failed("write a session"))
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let moved = self.move_expiry(id, record).await;
        moved.map_err(self.failed("touch a session"))
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        let removed = self
            .take(id, None)
            .await
            .map_err(self.failed("remove a session"))?;
        if let Some(item) = &removed {
            self.unfile(id, item);
        }
        Ok(removed.is_some())
    }

    /// DynamoDB removes expired sessions by itself.
    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl UserIndex for DynamoDbStore {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let sessions = self.list(&IndexedBy::User(user.clone())).await;
        sessions.map_err(self.failed("list a user's sessions"))
    }

    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let removed = self.take_all(user, except).await;
        removed.map_err(self.failed("remove a user's sessions"))
    }
}

impl fmt::Debug for DynamoDbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbStore")
            .field("table", &self.names.table)
            .field("prefix", &self.names.prefix)
            .finish_non_exhaustive()
    }
}
