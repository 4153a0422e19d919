//! [`Object`]: JSON in which no object has a name twice. If a name came twice, two readers could
//! see two different values.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value. [`Json::Other`] is a value that no token needs, without its content. A number is
/// such a value: serde_json gives numbers in two ways, and another crate of the application decides
/// which.
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Text(String),
    List(Vec<Json>),
    Object(Object),
    Other,
}

/// A JSON object, in the order in which it came.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Object(Vec<(String, Json)>);

impl Object {
    /// More names than any token or key has.
    const MAX: usize = 64;

    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        match serde_json::from_slice(json) {
            Ok(Json::Object(object)) => Some(object),
            _ => None,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        let (_, value) = self.0.iter().find(|(own, _)| own == name)?;
        Some(value)
    }

    /// Whether it has no other names than these.
    #[cfg(feature = "jwt")]
    pub(crate) fn has_only(&self, names: &[&str]) -> bool {
        self.0.iter().all(|(own, _)| names.contains(&&**own))
    }

    /// Takes a value out.
    #[cfg(feature = "dbsc")]
    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Json::Text(text) => Some(text),
            Json::List(_) | Json::Object(_) | Json::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut object = Object::default();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            // A token is short, so the list is too.
            if object.0.len() >= Object::MAX || object.get(&name).is_some() {
                return Err(A::Error::custom(
                    "a name comes twice, or there are too many names",
                ));
            }
            object.0.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_each_name_once_at_any_depth() {
        let object = Object::parse(br#"{"a":"b","c":{"d":[1,{"e":null}]},"f":-1.5}"#).unwrap();
        assert_eq!(object.text("a"), Some("b"));
        assert_eq!(object.text("c"), None);
        assert!(matches!(object.get("c"), Some(Json::Object(_))));
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
            r#"{"x":{"y":{"a":1,"a":2}}}"#,
            "[]",
            "\"a\"",
            "{} {}",
            "{",
            "",
        ] {
            assert_eq!(Object::parse(bad.as_bytes()), None, "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Object::parse(format!("{{\"a\":{deep}").as_bytes()), None);
    }
}
