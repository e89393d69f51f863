//! Rules that compare several fields, and that an object which breaks them already may go on breaking: whatever was admitted can be
//! edited. (A rule of one field, of a map or of a list needs no such care: Kubernetes leaves out rules of values that an edit does not
//! change.)
//!
//! [`definition`] makes such rules of all that are written plainly. They use `optionalOldSelf`, which Kubernetes' CEL reads as an optional
//! and the evaluation in this program does not. [`evaluable`] writes them as what they mean.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// What asks for the old object.
const HAS_OLD: &str = "oldSelf.hasValue()";
const OLD: &str = "oldSelf.value()";

/// The definition of a kind, each rule of whose objects holds or did not hold before the edit.
///
/// # Panics
///
/// Never: a definition is always JSON, and stays one.
pub(crate) fn definition<K: CustomResourceExt>() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(K::crd()).expect("a definition is always JSON");
    guard(&mut definition);
    serde_json::from_value(definition).expect("only rules were changed")
}

/// Guards the rules of each object with declared fields. One that names the old object already says what an edit may do.
fn guard(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let has_fields = fields.contains_key("properties");
            let rules = fields.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut);
            if let Some(rules) = rules.filter(|_| has_fields) {
                *rules = std::mem::take(rules).into_iter().flat_map(guarded_rules).collect();
            }
            fields.values_mut().for_each(guard);
        }
        Value::Array(items) => items.iter_mut().for_each(guard),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a rule becomes.
fn guarded_rules(rule: Value) -> Vec<Value> {
    let text = rule["rule"].as_str().unwrap_or_default().to_owned();
    if text.contains("oldSelf") {
        return vec![rule];
    }
    let with = |text: String, is_optional: bool| {
        let mut rule = rule.clone();
        rule["rule"] = text.into();
        if is_optional {
            rule["optionalOldSelf"] = true.into();
        }
        rule
    };
    // A name cannot change, and what is compared with it cannot either.
    if text.contains("self.metadata") {
        vec![with(at_creation(&text), true)]
    // Kubernetes finds no field whose name is a reserved word in an optional old object.
    } else if text.contains(".__") {
        let of_edit = format!("({text}) || !({})", of_old(&text, "oldSelf"));
        vec![with(at_creation(&text), true), with(of_edit, false)]
    } else {
        vec![with(guarded(&text), true)]
    }
}

/// The rule that holds, or did not hold before.
fn guarded(rule: &str) -> String {
    format!("({rule}) || ({HAS_OLD} && !({}))", of_old(rule, OLD))
}

/// The rule for the old object, which is written so.
fn of_old(rule: &str, old: &str) -> String {
    let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let (mut written, mut rest) = (String::new(), rule);
    while let Some((before, after)) = rest.split_once("self") {
        let is_word = !is_part(before.chars().next_back()) && !is_part(after.chars().next());
        written.push_str(before);
        written.push_str(if is_word { old } else { "self" });
        rest = after;
    }
    written + rest
}

/// The rule for an object that is new: where a rule of two objects would cost more than the API server allows. What an edit breaks is told
/// in the status.
pub(crate) fn at_creation(rule: impl std::fmt::Display) -> String {
    format!("{HAS_OLD} || ({rule})")
}

/// The schema of a definition with these rules as plain ones: of an edit, or of an object that is new.
pub(crate) fn evaluable(mut schema: Value, is_edit: bool) -> Value {
    rewrite(&mut schema, is_edit);
    schema
}

fn rewrite(schema: &mut Value, is_edit: bool) {
    match schema {
        Value::Object(fields) => {
            if fields.remove("optionalOldSelf").is_some()
                && let Some(Value::String(rule)) = fields.get_mut("rule")
            {
                let (has_old, old) = if is_edit { ("true", "oldSelf") } else { ("false", "self") };
                *rule = rule.replace(HAS_OLD, has_old).replace(OLD, old);
            }
            fields.values_mut().for_each(|field| rewrite(field, is_edit));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, is_edit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_objects_are_guarded_and_all_others_are_as_written() {
        let rules = |text: &str| json!([{"rule": text, "message": "m"}]);
        let mut schema = json!({
            "properties": {
                "size": {"type": "string", "x-kubernetes-validations": rules("isQuantity(self)")},
                "config": {"additionalProperties": {"type": "string"}, "x-kubernetes-validations": rules("!('a' in self)")},
                "choice": {"properties": {}, "x-kubernetes-validations": rules("has(self.__namespace__)")},
                "kept": {"properties": {}, "x-kubernetes-validations": rules("self == oldSelf")},
            },
            "x-kubernetes-validations": rules("!has(self.a) || self.itself == itself.self"),
        });
        let mut expected = schema["properties"].clone();
        guard(&mut schema);
        expected["choice"]["x-kubernetes-validations"] = json!([
            {"rule": "oldSelf.hasValue() || (has(self.__namespace__))", "message": "m", "optionalOldSelf": true},
            {"rule": "(has(self.__namespace__)) || !(has(oldSelf.__namespace__))", "message": "m"},
        ]);
        assert_eq!(schema["properties"], expected);
        let rule = "(!has(self.a) || self.itself == itself.self) || (oldSelf.hasValue() && !(!has(oldSelf.value().a) || \
                    oldSelf.value().itself == itself.oldSelf.value()))";
        assert_eq!(
            schema["x-kubernetes-validations"],
            json!([{"rule": rule, "message": "m", "optionalOldSelf": true}])
        );
    }
}
