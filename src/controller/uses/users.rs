//! The users and the function libraries of a layer's uses.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as KubernetesSecret;

use super::super::context::Context;
use super::kept_users::{bytes_of, is_of, kept};
use super::of_layer::Uses;
use super::served::Binding;
use crate::act::secrets::digest;
use crate::api::names;
use crate::dataplane::{Library, library_of, packed};
use crate::model::desired::DesiredUser;
use crate::model::function_library::is_users_library;
use crate::model::node_config::FUNCTIONS_FILE;
use crate::model::observed::{Observed, ObservedServer};
use crate::model::{Policy, UseKind};
use crate::redis::users::{use_on_data, use_on_sentinel};

impl Uses {
    /// Users of the data nodes, and of the Sentinels. `system`: the layer's system Secret.
    pub(in crate::controller) fn users(
        &self,
        context: &Context,
        system: Option<&KubernetesSecret>,
    ) -> (BTreeMap<String, DesiredUser>, BTreeMap<String, DesiredUser>) {
        let is_kept = |user: &str| self.is_kept(user);
        let mut data = kept(system, names::DATA_USERS_FILE, is_kept);
        let mut sentinels = kept(system, names::SENTINEL_USERS_FILE, is_kept);
        for it in &self.served {
            if !it.accepted().kind.has_user() || matches!(it.binding, Binding::Unreadable(_)) {
                continue;
            }
            for rotation in it.rotation().valid(it.accepted().rotation) {
                let (name, digest) = (it.user(rotation), digest(&it.password(context, rotation)));
                data.insert(name.clone(), use_on_data(it.grant(), &digest));
                sentinels.insert(name, use_on_sentinel(&digest));
            }
        }
        (data, sentinels)
    }

    /// The caches that the layer serves: prefix and channel of each.
    pub(in crate::controller) fn caches(&self) -> BTreeMap<String, String> {
        let policies = self.served.iter().map(|it| &it.accepted().policy);
        let caches = policies.filter_map(|policy| Some((policy.prefix().to_owned(), policy.channel()?.to_owned())));
        caches.collect()
    }

    fn is_kept(&self, user: &str) -> bool {
        self.kept.iter().any(|(kind, (namespace, name))| is_of(user, *kind, namespace, name))
    }

    /// The libraries of the layer's uses, by name: of each kind that is served, unless the policy of one use of it is unknown; and
    /// users'.
    pub(in crate::controller) fn libraries(&self) -> BTreeMap<String, Library> {
        let mut policies: BTreeMap<UseKind, Vec<Policy>> = BTreeMap::new();
        let known = self.served.iter().map(|it| &it.accepted().policy).chain(&self.remembered);
        for policy in known.filter(|policy| !self.unknown.contains(&policy.kind())) {
            policies.entry(policy.kind()).or_default().push(policy.clone());
        }
        let libraries = policies.into_iter().filter_map(|(kind, policies)| library_of(kind, &policies));
        let of_users = self.served.iter().filter_map(|it| it.library.as_ref()?.as_ref().ok().cloned());
        libraries.chain(of_users).map(|library| (library.name.clone(), library)).collect()
    }

    /// What a server that keeps nothing starts with: the sources of the operator's libraries ([`packed`]). While a policy is unknown,
    /// what the system Secret has. `None`: a Secret cannot hold them. Users' libraries are left out: a server that does not take one
    /// would not start.
    pub(in crate::controller) fn sources(
        &self,
        libraries: &[Library],
        system: Option<&KubernetesSecret>,
    ) -> Option<Vec<u8>> {
        let stored = || bytes_of(system?, FUNCTIONS_FILE).map(<[u8]>::to_vec);
        let kept = if self.unknown.is_empty() { None } else { stored() };
        let ours = libraries.iter().filter(|library| !is_users_library(&library.name));
        let sources: Vec<&str> = ours.map(|library| library.source.as_str()).collect();
        kept.or_else(|| packed::pack(&sources))
    }

    /// Users of uses of which too little is known are not foreign: they are not to be removed.
    pub(in crate::controller) fn keep_users_of_unreadable_uses(&self, observed: &mut Observed) {
        if self.kept.is_empty() {
            return;
        }
        for node in observed.nodes.values_mut() {
            match &mut node.server {
                ObservedServer::Data(server) => server.users_foreign.retain(|user| !self.is_kept(user)),
                ObservedServer::Sentinel(server) => server.users_foreign.retain(|user| !self.is_kept(user)),
                ObservedServer::Unknown | ObservedServer::Loading => {}
            }
        }
    }
}
