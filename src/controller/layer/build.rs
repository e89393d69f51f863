//! What a layer and its uses should be: users, objects, functions, and the questions that show whether the servers are so.

use std::collections::BTreeMap;

use super::super::context::Context;
use super::super::uses::Uses;
use super::desired::{Users, desired, digests, questions};
use super::facts::{AcceptedLayer, LayerFacts};
use crate::act::secrets::Passwords;
use crate::build::{Built, Credentials, Inputs, build, declared};
use crate::dataplane::{Library, built_in_libraries};
use crate::model::audit::short_hash;
use crate::model::desired::Desired;
use crate::model::function_library::is_users_library;
use crate::model::{Address, NodeId};
use crate::observe::servers::Question;
use crate::redis::users::acl_file;

/// What the build step made of a layer and its uses.
pub(super) struct LayerBuild {
    pub(super) passwords: Passwords,
    /// Announced addresses that are known so far.
    pub(super) addresses: BTreeMap<NodeId, Address>,
    pub(super) built: Built,
    /// What the planner compares with.
    pub(super) desired: Desired,
    /// All function libraries.
    pub(super) libraries: Vec<Library>,
    /// Those of uses, by name. A kind of which a policy is unknown has none.
    pub(super) use_libraries: BTreeMap<String, Library>,
    /// Whether servers that keep nothing find no functions when they start: a Secret cannot hold their sources.
    pub(super) leaves_out_functions: bool,
    /// What tells the list of prefixes from others, as an audit names it.
    pub(super) prefixes: String,
    /// What each server is asked.
    pub(super) questions: BTreeMap<NodeId, Question>,
}

impl LayerBuild {
    pub(super) fn of(context: &Context, facts: &LayerFacts, accepted: &AcceptedLayer, uses: &Uses) -> Self {
        let AcceptedLayer { layer, object, .. } = accepted;
        let system = facts.secrets.system.as_ref();
        let passwords = facts.passwords(context);
        let caches = uses.caches();
        let accounts =
            Users::of(&digests(&passwords, layer), layer.mode, layer.audit, &caches, uses.users(context, system));
        let prefixes = uses.prefixes(layer.audit);
        let use_libraries = uses.libraries();
        let libraries: Vec<Library> = built_in_libraries().into_iter().chain(use_libraries.values().cloned()).collect();
        let called = use_libraries.keys().filter(|library| !is_users_library(library)).cloned().collect();
        let sources = uses.sources(&libraries, system);
        let addresses = facts.addresses(&declared(layer));
        let built = build(&Inputs {
            layer,
            addresses: &addresses,
            initialised: facts.observed.initialised,
            resolved_defaults: &facts.resolved.clone().decided(layer).text(),
            primary: facts.observed.primary_service,
            functions: sources.as_deref().unwrap_or(b"[]"),
            called: &called,
            caches: &caches,
            prefixes: &prefixes,
            credentials: credentials(&passwords, &acl_file(&accounts.data), &acl_file(&accounts.sentinels)),
        });
        let mut desired = desired(object, layer, &built.nodes, accounts, &libraries);
        desired.gathering = context.uses.is_gathering(&facts.identity.uid);
        let questions = questions(&desired, &facts.children, &passwords);
        let prefixes = short_hash(prefixes.as_bytes());
        let leaves_out_functions = sources.is_none() && !layer.keeps_data;
        Self {
            passwords,
            addresses,
            built,
            desired,
            libraries,
            use_libraries,
            leaves_out_functions,
            prefixes,
            questions,
        }
    }
}

fn credentials<'a>(passwords: &'a Passwords, data_users: &'a str, sentinel_users: &'a str) -> Credentials<'a> {
    Credentials {
        operator: passwords.operator.reveal(),
        agent: passwords.agent.reveal(),
        replication: passwords.replication.reveal(),
        sentinel: passwords.sentinel.reveal(),
        application: passwords.application.reveal(),
        administrator: passwords.administrator.reveal(),
        data_users,
        sentinel_users,
    }
}
