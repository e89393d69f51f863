//! One pass over one layer: observe → validate → build → plan → act → report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::application_proof;
use super::context::Context;
use super::objects::{apply_static, not_done};
use super::resolved::Resolved;
use super::uses::{self, Scene, Uses};
use super::{accepted, desired as wanted, publish};
use crate::act::kube::key_of;
use crate::act::secrets::Passwords;
use crate::act::{self, Ending, Means};
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::api::names;
use crate::build::revision::digest;
use crate::build::secrets::Credentials;
use crate::build::{Inputs, build, declared};
use crate::dataplane::{Library, built_in_libraries};
use crate::failure::{Class, Request};
use crate::model::audit::{AuditReport, short_hash};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedServer};
use crate::model::{Address, LayerIdentity, NodeId, NodeKind, roles};
use crate::observe::kubernetes::{Children, children};
use crate::observe::servers::{Answer, Question};
use crate::plan::{Plan, Step, Waiting, plan};
use crate::redis::Connection;
use crate::redis::users::acl_file;
use crate::report::{self, Facts, Undone};
use crate::validate::{Fault, ValidatedLayer, validate, validate_accepted};

/// Pause after a pass that found everything as declared.
const AT_REST: Duration = Duration::from_secs(3);
/// Pause while something is under way; most of what is waited for announces itself by an event before that.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Longest pause while something fails: the rest of the layer is looked after all the same.
const LONGEST_WITH_FAILURES: Duration = Duration::from_secs(5);
/// Pause while the specification is wrong and was never right; a correction starts a pass at once.
const NOT_ACCEPTED: Duration = Duration::from_secs(30);

/// How long the layer's Secrets are believed where Secrets are not watched: running servers know the passwords, and so does the
/// vault.
const SECRETS_BELIEVED: Duration = Duration::from_secs(30);

/// Why a pass could not be made to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request that the whole pass depends on.
    #[error(transparent)]
    Request(#[from] Request),
    /// An object that the whole pass depends on.
    #[error(transparent)]
    Act(act::Error),
    /// The watches are gone: the process is stopping.
    #[error("the watches have ended")]
    WatchesEnded,
}

impl Error {
    /// What to make of it.
    pub fn class(&self) -> Class {
        match self {
            Self::Request(error) => error.class(),
            Self::Act(error) => error.class(),
            Self::WatchesEnded => Class::Transient,
        }
    }
}

/// A layer that a pass can be made over, and what is wrong with its present specification.
pub(super) struct Judged {
    pub(super) layer: ValidatedLayer,
    /// The object with the specification that `layer` was made from.
    pub(super) object: DataLayer,
    /// Faults of the present specification, where an earlier one is gone on with.
    faults: Vec<Fault>,
}

/// Makes one pass; answers how long to wait for the next.
pub async fn pass(context: &Context, object: &DataLayer) -> Result<Duration, Error> {
    let known = Known::gather(context, &object.metadata).await?;
    let judged = match known.judge(object) {
        Ok(judged) => judged,
        Err(faults) => return not_accepted(context, object, &faults).await,
    };
    let old = object.status.clone().unwrap_or_default();
    // Tenants are judged by what was accepted: a specification that is refused takes nothing from them.
    let uses = uses::gather(context, &judged, Some(&old)).await?;
    let (mut status, pause) = Box::pin(look_after(context, known, &judged, &uses, &old)).await?;
    if !judged.faults.is_empty() {
        let generation = object.metadata.generation.unwrap_or_default();
        let words: Vec<String> = judged.faults.iter().map(ToString::to_string).collect();
        status = report::not_accepted(generation, "Invalid", &words, status, &old, publish::now());
    }
    if is_ready(&status) {
        context.proven.note(object.metadata.uid.as_deref().unwrap_or_default());
    }
    publish::publish(context, object, &status).await?;
    Ok(pause)
}

/// Makes a pass over a layer whose object no longer parses, with the specification that was accepted last. Its status cannot
/// be read, so none is written. `None`: no specification is known.
pub async fn pass_unreadable(context: &Context, metadata: &ObjectMeta) -> Result<Option<Duration>, Error> {
    let known = Known::gather(context, metadata).await?;
    let Some(judged) = known.earlier(metadata) else { return Ok(None) };
    let uses = uses::gather(context, &judged, None).await?;
    let (_, pause) = Box::pin(look_after(context, known, &judged, &uses, &DataLayerStatus::default())).await?;
    Ok(Some(pause))
}

pub(super) fn identity(metadata: &ObjectMeta) -> LayerIdentity {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    LayerIdentity { uid: text(&metadata.uid), namespace: text(&metadata.namespace), name: text(&metadata.name) }
}

/// What Kubernetes has of a layer.
pub(super) struct Known {
    pub(super) identity: LayerIdentity,
    pub(super) children: Children,
    pub(super) secrets: Secrets,
    pub(super) resolved: Resolved,
    pub(super) service_domain: String,
}

impl Known {
    async fn gather(context: &Context, metadata: &ObjectMeta) -> Result<Self, Error> {
        let identity = identity(metadata);
        let children = children(&context.stores, &identity);
        Self::of(context, identity, children).await
    }

    /// Adds what no watch shows.
    pub(super) async fn of(context: &Context, identity: LayerIdentity, children: Children) -> Result<Self, Error> {
        let secrets = Secrets::read(context, &identity).await?;
        let resolved = Resolved::of(&children, &context.defaults);
        let service_domain = context.defaults.service_domain.clone();
        Ok(Self { identity, children, secrets, resolved, service_domain })
    }

    fn validate(&self, object: &DataLayer) -> Result<ValidatedLayer, Vec<Fault>> {
        validate(object, &self.resolved.for_validation(&self.service_domain))
    }

    /// The layer as it is declared, or, where that is wrong, as it was accepted last. An error: it never was.
    pub(super) fn judge(&self, object: &DataLayer) -> Result<Judged, Vec<Fault>> {
        match self.validate(object) {
            Ok(layer) => Ok(Judged { layer, object: object.clone(), faults: Vec::new() }),
            Err(faults) => match self.earlier(&object.metadata) {
                Some(judged) => Ok(Judged { faults, ..judged }),
                None => Err(faults),
            },
        }
    }

    /// The layer as it was accepted last.
    pub(super) fn earlier(&self, metadata: &ObjectMeta) -> Option<Judged> {
        let object = accepted::earlier(metadata, self.secrets.system.as_ref())?;
        let layer = validate_accepted(&object, &self.resolved.for_validation(&self.service_domain)).ok()?;
        Some(Judged { layer, object, faults: Vec::new() })
    }
}

/// Looks after a layer once: observes, plans, acts. Its status, and how long to wait for the next pass.
async fn look_after(
    context: &Context,
    known: Known,
    judged: &Judged,
    uses: &Uses,
    old: &DataLayerStatus,
) -> Result<(DataLayerStatus, Duration), Error> {
    let Known { identity, children, secrets, resolved, .. } = known;
    let Judged { layer, object, .. } = judged;
    let passwords = secrets.passwords(context, &identity);
    let digests = wanted::digests(&passwords, layer);
    let caches = uses.caches();
    let accounts = wanted::Users::of(&digests, layer.audit, &caches, uses.users(context, secrets.system.as_ref()));
    let (data_file, sentinel_file) = (acl_file(&accounts.data), acl_file(&accounts.sentinels));
    let resolved_text = resolved.decided(layer).text();
    let mut observed = seen(context, &children, &identity, Some(old));
    let addresses = addresses(&declared(layer), &observed, &children);
    let use_libraries = uses.libraries();
    let libraries: Vec<Library> = built_in_libraries().into_iter().chain(use_libraries.values().cloned()).collect();
    let prefixes = uses.prefixes(layer.audit);
    let functions = uses.sources(&libraries, secrets.system.as_ref());
    let inputs = Inputs {
        layer,
        addresses: &addresses,
        initialised: observed.initialised,
        resolved_defaults: &resolved_text,
        primary: observed.primary_service,
        functions: &functions,
        caches: &caches,
        prefixes: &prefixes,
        credentials: credentials(&passwords, &data_file, &sentinel_file),
    };
    let built = build(&inputs);
    let mut desired = wanted::desired(object, layer, &built, accounts, &libraries);
    desired.gathering = context.uses.is_gathering(&identity.uid);
    let questions = wanted::questions(&desired, &children, &passwords);
    let Heard { connections, faults, waits, audits } = ask(context, &identity, &questions, &mut observed).await;
    uses.spare(&mut observed);
    uses.withhold(context, &mut desired, &observed);
    context.absences.look(&context.client, &identity, &children, &mut observed).await;

    let plan = plan(&desired, &observed);
    let primary = plan.dials.primary.or(observed.primary_service);
    let built = if primary == inputs.primary { built } else { build(&Inputs { primary, ..inputs }) };
    let endpoints = questions.iter().map(|(node, question)| (*node, question.endpoint.clone())).collect();
    let mut undone = Vec::new();
    if !desired.paused {
        undone = apply_static(context, judged, &built, &children, &secrets, &observed, &passwords).await;
        let means = Means {
            layer: &identity,
            desired: &desired,
            services: &built.node_services,
            workloads: &built.nodes.iter().map(|(node, built)| (*node, built.workload.clone())).collect(),
            documents: &built.nodes.iter().map(|(node, built)| (*node, built.document.clone())).collect(),
            live_services: &children.services,
            live_workloads: &children.workloads,
            libraries: &libraries,
            connections: &connections,
            endpoints: &endpoints,
            addresses: &addresses,
        };
        for (step, ending) in act::carry_out(&context.writer, means, &plan.steps).await {
            context.metrics.step(act::name_of(&step), ending.word());
            note_absence(context, &observed, &step, &ending);
            if matches!((&step, &ending), (Step::LoadLibrary { .. }, Ending::Done | Ending::Failed { .. })) {
                context.uses.loaded(&identity.uid);
            }
            if !uses.note(context, &observed, &step, &ending) {
                undone.extend(not_done(Some(step), &ending));
            }
        }
    }
    let mut subject = wanted::subject(layer);
    subject.audit = newest_audit(audits, &prefixes);
    subject.application_breaches = application_proof::breaches(context, &desired, &observed, &connections).await;
    let facts = Facts {
        desired: &desired,
        observed: &observed,
        plan: &plan,
        undone: &undone,
        faults: &faults,
        waits: &waits,
        subject: &subject,
    };
    let mut status = report::status(facts, old, publish::now());
    if let Some(taken) = undone.iter().find(|undone| undone.name_taken) {
        let why = std::slice::from_ref(&taken.why);
        status = report::not_accepted(desired.generation, "NameTaken", why, status, old, publish::now());
    }
    let scene = Scene {
        object,
        layer,
        desired: &desired,
        observed: &observed,
        connections: &connections,
        endpoints: &endpoints,
        primary: roles::primary(&desired, &observed),
        libraries: &use_libraries,
        audit: subject.audit.as_ref(),
        paused: desired.paused,
    };
    let uses_are_busy = uses.settle(context, scene).await;
    let pause = pause(context, &desired, observed.initialised, &plan, &undone);
    // A layer in which something fails keeps its own, slower pace.
    Ok((status, if uses_are_busy && undone.is_empty() { pause.min(UNDER_WAY) } else { pause }))
}

/// Remembers which node a step takes away: it is missed less than one that nobody took.
fn note_absence(context: &Context, observed: &Observed, step: &Step, ending: &Ending) {
    let workload = observed.nodes.get(&step.node()).and_then(|seen| seen.workload.as_ref());
    if let (Step::RestartPod { .. }, true, Some(workload)) = (step, ending.is_done(), workload) {
        context.absences.taken(&workload.uid);
    }
}

/// How long to wait for the next pass. What the servers have to do is looked at often; what Kubernetes or a person has to do
/// announces itself; what was tried and failed is tried less and less often.
fn pause(context: &Context, desired: &Desired, is_initialised: bool, plan: &Plan, undone: &[Undone]) -> Duration {
    if !desired.paused && !undone.is_empty() {
        let pause = context.backoff.failed(&desired.layer.uid, Class::Transient, rand::random());
        return pause.min(LONGEST_WITH_FAILURES);
    }
    context.backoff.succeeded(&desired.layer.uid);
    let is_others = |waiting: &Waiting| {
        matches!(waiting, Waiting::Approval | Waiting::Paused | Waiting::Pod { trouble: Some(_), .. })
    };
    // That it was whole once has to be written down soon: until then a node that finds nothing may take the layer for new.
    let is_recorded = plan.dials.initialised == is_initialised;
    let is_at_rest = is_recorded && plan.steps.is_empty() && plan.waiting.iter().all(is_others);
    if is_at_rest || desired.paused { AT_REST } else { UNDER_WAY }
}

async fn not_accepted(context: &Context, object: &DataLayer, faults: &[Fault]) -> Result<Duration, Error> {
    let old = object.status.clone().unwrap_or_default();
    let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let generation = object.metadata.generation.unwrap_or_default();
    let status = report::not_accepted(generation, "Invalid", &words, old.clone(), &old, publish::now());
    publish::publish(context, object, &status).await?;
    let trouble = format!("DataLayer {}: {}", object.name_any(), words.join("; "));
    uses::tell(context, object, &trouble).await;
    Ok(NOT_ACCEPTED)
}

/// The layer's Secrets as they are.
pub(super) struct Secrets {
    system: Option<Secret>,
    pub(super) application: Option<Secret>,
}

impl Secrets {
    async fn read(context: &Context, layer: &LayerIdentity) -> Result<Self, Request> {
        let read =
            async |name: String| context.secrets.read(&context.client, &layer.namespace, &name, SECRETS_BELIEVED).await;
        Ok(Self {
            system: read(names::system_secret(&layer.name)).await?,
            application: read(names::application_secret(&layer.name)).await?,
        })
    }

    /// Only what belongs to this very layer is believed.
    pub(super) fn passwords(&self, context: &Context, layer: &LayerIdentity) -> Passwords {
        let ours = |secret: &&Secret| secret.owner_references().iter().any(|owner| owner.uid == layer.uid);
        let (system, application) = (self.system.as_ref().filter(ours), self.application.as_ref().filter(ours));
        context.vault.passwords(&layer.uid, system, application)
    }

    pub(super) fn live(&self, name: &str) -> Option<&Secret> {
        [&self.system, &self.application].into_iter().flatten().find(|secret| secret.name_any() == name)
    }
}

pub(super) fn credentials<'a>(
    passwords: &'a Passwords,
    data_users: &'a str,
    sentinel_users: &'a str,
) -> Credentials<'a> {
    Credentials {
        operator: passwords.operator.reveal(),
        agent: passwords.agent.reveal(),
        replication: passwords.replication.reveal(),
        sentinel: passwords.sentinel.reveal(),
        application: passwords.application.reveal(),
        data_users,
        sentinel_users,
    }
}

/// What Kubernetes says of the layer.
pub(super) fn seen(
    context: &Context,
    children: &Children,
    layer: &LayerIdentity,
    status: Option<&DataLayerStatus>,
) -> Observed {
    let at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let fingerprints = context.writer.fingerprints();
    let is_untouched = |workload: &StatefulSet| fingerprints.is_untouched(&key_of(workload), workload);
    let mut observed = children.observed(layer, at, is_untouched, digest);
    observed.initialised |= status.is_some_and(is_ready) || context.proven.contains(&layer.uid);
    observed
}

fn is_ready(status: &DataLayerStatus) -> bool {
    status.conditions.iter().any(|known| known.type_ == "Ready" && known.status == "True")
}

/// Every node's address: its Service's, or the one that a Service which is gone had and gets again.
pub(super) fn addresses(declared: &[NodeId], observed: &Observed, children: &Children) -> BTreeMap<NodeId, Address> {
    let live = observed.nodes.iter().filter_map(|(node, seen)| Some((*node, seen.address.clone()?)));
    let mut addresses = children.announced.clone();
    // Documents of yesterday name nodes that are gone.
    addresses.retain(|node, _| declared.contains(node) || observed.nodes.contains_key(node));
    addresses.extend(live);
    addresses
}

/// What was heard of a layer's pods beside the observation.
#[derive(Default)]
pub(super) struct Heard {
    /// The open connections.
    connections: BTreeMap<NodeId, Connection>,
    /// What the servers refused to say, and what data nodes keep aside.
    faults: Vec<String>,
    /// Which nodes wait for what only a person ends.
    waits: Vec<String>,
    /// What the agents found in the keys.
    audits: Vec<Arc<AuditReport>>,
}

/// The newest of these that goes by the prefixes that are declared now.
fn newest_audit(audits: Vec<Arc<AuditReport>>, prefixes: &str) -> Option<Arc<AuditReport>> {
    let list = short_hash(prefixes.as_bytes());
    audits.into_iter().filter(|audit| audit.list == list).max_by_key(|audit| audit.finished)
}

/// Asks the servers and moves what they answer into the observation; listens to the Sentinels among them from now on.
pub(super) async fn ask(
    context: &Context,
    layer: &LayerIdentity,
    questions: &BTreeMap<NodeId, Question>,
    observed: &mut Observed,
) -> Heard {
    let last_move = context.listeners.last_move(&(layer.namespace.clone(), layer.name.clone()));
    let answers = context.pool.ask(questions.values().cloned().collect(), &last_move).await;
    listen(context, layer, questions, &answers);
    let mut heard = Heard::default();
    for (node, answer) in answers {
        let of_node = |words: &String| format!("{node}: {words}");
        heard.faults.extend(answer.faults.iter().chain(&answer.told.kept).map(of_node));
        heard.waits.extend(answer.told.waits.iter().map(of_node));
        heard.audits.extend(answer.audit.clone());
        let mut server = answer.server;
        if let ObservedServer::Data(server) = &mut server {
            server.refuses_clients |= context.rejections.note(&server.run_id, server.rejected_connections);
        }
        observed.nodes.entry(node).or_default().server = server;
        heard.connections.extend(answer.connection.map(|connection| (node, connection)));
    }
    heard
}

/// Listens to every Sentinel that answered.
fn listen(
    context: &Context,
    layer: &LayerIdentity,
    questions: &BTreeMap<NodeId, Question>,
    answers: &BTreeMap<NodeId, Answer>,
) {
    let sentinels = questions.values().filter(|question| question.node.kind == NodeKind::Sentinel);
    for question in
        sentinels.filter(|question| answers.get(&question.node).is_some_and(|answer| answer.connection.is_some()))
    {
        let news = (layer.namespace.clone(), layer.name.clone());
        context.listeners.listen(&question.pod_uid, &question.endpoint, news);
    }
}
