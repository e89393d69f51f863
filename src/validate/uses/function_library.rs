//! What a function library's own fields say. Whether its Lua loads is for the primary to say.

use std::collections::BTreeMap;

use super::judge::{FieldValidator, KindFields};
use crate::api::function_library::{DEFAULT_KEY, FunctionLibrarySpec};
use crate::api::name_rules::{is_key, is_name_of_object};
use crate::model::Policy;
use crate::model::function_library::{LARGEST_SOURCE, LibraryPolicy, LibrarySource};

/// The policy; `None`: the judge knows what is wrong.
pub(super) fn validate(judge: &mut FieldValidator<'_>, spec: &FunctionLibrarySpec) -> Option<KindFields> {
    let source = match (&spec.source.inline, &spec.source.config_map) {
        (Some(text), None) => {
            if text.len() > LARGEST_SOURCE {
                judge.fault("spec.source.inline", format!("has more than {LARGEST_SOURCE} bytes"));
            }
            LibrarySource::Inline(text.clone())
        }
        (None, Some(choice)) => {
            let key = choice.key.clone().unwrap_or_else(|| DEFAULT_KEY.to_owned());
            if !is_name_of_object(&choice.name) {
                judge
                    .fault("spec.source.configMap.name", format!("\"{}\" is not the name of a ConfigMap", choice.name));
            }
            if !is_key(&key) {
                judge.fault("spec.source.configMap.key", format!("\"{key}\" is not the name of a key"));
            }
            LibrarySource::ConfigMap { name: choice.name.clone(), key }
        }
        (Some(_), Some(_)) | (None, None) => {
            judge.fault("spec.source", "needs either inline or configMap");
            return None;
        }
    };
    let policy = Policy::Functions(LibraryPolicy { owner: judge.owner(), generation: judge.generation(), source });
    Some(KindFields { policy, wait_replicas: 0, binding: BTreeMap::new(), export: None, budget: None })
}
