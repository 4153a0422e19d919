//! Every store keeps the contract.

#![allow(clippy::unwrap_used)]

use cloakroom::{MemoryStore, SqliteStore};

cloakroom::conformance_tests! { memory: MemoryStore::new() }

cloakroom::conformance_tests! { sqlite_in_memory: SqliteStore::open(":memory:").await.unwrap() }

cloakroom::conformance_tests! { sqlite_file: SqliteStore::open(scratch_file()).await.unwrap() }

/// A file of its own for each test, in a directory that the system clears.
fn scratch_file() -> std::path::PathBuf {
    tempfile::tempdir().unwrap().keep().join("sessions.sqlite3")
}
