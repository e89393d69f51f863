//! What every kind of use says in its specification, and a use as plain data: the one place where kinds become one.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{Duration, DynamicResourceScope};
use kube::{KubeSchema, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cache_namespace::{CacheNamespace, CacheNamespaceSpec};
use super::data_layer::DataLayerSpec;
use super::function_library::{FunctionLibrary, FunctionLibrarySpec};
use super::names;
use super::quantity_rules;
use super::rate_limit_policy::{RateLimitPolicy, RateLimitPolicySpec};
use super::session_store::{SessionStore, SessionStoreSpec};
use super::use_status::UseStatus;
use crate::model::UseKind;

/// A use as its object declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredUse {
    /// Metadata of the object.
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: UseSpec,
    /// What was reported of it last.
    pub status: Option<UseStatus>,
}

/// What a use of each kind asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum UseSpec {
    /// Login sessions.
    SessionStore(SessionStoreSpec),
    /// Rate limits.
    RateLimitPolicy(RateLimitPolicySpec),
    /// A cache.
    CacheNamespace(CacheNamespaceSpec),
    /// Functions of a user's own.
    FunctionLibrary(FunctionLibrarySpec),
}

impl DeclaredUse {
    /// Reads an object of the kind.
    pub fn read(kind: UseKind, object: &Value) -> Result<Self, serde_json::Error> {
        match kind {
            UseKind::SessionStore => SessionStore::deserialize(object).map(Self::from),
            UseKind::RateLimitPolicy => RateLimitPolicy::deserialize(object).map(Self::from),
            UseKind::CacheNamespace => CacheNamespace::deserialize(object).map(Self::from),
            UseKind::FunctionLibrary => FunctionLibrary::deserialize(object).map(Self::from),
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> UseKind {
        self.spec.kind()
    }
}

impl From<SessionStore> for DeclaredUse {
    fn from(store: SessionStore) -> Self {
        Self { metadata: store.metadata, spec: UseSpec::SessionStore(store.spec), status: store.status }
    }
}

impl From<RateLimitPolicy> for DeclaredUse {
    fn from(policy: RateLimitPolicy) -> Self {
        Self { metadata: policy.metadata, spec: UseSpec::RateLimitPolicy(policy.spec), status: policy.status }
    }
}

impl From<CacheNamespace> for DeclaredUse {
    fn from(cache: CacheNamespace) -> Self {
        Self { metadata: cache.metadata, spec: UseSpec::CacheNamespace(cache.spec), status: cache.status }
    }
}

impl From<FunctionLibrary> for DeclaredUse {
    fn from(library: FunctionLibrary) -> Self {
        Self { metadata: library.metadata, spec: UseSpec::FunctionLibrary(library.spec), status: library.status }
    }
}

impl UseSpec {
    /// The kind.
    pub const fn kind(&self) -> UseKind {
        match self {
            Self::SessionStore(_) => UseKind::SessionStore,
            Self::RateLimitPolicy(_) => UseKind::RateLimitPolicy,
            Self::CacheNamespace(_) => UseKind::CacheNamespace,
            Self::FunctionLibrary(_) => UseKind::FunctionLibrary,
        }
    }

    /// Which layer it wants; `None`: one of its own.
    pub const fn layer(&self) -> Option<&LayerChoice> {
        match self {
            Self::SessionStore(spec) => spec.layer.as_ref(),
            Self::RateLimitPolicy(spec) => spec.layer.as_ref(),
            Self::CacheNamespace(spec) => spec.layer.as_ref(),
            Self::FunctionLibrary(spec) => Some(&spec.layer),
        }
    }

    /// What its keys should begin with.
    pub const fn key_prefix(&self) -> Option<&String> {
        match self {
            Self::SessionStore(spec) => spec.key_prefix.as_ref(),
            Self::RateLimitPolicy(spec) => spec.key_prefix.as_ref(),
            Self::CacheNamespace(spec) => spec.key_prefix.as_ref(),
            Self::FunctionLibrary(_) => None,
        }
    }

    /// Whether the server may track keys for its user.
    pub fn tracking(&self) -> bool {
        match self {
            Self::CacheNamespace(spec) => spec.invalidation.as_ref().is_some_and(|it| it.tracking == Some(true)),
            Self::SessionStore(_) | Self::RateLimitPolicy(_) | Self::FunctionLibrary(_) => false,
        }
    }

    /// Its user.
    pub const fn access(&self) -> Option<&UseAccess> {
        match self {
            Self::SessionStore(spec) => spec.access.as_ref(),
            Self::RateLimitPolicy(spec) => spec.access.as_ref(),
            Self::CacheNamespace(spec) => spec.access.as_ref(),
            Self::FunctionLibrary(_) => None,
        }
    }
}

impl Resource for DeclaredUse {
    type DynamicType = UseKind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &UseKind) -> Cow<'_, str> {
        kind.words().kind.into()
    }

    fn group(_: &UseKind) -> Cow<'_, str> {
        names::GROUP.into()
    }

    fn version(_: &UseKind) -> Cow<'_, str> {
        names::VERSION.into()
    }

    fn plural(kind: &UseKind) -> Cow<'_, str> {
        kind.words().plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Where the keys are. Default: a layer of the use's own, as of `dedicated: {mode: Sentinel}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.dedicated)").message("layer needs either name or dedicated"),
    // `namespace` is a reserved word of CEL: with a name there is nothing else that could differ.
    validation = Rule::new("!has(self.name) || !has(oldSelf.name) || self == oldSelf")
        .message("layer.name and layer.namespace cannot be changed: the keys that there are would be lost; make a new object")
)]
pub struct LayerChoice {
    /// Name of a `DataLayer`. Cannot be changed. Default: the layer is dedicated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub name: Option<String>,
    /// Its namespace. A layer of another namespace must permit the use's (`access.namespaces`). Cannot be changed. Default: the
    /// use's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// A layer of the use's own: a `DataLayer` with these fields, the purpose of the kind and no user `app`. A session store's is
    /// named NAME-sessions. It is deleted with the use; its volumes stay, unless `persistence.volume.reclaim` is `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<Box<DataLayerSpec>>,
}

/// The user of a use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UseAccess {
    /// A number to raise for new credentials: the binding Secret then shows a new user and password. The old ones stay valid
    /// until no client uses them. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub rotation: Option<i32>,
    /// How long the old credentials stay valid at most, `0s` to `168h`. Then their user is removed, and its connections end. They
    /// end sooner once no client is connected with them, but not in the first 3 minutes, because mounted Secrets lag.
    /// Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("0s", "168h")).message(Message::Expression(quantity_rules::duration_message("access.rotationGrace", "0s", "168h", "1h"))))]
    pub rotation_grace: Option<Duration>,
    /// Whether the user may run Lua scripts of its own (`EVAL`, `EVALSHA`, `SCRIPT LOAD`), which some libraries bring. A script
    /// cannot touch another prefix, but one that does not end stops every use of the layer until it is killed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<bool>,
}
