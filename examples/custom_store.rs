//! Run with `cargo run --example custom_store`, and its tests with
//! `cargo test --example custom_store`.
//!
//! How to write a store. This one keeps the encoded bytes of each record, as a database would. The
//! conformance suite tests it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use axum::{Router, routing::get};
use cloakroom::{
    Record, RecordId, Replaced, Session, SessionError, SessionLayer, SessionStore, SigningKey,
    StoreError, Timestamp, UserId, UserIndex, Version,
};

#[derive(Debug, Default)]
struct MyStore(Mutex<HashMap<RecordId, Row>>);

/// What a store has to know besides the bytes: the version to compare, the expiry that `touch`
/// moves, and the user for the index.
#[derive(Debug)]
struct Row {
    version: Version,
    expires_at: Timestamp,
    user: Option<UserId>,
    bytes: Vec<u8>,
}

impl Row {
    fn new(record: &Record) -> Result<Self, StoreError> {
        let user = record.user().cloned();
        Ok(Self {
            version: record.version(),
            expires_at: record.expires_at(),
            user,
            bytes: record.encode()?,
        })
    }

    fn record(&self, id: RecordId) -> Option<Record> {
        Some(Record::decode(id, self.bytes.clone())?.with_expires_at(self.expires_at))
    }
}

impl MyStore {
    fn rows(&self) -> MutexGuard<'_, HashMap<RecordId, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SessionStore for MyStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        Ok(self.rows().get(&id).and_then(|row| row.record(id)))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let mut rows = self.rows();
        if rows.contains_key(&id) {
            return Ok(false);
        }
        rows.insert(id, Row::new(record)?);
        Ok(true)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        match self.rows().get_mut(&id) {
            None => Ok(Replaced::Missing),
            Some(row) if row.version != expected => Ok(Replaced::Conflict),
            Some(row) => {
                let mut new = Row::new(record)?;
                if record.keeps_later_expiry() {
                    new.expires_at = new.expires_at.max(row.expires_at);
                }
                *row = new;
                Ok(Replaced::Done)
            }
        }
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let mut rows = self.rows();
        let row = rows.get_mut(&id);
        let Some(row) = row.filter(|row| row.version == record.version()) else {
            return Ok(false);
        };
        row.expires_at = record.expires_at();
        Ok(true)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        Ok(self.rows().remove(&id).is_some())
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self
            .rows()
            .extract_if(|_, row| row.expires_at <= now)
            .count() as u64)
    }
}

#[async_trait]
impl UserIndex for MyStore {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let rows = self.rows();
        let theirs = rows
            .iter()
            .filter(|(_, row)| row.user.as_ref() == Some(user));
        Ok(theirs
            .filter_map(|(id, row)| Some((*id, row.record(*id)?)))
            .collect())
    }

    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let ends =
            |id: &RecordId, row: &mut Row| row.user.as_ref() == Some(user) && Some(*id) != except;
        Ok(self.rows().extract_if(ends).count() as u64)
    }
}

cloakroom::conformance_tests! { contract: MyStore::default() }

async fn home(session: Session) -> Result<String, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("This is your visit number {visits}.\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = SessionLayer::builder(MyStore::default(), SigningKey::generate()?)
        .secure(false) // this example speaks plain HTTP, on this machine only
        .build()?;
    let app = Router::new().route("/", get(home)).layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
