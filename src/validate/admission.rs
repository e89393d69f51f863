//! The rules of admission, held against an object that the API server may have stored before they were written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, ValidationErrors, Validator, compile_schema};
use serde::Serialize;
use serde_json::Value;

use super::Fault;
use crate::api::data_layer::DataLayer;
use crate::api::guarded_rules::{definition, evaluable};

/// The rules of each kind, for objects that are new and for edits, compiled once: to make the definition and to compile its rules costs
/// far more than all else that a pass does without waiting, and `DataLayer::validate_cel` does so each time.
static RULES: Mutex<BTreeMap<(String, bool), Arc<CompiledSchema>>> = Mutex::new(BTreeMap::new());

/// A fault for each CEL rule of the definition that the layer breaks.
pub(super) fn broken_rules(layer: &DataLayer) -> Vec<Fault> {
    let fault = |problem: String| Fault { field: "spec", problem };
    let errors = admit(layer).err();
    let mut told: Vec<String> = errors.iter().flat_map(|errors| errors.iter()).map(ToString::to_string).collect();
    // They come in the order of a hash map: another operator would tell the same otherwise.
    told.sort();
    told.into_iter().map(fault).collect()
}

/// What admission says of an object of any kind that is to be created, as far as rules say it.
pub fn admit<K: CustomResourceExt + Serialize>(object: &K) -> Result<(), ValidationErrors> {
    admit_as_written::<K>(&json(object))
}

/// The same of an object as a person wrote it: one that does not parse is judged too.
pub fn admit_as_written<K: CustomResourceExt>(object: &Value) -> Result<(), ValidationErrors> {
    Validator::new().validate_compiled(&rules::<K>(false), object, None)
}

/// What admission says of an edit.
pub fn admit_edit<K: CustomResourceExt + Serialize>(old: &K, new: &K) -> Result<(), ValidationErrors> {
    Validator::new().validate_compiled(&rules::<K>(true), &json(new), Some(&json(old)))
}

fn rules<K: CustomResourceExt>(is_edit: bool) -> Arc<CompiledSchema> {
    let mut known = RULES.lock().unwrap_or_else(PoisonError::into_inner);
    let rules = known.entry((K::crd_name().to_owned(), is_edit)).or_insert_with(|| {
        let versions = definition::<K>().spec.versions;
        let schema = versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        Arc::new(compile_schema(&evaluable(json(&schema), is_edit)))
    });
    Arc::clone(rules)
}

fn json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("the types of the API are always JSON")
}
