//! Poolers in front of PostgreSQL, such as PgBouncer: which one is refused, and what its errors
//! mean.
//!
//! sqlx gives a name to each statement that it prepares, and each of its connections uses the same
//! names. In transaction mode, a pooler may send each step of a statement to another connection of
//! the server. If the pooler does not follow names, one of these happens:
//!
//! - The name is taken (42P05), or there is no such statement (26000).
//! - The name belongs to a statement of another client, which then runs. So a read may remove a
//!   session. This is why no such pooler may be used.

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Error};
use tokio::time::timeout;

use crate::error::StoreError;

/// How long the trial may take. A pooler without a free connection lets it wait.
const TRIAL: Duration = Duration::from_secs(2);

/// An idle pooler that is unfit fails at the first of these. A busy one may take a few more.
const STATEMENTS: [&str; 4] = ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4"];

const MIXED_UP: &str = "a pooler on the way mixes up prepared statements; with PgBouncer, use \
                        `pool_mode = session` for this database, or version 1.21 or newer with \
                        `max_prepared_statements` above 0";

/// See `Dialect`. PgBouncer gives nearly all of its own errors the same code, 08P01.
pub(super) fn advice(error: &dyn DatabaseError) -> Option<&'static str> {
    let has = |text| error.message().contains(text);
    match error.code().as_deref() {
        Some("26000" | "42P05") => Some(MIXED_UP),
        // PostgreSQL's own error: a statement of another client has more parameters or fewer.
        Some("08P01") if has("bind message supplies") => Some(MIXED_UP),
        Some("08P01") if has("unsupported startup parameter") => Some(
            "PgBouncer needs `ignore_startup_parameters = extra_float_digits`, since sqlx sends \
             that parameter",
        ),
        Some("08P01") if has("transaction blocks not allowed") => Some(
            "PgBouncer's statement mode takes no transaction, and a migration is one; connect to \
             PostgreSQL itself for the migration",
        ),
        Some("08P01") if has("query_wait_timeout") => Some(
            "no connection of PgBouncer became free; in session mode, its `default_pool_size` must \
             be as large as the number of all connections that clients have",
        ),
        _ => None,
    }
}

/// Refuses a pooler that mixes up prepared statements. Two connections run the same statements in
/// turn: such a pooler sends both to one connection of the server, where the name is taken.
///
/// If something else is wrong, this refuses nothing: the store's first call says what.
pub(super) async fn refuse_if_unfit(options: &PgConnectOptions) -> Result<(), StoreError> {
    match timeout(TRIAL, run_in_turn(options)).await {
        Ok(Err(Error::Database(error))) if advice(&*error) == Some(MIXED_UP) => {
            let what = format!("could not use PostgreSQL: {MIXED_UP}");
            Err(StoreError::new(what).with_source(error))
        }
        _ => Ok(()),
    }
}

async fn run_in_turn(options: &PgConnectOptions) -> Result<(), Error> {
    let mut connections = [options.connect().await?, options.connect().await?];
    for statement in STATEMENTS {
        for connection in &mut connections {
            sqlx::query(statement).execute(connection).await?;
        }
    }
    for connection in connections {
        connection.close().await?;
    }
    Ok(())
}
