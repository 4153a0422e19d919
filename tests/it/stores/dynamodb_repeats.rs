//! Calls of DynamoDB whose answer is lost, calls that are dropped, and what the index of users has
//! afterwards.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use cloakroom::{Record, RecordId, Replaced, SessionLayer, SessionStore, UserId, UserIndex};
use support::dynamodb::{Fault, Wire};
use support::servers::Server;
use support::{Browser, app, key};
use tokio::time::timeout;

use super::dynamodb::{ID, ada, items, number, records, told, wait_for_items};

/// The operations since the last time.
pub(super) fn operations(wire: &Wire) -> Vec<String> {
    let calls = wire.take_calls().into_iter();
    calls.map(|call| call.operation).collect()
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_done_once_and_the_answer_says_done() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [first, second, third] =
        records(["/log_in/ada", "/insert/theme/dark", "/insert/theme/light"]).await;
    let faults = [
        Fault::LosesAnswer,
        Fault::AnswersAfterwards(500, "InternalServerError"),
        Fault::AnswersAfterwards(503, "ServiceUnavailable"),
        Fault::LosesCall,
        Fault::Answers(500, "InternalServerError"),
        Fault::Answers(400, "ThrottlingException"),
    ];
    for (number, fault) in (0..).zip(faults) {
        // The first of the two is the entry of the index.
        wire.break_next("PutItem", fault.clone());
        assert!(store.insert(ID, &first).await.unwrap(), "{fault:?}");
        for (expected, record) in [(&first, &second), (&second, &third)] {
            wire.break_next("UpdateItem", fault.clone());
            let replaced = store.replace(ID, expected.version(), record).await;
            assert_eq!(replaced.unwrap(), Replaced::Done, "{fault:?}");
        }
        let moved = third.expires_at() + Duration::from_secs(60);
        let moved = third.clone().with_expires_at(moved);
        wire.break_next("UpdateItem", fault.clone());
        assert!(store.touch(ID, &moved).await.unwrap(), "{fault:?}");
        let loaded = store.load(ID).await.unwrap().unwrap();
        assert!(loaded.encode().unwrap() == moved.encode().unwrap());
        assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 1);
        wire.break_next("DeleteItem", fault.clone());
        store.remove(ID).await.unwrap();
        assert!(store.load(ID).await.unwrap().is_none());

        // Another session, whose entry nobody has written yet.
        wire.take_calls();
        wire.break_next("PutItem", Fault::None);
        wire.break_next("PutItem", fault.clone());
        let id = RecordId::from_bytes([100 + number; 16]);
        assert!(store.insert(id, &first).await.unwrap(), "{fault:?}");
        let puts = operations(&wire)
            .into_iter()
            .filter(|name| name == "PutItem");
        assert_eq!(puts.count(), 4, "{fault:?}");
        assert_eq!(wire.unbroken(), 0);
        store.remove(id).await.unwrap();
    }
}

#[tokio::test]
async fn a_counter_counts_each_request_once_while_answers_are_lost() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    browser.get("/update/number").await.assert(200, "1");
    for number in 2..10 {
        let fault = match number % 2 {
            0 => Fault::LosesAnswer,
            _ => Fault::LosesCall,
        };
        wire.break_next("UpdateItem", fault);
        let number = number.to_string();
        browser.get("/update/number").await.assert(200, &number);
    }
    browser.get("/update/number").await.assert(200, "10");
}

#[tokio::test]
async fn a_write_that_another_one_came_before_is_a_conflict_although_its_call_was_lost() {
    let server = Server::dynalite();
    let (wire, other) = (Wire::to(&server), Wire::to(&server));
    let store = wire.store("sessions").await;
    let other = other.store("sessions").await;
    let [first, second] = records(["/log_in/ada", "/insert/theme/dark"]).await;
    assert!(store.insert(ID, &first).await.unwrap());
    wire.break_next("UpdateItem", Fault::LosesCall);
    wire.break_next("UpdateItem", Fault::IsSlow(Duration::from_millis(500)));
    let late = store.replace(ID, first.version(), &second);
    let before = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        other.replace(ID, first.version(), &second).await.unwrap()
    };
    let (late, before) = tokio::join!(late, before);
    assert_eq!(
        (late.unwrap(), before),
        (Replaced::Conflict, Replaced::Done)
    );
}

/// "Conflict" would be a lie if the first attempt was done, and "done" if it was not.
#[tokio::test]
async fn a_write_is_an_error_if_its_answer_was_lost_and_others_have_written_since() {
    let server = Server::dynalite();
    let (wire, other) = (Wire::to(&server), Wire::to(&server));
    let store = wire.store("sessions").await;
    let other = other.store("sessions").await;
    let [first, second, third] =
        records(["/log_in/ada", "/insert/theme/dark", "/insert/theme/light"]).await;
    assert!(store.insert(ID, &first).await.unwrap());
    wire.break_next("UpdateItem", Fault::LosesAnswer);
    wire.break_next("UpdateItem", Fault::IsSlow(Duration::from_millis(500)));
    let unclear = store.replace(ID, first.version(), &second);
    let after = async {
        loop {
            let replaced = other.replace(ID, second.version(), &third).await.unwrap();
            match replaced {
                Replaced::Done => return,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let (unclear, ()) = tokio::join!(unclear, after);
    let text = told(&unclear.unwrap_err());
    assert!(text.contains("may have been done"), "{text}");
}

/// Somebody ends all sessions of the user between the two attempts. The second one makes a session
/// again, and the next call has to find it.
#[tokio::test]
async fn a_login_that_is_made_again_after_a_removal_is_in_the_index() {
    let server = Server::dynalite();
    let (wire, other_wire) = (Wire::to(&server), Wire::to(&server));
    let store = wire.store("sessions").await;
    let other = other_wire.store("sessions").await;
    let [record] = records(["/log_in/ada"]).await;
    for fault in [Fault::None, Fault::LosesAnswer, Fault::None] {
        wire.break_next("PutItem", fault);
    }
    wire.break_next("PutItem", Fault::IsSlow(Duration::from_millis(600)));
    let login = store.insert(ID, &record);
    let removal = async {
        // By now, the second entry is there, and the session is that of the first attempt.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(other.remove_by_user(&ada(), None).await.unwrap(), 1);
    };
    let (login, ()) = tokio::join!(login, removal);
    assert!(login.unwrap());
    // It reads the index, removes the session, and tries to remove the entry.
    other_wire.wait_for_calls(3).await;
    assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 1);
    assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_write_takes_effect_as_a_whole_and_the_index_has_the_session() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/log_in/ada"]).await;
    let slow = Fault::IsSlow(Duration::from_millis(400));
    let soon = Duration::from_millis(200);

    // While the entry is written: there is an entry, and no session.
    wire.break_next("PutItem", slow.clone());
    timeout(soon, store.insert(ID, &record)).await.unwrap_err();
    wait_for_items(&wire, "sessions", 1).await;
    assert!(store.find_by_user(&ada()).await.unwrap().is_empty());
    assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 0);

    // While the session is written: both are there in the end.
    wire.break_next("PutItem", Fault::None);
    wire.break_next("PutItem", slow);
    timeout(soon, store.insert(ID, &record)).await.unwrap_err();
    assert!(store.load(ID).await.unwrap().is_none());
    wait_for_items(&wire, "sessions", 2).await;
    assert!(store.load(ID).await.unwrap().is_some());
    assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 1);
}

/// Makes the entries of the index so many milliseconds older.
pub(super) async fn make_entries_older(wire: &Wire, millis: u64) {
    for mut item in items(wire, "sessions").await {
        if item.contains_key("record") {
            continue;
        }
        let at = number(&item, "entry_at") - millis;
        item.insert("entry_at".into(), AttributeValue::N(at.to_string()));
        let put = wire.client().put_item().table_name("sessions");
        let item = item.into_iter().collect();
        put.set_item(Some(item)).send().await.unwrap();
    }
    wire.take_calls();
}

#[tokio::test]
async fn a_reader_removes_old_entries_without_a_session_and_leaves_young_ones() {
    const HOUR: u64 = 60 * 60 * 1000;
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/log_in/ada"]).await;
    let kept = RecordId::from_bytes([8; 16]);
    assert!(store.insert(kept, &record).await.unwrap());
    for removes in [false, true] {
        wire.break_next("PutItem", Fault::None);
        wire.break_next("PutItem", Fault::Answers(400, "AccessDeniedException"));
        store.insert(ID, &record).await.unwrap_err();
        for (older, left) in [(0, 3), (HOUR - 60_000, 3), (120_000, 2)] {
            make_entries_older(&wire, older).await;
            let found = match removes {
                false => store.find_by_user(&ada()).await.unwrap().len(),
                true => {
                    let removed = store.remove_by_user(&ada(), Some(kept)).await.unwrap();
                    usize::try_from(removed).unwrap() + 1
                }
            };
            assert_eq!(found, 1);
            if left == 3 {
                // A call that removes an entry would be made by then.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            wait_for_items(&wire, "sessions", left).await;
        }
    }
    assert_eq!(store.find_by_user(&ada()).await.unwrap()[0].0, kept);
}

#[tokio::test]
async fn the_entry_of_a_session_is_written_again_before_a_touch_outlives_it() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/log_in/ada"]).await;
    assert!(store.insert(ID, &record).await.unwrap());
    operations(&wire);
    for (days, calls) in [
        (0, &["UpdateItem"][..]),
        (2, &["PutItem", "UpdateItem"]),
        (3, &["UpdateItem"]),
        (1, &["UpdateItem"]),
        (9, &["PutItem", "UpdateItem"]),
    ] {
        let loaded = store.load(ID).await.unwrap().unwrap();
        operations(&wire);
        let record = loaded.with_expires_at(record.expires_at() + DAY * days);
        assert!(store.touch(ID, &record).await.unwrap());
        assert_eq!(operations(&wire), calls, "{days}");
    }
    let of_session = |item: &std::collections::BTreeMap<_, _>| item.contains_key("record");
    let all = items(&wire, "sessions").await;
    let session = all.iter().find(|item| of_session(item)).unwrap();
    let entry = all.iter().find(|item| !of_session(item)).unwrap();
    let ttl = |item| number(item, "ttl");
    assert!(ttl(entry) > ttl(session));

    // A touch that knows nothing about the entry finds out that it is too short.
    let long = record.expires_at() + DAY * 90;
    let long = Record::decode(ID, record.encode().unwrap())
        .unwrap()
        .with_expires_at(long);
    assert!(store.touch(ID, &long).await.unwrap());
    let all = items(&wire, "sessions").await;
    let session = all.iter().find(|item| of_session(item)).unwrap();
    let entry = all.iter().find(|item| !of_session(item)).unwrap();
    assert!(ttl(entry) > ttl(session));

    // A write that knows less about the entry does not make it shorter.
    let before = ttl(entry);
    let short = Record::decode(ID, record.encode().unwrap()).unwrap();
    assert!(store.touch(ID, &short).await.unwrap());
    let [again] = records(["/log_in/ada"]).await;
    assert!(!store.insert(ID, &again).await.unwrap());
    let all = items(&wire, "sessions").await;
    let entry = all.iter().find(|item| !of_session(item)).unwrap();
    assert_eq!(ttl(entry), before);
}

/// A record that comes from elsewhere says nothing about the entry. The store finds out.
#[tokio::test]
async fn a_write_that_knows_nothing_of_the_index_files_a_session_of_another_user() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [visitor, login] = records(["/insert/theme/dark", "/log_in/ada"]).await;
    let login = Record::decode(ID, login.encode().unwrap()).unwrap();
    assert!(store.insert(ID, &visitor).await.unwrap());
    let replaced = store.replace(ID, visitor.version(), &login).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 1);
    let loaded = store.load(ID).await.unwrap().unwrap();
    assert!(loaded.encode().unwrap() == login.encode().unwrap());
}

/// The index of the old user still has an entry. It counts no more.
#[tokio::test]
async fn a_session_that_changes_its_user_is_found_by_the_new_one_alone() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let grace = UserId::new("__Host-session:grace").unwrap();
    let [of_ada] = records(["/log_in/ada"]).await;
    let [_, of_grace] = records(["/insert/theme/dark", "/log_in/grace"]).await;
    let [_, _, visitor] =
        records(["/insert/theme/dark", "/insert/theme/light", "/insert/a/b"]).await;
    // Nothing says that the user is another one.
    let of_grace = Record::decode(ID, of_grace.encode().unwrap()).unwrap();
    let found = async |user: UserId| store.find_by_user(&user).await.unwrap().len();

    assert!(store.insert(ID, &of_ada).await.unwrap());
    let replaced = store.replace(ID, of_ada.version(), &of_grace).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert_eq!((found(ada()).await, found(grace.clone()).await), (0, 1));
    assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 0);
    let replaced = store.replace(ID, of_grace.version(), &visitor).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert_eq!((found(ada()).await, found(grace.clone()).await), (0, 0));
    assert_eq!(store.remove_by_user(&grace, None).await.unwrap(), 0);
    assert!(store.load(ID).await.unwrap().is_some());
}
