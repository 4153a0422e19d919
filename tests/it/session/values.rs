//! A value comes out of a session as it went in, or the session refuses it. To store an equal value
//! again is not a change.

use std::collections::{BTreeMap, HashMap};

use cloakroom::testing::{Browser, FaultyStore, StoreCall};
use cloakroom::{
    MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer, SessionStore, SigningKey,
    SqliteStore,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::concurrency::model::run;

/// A browser, and the layer for its requests.
struct Visitor<S> {
    browser: Browser<()>,
    layer: SessionLayer<S>,
}

impl<S: SessionStore> Visitor<S> {
    fn new(store: S) -> Self {
        Self {
            browser: Browser::new(()),
            layer: SessionLayer::new(store, SigningKey::from_bytes(&[7; 64]).unwrap()),
        }
    }

    /// Sends a request with this handler.
    async fn request<T: Send>(
        &mut self,
        handler: impl FnOnce(&Session) -> Result<T, SessionError> + Send,
    ) -> Result<T, SessionError> {
        self.browser.with_session(&self.layer, handler).await
    }

    async fn insert(&mut self, value: impl Serialize + Send) -> Result<(), SessionError> {
        self.request(|session| session.insert("value", value)).await
    }

    async fn get<T: DeserializeOwned + Send>(&mut self) -> Result<Option<T>, SessionError> {
        self.request(|session| session.get("value")).await
    }

    /// Stores a value with one request, and reads it with the next one.
    async fn there_and_back<T: Serialize + DeserializeOwned + Send + Sync>(
        &mut self,
        value: &T,
    ) -> T {
        self.insert(value).await.unwrap();
        self.get().await.unwrap().unwrap()
    }
}

#[track_caller]
fn assert_refused<T>(result: Result<T, SessionError>) {
    let kind = result.map(drop).map_err(|error| error.kind());
    assert_eq!(kind, Err(SessionErrorKind::Unserializable));
}

fn on_memory() -> Visitor<MemoryStore> {
    Visitor::new(MemoryStore::new())
}

/// A visitor on a store that keeps bytes.
async fn on_sqlite() -> Visitor<SqliteStore> {
    Visitor::new(SqliteStore::open(":memory:").await.unwrap())
}

/// A visitor, and the store that lists its calls.
fn on_spy() -> (Visitor<FaultyStore<MemoryStore>>, FaultyStore<MemoryStore>) {
    let spy = FaultyStore::new(MemoryStore::new());
    (Visitor::new(spy.clone()), spy)
}

/// Floats in every place that a value can have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape<F> {
    Newtype(F),
    Tuple(F, u8),
    Struct { number: F },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place<F> {
    latitude: F,
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Degrees<F>(F);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair<F>(F, F);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

fn short_bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

async fn floats_come_back<S: SessionStore>(
    mut visitor: Visitor<S>,
    doubles: Vec<f64>,
    singles: Vec<f32>,
) {
    let back = visitor.there_and_back(&doubles).await;
    assert_eq!(bits(&back), bits(&doubles));
    let back = visitor.there_and_back(&singles).await;
    assert_eq!(short_bits(&back), short_bits(&singles));

    for number in doubles {
        let update = visitor.request(|session| session.update("number", move |_| number));
        assert_eq!(update.await.unwrap().to_bits(), number.to_bits());
        let get = visitor.request(|session| session.get::<f64>("number"));
        assert_eq!(get.await.unwrap().map(f64::to_bits), Some(number.to_bits()));
    }
}

/// Every bit pattern that is a number.
fn doubles() -> impl Strategy<Value = Vec<f64>> {
    let finite = any::<u64>().prop_map(f64::from_bits);
    vec(
        finite.prop_filter("finite", |number| number.is_finite()),
        1..20,
    )
}

fn singles() -> impl Strategy<Value = Vec<f32>> {
    let finite = any::<u32>().prop_map(f32::from_bits);
    vec(
        finite.prop_filter("finite", |number| number.is_finite()),
        1..20,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_finite_number_comes_back_from_memory(doubles in doubles(), singles in singles()) {
        run(floats_come_back(on_memory(), doubles, singles));
    }

    #[test]
    fn every_finite_number_comes_back_from_bytes(doubles in doubles(), singles in singles()) {
        run(async { floats_come_back(on_sqlite().await, doubles, singles).await });
    }
}

/// Checks that `insert` and `update` refuse the value. The old value stays.
async fn is_refused<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static>(value: T) {
    let (mut visitor, spy) = on_spy();
    visitor.insert("before").await.unwrap();
    spy.take_calls();
    assert_refused(visitor.insert(&value).await);
    let update = visitor.request(|session| {
        session.remove::<String>("value")?;
        session.update("value", move |_| value.clone())
    });
    assert_refused(update.await);
    assert_eq!(spy.take_calls(), [StoreCall::Load, StoreCall::Load]);
    assert_eq!(visitor.get().await.unwrap(), Some("before".to_owned()));
}

#[tokio::test]
async fn a_number_that_json_does_not_have_is_refused_wherever_it_is() {
    for number in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        is_refused(number).await;
        is_refused(number as f32).await;
        is_refused(Some(number)).await;
        is_refused(Some(number as f32)).await;
        is_refused(vec![None, Some(1.0), Some(number)]).await;
        is_refused((1, number)).await;
        is_refused(Pair(1.0, number)).await;
        is_refused(Degrees(number)).await;
        is_refused(Degrees(Some(number))).await;
        is_refused(Shape::Newtype(Some(number))).await;
        is_refused(Shape::Tuple(Some(number), 1)).await;
        is_refused(Shape::Struct {
            number: Some(number),
        })
        .await;
        let name = None;
        is_refused(Place {
            latitude: Some(number),
            name,
        })
        .await;
        is_refused(BTreeMap::from([(1, None), (2, Some(number))])).await;
        is_refused(BTreeMap::from([(
            "a".to_owned(),
            vec![Shape::Newtype(Some(number))],
        )]))
        .await;
    }
}

#[tokio::test]
async fn what_is_empty_comes_back_as_it_was() {
    async fn comes_back<
        T: Serialize + DeserializeOwned + PartialEq + Send + Sync + std::fmt::Debug,
    >(
        value: T,
    ) {
        assert_eq!(on_memory().there_and_back(&value).await, value);
        assert_eq!(on_sqlite().await.there_and_back(&value).await, value);
    }
    comes_back(()).await;
    comes_back(Nothing).await;
    comes_back(None::<f64>).await;
    comes_back("null".to_owned()).await;
    comes_back(vec![None, Some(0.5), Some(-0.0)]).await;
    comes_back((None::<u8>, i128::MIN, u128::MAX, 'x', true)).await;
    comes_back(Degrees(None::<f64>)).await;
    comes_back(Pair(None, Some(0.5))).await;
    comes_back(Shape::Newtype(None::<f64>)).await;
    comes_back(Shape::Tuple(None::<f64>, 1)).await;
    comes_back(Shape::Struct {
        number: None::<f64>,
    })
    .await;
    let name = None;
    comes_back(Place {
        latitude: 0.5,
        name,
    })
    .await;
    comes_back(BTreeMap::from([(1, None), (2, Some(0.5))])).await;
    comes_back(serde_json::json!({"a": null, "b": [null, 0.5, "text"], "c": {}})).await;
    comes_back((None::<u8>, std::net::Ipv4Addr::LOCALHOST)).await;
}

/// A value with this many levels of arrays, objects and variants.
fn nested(levels: usize) -> serde_json::Value {
    (0..levels).fold(serde_json::Value::Null, |inner, level| match level % 2 {
        0 => serde_json::json!([inner]),
        _ => serde_json::json!({ "inner": inner }),
    })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Chain {
    End,
    Link(Box<Chain>),
}

fn chain(links: usize) -> Chain {
    (0..links).fold(Chain::End, |inner, _| Chain::Link(Box::new(inner)))
}

#[tokio::test]
async fn what_is_nested_more_deeply_than_can_be_read_is_refused() {
    let mut visitor = on_sqlite().await;
    assert_eq!(visitor.there_and_back(&nested(127)).await, nested(127));
    assert_eq!(visitor.there_and_back(&chain(127)).await, chain(127));
    // The limit does not count the brackets. It counts how many are open at once.
    let wide = vec![nested(126), nested(126), nested(126)];
    assert_eq!(visitor.there_and_back(&wide).await, wide);
    is_refused(nested(128)).await;
    is_refused(chain(128)).await;
    is_refused(vec![nested(1), nested(127)]).await;
}

/// A list that contains a list, which contains a list, and so on.
struct Endless;

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&Endless)?;
        list.end()
    }
}

#[tokio::test]
async fn a_value_without_end_is_refused_before_the_stack_overflows() {
    assert_refused(on_memory().insert(Endless).await);
}

#[tokio::test]
async fn raw_json_comes_back_however_deep_it_is() {
    let text = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let raw: Box<RawValue> = serde_json::from_str(&text).unwrap();
    let back = on_sqlite().await.there_and_back(&raw).await;
    assert_eq!(back.get(), text);
}

/// A map whose order differs from other maps.
fn map<V: Clone>(value: V) -> HashMap<String, V> {
    (0..20)
        .map(|n| (format!("key {n}"), value.clone()))
        .collect()
}

/// The test stores a value 20 times, each time in another order. Only the first write reaches the
/// store.
async fn is_written_once<T, F>(make: F)
where
    T: Serialize + DeserializeOwned + Send,
    F: Fn() -> T + Clone + Send + Sync + 'static,
{
    let (mut visitor, spy) = on_spy();
    visitor.insert(make()).await.unwrap();
    assert_eq!(spy.take_calls(), [StoreCall::Insert]);
    for _ in 0..20 {
        visitor.insert(make()).await.unwrap();
        assert_eq!(spy.take_calls(), [StoreCall::Load]);
        let make = make.clone();
        let update = visitor.request(|session| session.update("value", move |_| make()));
        update.await.unwrap();
        assert_eq!(spy.take_calls(), [StoreCall::Load]);
    }
}

#[tokio::test]
async fn an_equal_hash_map_is_no_change() {
    is_written_once(|| map(1)).await;
    is_written_once(|| map("text".to_owned())).await;
    is_written_once(|| map(map("{\"quoted\": \\ }".to_owned()))).await;
    is_written_once(|| (1..=40_u64).map(|n| (n, n)).collect::<HashMap<_, _>>()).await;
    is_written_once(|| vec![Some(map(1)), None, Some(map(2))]).await;
    is_written_once(|| Shape::Struct {
        number: map(vec![map(u128::MAX)]),
    })
    .await;
}

#[tokio::test]
async fn a_hash_map_that_is_changed_and_changed_back_is_not_written() {
    let (mut visitor, spy) = on_spy();
    visitor.insert(map(1)).await.unwrap();
    spy.take_calls();
    for _ in 0..20 {
        let handler = |session: &Session| {
            session.insert("value", map(2))?;
            session.insert("value", map(1))
        };
        visitor.request(handler).await.unwrap();
        assert_eq!(spy.take_calls(), [StoreCall::Load]);
    }
}

/// Checks that the second value is written over the first one.
async fn is_a_change<T>(old: T, new: T)
where
    T: Serialize + DeserializeOwned + PartialEq + Send + Sync + std::fmt::Debug,
{
    let (mut visitor, spy) = on_spy();
    visitor.insert(&old).await.unwrap();
    spy.take_calls();
    visitor.insert(&new).await.unwrap();
    assert_eq!(spy.take_calls(), [StoreCall::Load, StoreCall::Replace]);
    assert_eq!(visitor.get().await.unwrap(), Some(new));
}

#[tokio::test]
async fn a_changed_value_is_written_however_alike_it_is() {
    is_a_change(map(1), map(2)).await;
    is_a_change(map(map(12)), map(map(21))).await;
    let swapped = |a: u8, b: u8| BTreeMap::from([("a", a), ("b", b)]);
    is_a_change(
        serde_json::json!(swapped(1, 2)),
        serde_json::json!(swapped(2, 1)),
    )
    .await;
    is_a_change(serde_json::json!({"ab": 1}), serde_json::json!({"ba": 1})).await;
    is_a_change(serde_json::json!([{}, []]), serde_json::json!([[], {}])).await;
    is_a_change(
        serde_json::json!({"a": "b{}c"}),
        serde_json::json!({"a": "c{}b"}),
    )
    .await;
    is_a_change(vec![map(1), map(2)], vec![map(2), map(1)]).await;
}

/// As `f64`, the two numbers are equal.
#[tokio::test]
async fn two_long_numbers_that_change_places_are_a_change() {
    let place = |latitude, name| Shape::Struct {
        number: (latitude, name),
    };
    let (one, other) = (u128::MAX, u128::MAX - 9);
    is_a_change(place(one, other), place(other, one)).await;
    fn pair<N>(a: N, b: N) -> BTreeMap<String, N> {
        BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)])
    }
    is_a_change(pair(one, other), pair(other, one)).await;
    let (one, other) = (i128::MIN, i128::MIN + 9);
    is_a_change(pair(one, other), pair(other, one)).await;
}

/// Writes the same key twice.
struct Twice(u8, u8);

impl Serialize for Twice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", &self.0)?;
        map.serialize_entry("key", &self.1)?;
        map.end()
    }
}

#[tokio::test]
async fn the_order_of_two_equal_keys_counts() {
    let (mut visitor, spy) = on_spy();
    visitor.insert(Twice(1, 2)).await.unwrap();
    spy.take_calls();
    visitor.insert(Twice(2, 1)).await.unwrap();
    assert_eq!(spy.take_calls(), [StoreCall::Load, StoreCall::Replace]);
}
