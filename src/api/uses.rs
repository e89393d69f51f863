//! What every kind of use says in its specification, and a use as plain data: the one place where kinds become one.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::Deserialize;
use serde_json::Value;

use super::cache_namespace::{CacheNamespace, CacheNamespaceSpec};
use super::data_layer::DataLayerSpec;
use super::function_library::{FunctionLibrary, FunctionLibrarySpec, LibraryLayer};
use super::names;
use super::rate_limit_policy::{RateLimitPolicy, RateLimitPolicySpec};
use super::session_store::{SessionStore, SessionStoreSpec};
pub(crate) use super::use_fields::{LayerChoice, UseAccess, UseBinding};
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

/// The layer that a use names, or the one of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UseLayer<'spec> {
    /// Name; `None`: it is dedicated.
    pub name: Option<&'spec String>,
    /// Namespace; `None`: the use's.
    pub namespace: Option<&'spec String>,
    /// What a dedicated layer is made from.
    pub dedicated: Option<&'spec DataLayerSpec>,
}

impl<'spec> From<&'spec LayerChoice> for UseLayer<'spec> {
    fn from(choice: &'spec LayerChoice) -> Self {
        let LayerChoice { name, namespace, dedicated } = choice;
        Self { name: name.as_ref(), namespace: namespace.as_ref(), dedicated: dedicated.as_deref() }
    }
}

impl<'spec> From<&'spec LibraryLayer> for UseLayer<'spec> {
    fn from(LibraryLayer { name, namespace }: &'spec LibraryLayer) -> Self {
        Self { name: Some(name), namespace: namespace.as_ref(), dedicated: None }
    }
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

    pub(crate) const fn kind(&self) -> UseKind {
        self.spec.kind()
    }

    /// Name of its binding Secret. (That of a kind without a user names nothing.)
    pub fn binding_name(&self) -> String {
        let chosen = self.spec.binding().and_then(|binding| binding.secret_name.clone());
        chosen.unwrap_or_else(|| names::binding(self.kind(), &self.name_any()))
    }

    /// Name of the binding Secret that its status shows, where that is another.
    pub fn former_binding_name(&self) -> Option<String> {
        let shown = self.status.as_ref()?.binding.as_ref()?.name.clone();
        (shown != self.binding_name()).then_some(shown)
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
    pub(crate) const fn kind(&self) -> UseKind {
        match self {
            Self::SessionStore(_) => UseKind::SessionStore,
            Self::RateLimitPolicy(_) => UseKind::RateLimitPolicy,
            Self::CacheNamespace(_) => UseKind::CacheNamespace,
            Self::FunctionLibrary(_) => UseKind::FunctionLibrary,
        }
    }

    /// Which layer it wants; `None`: one of its own.
    pub(crate) fn layer(&self) -> Option<UseLayer<'_>> {
        match self {
            Self::SessionStore(spec) => spec.layer.as_ref().map(UseLayer::from),
            Self::RateLimitPolicy(spec) => spec.layer.as_ref().map(UseLayer::from),
            Self::CacheNamespace(spec) => spec.layer.as_ref().map(UseLayer::from),
            Self::FunctionLibrary(spec) => Some((&spec.layer).into()),
        }
    }

    /// What its keys should begin with.
    pub(crate) const fn key_prefix(&self) -> Option<&String> {
        match self {
            Self::SessionStore(spec) => spec.key_prefix.as_ref(),
            Self::RateLimitPolicy(spec) => spec.key_prefix.as_ref(),
            Self::CacheNamespace(spec) => spec.key_prefix.as_ref(),
            Self::FunctionLibrary(_) => None,
        }
    }

    /// Whether the server may track keys for its user.
    pub(crate) fn tracking(&self) -> bool {
        match self {
            Self::CacheNamespace(spec) => spec.invalidation.as_ref().is_some_and(|it| it.tracking == Some(true)),
            Self::SessionStore(_) | Self::RateLimitPolicy(_) | Self::FunctionLibrary(_) => false,
        }
    }

    pub(crate) const fn binding(&self) -> Option<&UseBinding> {
        match self {
            Self::SessionStore(spec) => spec.binding.as_ref(),
            Self::RateLimitPolicy(spec) => spec.binding.as_ref(),
            Self::CacheNamespace(spec) => spec.binding.as_ref(),
            Self::FunctionLibrary(_) => None,
        }
    }

    /// What it says of its user; `None`: its kind has none.
    pub(crate) const fn access(&self) -> Option<&UseAccess> {
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
