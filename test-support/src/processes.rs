//! Tests that start their own program again, as more processes on the same store.

use std::env;
use std::process::{Command, Stdio};

#[cfg(feature = "stores")]
use cloakroom::AnyStore;

/// This variable says that the process runs one test alone.
const ALONE: &str = "CLOAKROOM_TEST_ALONE";
/// This variable says that the process is the child of a test, and gives the child's name.
const CHILD: &str = "CLOAKROOM_TEST_CHILD";
const URL: &str = "CLOAKROOM_TEST_URL";

/// Runs one test of this program in its own process. `module` is the value of `module_path!()`.
pub fn one_test(module: &str, test: &str) -> Command {
    let (_program, module) = module.split_once("::").unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]);
    command
}

/// Whether this process runs one test alone. If it does not, this function runs the test in such a
/// process, and the test passes there.
///
/// nextest runs each test in its own process. Plain `cargo test` runs all tests in one process.
/// There, a test that changes the process would disturb the other tests.
pub fn runs_alone(module: &str, test: &str) -> bool {
    let is_alone = env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test");
    if is_alone || env::var_os(ALONE).is_some() {
        return true;
    }
    let output = one_test(module, test).env(ALONE, "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
    false
}

/// A child that runs one test of this program again. It has this name, and uses the store at this
/// URL.
pub fn child(module: &str, test: &str, name: &str, url: &str) -> Command {
    let mut command = one_test(module, test);
    command
        .env(CHILD, name)
        .env(URL, url)
        .stdout(Stdio::piped());
    command
}

/// The name of this process, if it is a child.
pub fn child_name() -> Option<String> {
    env::var(CHILD).ok()
}

/// The store of the parent process.
#[cfg(feature = "stores")]
pub async fn store_of_parent() -> AnyStore {
    crate::stores::open(&env::var(URL).unwrap()).await
}
