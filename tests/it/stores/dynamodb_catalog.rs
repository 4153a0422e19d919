//! All sessions in a table of DynamoDB, and those of an external id.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::{
    Cursor, DynamoDbStore, Record, RecordId, Replaced, Scan, Session, SessionCatalog,
    SessionErrorKind, SessionFilter, SessionLayer, SessionStore, UserIndex,
};
use serde_json::json;
use support::dynamodb::{Call, Fault, Wire};
use support::servers::Server;
use support::{Browser, key, routes};

use super::dynamodb::{ID, ada, items, number, records, records_of, told, wait_for_items};
use super::dynamodb_repeats::{make_entries_older, operations};
use crate::secrecy::logging::Log;

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// An application whose sessions may have external ids.
fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    let set = async |session: Session, Path(id): Path<String>| session.set_external_id(id);
    let log_in = async |session: Session, Path((user, id)): Path<(String, String)>| {
        session.log_in(user)?;
        session.set_external_id(id)
    };
    let insert_and_set = async |session: Session, Path(id): Path<String>| {
        session.insert("theme", &id)?;
        session.set_external_id(id)
    };
    routes()
        .route("/insert_and_external/{id}", get(insert_and_set))
        .route("/external/{id}", get(set))
        .route("/log_in_as/{user}/{id}", get(log_in))
        .layer(layer)
}

/// Puts items into a table, under these keys.
async fn put_items(wire: &Wire, table: &str, keys: impl IntoIterator<Item = (String, String)>) {
    let put = |(partition, sort): (String, String)| {
        let put = PutRequest::builder()
            .item("pk", text(partition))
            .item("sk", text(sort))
            .item("what", text("an item of the application"));
        let put = put.build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    let puts: Vec<_> = keys.into_iter().map(put).collect();
    for some in puts.chunks(25) {
        let write = wire.client().batch_write_item();
        let write = write.request_items(table, some.to_vec());
        write.send().await.unwrap();
    }
    wire.take_calls();
}

async fn scan(store: &DynamoDbStore, after: Option<&Cursor>, limit: usize) -> Scan {
    let scan = store.scan(after, limit, &|_, _| true).await.unwrap();
    scan.expect("the store refuses its own cursor")
}

/// All ids that a walk answers with. Each cursor goes through its text.
async fn walk(store: &DynamoDbStore, limit: usize) -> Vec<RecordId> {
    let (mut ids, mut after) = (Vec::new(), None);
    for _ in 0..1000 {
        let scan = scan(store, after.as_ref(), limit).await;
        assert!(scan.records.len() <= limit);
        ids.extend(scan.records.iter().map(|(id, _)| *id));
        match scan.next {
            None => return ids,
            Some(next) => after = Some(next.to_string().parse().unwrap()),
        }
    }
    panic!("the walk does not end");
}

async fn called(store: &DynamoDbStore, external_id: &str) -> Vec<RecordId> {
    let found = store.find_by_external_id(external_id).await.unwrap();
    found.into_iter().map(|(id, _)| id).collect()
}

fn ids(count: u8) -> BTreeSet<RecordId> {
    (0..count).map(|n| RecordId::from_bytes([n; 16])).collect()
}

#[tokio::test]
async fn a_walk_meets_each_session_once_among_entries_and_items_of_others() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let other = store.clone().with_prefix("other#").unwrap();
    let [record] = records_of(app, ["/log_in_as/ada/sid"]).await;
    let orders = (0..150).map(|n| (format!("user#{n}"), format!("order#{n}")));
    let like_sessions = [
        (format!("cloakroom#session#{ID}"), "session2"),
        (format!("cloakroom#session#{ID}"), "session#"),
        (format!("session#{ID}"), "session"),
        (format!("Cloakroom#session#{ID}"), "session"),
        ("cloakroom#session#no-id".into(), "session"),
        ("cloakroom#session#".into(), "session"),
        (format!("cloakroom#user#{ID}"), "session"),
    ];
    let like_sessions = like_sessions.map(|(partition, sort)| (partition, sort.to_owned()));
    put_items(&wire, "sessions", orders.chain(like_sessions)).await;
    assert!(walk(&store, 10).await.is_empty());

    let all = ids(30);
    for id in &all {
        assert!(store.insert(*id, &record).await.unwrap());
    }
    for id in ids(5) {
        let id = RecordId::from_bytes(id.as_bytes().map(|byte| byte + 100));
        assert!(other.insert(id, &record).await.unwrap());
    }
    for limit in [1, 7, 30, 1000] {
        let met = walk(&store, limit).await;
        assert_eq!(met.len(), 30, "of {limit}");
        assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), all);
    }
    assert_eq!(walk(&other, 3).await.len(), 5);
}

/// A page of DynamoDB ends at 1 MB, wherever that is.
#[tokio::test]
async fn a_walk_meets_each_of_many_large_sessions() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let path = format!("/insert/large/{}", "x".repeat(50_000));
    let [record] = records([&path]).await;
    let all = ids(50);
    for id in &all {
        assert!(store.insert(*id, &record).await.unwrap());
    }
    wire.take_calls();
    let met = walk(&store, 1000).await;
    let calls = wire.take_calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    // A unit for each 4 KB, since the reads are consistent. dynalite counts a scan as if it were not.
    let units = calls.iter().map(|call| call.units * 2.0).sum::<f64>();
    assert!((610.0..640.0).contains(&units), "{units}");
    let mut requests = calls.iter().map(|call| &call.request);
    assert!(requests.all(|request| request["ConsistentRead"] == true));
    assert_eq!(met.len(), 50);
    assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), all);
}

/// With an empty answer that is an error in truth, an operator would believe that nobody is logged
/// in.
#[tokio::test]
async fn a_scan_of_a_table_with_other_keys_is_an_error_and_not_empty() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let wrong = store.clone().with_key_names("PK", "SK").unwrap();
    for items in [0, 100] {
        let keys = (0..items).map(|n| (format!("user#{n}"), "order".to_owned()));
        put_items(&wire, "sessions", keys).await;
        assert!(walk(&store, 10).await.is_empty());
        let error = wrong.scan(None, 10, &|_, _| true).await.unwrap_err();
        let error = told(&error);
        assert!(error.contains("could not list the sessions"), "{error}");
        assert!(error.contains("`DynamoDbStore::with_key_names`"), "{error}");
    }
}

/// A cursor behind a session would begin the same items again and again.
#[tokio::test]
async fn a_walk_goes_on_behind_an_item_that_is_no_session_and_even_if_it_is_gone() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let orders = (0..30).map(|n| (format!("user#{n}"), format!("order of ü#{n}")));
    put_items(&wire, "sessions", orders).await;
    let [record] = records(["/insert/theme/dark"]).await;
    assert!(store.insert(ID, &record).await.unwrap());
    let (mut met, mut after) = (Vec::new(), None::<Cursor>);
    let mut behind_others = 0;
    loop {
        // So late that the call answers after one page, of eight items.
        wire.break_next("Scan", Fault::IsSlow(Duration::from_millis(520)));
        wire.take_calls();
        let scan = scan(&store, after.as_ref(), 1).await;
        let calls = wire.take_calls();
        assert_eq!((calls.len(), &calls[0].request["Limit"]), (1, &json!(8)));
        met.extend(scan.records.iter().map(|(id, _)| *id));
        let Some(next) = scan.next else {
            break;
        };
        if next.record().is_none() {
            behind_others += 1;
            assert!(next.as_str().starts_with("item."), "{next}");
            // The item that the cursor names goes, if it is the application's.
            let key = start_key(&wire, &store, &next).await;
            let delete = wire.client().delete_item().table_name("sessions");
            let delete = delete.set_key(Some(key));
            delete.send().await.unwrap();
        }
        after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(met, [ID]);
    assert!(behind_others >= 2, "{behind_others}");
}

/// The key behind which a scan with this cursor begins.
async fn start_key(
    wire: &Wire,
    store: &DynamoDbStore,
    cursor: &Cursor,
) -> std::collections::HashMap<String, AttributeValue> {
    wire.take_calls();
    let _ = store.scan(Some(cursor), 1, &|_, _| true).await.unwrap();
    let Call { request, .. } = wire.take_calls().remove(0);
    let key = &request["ExclusiveStartKey"];
    let part = |name: &str| text(key[name]["S"].as_str().unwrap());
    ["pk", "sk"]
        .map(|name| (name.to_owned(), part(name)))
        .into()
}

/// Most items of a large table may be those of others.
#[tokio::test]
async fn a_call_looks_at_ten_thousand_items_at_most_and_says_where_the_next_one_begins() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/insert/theme/dark"]).await;
    assert!(store.insert(ID, &record).await.unwrap());
    for page in 0..30 {
        let key = json!({ "pk": { "S": format!("user#{page}") }, "sk": { "S": "order" } });
        let page =
            json!({ "Items": [], "Count": 0, "ScannedCount": 1000, "LastEvaluatedKey": key });
        wire.break_next("Scan", Fault::Says(200, page.to_string()));
    }
    wire.take_calls();
    let mut after = None;
    for _ in 0..3 {
        let scan = scan(&store, after.as_ref(), 1000).await;
        assert!(scan.records.is_empty());
        after = scan.next;
        let calls = wire.take_calls();
        assert_eq!(calls.len(), 10);
        let begins = |call: &Call| call.request["ExclusiveStartKey"]["pk"]["S"].clone();
        assert_eq!(
            begins(&calls[9]),
            begins(&calls[0]).as_str().map_or_else(
                || json!("user#8"),
                |first| json!(format!("user#{}", first[5..].parse::<u32>().unwrap() + 9)),
            )
        );
    }
    assert_eq!(wire.unbroken(), 0);
    assert!(after.is_some());
}

#[tokio::test]
async fn a_cursor_from_another_place_is_refused() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/insert/theme/dark"]).await;
    assert!(store.insert(ID, &record).await.unwrap());
    let sessions = SessionLayer::new(store.clone(), key()).sessions();
    let long = format!("item.{}.cw", "cHBw".repeat(700));
    wire.take_calls();
    for cursor in [
        "0.begin",
        "5461.17179869184.AAECAwQFBgcICQoLDA0ODw",
        "item",
        "item.",
        "item..",
        "item.cHA",
        "item.cHA.",
        "item..c2s",
        "item.cHA.c2s.c2s",
        "item.cHA.c2t",
        "item._w.c2s",
        "ITEM.cHA.c2s",
        "cHA.c2s",
        &long,
    ] {
        let cursor: Cursor = cursor.parse().unwrap();
        let scan = store.scan(Some(&cursor), 10, &|_, _| true).await.unwrap();
        assert!(scan.is_none(), "{cursor}");
        let everything = SessionFilter::new();
        let page = sessions.page(&everything, Some(&cursor), 10).await;
        assert_eq!(page.unwrap_err().kind(), SessionErrorKind::InvalidCursor);
    }
    assert_eq!(operations(&wire), [""; 0]);

    // DynamoDB says it of a table whose keys have other types, for one.
    let cursor: Cursor = "item.cHA.c2s".parse().unwrap();
    let says = |message: &str| {
        let kind = "com.amazon.coral.validate#ValidationException";
        let answer = json!({ "__type": kind, "message": message });
        wire.break_next("Scan", Fault::Says(400, answer.to_string()));
    };
    says(
        "The provided starting key is invalid: The provided key element does not match the schema",
    );
    let answer = store.scan(Some(&cursor), 10, &|_, _| true).await.unwrap();
    assert!(answer.is_none());
    says("Invalid FilterExpression");
    let error = store.scan(Some(&cursor), 10, &|_, _| true).await;
    let error = told(&error.unwrap_err());
    assert!(error.contains("Invalid FilterExpression"), "{error}");
    // Without a fault, it is a place like any other.
    assert!(scan(&store, Some(&cursor), 10).await.next.is_none());
}

/// Whoever makes up a cursor gets no item that is not a session of the store.
#[tokio::test]
async fn a_cursor_that_somebody_makes_up_shows_nothing_but_sessions() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records_of(app, ["/log_in_as/ada/sid"]).await;
    assert!(store.insert(ID, &record).await.unwrap());
    let other = store.clone().with_prefix("other#").unwrap();
    for theirs in ids(7) {
        assert!(other.insert(theirs, &record).await.unwrap());
    }
    for made_up in ["item.cHA.c2s", "item.YQ.Yg", "AAAAAAAAAAAAAAAAAAAAAA"] {
        let cursor: Cursor = made_up.parse().unwrap();
        for (id, _) in scan(&store, Some(&cursor), 10).await.records {
            assert_eq!(id, ID);
        }
    }
}

#[tokio::test]
async fn a_damaged_item_stops_no_walk_and_the_log_names_it() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records_of(app, ["/log_in_as/ada/sid"]).await;
    let whole = RecordId::from_bytes([200; 16]);
    assert!(store.insert(whole, &record).await.unwrap());
    let spoilt = AttributeValue::B(b"spoilt".to_vec().into());
    let number = |number: &str| AttributeValue::N(number.to_owned());
    let damages = [
        ("record", Some(spoilt)),
        ("record", None),
        ("version", None),
        ("version", Some(text("1"))),
        ("version", Some(number("1.5"))),
        ("expires", Some(text("never"))),
        ("expires", None),
    ];
    let mut damaged = Vec::new();
    for (byte, (name, value)) in (1..).zip(damages) {
        let id = RecordId::from_bytes([byte; 16]);
        assert!(store.insert(id, &record).await.unwrap());
        let is_sessions = |item: &BTreeMap<String, AttributeValue>| {
            item["pk"] == text(format!("cloakroom#session#{id}"))
        };
        let items = items(&wire, "sessions").await;
        let mut item = items.into_iter().find(is_sessions).unwrap();
        match value {
            Some(value) => item.insert(name.to_owned(), value),
            None => item.remove(name),
        };
        let put = wire.client().put_item().table_name("sessions");
        let put = put.set_item(Some(item.into_iter().collect()));
        put.send().await.unwrap();
        damaged.push(id);
    }
    let (log, _guard) = Log::start();
    let tells_of = |said: &str, id: &RecordId| {
        let tells = |line: &&str| line.contains("corrupt_record") && line.contains(&id.to_string());
        said.lines().filter(tells).count()
    };
    for limit in [1, 1000] {
        log.take();
        assert_eq!(walk(&store, limit).await, [whole]);
        let said = log.take();
        for id in &damaged {
            // A call that has enough reads some items again with the next one.
            let told = tells_of(&said, id);
            assert!(told == 1 || limit == 1 && told > 1, "{id}: {said}");
        }
    }
    for id in &damaged {
        log.take();
        assert!(store.load(*id).await.unwrap().is_none());
        assert_eq!(tells_of(&log.take(), id), 1);
    }
    log.take();
    assert_eq!(called(&store, "sid").await, [whole]);
    let said = log.take();
    assert!(damaged.iter().all(|id| tells_of(&said, id) == 1), "{said}");
}

#[tokio::test]
async fn what_an_external_id_costs_is_what_the_documentation_says() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let app = app(SessionLayer::new(store.clone(), key()));
    let mut browser = Browser::new(&app);
    let [get, put, update, delete] = ["GetItem", "PutItem", "UpdateItem", "DeleteItem"];
    for (path, calls) in [
        ("/insert/theme/dark", &[put][..]),
        ("/log_in_as/ada/sid-1", &[get, put, put, update]),
        ("/insert/theme/light", &[get, update]),
        ("/get/theme", &[get]),
        ("/insert_and_external/sid-1", &[get, update]),
        // The entry of the user has to have the same name as that of the external id.
        ("/external/sid-2", &[get, put, put, update]),
        // Without an external id, there is one entry.
        ("/log_in/ada", &[get, put, update]),
        ("/insert/theme/dark", &[get, update]),
        ("/log_in_as/ada/sid-3", &[get, put, put, update]),
    ] {
        wire.take_calls();
        assert_eq!(browser.get(path).await.status, 200);
        let made = wire.take_calls();
        let units = made.iter().map(|call| call.units).sum::<f64>();
        let made: Vec<_> = made.iter().map(|call| &*call.operation).collect();
        assert_eq!(made, calls, "{path}");
        assert!((units - calls.len() as f64).abs() < 0.01, "{path}: {units}");
    }
    wire.take_calls();
    assert_eq!(called(&store, "sid-3").await.len(), 1);
    assert_eq!(operations(&wire), ["Query", "BatchGetItem"]);
    assert!(called(&store, "").await.is_empty());
    assert!(called(&store, &"x".repeat(5000)).await.is_empty());
    assert_eq!(operations(&wire), [""; 0]);
    browser.get("/log_out").await.assert(200, "done");
    wire.wait_for_calls(4).await;
    assert_eq!(operations(&wire), [get, delete, delete, delete]);
    // Those of sid-1 and sid-2, which were the session's once, and that of sid-3 was removed.
    let left = wait_for_items(&wire, "sessions", 2).await;
    assert!(left.iter().all(|item| !item.contains_key("record")));

    let sessions = SessionLayer::new(store, key()).sessions();
    for _ in 0..2 {
        let mut browser = Browser::new(&app);
        browser.get("/log_in_as/ada/sid").await.assert(200, "");
    }
    wire.take_calls();
    assert_eq!(sessions.end_external("sid").await.unwrap(), 2);
    wire.wait_for_calls(8).await;
    let mut made = wire.take_calls();
    let removals = made.split_off(2);
    assert_eq!((made[0].units, made[1].units), (1.0, 2.0));
    assert!(
        removals
            .iter()
            .all(|call| call.operation == delete && call.units == 1.0)
    );
}

#[tokio::test]
async fn a_session_is_found_by_its_external_id_and_not_by_the_one_of_before() {
    const HOUR: u64 = 60 * 60 * 1000;
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let layer = SessionLayer::new(store.clone(), key());
    let sessions = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    let external_ids = ["sid-1", "sid-2"];
    let found = async || {
        let [first, second] = external_ids.map(|id| called(&store, id));
        (first.await.len(), second.await.len())
    };
    browser.get("/log_in_as/ada/sid-1").await.assert(200, "");
    assert_eq!(found().await, (1, 0));
    browser.get("/external/sid-2").await.assert(200, "");
    assert_eq!(found().await, (0, 1));
    assert_eq!(sessions.end_external("sid-1").await.unwrap(), 0);
    browser.get("/user").await.assert(200, "ada");
    // The old entry is still there. A reader removes it once it is old.
    assert_eq!(items(&wire, "sessions").await.len(), 4);
    make_entries_older(&wire, HOUR + 60_000).await;
    assert_eq!(found().await, (0, 1));
    wait_for_items(&wire, "sessions", 3).await;
    browser.get("/log_in/ada").await.assert(200, "done");
    assert_eq!(found().await, (0, 0));
    browser.get("/external/sid-1").await.assert(200, "");
    assert_eq!(found().await, (1, 0));
    assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 1);
    assert_eq!(sessions.end_external("sid-1").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
    assert_eq!(found().await, (0, 0));
}

#[tokio::test]
async fn the_entries_of_a_session_that_ends_are_removed_from_all_its_indexes() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records_of(app, ["/log_in_as/ada/sid"]).await;
    for id in ids(3) {
        assert!(store.insert(id, &record).await.unwrap());
    }
    assert_eq!(items(&wire, "sessions").await.len(), 9);
    let first = *ids(1).first().unwrap();
    assert!(store.remove(first).await.unwrap());
    wait_for_items(&wire, "sessions", 6).await;
    assert_eq!(called(&store, "sid").await.len(), 2);
    assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 2);
    wait_for_items(&wire, "sessions", 0).await;
}

/// A write that knows nothing about the entries finds out that they are missing or too short.
#[tokio::test]
async fn the_entry_of_an_external_id_is_there_before_the_session_and_outlives_it() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [first, second] = records_of(app, ["/log_in/ada", "/external/sid"]).await;
    let unknown = |record: &Record| Record::decode(ID, record.encode().unwrap()).unwrap();
    assert!(store.insert(ID, &first).await.unwrap());
    let replaced = store.replace(ID, first.version(), &unknown(&second)).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert_eq!(called(&store, "sid").await, [ID]);
    let long = unknown(&second).with_expires_at(second.expires_at() + DAY * 90);
    assert!(store.touch(ID, &long).await.unwrap());
    let (mut entries, mut sessions) = (Vec::new(), Vec::new());
    for item in items(&wire, "sessions").await {
        match item.contains_key("record") {
            true => sessions.push(item),
            false => entries.push(item),
        }
    }
    assert_eq!((entries.len(), sessions.len()), (2, 1));
    for entry in &entries {
        assert!(number(entry, "ttl") >= number(&sessions[0], "entry_until"));
        assert!(number(&sessions[0], "entry_until") > number(&sessions[0], "ttl"));
        assert_eq!(number(entry, "entry_at"), number(&sessions[0], "entry_at"));
    }
    assert_eq!(called(&store, "sid").await, [ID]);

    // If one of the entries cannot be written, the session is not written either.
    let id = RecordId::from_bytes([8; 16]);
    for works_first in [false, true] {
        if works_first {
            wire.break_next("PutItem", Fault::None);
        }
        let denied = Fault::Answers(400, "AccessDeniedException");
        wire.break_next("PutItem", denied);
        store.insert(id, &second).await.unwrap_err();
        assert_eq!(wire.unbroken(), 0);
        assert!(store.load(id).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_write_that_is_refused_again_and_again_ends_with_an_error() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [first, second] = records(["/log_in/ada", "/insert/theme/dark"]).await;
    assert!(store.insert(ID, &first).await.unwrap());
    let refuse = |operation| {
        for _ in 0..1000 {
            let refusal = Fault::Answers(400, "ConditionalCheckFailedException");
            wire.break_next(operation, refusal);
        }
    };
    refuse("UpdateItem");
    let errors = [
        store
            .replace(ID, first.version(), &second)
            .await
            .unwrap_err(),
        store.touch(ID, &first).await.unwrap_err(),
    ];
    refuse("PutItem");
    let id = RecordId::from_bytes([8; 16]);
    let insert = store.insert(id, &first).await.unwrap_err();
    for error in errors.into_iter().chain([insert]) {
        let error = told(&error);
        assert!(error.contains("32 attempts"), "{error}");
    }
    // Some refusals in a row are no error.
    let store = Wire::to(&server);
    let wire = store.clone();
    let store = DynamoDbStore::new(wire.client(), "sessions").unwrap();
    for _ in 0..10 {
        let refusal = Fault::Answers(400, "ConditionalCheckFailedException");
        wire.break_next("UpdateItem", refusal);
    }
    let replaced = store.replace(ID, first.version(), &second).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
}

#[tokio::test]
async fn sessions_that_dynamodb_leaves_unread_are_read_again_and_an_error_if_that_goes_on() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/log_in/ada"]).await;
    for id in ids(6) {
        assert!(store.insert(id, &record).await.unwrap());
    }
    let leave_unread = |count: u8| {
        let key = |id| {
            let partition = format!("cloakroom#session#{id}");
            json!({ "pk": { "S": partition }, "sk": { "S": "session" } })
        };
        let keys: Vec<_> = ids(count).into_iter().map(key).collect();
        let unread = json!({ "sessions": { "Keys": keys, "ConsistentRead": true } });
        let answer = json!({ "Responses": { "sessions": [] }, "UnprocessedKeys": unread });
        wire.break_next("BatchGetItem", Fault::Says(200, answer.to_string()));
    };
    // Each answer has some, and the next ones have the rest.
    for left in [5, 4, 3, 3, 2, 1, 1, 1] {
        leave_unread(left);
    }
    wire.take_calls();
    assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 1);
    assert_eq!(operations(&wire).len(), 10);
    for _ in 0..100 {
        leave_unread(6);
    }
    let error = told(&store.find_by_user(&ada()).await.unwrap_err());
    assert!(
        error.contains("unread") && error.contains("raise its capacity"),
        "{error}"
    );
    assert_eq!(wire.unbroken(), 97);
}
