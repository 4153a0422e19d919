//! The DynamoDB store: its table, its items, what it costs, and what it says when something is
//! wrong.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, TableStatus,
};
use axum::Router;
use cloakroom::{
    DynamoDbStore, MemoryStore, Record, RecordId, Replaced, SessionLayer, SessionStore, StoreError,
    Timestamp, UserId, UserIndex,
};
use support::dynamodb::{Fault, Wire};
use support::servers::Server;
use support::{Browser, app, builder, key};

use crate::secrecy::logging::Log;

pub(super) const ID: RecordId = RecordId::from_bytes([7; 16]);

/// The record of a session after each of these requests.
pub(super) async fn records<const N: usize>(paths: [&str; N]) -> [Record; N] {
    records_of(app, paths).await
}

/// The same in another application than that of most tests.
pub(super) async fn records_of<const N: usize>(
    app: impl Fn(SessionLayer<MemoryStore>) -> Router,
    paths: [&str; N],
) -> [Record; N] {
    let store = MemoryStore::new();
    let mut browser = Browser::new(&app(SessionLayer::new(store.clone(), key())));
    let mut records = Vec::new();
    for path in paths {
        assert_eq!(browser.get(path).await.status, 200);
        let id = support::id_of(&browser.token());
        records.push(store.load(id).await.unwrap().unwrap());
    }
    let Ok(records) = records.try_into() else {
        unreachable!("there is one record for each path");
    };
    records
}

pub(super) fn ada() -> UserId {
    UserId::new("__Host-session:ada").unwrap()
}

/// All items of a table.
pub(super) async fn items(wire: &Wire, table: &str) -> Vec<BTreeMap<String, AttributeValue>> {
    let scan = wire.client().scan().table_name(table).send().await.unwrap();
    wire.take_calls();
    let items = scan.items.unwrap_or_default().into_iter();
    items.map(|item| item.into_iter().collect()).collect()
}

pub(super) fn number(item: &BTreeMap<String, AttributeValue>, name: &str) -> u64 {
    item[name].as_n().unwrap().parse().unwrap()
}

/// The texts of an error and of its sources. The `Debug` form is checked for bytes of a response.
pub(super) fn told(error: &StoreError) -> String {
    let debug = format!("{error:?}");
    assert!(!debug.contains("SdkBody"), "{debug}");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The operations since the last time, and their capacity units.
fn costs(wire: &Wire) -> Vec<(String, f64)> {
    let calls = wire.take_calls().into_iter();
    calls.map(|call| (call.operation, call.units)).collect()
}

fn cost(costs: &[(&str, f64)]) -> Vec<(String, f64)> {
    let costs = costs.iter();
    costs
        .map(|&(operation, units)| (operation.to_owned(), units))
        .collect()
}

/// Waits until the table has so many items, and returns them.
pub(super) async fn wait_for_items(
    wire: &Wire,
    table: &str,
    count: usize,
) -> Vec<BTreeMap<String, AttributeValue>> {
    let begin = Instant::now();
    loop {
        let items = items(wire, table).await;
        if items.len() == count {
            return items;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{items:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_call_costs_what_the_documentation_says() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [visitor, next] = records(["/insert/theme/dark", "/insert/theme/light"]).await;
    let [ada_1, ada_2] = records(["/log_in/ada", "/insert/theme/dark"]).await;

    assert!(store.load(ID).await.unwrap().is_none());
    assert_eq!(costs(&wire), cost(&[("GetItem", 1.0)]));
    assert!(store.insert(ID, &visitor).await.unwrap());
    assert_eq!(costs(&wire), cost(&[("PutItem", 1.0)]));
    let loaded = store.load(ID).await.unwrap().unwrap();
    assert_eq!(costs(&wire), cost(&[("GetItem", 1.0)]));
    assert!(store.touch(ID, &loaded).await.unwrap());
    assert_eq!(costs(&wire), cost(&[("UpdateItem", 1.0)]));
    let replaced = store.replace(ID, visitor.version(), &next).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(costs(&wire), cost(&[("UpdateItem", 1.0)]));
    assert!(store.remove(ID).await.unwrap());
    assert_eq!(costs(&wire), cost(&[("DeleteItem", 1.0)]));

    // A login puts the session into the index first.
    let id = RecordId::from_bytes([8; 16]);
    assert!(store.insert(id, &ada_1).await.unwrap());
    assert_eq!(costs(&wire), cost(&[("PutItem", 1.0), ("PutItem", 1.0)]));
    let loaded = store.load(id).await.unwrap().unwrap();
    assert_eq!(costs(&wire), cost(&[("GetItem", 1.0)]));
    let moved = loaded.expires_at() + Duration::from_secs(60 * 60);
    let moved = loaded.with_expires_at(moved);
    assert!(store.touch(id, &moved).await.unwrap());
    assert_eq!(costs(&wire), cost(&[("UpdateItem", 1.0)]));
    // The record of a request that has loaded the session knows its entry. This one knows nothing.
    let ada_2 = Record::decode(id, ada_2.encode().unwrap()).unwrap();
    let replaced = store.replace(id, ada_1.version(), &ada_2).await.unwrap();
    assert_eq!(replaced, Replaced::Done);
    assert_eq!(costs(&wire), cost(&[("UpdateItem", 1.0)]));
    assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 1);
    assert_eq!(costs(&wire), cost(&[("Query", 1.0), ("BatchGetItem", 1.0)]));
    assert!(store.remove(id).await.unwrap());
    wire.wait_for_calls(2).await;
    assert_eq!(
        costs(&wire),
        cost(&[("DeleteItem", 1.0), ("DeleteItem", 1.0)])
    );

    for n in 0..20 {
        let id = RecordId::from_bytes([n; 16]);
        assert!(store.insert(id, &ada_1).await.unwrap());
    }
    wire.take_calls();
    assert_eq!(store.find_by_user(&ada()).await.unwrap().len(), 20);
    assert_eq!(
        costs(&wire),
        cost(&[("Query", 1.0), ("BatchGetItem", 20.0)])
    );
    assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 20);
    wire.wait_for_calls(41).await;
    let costs = costs(&wire);
    assert_eq!(costs[0], ("Query".to_owned(), 1.0));
    assert_eq!(costs[1..], vec![("DeleteItem".to_owned(), 1.0); 40]);
    wait_for_items(&wire, "sessions", 0).await;
}

#[tokio::test]
async fn a_browser_costs_a_call_for_a_read_and_two_for_a_write() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    let get = "GetItem";
    let put = "PutItem";
    let update = "UpdateItem";
    for (path, calls) in [
        ("/insert/theme/dark", &[put][..]),
        ("/get/theme", &[get]),
        ("/insert/theme/light", &[get, update]),
        // The visitor's session becomes the user's.
        ("/log_in/ada", &[get, put, update]),
        ("/insert/theme/dark", &[get, update]),
        ("/get/theme", &[get]),
    ] {
        assert_eq!(browser.get(path).await.status, 200);
        let made = wire.take_calls();
        let made: Vec<_> = made.iter().map(|call| &*call.operation).collect();
        assert_eq!(made, calls, "{path}");
    }
}

#[tokio::test]
async fn the_table_is_made_once_by_several_nodes_and_has_its_ttl() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = DynamoDbStore::new(wire.client(), "sessions").unwrap();
    let nodes = (0..4).map(|_| {
        let store = store.clone();
        async move { store.create_table().await }
    });
    let made = nodes.collect::<tokio::task::JoinSet<_>>().join_all().await;
    for made in made {
        made.unwrap();
    }
    store.create_table().await.unwrap();
    assert_eq!(wire.ttl_of("sessions").as_deref(), Some("ttl"));
    let table = wire.client().describe_table().table_name("sessions");
    let table = table.send().await.unwrap().table.unwrap();
    let billing = table.billing_mode_summary().unwrap().billing_mode();
    assert_eq!(billing, Some(&BillingMode::PayPerRequest));

    let other = store.with_ttl_attribute("expiry").unwrap();
    let error = told(&other.create_table().await.unwrap_err());
    assert!(
        error.contains("give this name to `with_ttl_attribute`"),
        "{error}"
    );
}

/// A table of an application, with these keys.
async fn make_table(wire: &Wire, name: &str, keys: [&str; 2]) {
    let mut create = wire
        .client()
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest);
    for (key, key_type) in keys.into_iter().zip([KeyType::Hash, KeyType::Range]) {
        let attribute = AttributeDefinition::builder()
            .attribute_name(key)
            .attribute_type(ScalarAttributeType::S)
            .build();
        let key = KeySchemaElement::builder()
            .attribute_name(key)
            .key_type(key_type)
            .build();
        create = create
            .attribute_definitions(attribute.unwrap())
            .key_schema(key.unwrap());
    }
    create.send().await.unwrap();
    let describe = wire.client().describe_table().table_name(name);
    while describe
        .clone()
        .send()
        .await
        .unwrap()
        .table
        .unwrap()
        .table_status
        != Some(TableStatus::Active)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn sessions_live_in_a_table_of_the_application_beside_its_own_items() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    make_table(&wire, "everything", ["PK", "SK"]).await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let order = [("PK", "user#ada"), ("SK", "order#1"), ("total", "3 books")];
    let put = wire.client().put_item().table_name("everything");
    let item = order.map(|(name, value)| (name.to_owned(), text(value)));
    put.set_item(Some(item.into())).send().await.unwrap();

    let store = DynamoDbStore::new(wire.client(), "everything").unwrap();
    let error = told(&store.load(ID).await.unwrap_err());
    assert!(error.contains("`DynamoDbStore::with_key_names`"), "{error}");
    let error = told(&store.create_table().await.unwrap_err());
    assert!(error.contains("the keys [\"PK\", \"SK\"]"), "{error}");

    let store = store
        .with_key_names("PK", "SK")
        .unwrap()
        .with_ttl_attribute("expires at")
        .unwrap()
        .with_prefix("")
        .unwrap();
    store.create_table().await.unwrap();
    let layer = SessionLayer::new(store.clone(), key());
    let sessions = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/insert/theme/dark").await.assert(200, "done");
    let id = support::id_of(&browser.token());
    let mut found = items(&wire, "everything").await;
    found.sort_by_key(|item| item["PK"].as_s().unwrap().clone());
    let keys: Vec<_> = found
        .iter()
        .map(|item| [&item["PK"], &item["SK"]].map(|key| key.as_s().unwrap().clone()))
        .collect();
    assert_eq!(
        keys,
        [
            [format!("session#{id}"), "session".into()],
            ["user#__Host-session:ada".into(), format!("session#{id}")],
            ["user#ada".into(), "order#1".into()],
        ]
    );
    for item in &found[..2] {
        assert!(item.contains_key("expires at"), "{item:?}");
    }
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    assert_eq!(wait_for_items(&wire, "everything", 1).await, found[2..]);
}

#[tokio::test]
async fn foreign_items_under_a_key_of_the_store_are_no_session_and_stay() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record, next] = records(["/log_in/ada", "/insert/theme/dark"]).await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |number: &str| AttributeValue::N(number.to_owned());
    let far = "99999999999999";
    let (log, _guard) = Log::start();
    for attributes in [
        vec![],
        vec![("record", text("spoilt"))],
        vec![("version", text("1")), ("expires", number(far))],
        vec![("version", number("1.5")), ("expires", number(far))],
        vec![
            ("record", AttributeValue::B(b"spoilt".to_vec().into())),
            ("version", number("7")),
            ("expires", number(far)),
        ],
    ] {
        let key = [
            ("pk", text(&format!("cloakroom#session#{ID}"))),
            ("sk", text("session")),
        ];
        let item = key.into_iter().chain(attributes);
        let item = item.map(|(name, value)| (name.to_owned(), value)).collect();
        let put = wire.client().put_item().table_name("sessions");
        put.set_item(Some(item)).send().await.unwrap();
        let before = items(&wire, "sessions").await;
        log.take();
        assert!(store.load(ID).await.unwrap().is_none());
        log.assert("WARN", "corrupt_record");
        assert!(!store.insert(ID, &record).await.unwrap());
        let replaced = store.replace(ID, record.version(), &next).await.unwrap();
        assert_ne!(replaced, Replaced::Done);
        assert!(!store.touch(ID, &record).await.unwrap());
        assert!(store.find_by_user(&ada()).await.unwrap().is_empty());
        assert_eq!(store.remove_by_user(&ada(), None).await.unwrap(), 0);
        let mut after = items(&wire, "sessions").await;
        // The writes have put the session into the index.
        after.retain(|item| item["sk"] == text("session"));
        let mut before = before;
        before.retain(|item| item["sk"] == text("session"));
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn names_and_prefixes_that_cannot_be_are_refused() {
    let wire = Wire::to_address("127.0.0.1:1");
    let store = DynamoDbStore::new(wire.client(), "sessions").unwrap();
    DynamoDbStore::new(wire.client(), "").unwrap_err();
    for (partition, sort) in [("", "sk"), ("pk", "pk"), ("pk", "ttl"), ("record", "sk")] {
        let error = store.clone().with_key_names(partition, sort).unwrap_err();
        assert!(error.to_string().contains("cannot have"), "{error}");
    }
    for ttl in ["", "pk", "expires", &"t".repeat(256)] {
        store.clone().with_ttl_attribute(ttl).unwrap_err();
    }
    let error = store.clone().with_prefix("p".repeat(513)).unwrap_err();
    assert!(error.to_string().contains("up to 512 bytes"), "{error}");
    store.with_prefix("p".repeat(512)).unwrap();
}

#[tokio::test]
async fn the_longest_prefix_and_the_longest_user_fit_into_a_key() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let store = store.with_prefix("ü".repeat(256)).unwrap();
    let layer = builder(store).build().unwrap();
    let sessions = layer.sessions();
    let user = "u".repeat(255);
    let mut browser = Browser::new(&app(layer));
    let path = format!("/log_in/{user}");
    browser.get(&path).await.assert(200, "done");
    assert_eq!(sessions.revoke_user(user).await.unwrap(), 1);
}

#[tokio::test]
async fn a_missing_table_is_told_with_what_to_do() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = DynamoDbStore::new(wire.client(), "nowhere").unwrap();
    let [record] = records(["/log_in/ada"]).await;
    for error in [
        store.load(ID).await.unwrap_err(),
        store.insert(ID, &record).await.unwrap_err(),
        store.remove(ID).await.unwrap_err(),
        store.find_by_user(&ada()).await.unwrap_err(),
    ] {
        let text = told(&error);
        for part in ["table \"nowhere\"", "`DynamoDbStore::create_table`"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("ada"), "{text}");
    }
}

#[tokio::test]
async fn what_dynamodb_refuses_is_told_with_what_to_do_and_a_throttled_write_is_made_again() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/insert/theme/dark"]).await;
    for (kind, advice, attempts) in [
        (
            "AccessDeniedException",
            "the rights that the page on operations lists",
            1,
        ),
        ("UnrecognizedClientException", "check the credentials", 1),
        ("ThrottlingException", "bill the table on demand", 3),
        (
            "ProvisionedThroughputExceededException",
            "raise its capacity",
            3,
        ),
    ] {
        for _ in 0..attempts {
            wire.break_next("PutItem", Fault::Answers(400, kind));
        }
        let text = told(&store.insert(ID, &record).await.unwrap_err());
        assert!(text.contains(kind) && text.contains(advice), "{text}");
        assert_eq!(wire.take_calls().len(), attempts, "{kind}");
        assert_eq!(wire.unbroken(), 0);
    }
    for kind in ["RequestLimitExceeded", "TransactionConflictException"] {
        wire.break_next("PutItem", Fault::Answers(400, kind));
    }
    assert!(store.insert(ID, &record).await.unwrap());
    assert_eq!(wire.take_calls().len(), 3);
}

#[tokio::test]
async fn a_session_that_is_too_large_for_an_item_is_told_with_what_to_do() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let layer = builder(store).data_limit(10_000_000).build().unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    let large = "x".repeat(50_000);
    for n in 0..8 {
        let path = format!("/insert/large-{n}/{large}");
        browser.get(&path).await.assert(200, "done");
    }
    let (log, _guard) = Log::start();
    let path = format!("/insert/too-much/{large}");
    browser.get(&path).await.assert(503, "");
    let said = log.take();
    assert!(said.contains("lower the layer's data limit"), "{said}");
    browser.get("/get/large-7").await.assert(200, &large);
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_and_one_that_is_silent_is_a_503_until_it_is_back() {
    let mut server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let layer = builder(store.clone())
        .store_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/insert/theme/dark").await.assert(200, "done");
    server.pause();
    browser.get("/get/theme").await.assert(503, "");
    browser.get("/insert/theme/light").await.assert(503, "");
    server.resume();
    browser.get("/get/theme").await.assert(200, "dark");

    server.kill();
    let text = told(&store.load(ID).await.unwrap_err());
    assert!(
        text.contains("could not read a session in the DynamoDB table"),
        "{text}"
    );
    assert!(text.contains("onnect"), "{text}");
    let [record] = records(["/log_in/ada"]).await;
    let text = told(&store.insert(ID, &record).await.unwrap_err());
    assert!(text.contains("could not write a new session"), "{text}");
    assert!(!text.contains("ada"), "{text}");
    let shown = format!("{store:?}");
    assert!(!shown.contains("secret"), "{shown}");
}

/// DynamoDB removes an expired item some days later.
#[tokio::test]
async fn the_ttl_of_an_item_is_the_expiry_and_an_item_after_its_expiry_is_no_session() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = wire.store("sessions").await;
    let [record] = records(["/log_in/ada"]).await;
    assert!(store.insert(ID, &record).await.unwrap());
    for millis in [4_102_444_800_001, 4_102_444_800_999, 4_102_444_801_000, 1] {
        let record = record
            .clone()
            .with_expires_at(Timestamp::from_millis(millis));
        assert!(store.touch(ID, &record).await.unwrap());
        let items = items(&wire, "sessions").await;
        let [entry, session] = [
            items
                .iter()
                .find(|item| !item.contains_key("record"))
                .unwrap(),
            items
                .iter()
                .find(|item| item.contains_key("record"))
                .unwrap(),
        ];
        assert_eq!(number(session, "ttl"), millis.div_ceil(1000));
        assert!(number(entry, "ttl") >= number(session, "ttl"));
        assert_eq!(number(entry, "ttl"), number(session, "entry_until"));
        assert_eq!(number(entry, "entry_at"), number(session, "entry_at"));
    }
    assert!(store.load(ID).await.unwrap().is_none());
    assert!(store.find_by_user(&ada()).await.unwrap().is_empty());
    assert_eq!(store.purge_expired(record.expires_at()).await.unwrap(), 0);
}
