//! The store contract as tests, which you can run on a store of your own.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a module of tests from an expression that
//! makes a store. Each function here is one of these tests. It panics if the store breaks the
//! contract.
//!
//! The tests are not a stable part of the API: a minor release may add a test, or change one so
//! that it finds more. The contract itself is: see [`SessionStore`](crate::SessionStore#contract).
//!
//! ```
//! cloakroom::conformance_tests! { memory: cloakroom::MemoryStore::new() }
//! # fn main() {}
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::id::RecordId;
use crate::record::client::Client;
use crate::record::data::{Data, Entry};
use crate::record::generations::Serial;
use crate::record::lifetime::class::LifetimeClass;
use crate::record::login::Login;
use crate::record::secret_hash::SecretHash;
use crate::record::user::UserId;
use crate::record::{Record, RecordFields};
use crate::store::SessionStore;
use crate::token::random::RandomSource;

mod catalog;
mod feed;
mod races;
mod records;
mod users;

pub use catalog::*;
pub use feed::*;
pub use races::*;
pub use records::*;
pub use users::*;

/// Tests that a store keeps the contract. The macro makes a module of this name, with a test for
/// each part of the contract.
///
/// The expression makes an empty store, and may use `.await`. It runs in each test. If the store is
/// not a [`UserIndex`](crate::UserIndex), add `without user index`. If the store is a
/// [`SessionCatalog`](crate::SessionCatalog), add `with catalog`, and if the store is a
/// [`SessionFeed`](crate::SessionFeed), add `with feed`:
///
/// ```
/// # use cloakroom::MemoryStore;
/// cloakroom::conformance_tests! { with_index: MemoryStore::new() }
/// cloakroom::conformance_tests! { without_index: MemoryStore::new(), without user index }
/// cloakroom::conformance_tests! { with_all: MemoryStore::new(), with catalog, with feed }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($module:ident: $store:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @session_store $store }
            $crate::conformance_tests! { @user_index $store }
        }
    };
    ($module:ident: $store:expr, with catalog) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @session_store $store }
            $crate::conformance_tests! { @user_index $store }
            $crate::conformance_tests! { @catalog $store }
        }
    };
    ($module:ident: $store:expr, with catalog, with feed) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @session_store $store }
            $crate::conformance_tests! { @user_index $store }
            $crate::conformance_tests! { @catalog $store }
            $crate::conformance_tests! { @feed $store }
            $crate::conformance_tests! { @feed_of_users $store }
        }
    };
    ($module:ident: $store:expr, with feed) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @session_store $store }
            $crate::conformance_tests! { @user_index $store }
            $crate::conformance_tests! { @feed $store }
            $crate::conformance_tests! { @feed_of_users $store }
        }
    };
    ($module:ident: $store:expr, without user index) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @session_store $store }
        }
    };
    ($module:ident: $store:expr, without user index, with feed) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_tests! { @session_store $store }
            $crate::conformance_tests! { @feed $store }
        }
    };
    (@session_store $store:expr) => {
        $crate::conformance_tests! { @tests $store;
            a_missing_record_is_none
            a_new_record_is_loaded_as_it_was_inserted
            an_insert_under_a_taken_id_changes_nothing
            a_replace_of_the_expected_version_writes_the_whole_record
            a_replace_of_another_version_changes_nothing
            a_replace_that_keeps_a_later_expiry_never_moves_it_back
            a_replace_of_a_missing_record_creates_nothing
            a_touch_moves_the_expiry_and_nothing_else
            a_touch_of_another_version_changes_nothing
            a_record_whose_expiry_is_moved_into_the_past_is_over
            a_touch_of_a_missing_record_creates_nothing
            a_removed_record_stays_missing
            a_purge_removes_what_has_expired_and_nothing_else
            a_purge_keeps_what_was_touched_in_time
            ids_are_compared_byte_for_byte
            data_of_any_text_is_kept
            data_of_64_kib_is_kept
            an_expiry_in_400_days_is_kept
            sixty_four_tasks_lose_no_change
            one_of_many_parallel_inserts_wins
            one_of_many_parallel_replaces_wins
            one_of_many_parallel_removes_wins
            nothing_in_flight_revives_a_removed_record
            parallel_touches_and_replaces_lose_no_data
        }
    };
    (@user_index $store:expr) => {
        $crate::conformance_tests! { @tests $store;
            a_user_without_sessions_has_none
            sessions_are_listed_by_user
            a_login_files_the_session_under_its_user
            a_removed_session_is_not_listed
            a_touched_session_is_still_listed
            all_sessions_of_a_user_are_removed_and_no_others
            all_sessions_but_one_are_removed
            user_ids_are_compared_byte_for_byte
            parallel_logins_of_a_user_are_all_listed
            a_removal_ends_every_login_before_it
        }
    };
    (@catalog $store:expr) => {
        $crate::conformance_tests! { @tests $store;
            a_walk_through_an_empty_store_is_over
            a_walk_meets_each_session
            a_walk_answers_with_what_is_accepted_and_with_no_more_than_the_limit
            sessions_that_come_and_go_disturb_no_walk
            a_cursor_of_another_store_is_refused
            a_session_is_found_by_its_external_id
            a_login_files_the_session_under_its_external_id
            a_session_is_found_by_its_last_external_id_alone
            a_removed_session_is_not_found_by_its_external_id
            a_touched_session_is_still_found_by_its_external_id
            external_ids_are_compared_byte_for_byte
            parallel_logins_of_an_external_id_are_all_found
        }
    };
    (@feed $store:expr) => {
        $crate::conformance_tests! { @tests $store;
            a_feed_tells_each_change_of_a_record_once
            a_feed_tells_what_another_subscriber_is_told
            a_feed_tells_of_nothing_from_before_it_began
            a_pong_comes_after_all_changes_before_its_ping
        }
    };
    (@feed_of_users $store:expr) => {
        $crate::conformance_tests! { @tests $store;
            a_feed_tells_each_session_that_a_user_loses
        }
    };
    (@tests $store:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run(async {
                    $crate::conformance::$name(::std::sync::Arc::new($store)).await;
                });
            }
        )*
    };
}

/// Runs one test on a runtime of its own, with several threads.
pub fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a Tokio runtime could not be started")
        .block_on(test);
}

const HOUR: Duration = Duration::from_secs(60 * 60);

fn now() -> Timestamp {
    SystemClock.now()
}

fn new_id() -> RecordId {
    let random = RandomSource::default().bytes();
    RecordId::from_bytes(random.expect("the random generator failed"))
}

/// A record with something in every field except the user.
fn new_record() -> Record {
    let secret_hash = || SecretHash::from_bytes(*new_id().as_bytes());
    let data = data([("theme", "dark"), ("name", "Ada")]);
    let mut fields = RecordFields::new(secret_hash(), now(), data);
    fields.rotate_token(Serial::FIRST, secret_hash(), now());
    fields.set_lifetime(LifetimeClass::Remembered);
    fields.set_client(Some(Arc::new(
        Client::new()
            .with_user_agent("Browser/1.0")
            .with_address("192.0.2.1"),
    )));
    fields.use_until(now() + HOUR, 1_800_000);
    Record::new(fields)
}

fn new_record_of(user: &str) -> Record {
    new_record().with(|fields| fields.log_in(Login::plain(user_id(user), now())))
}

fn new_record_called(external_id: &str) -> Record {
    new_record_of("ada").with(|fields| fields.set_external_id(external_id.into()))
}

/// A user as a store has them.
fn user_id(user: &str) -> UserId {
    UserId::stored(user.into())
}

fn data<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Data {
    let mut data = Data::default();
    for (key, value) in values {
        let entry = Entry::new(key, &value).expect("a string is JSON");
        data = data.with(&entry).expect("each key is new");
    }
    data
}

/// The next version of the record, with this data.
fn next(record: &Record, data: Data) -> Record {
    Record::new(record.fields().next(data))
}

/// Compares two records in everything that is stored.
#[track_caller]
fn assert_same(loaded: Option<&Record>, expected: &Record) {
    let loaded = loaded.expect("the store has no such record");
    let bytes = |record: &Record| record.encode().expect("a record can be encoded");
    assert!(
        bytes(loaded) == bytes(expected),
        "the store changed the record: {loaded:?} instead of {expected:?}"
    );
}

async fn insert(store: &dyn SessionStore, record: &Record) -> RecordId {
    let id = new_id();
    assert!(
        store.insert(id, record).await.unwrap(),
        "the store says that a fresh id is taken"
    );
    id
}

fn values(record: &Record) -> BTreeMap<String, String> {
    let json = serde_json::to_string(record.fields().data()).expect("data is JSON");
    serde_json::from_str(&json).expect("data is a map of strings")
}
