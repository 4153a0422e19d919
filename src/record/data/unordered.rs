//! Compares values as JSON, whose objects have no order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::MAX_DEPTH;

/// Whether two texts are the same JSON, if the order in an object does not count: a `HashMap` is
/// written in another order each time.
///
/// Everything else is compared as it is written. Parsed, two long numbers that differ could become
/// the same `f64`.
pub(super) fn is_equal(a: &str, b: &str) -> bool {
    a == b || a.len() == b.len() && sum(a) == sum(b) && is_equal_inside(a, b, MAX_DEPTH)
}

/// The sum of the bytes, which does not depend on their order. Most changes change the sum, and
/// then nobody has to parse the texts.
fn sum(text: &str) -> u64 {
    text.bytes().map(u64::from).sum()
}

/// Older versions have stored values that are nested more deeply than `depth`. Below that depth,
/// only equal texts are equal.
fn is_equal_inside(a: &str, b: &str, depth: u8) -> bool {
    if a == b {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    if a.len() != b.len() {
        return false;
    }
    let is_equal = |(a, b): (&&RawValue, &&RawValue)| is_equal_inside(a.get(), b.get(), depth);
    if let (Ok(a), Ok(b)) = (Object::parse(a), Object::parse(b)) {
        return a.keys().eq(b.keys()) && a.values().zip(b.values()).all(is_equal);
    }
    let array = serde_json::from_str::<Vec<&RawValue>>;
    if let (Ok(a), Ok(b)) = (array(a), array(b)) {
        return a.len() == b.len() && a.iter().zip(&b).all(is_equal);
    }
    false
}

/// An object's keys and values, sorted by key. A key that is there twice keeps its values in their
/// order.
struct Object<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Object<'a> {
    fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        let mut object: Self = serde_json::from_str(text)?;
        object.0.sort_by_key(|(key, _)| key.get());
        Ok(object)
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.get())
    }

    fn values(&self) -> impl Iterator<Item = &&'a RawValue> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
