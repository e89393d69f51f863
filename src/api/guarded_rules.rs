//! Rules that compare several fields, and that an object which breaks them already may go on breaking: whatever was admitted can be
//! edited. (A rule of one field needs no such care: Kubernetes leaves out rules of values that an edit does not change.)
//!
//! They use `optionalOldSelf`, which Kubernetes' CEL reads as an optional and the evaluation in this program does not. [`evaluable`] writes
//! them as what they mean.

use serde_json::Value;

/// What asks for the old object.
const HAS_OLD: &str = "oldSelf.hasValue()";
const OLD: &str = "oldSelf.value()";

/// The rule that holds, or did not hold before. `rule`: the rule for the value of this name.
pub(crate) fn guarded(rule: impl Fn(&str) -> String) -> String {
    format!("({}) || ({HAS_OLD} && !({}))", rule("self"), rule(OLD))
}

/// The rule for an object that is new: for what a rule of two objects would cost too much. What an edit breaks is told in the status.
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
