//! The SQL stores, and what they share: one table, the statements on it, its rows, and errors.
//!
//! Each store's own file opens its database, makes its table, and purges it.

use std::future::Future;
use std::time::Duration;

use self::dialect::Dialect;
use crate::error::StoreError;

mod batches;
mod calls;
mod connections;
mod dialect;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod feed;
mod implement;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
mod pooler;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statements;

/// How many records one statement of a purge removes, so that no write waits long for it.
const PURGED_AT_ONCE: i64 = 500;

/// How long one statement of a purge may take. Without a limit, a dead connection could keep the
/// purge waiting for hours, and no other node would purge.
const PURGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a migration may take. It takes no time if the table and its indexes are there.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a migration. It is an error if the migration takes too long.
async fn migrated(
    dialect: &Dialect,
    migration: impl Future<Output = Result<(), StoreError>>,
) -> Result<(), StoreError> {
    match tokio::time::timeout(MIGRATION_TIMEOUT, migration).await {
        Ok(result) => result,
        Err(elapsed) => {
            let Dialect { context, store, .. } = dialect;
            let what = format!(
                "could not make the session table in {context} within {MIGRATION_TIMEOUT:?}: \
                 another session of the database may hold a lock on the table, or the table is \
                 large; try again, or run the statements of `{store}::migration` by hand"
            );
            Err(StoreError::new(what).with_source(elapsed))
        }
    }
}

/// Runs a statement of a purge. It is an error if the statement takes too long.
async fn timely<T>(
    statement: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(PURGE_TIMEOUT, statement)
        .await
        .unwrap_or_else(|_| Err(StoreError::timeout(PURGE_TIMEOUT)))
}

/// Runs batches of a purge until one is not full, and counts what they removed.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
async fn in_batches<F>(mut batch: impl FnMut() -> F) -> Result<u64, StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    let mut purged = 0;
    loop {
        let removed = timely(batch()).await?;
        purged += removed;
        if removed < PURGED_AT_ONCE.unsigned_abs() {
            return Ok(purged);
        }
    }
}

/// Refuses a URL whose login comes after the host. This happens if a slash is missing or one is too
/// many, or if a slash or a question mark is in the password. sqlx would take the password for the
/// name of a database, which errors show, or for an option, which sqlx logs.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn check_login(url: &str, dialect: &Dialect) -> Result<(), StoreError> {
    let (_scheme, rest) = url.split_once(':').unwrap_or_default();
    let is_in_place = rest.strip_prefix("//").is_some_and(|rest| {
        let (place, options) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
        let (_host, database) = place.split_once('/').unwrap_or((place, ""));
        let mut options = options.split('&');
        let is_login = |option: &str| option.split('=').next().unwrap_or(option).contains('@');
        !database.contains('@') && !options.any(is_login)
    });
    if !is_in_place {
        return Err(StoreError::new(format!(
            "the {} URL must look like scheme://user:password@host:port/database; in the password, \
             a slash is %2F and a question mark %3F",
            dialect.context
        )));
    }
    Ok(())
}
