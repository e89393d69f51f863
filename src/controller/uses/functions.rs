//! The function libraries among the uses of a layer: where their Lua comes from, which are not loaded now and why, and what is told
//! of them. They have no user and no binding.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use super::super::config_maps::Entry;
use super::super::context::Context;
use super::super::observation::LayerPass;
use super::super::watches::WatchedUse;
use super::load_pauses::Pause;
use super::memory::{FailedLoad, LoadedLibrary};
use super::of_layer::Uses;
use super::served::ServedUse;
use crate::act::StepOutcome;
use crate::api::uses::DeclaredUse;
use crate::build::revision;
use crate::dataplane::{Library, user_library, user_library_name};
use crate::model::desired::Desired;
use crate::model::function_library::{Functions, LibrarySource, is_function_name, is_reserved};
use crate::model::observed::{DataServer, Observed, ObservedServer};
use crate::model::{NodeId, roles};
use crate::plan::Step;
use crate::report::uses::LibraryTrouble;
use crate::report::uses::UseFacts;
use crate::telemetry::Chain;
use crate::validate::uses::validate;

/// How long a source that the engine refused is not tried again on the same process with the same libraries.
const REFUSAL_HOLDS: Duration = Duration::from_mins(5);
/// The same of a load that failed for another reason, such as full memory.
const FAILURE_HOLDS: Duration = Duration::from_secs(10);
/// Text of an ACL file that the rights to call users' functions may take: the file is in a Secret, which holds 1 MiB, and the users
/// themselves may take half of it.
const MOST_RIGHTS: usize = 300 << 10;

/// The library of a use, made of its source; an error: there is none to load, and what is loaded stays. `None`: of another kind, or
/// not valid.
pub(super) async fn library_of(context: &Context, declared: &DeclaredUse) -> Option<Result<Library, LibraryTrouble>> {
    let accepted = validate(declared, u16::MAX).ok()?;
    let source = accepted.policy.library_source()?;
    let (namespace, name) = (&accepted.namespace, &accepted.name);
    let make = |text: &str| {
        let refused = |message: String| LibraryTrouble { reason: "LoadRefused", message };
        user_library(namespace, name, text).map_err(|error| refused(error.to_string()))
    };
    let missing = |message: String| LibraryTrouble { reason: "SourceMissing", message };
    Some(match source {
        LibrarySource::Inline(text) => make(text),
        LibrarySource::ConfigMap { name: map, key } => {
            match context.config_maps.read(&context.client, namespace, map, key).await {
                Ok(Entry::Text(text)) => make(&text),
                Ok(Entry::NoConfigMap) => Err(missing(format!("there is no ConfigMap {namespace}/{map}"))),
                Ok(Entry::NoKey) => Err(missing(format!("ConfigMap {namespace}/{map} has no key {key} with text"))),
                Err(error) => Err(missing(Chain(&error).to_string())),
            }
        }
    })
}

/// The functions of users' libraries by namespace, as the statuses of their uses have them. A status is not trusted with more than
/// names that are the user's to register.
pub(super) fn callable<'a>(uses: impl Iterator<Item = &'a WatchedUse>) -> BTreeMap<String, Functions> {
    let mut functions: BTreeMap<String, Functions> = BTreeMap::new();
    for watched in uses.filter(|watched| watched.kind().has_library_per_use()) {
        let listed = watched.status().into_iter().flat_map(|status| &status.function_names);
        let names = listed.filter(|it| is_function_name(&it.name) && !is_reserved(&it.name));
        let of_namespace = functions.entry(watched.namespace().unwrap_or_default()).or_default();
        of_namespace.extend(names.map(|it| (it.name.clone(), it.reads_only)));
    }
    functions
}

/// Gives each user the functions of its namespace, namespace by namespace, as far as they have room in the ACL file: all functions of
/// a namespace, or none.
pub(super) fn share(context: &Context, functions: &BTreeMap<String, Functions>, served: &mut [ServedUse]) {
    let mut room = MOST_RIGHTS;
    for (namespace, functions) in functions {
        let is_user = |it: &&mut ServedUse| it.accepted().kind.has_user() && it.accepted().namespace == *namespace;
        // Two credentials while one is rotated, and both rights of a function that reads only.
        let each: usize = functions.keys().map(|name| 2 * (2 * name.len() + "+fcall| +fcall_ro| ".len())).sum();
        let users: Vec<&mut ServedUse> = served.iter_mut().filter(is_user).collect();
        let needed = each * users.len();
        if needed > room {
            let key = ObjectMeta {
                uid: Some(format!("functions of {namespace}")),
                resource_version: Some(needed.to_string()),
                ..ObjectMeta::default()
            };
            if context.unreadable_uses.is_news(&key) {
                tracing::warn!(namespace, "no room in the ACL file for the rights to call the namespace's functions");
            }
            continue;
        }
        room -= needed;
        for user in users {
            user.callable.clone_from(functions);
        }
    }
}

fn data_server(observed: &Observed, node: NodeId) -> Option<&DataServer> {
    match &observed.nodes.get(&node)?.server {
        ObservedServer::Data(server) => Some(server),
        ObservedServer::Sentinel(_) | ObservedServer::Unknown | ObservedServer::Loading => None,
    }
}

/// What of a server decides whether a source that it refused is tried again: its other libraries, whose functions may be in the way.
fn others(server: &DataServer, library: &str) -> BTreeMap<String, String> {
    server.libraries.iter().filter(|(name, _)| *name != library).map(|(name, it)| (name.clone(), it.clone())).collect()
}

impl Uses {
    /// Decides which users' libraries stay as they are for now: those whose source is unknown or was refused, those that wait after a
    /// load that held the primary up, and those that were never loaded while one that was is missing, so that after an empty restart
    /// each function is registered by who had it.
    pub(in crate::controller) fn withhold(
        &self,
        context: &Context,
        layer_uid: &str,
        desired: &mut Desired,
        observed: &Observed,
    ) {
        for (kind, (namespace, name)) in &self.kept {
            if kind.has_library_per_use() {
                desired.kept_libraries.insert(user_library_name(namespace, name));
            }
        }
        let server = roles::primaries(desired, observed).first().and_then(|node| data_server(observed, node));
        let (mut unproven, mut is_missed) = (Vec::new(), false);
        for it in &self.served {
            let (name, library) = match &it.library {
                None => continue,
                Some(Err(_)) => {
                    let accepted = it.accepted();
                    desired.kept_libraries.insert(user_library_name(&accepted.namespace, &accepted.name));
                    continue;
                }
                Some(Ok(library)) => (&library.name, library),
            };
            let failed = context.uses.failed_loads.lock().get(&it.accepted().uid).cloned();
            if failed.is_some_and(|failed| server.is_some_and(|server| failed.holds(library, server)))
                || it.pause(context, layer_uid, library, server).is_some()
            {
                desired.libraries.remove(name);
                desired.kept_libraries.insert(name.clone());
            } else if it.reported_digest() == Some(&library.digest) {
                is_missed |= server.is_some_and(|server| !server.libraries.contains_key(name));
            } else {
                unproven.push(name.clone());
            }
        }
        for name in unproven.into_iter().filter(|_| is_missed) {
            desired.libraries.remove(&name);
            desired.kept_libraries.insert(name);
        }
    }

    /// Remembers how a step of a user's library ended; `false`: it was none. It is told of its use, never of the layer.
    pub(in crate::controller) fn note(
        &self,
        context: &Context,
        layer_uid: &str,
        observed: &Observed,
        step: &Step,
        outcome: &StepOutcome,
    ) -> bool {
        if let (Step::LoadLibrary { library, digest, .. }, StepOutcome::Done) = (step, outcome) {
            self.note_loaded(context, layer_uid, library, digest);
        }
        if let Step::LoadLibrary { node, library, digest, .. } = step
            && let Some(it) = self.served.iter().find(|it| it.library_name() == Some(library))
            && let Some(server) = data_server(observed, *node)
        {
            let (reason, holds) = match outcome {
                StepOutcome::Done => {
                    context.uses.failed_loads.lock().remove(&it.accepted().uid);
                    return true;
                }
                StepOutcome::Refused(_) => ("LoadRefused", REFUSAL_HOLDS),
                StepOutcome::Dropped(_) => return true,
                StepOutcome::NameTaken(_) | StepOutcome::Failed { .. } => ("LoadFailed", FAILURE_HOLDS),
            };
            let failed = FailedLoad {
                digest: digest.clone(),
                process: server.run_id.clone(),
                others: others(server, library),
                until: Instant::now() + holds,
                trouble: LibraryTrouble { reason, message: outcome.detail().to_owned() },
            };
            context.uses.failed_loads.lock().insert(it.accepted().uid.clone(), failed);
        }
        step.is_of_users_library()
    }

    /// Remembers what the load of a user's library took.
    pub(in crate::controller) fn note_time(
        &self,
        context: &Context,
        layer_uid: &str,
        load_times: &BTreeMap<String, Duration>,
        step: &Step,
        outcome: &StepOutcome,
    ) {
        let Step::LoadLibrary { library, .. } = step else { return };
        let of_use = self.served.iter().find(|it| it.library_name() == Some(library));
        if let (Some(it), Some(spent)) = (of_use, load_times.get(library)) {
            let mut pauses = context.uses.load_pauses.lock();
            let pauses = pauses.entry(layer_uid.to_owned()).or_default();
            pauses.note(&it.accepted().namespace, *spent, !outcome.is_done(), Instant::now());
        }
    }

    /// Remembers the policies that a library of a kind holds, now that it is loaded.
    fn note_loaded(&self, context: &Context, layer_uid: &str, library: &str, digest: &str) {
        let of_kind = self.served.iter().map(ServedUse::accepted).filter(|it| it.kind.words().library == library);
        let policies: BTreeMap<String, String> =
            of_kind.map(|it| (it.uid.clone(), revision::digest(&it.policy.json()))).collect();
        if !policies.is_empty() {
            let library = LoadedLibrary { name: library.to_owned(), digest: digest.to_owned(), policies };
            context.uses.holds(layer_uid, library);
        }
    }
}

impl FailedLoad {
    /// Whether nothing changed since that could make the load end otherwise.
    fn holds(&self, library: &Library, server: &DataServer) -> bool {
        self.digest == library.digest
            && self.process == server.run_id
            && self.others == others(server, &library.name)
            && Instant::now() < self.until
    }
}

impl ServedUse {
    fn library_name(&self) -> Option<&String> {
        self.library.as_ref()?.as_ref().ok().map(|library| &library.name)
    }

    /// The digest that was proven last.
    fn reported_digest(&self) -> Option<&String> {
        Some(&self.object.status()?.functions.as_ref()?.digest)
    }

    /// Why its library, which the primary does not have, is not loaded now.
    fn pause(
        &self,
        context: &Context,
        layer_uid: &str,
        library: &Library,
        server: Option<&DataServer>,
    ) -> Option<Pause> {
        server.filter(|server| server.libraries.get(&library.name) != Some(&library.digest))?;
        let pauses = context.uses.load_pauses.get(layer_uid)?;
        let is_proven = self.reported_digest() == Some(&library.digest);
        pauses.of(&self.accepted().namespace, is_proven, Instant::now())
    }

    /// After the steps: what is told of a function library, and whether something is still under way.
    pub(super) fn library_facts(&self, context: &Context, pass: LayerPass<'_>) -> (UseFacts, bool) {
        let mut facts = self.facts(pass.object);
        let accepted = self.accepted();
        let name = user_library_name(&accepted.namespace, &accepted.name);
        facts.has_primary = pass.primary.is_some();
        let server = pass.primary.and_then(|node| data_server(&pass.seen.observed, node));
        facts.functions.library.clone_from(&name);
        match &self.library {
            Some(Ok(library)) => {
                facts.functions.digest.clone_from(&library.digest);
                let answered = server.and_then(|server| server.libraries.get(&name));
                facts.functions_loaded = answered == Some(&library.digest);
                let failed = context.uses.failed_loads.lock().get(&accepted.uid).cloned();
                let failed = failed.filter(|failed| failed.digest == library.digest && !facts.functions_loaded);
                let waits = || {
                    let pause = self.pause(context, &pass.layer.identity.uid, library, server)?;
                    Some(LibraryTrouble { reason: "LoadWaits", message: pause.message() })
                };
                facts.library_trouble = failed.map(|failed| failed.trouble).or_else(waits);
            }
            Some(Err(trouble)) => facts.library_trouble = Some(trouble.clone()),
            None => {}
        }
        facts.function_names = server.and_then(|server| server.functions.get(&name)).cloned();
        facts.engine = server.filter(|_| facts.function_names.is_some()).map(|server| server.version.clone());
        let told = self.object.status().map(|status| status.function_names.clone()).unwrap_or_default();
        // The users of the namespace get the right to call a function once the status has its name.
        let is_news = facts.function_names.as_ref().is_some_and(|names| {
            !names.iter().map(|(name, reads)| (name, *reads)).eq(told.iter().map(|it| (&it.name, it.reads_only)))
        });
        let is_loading = facts.has_primary && !facts.functions_loaded && facts.library_trouble.is_none();
        (facts, !pass.desired.paused && (is_news || is_loading))
    }
}
