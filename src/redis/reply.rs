//! Pieces of a server's reply, read without trust.

use ::redis::Value;

/// Text of a string of any kind.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// A whole number that fits, as an integer or as text.
pub(super) fn number<T: TryFrom<i64> + std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::Int(number) => T::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// Items of an array or set.
pub(super) fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items),
        _ => None,
    }
}

/// The value behind `name` in a map, or in an array of alternating names and values (the older protocol's map).
pub(super) fn entry<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let is_named = |key: &Value| text(key).is_some_and(|key| key == name);
    match value {
        Value::Map(pairs) => pairs.iter().find(|(key, _)| is_named(key)).map(|(_, value)| value),
        other => items(other)?.chunks_exact(2).find(|pair| is_named(&pair[0])).map(|pair| &pair[1]),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// Any reply that the protocol allows, a few levels deep, spiced with the words that our parsers look for.
    pub(crate) fn any_reply() -> impl Strategy<Value = Value> {
        const WORDS: [&str; 16] = [
            "master",
            "slave",
            "sentinel",
            "ip",
            "port",
            "flags",
            "name",
            "quorum",
            "config-epoch",
            "runid",
            "1",
            "library_name",
            "functions",
            "user",
            "on",
            "10.0.0.1",
        ];
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::BulkString),
            prop::sample::select(WORDS.to_vec()).prop_map(bulk),
            "[a-z -]{0,8}".prop_map(Value::SimpleString),
        ];
        leaf.prop_recursive(3, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    #[test]
    fn both_forms_of_a_map_are_read() {
        let flat = Value::Array(vec![bulk("a"), Value::Int(1), bulk("b"), Value::Int(2)]);
        let map = Value::Map(vec![(bulk("a"), Value::Int(1)), (bulk("b"), Value::Int(2))]);
        assert_eq!(entry(&flat, "b"), Some(&Value::Int(2)));
        assert_eq!(entry(&map, "b"), Some(&Value::Int(2)));
        assert_eq!(entry(&flat, "c"), None);
    }
}
