//! Tests that start their own program again, as further processes on their store.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses a part of it"
)]
#![allow(clippy::unwrap_used)]

use std::env;
use std::process::{Command, Stdio};

use cloakroom::AnyStore;

/// What tells a process that it is the child of a test, and which one.
const CHILD: &str = "CLOAKROOM_TEST_CHILD";
const URL: &str = "CLOAKROOM_TEST_URL";

/// A child that runs one test of this program again, as `name`, on the store of this URL.
pub fn child(test: &str, name: &str, url: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, name)
        .env(URL, url)
        .stdout(Stdio::piped());
    command
}

/// This process's name, if it is a child.
pub fn child_name() -> Option<String> {
    env::var(CHILD).ok()
}

/// The store that a child was given.
pub async fn store_of_parent() -> AnyStore {
    AnyStore::open(&env::var(URL).unwrap()).await.unwrap()
}
