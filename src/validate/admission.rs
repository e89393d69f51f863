//! The rules of admission, held against an object that the API server may have stored before they were written.

use std::sync::LazyLock;

use kube::CustomResourceExt as _;
use kube::core::cel::{CompiledSchema, Validator, compile_schema};

use super::Fault;
use crate::api::data_layer::DataLayer;

/// Compiled once: to make the definition and to compile its rules costs far more than all else that a pass does without waiting, and
/// `DataLayer::validate_cel` does so each time.
static RULES: LazyLock<Option<CompiledSchema>> = LazyLock::new(|| {
    let definition = DataLayer::crd();
    let schema = definition.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    serde_json::to_value(schema).ok().map(|schema| compile_schema(&schema))
});

/// A fault for each CEL rule of the definition that the layer breaks.
pub(super) fn broken_rules(layer: &DataLayer) -> Vec<Fault> {
    let fault = |problem: String| Fault { field: "spec", problem };
    let Some(rules) = RULES.as_ref() else {
        return vec![fault("the rules of admission cannot be compiled".to_owned())];
    };
    let object = match serde_json::to_value(layer) {
        Ok(object) => object,
        Err(error) => return vec![fault(format!("cannot be written as JSON: {error}"))],
    };
    let errors = Validator::new().validate_compiled(rules, &object, None).err();
    errors.iter().flat_map(|errors| errors.iter()).map(|error| fault(error.to_string())).collect()
}
