//! One pass over one layer: observe → validate → build → plan → act → report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use serde::{Deserialize, Serialize};

use super::context::{Context, Defaults};
use super::uses::{self, Scene, Uses};
use super::{desired as wanted, publish};
use crate::act::kube::{Object, key_of};
use crate::act::secrets::{ANNOTATION_ROOT_KEY, Passwords};
use crate::act::{self, Ending, Means};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::build::revision::digest;
use crate::build::secrets::Credentials;
use crate::build::{Built, Inputs, build, declared};
use crate::dataplane::{Library, built_in_libraries};
use crate::failure::{Class, Request, request};
use crate::model::observed::Observed;
use crate::model::{Address, LayerIdentity, NodeId, NodeKind};
use crate::observe::kubernetes::{Children, children};
use crate::observe::servers::{Answer, Question};
use crate::plan::{Step, plan};
use crate::redis::Connection;
use crate::redis::users::acl_file;
use crate::report::{self, Facts, Undone};
use crate::validate::{DataVolumes, Fault, ResolvedDefaults, ValidatedLayer, validate};

/// Pause after a pass that found everything as declared.
const AT_REST: Duration = Duration::from_secs(3);
/// Pause while something is under way; most of what is waited for announces itself by an event before that.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Pause while the specification is wrong; a correction starts a pass at once.
const NOT_ACCEPTED: Duration = Duration::from_secs(30);

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

/// Makes one pass; answers how long to wait for the next.
pub async fn pass(context: &Context, object: &DataLayer) -> Result<Duration, Error> {
    let old = object.status.clone().unwrap_or_default();
    let identity = identity(object);
    let children = children(&context.stores, &identity);
    let secrets = Secrets::read(context, &identity).await?;
    let uses = uses::gather(context, object).await?;
    let resolved = Resolved::of(&children, &context.defaults);
    let layer = match validate(object, &resolved.for_validation()) {
        Ok(layer) => layer,
        Err(faults) => return not_accepted(context, object, &uses, &faults).await,
    };
    let passwords = secrets.passwords(context, &identity);
    let digests = wanted::digests(&passwords, &layer);
    let accounts = wanted::Users::of(&digests, uses.users(context));
    let (data_file, sentinel_file) = (acl_file(&accounts.data), acl_file(&accounts.sentinels));
    let resolved_text = resolved.with_volumes(&layer).text();
    let mut observed = seen(context, &children, &identity);
    observed.initialised |= old.conditions.iter().any(|known| known.type_ == "Ready" && known.status == "True");
    let addresses = addresses(&declared(&layer), &observed, &children);
    let inputs = Inputs {
        layer: &layer,
        addresses: &addresses,
        initialised: observed.initialised,
        resolved_defaults: &resolved_text,
        primary: observed.primary_service,
        credentials: credentials(&passwords, &data_file, &sentinel_file),
    };
    let session_library = uses.library();
    let libraries: Vec<Library> = built_in_libraries().into_iter().chain(session_library.clone()).collect();
    let mut desired = wanted::desired(object, &layer, &build(&inputs), accounts, &libraries);
    desired.gathering = context.uses.is_gathering(&identity.uid);
    let questions = wanted::questions(&desired, &children, &passwords);
    let mut answers = context.pool.ask(questions.values().cloned().collect()).await;
    listen(context, &identity, &questions, &answers);
    let faults = take_answers(&mut observed, &mut answers);
    uses.spare(&mut observed);

    let plan = plan(&desired, &observed);
    let built = build(&Inputs { primary: plan.dials.primary.or(observed.primary_service), ..inputs });
    let mut undone = Vec::new();
    let connections = connections(&answers);
    if !desired.paused {
        undone = apply_static(context, &built, &children, &secrets, &observed, &passwords).await;
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
            endpoints: &questions.iter().map(|(node, question)| (*node, question.endpoint.clone())).collect(),
            addresses: &addresses,
        };
        for (step, ending) in act::carry_out(&context.writer, means, &plan.steps).await {
            context.metrics.step(act::name_of(&step), ending.word());
            if matches!(step, Step::LoadLibrary { .. }) {
                context.uses.loaded(&identity.uid);
            }
            undone.extend(not_done(Some(step), &ending));
        }
    }
    if let Some(taken) = undone.iter().find(|undone| undone.name_taken) {
        let status = report::not_accepted(
            desired.generation,
            "NameTaken",
            std::slice::from_ref(&taken.why),
            &old,
            publish::now(),
        );
        publish::publish(context, object, &status).await?;
        uses.tell(context, object, &taken.why).await?;
        return Ok(NOT_ACCEPTED);
    }
    let subject = wanted::subject(&layer);
    let facts = Facts {
        desired: &desired,
        observed: &observed,
        plan: &plan,
        undone: &undone,
        faults: &faults,
        subject: &subject,
    };
    publish::publish(context, object, &report::status(facts, &old, publish::now())).await?;
    let scene = Scene {
        object,
        layer: &layer,
        desired: &desired,
        observed: &observed,
        connections: &connections,
        primary: report::primary(&desired, &observed),
        library: session_library.as_ref(),
        paused: desired.paused,
    };
    let uses_are_busy = uses.settle(context, scene).await?;
    let is_at_rest = plan.steps.is_empty() && plan.waiting.is_empty() && undone.is_empty() && !uses_are_busy;
    Ok(if is_at_rest || desired.paused { AT_REST } else { UNDER_WAY })
}

fn identity(object: &DataLayer) -> LayerIdentity {
    LayerIdentity {
        uid: object.uid().unwrap_or_default(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

async fn not_accepted(context: &Context, object: &DataLayer, uses: &Uses, faults: &[Fault]) -> Result<Duration, Error> {
    let old = object.status.clone().unwrap_or_default();
    let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let generation = object.metadata.generation.unwrap_or_default();
    let status = report::not_accepted(generation, "Invalid", &words, &old, publish::now());
    publish::publish(context, object, &status).await?;
    let trouble = format!("DataLayer {}: {}", object.name_any(), words.join("; "));
    uses.tell(context, object, &trouble).await?;
    Ok(NOT_ACCEPTED)
}

/// The layer's Secrets as they are: read by name, because the operator may not list Secrets.
struct Secrets {
    system: Option<Secret>,
    application: Option<Secret>,
}

impl Secrets {
    async fn read(context: &Context, layer: &LayerIdentity) -> Result<Self, Request> {
        let api: Api<Secret> = Api::namespaced(context.client.clone(), &layer.namespace);
        let read = async |name: String| {
            let object = format!("Secret {}/{name}", layer.namespace);
            request("read", &object, api.get_opt(&name)).await
        };
        Ok(Self {
            system: read(names::system_secret(&layer.name)).await?,
            application: read(names::application_secret(&layer.name)).await?,
        })
    }

    /// Only what belongs to this very layer is believed.
    fn passwords(&self, context: &Context, layer: &LayerIdentity) -> Passwords {
        let ours = |secret: &&Secret| secret.owner_references().iter().any(|owner| owner.uid == layer.uid);
        let (system, application) = (self.system.as_ref().filter(ours), self.application.as_ref().filter(ours));
        context.vault.passwords(&layer.uid, system, application)
    }

    fn live(&self, name: &str) -> Option<&Secret> {
        [&self.system, &self.application].into_iter().flatten().find(|secret| secret.name_any() == name)
    }
}

/// Defaults that were decided when the layer was created, as they are recorded on its StatefulSets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resolved {
    engine_image: String,
    agent_image: String,
    /// Size of each data volume, bytes; 0: the data nodes have none. `None`: not decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_size: Option<u64>,
}

impl Resolved {
    fn of(children: &Children, defaults: &Defaults) -> Self {
        let recorded = children.resolved_defaults().and_then(|text| serde_json::from_str(text).ok());
        recorded.unwrap_or_else(|| Self {
            engine_image: defaults.engine_image.clone(),
            agent_image: defaults.agent_image.clone(),
            volume_size: None,
        })
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and a number are always JSON")
    }

    fn volumes(&self) -> DataVolumes {
        match self.volume_size {
            None => DataVolumes::Undecided,
            Some(0) => DataVolumes::Without,
            Some(size) => DataVolumes::Of(size),
        }
    }

    fn with_volumes(self, layer: &ValidatedLayer) -> Self {
        let volume_size = match self.volumes().or_decide(layer.volume.as_ref()) {
            DataVolumes::Undecided => None,
            DataVolumes::Without => Some(0),
            DataVolumes::Of(size) => Some(size),
        };
        Self { volume_size, ..self }
    }

    fn for_validation(&self) -> ResolvedDefaults {
        ResolvedDefaults {
            engine_image: self.engine_image.clone(),
            agent_image: self.agent_image.clone(),
            volumes: self.volumes(),
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
        data_users,
        sentinel_users,
    }
}

/// What Kubernetes says of the layer.
fn seen(context: &Context, children: &Children, layer: &LayerIdentity) -> Observed {
    let at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let fingerprints = context.writer.fingerprints();
    children.observed(layer, at, |workload| fingerprints.is_untouched(&key_of(workload), workload), digest)
}

/// Every node's address: its Service's, or the one that a Service which is gone had and gets again.
fn addresses(declared: &[NodeId], observed: &Observed, children: &Children) -> BTreeMap<NodeId, Address> {
    let live = observed.nodes.iter().filter_map(|(node, seen)| Some((*node, seen.address.clone()?)));
    let mut addresses = children.announced.clone();
    // Documents of yesterday name nodes that are gone.
    addresses.retain(|node, _| declared.contains(node) || observed.nodes.contains_key(node));
    addresses.extend(live);
    addresses
}

/// Moves what the servers answered into the observation; answers what they refused to say.
fn take_answers(observed: &mut Observed, answers: &mut BTreeMap<NodeId, Answer>) -> Vec<String> {
    let mut faults = Vec::new();
    for (node, answer) in answers {
        faults.extend(answer.faults.iter().map(|fault| format!("{node}: {fault}")));
        observed.nodes.entry(*node).or_default().server = std::mem::take(&mut answer.server);
    }
    faults
}

fn connections(answers: &BTreeMap<NodeId, Answer>) -> BTreeMap<NodeId, Connection> {
    answers.iter().filter_map(|(node, answer)| Some((*node, answer.connection.clone()?))).collect()
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

/// Applies the objects that need no order. One that fails stops no other.
async fn apply_static(
    context: &Context,
    built: &Built,
    children: &Children,
    secrets: &Secrets,
    observed: &Observed,
    passwords: &Passwords,
) -> Vec<Undone> {
    let mut undone = Vec::new();
    let uid_of = |secret: &Secret| secret.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default();
    for secret in &built.secrets {
        let mut secret = secret.clone();
        if let Some(key) = context.vault.root_key_of(&uid_of(&secret), passwords) {
            secret.annotations_mut().insert(ANNOTATION_ROOT_KEY.to_owned(), key);
        }
        undone.extend(apply(context, &secret, secrets.live(&secret.name_any())).await);
    }
    // Services without an address yet are the planner's to order.
    let addressed = |node: &NodeId| observed.nodes.get(node).is_some_and(|seen| seen.address.is_some());
    let nodes = built.node_services.iter().filter(|(node, _)| addressed(node)).map(|(_, service)| service);
    for service in built.services.iter().chain(nodes) {
        undone.extend(apply(context, service, children.services.get(&service.name_any()).map(Arc::as_ref)).await);
    }
    for budget in &built.budgets {
        undone.extend(apply(context, budget, children.budgets.get(&budget.name_any()).map(Arc::as_ref)).await);
    }
    undone
}

async fn apply<K: Object>(context: &Context, desired: &K, live: Option<&K>) -> Option<Undone> {
    let error = context.writer.apply(desired, live).await.err()?;
    not_done(None, &Ending::of(&error))
}

fn not_done(step: Option<crate::plan::Step>, ending: &Ending) -> Option<Undone> {
    let passes = match ending {
        Ending::Done => return None,
        Ending::Dropped(_) => true,
        Ending::Refused(_) | Ending::NameTaken(_) => false,
        Ending::Failed { class, .. } => matches!(class, Class::Transient | Class::Conflict),
    };
    let name_taken = matches!(ending, Ending::NameTaken(_));
    Some(Undone { step, why: ending.detail().to_owned(), passes, name_taken })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(text: &str) -> Resolved {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_was_recorded_of_volumes_is_what_is_validated_against() {
        let images = r#""engineImage":"e","agentImage":"a""#;
        for (text, volumes) in [
            (format!("{{{images}}}"), DataVolumes::Undecided),
            (format!(r#"{{{images},"volumeSize":0}}"#), DataVolumes::Without),
            (format!(r#"{{{images},"volumeSize":1073741824}}"#), DataVolumes::Of(1 << 30)),
        ] {
            assert_eq!(recorded(&text).for_validation().volumes, volumes);
            assert_eq!(recorded(&text).text(), text);
        }
    }
}
