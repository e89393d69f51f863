//! `FunctionLibrary`: Lua functions of a user's own on a layer.
//!
//! The texts of the fields become the descriptions in the CRD: they are written for operators. Whether the Lua loads is for the
//! primary to say.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::use_status::UseStatus;
use super::{name_rules, use_rules};

/// The key of a ConfigMap where none is named.
pub(crate) const DEFAULT_KEY: &str = "library.lua";

/// Lua functions of your own on a data layer: checked by its primary, loaded, and loaded again wherever they are lost.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "FunctionLibrary",
    doc = "Lua functions of a user's own, kept loaded on a data layer.",
    plural = "functionlibraries",
    shortname = "fnl",
    category = "redoubt",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "UseStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it serves"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state", description = "What a person has to know first"),
    printcolumn(name = "Layer", type_ = "string", json_path = ".status.layer.path", description = "Namespace and name of the layer that serves it"),
    printcolumn(name = "Functions", type_ = "string", json_path = ".status.names"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.functions.digest"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new(use_rules::IS_NAME)
        .message("metadata.name must begin with a letter, hold only a-z, 0-9 and '-', and be at most 31 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
pub struct FunctionLibrarySpec {
    /// The layer that the functions are loaded on. A library has none of its own. Cannot be changed.
    pub layer: LibraryLayer,
    /// The Lua of the library: `inline` or in a ConfigMap, at most 256 KiB. Its first line is `#!lua name=NAME`; what callers use are
    /// the names of the functions, not NAME.
    pub source: SourceChoice,
}

/// A layer by its name: a library has no dedicated one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message(use_rules::LAYER_MESSAGE))]
pub struct LibraryLayer {
    /// Name of a `DataLayer`. Cannot be changed.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new(name_rules::IS_LAYER_NAME).message(name_rules::LAYER_NAME_MESSAGE))]
    pub name: String,
    /// Its namespace. A layer of another namespace must permit the library's (`access.namespaces`). Cannot be changed. Default: the
    /// library's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(name_rules::IS_NAMESPACE).message(name_rules::NAMESPACE_MESSAGE))]
    pub namespace: Option<String>,
}

/// Where the Lua is: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.inline) != has(self.configMap)").message("source needs either inline or configMap"))]
pub struct SourceChoice {
    /// The text of the library, at most 262,144 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    #[x_kube(validation = Rule::new("self.startsWith('#!lua name=')")
        .message("source.inline must begin with the line #!lua name=NAME"))]
    pub inline: Option<String>,
    /// A ConfigMap of the same namespace. A change of it is loaded within 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapChoice>,
}

/// A key of a ConfigMap in the namespace of the library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapChoice {
    /// `metadata.name` of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(name_rules::is_object_name()).message(Message::Expression(name_rules::object_name_message("source.configMap.name", "ConfigMap"))))]
    pub name: String,
    /// The key that holds the Lua. Default: `library.lua`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(name_rules::IS_KEY).message(name_rules::KEY_MESSAGE))]
    pub key: Option<String>,
}
