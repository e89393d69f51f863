//! What Kubernetes has of a layer, and the specification that a pass goes by: the present one, or the one that was accepted last.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::super::context::{Context, Defaults};
use super::resolved::Resolved;
use super::specification;
use crate::act::kube::key_of;
use crate::act::secrets::{PasswordSecrets, Passwords};
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::api::names;
use crate::build::revision::digest;
use crate::failure::Request;
use crate::model::observed::Observed;
use crate::model::{Address, LayerIdentity, NodeId};
use crate::observe::kubernetes::{Children, children};
use crate::report::draft::{ConditionKind, RECORDING};
use crate::validate::{Fault, ValidatedLayer, validate, validate_accepted};

/// How long the layer's Secrets are believed where Secrets are not watched: running servers know the passwords, and so does the
/// password cache.
const SECRETS_CACHED_FOR: Duration = Duration::from_secs(30);

/// What the watches show of a layer.
pub(in crate::controller) struct Objects {
    pub(in crate::controller) identity: LayerIdentity,
    pub(in crate::controller) children: Children,
    /// The same in the planner's words; no server was asked yet.
    pub(in crate::controller) observed: Observed,
}

impl Objects {
    /// `status`: of the layer; `None`: it cannot be read.
    pub(in crate::controller) fn of(
        context: &Context,
        metadata: &ObjectMeta,
        status: Option<&DataLayerStatus>,
    ) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let identity = LayerIdentity {
            uid: text(&metadata.uid),
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
        };
        let children = children(&context.stores, &identity);
        let at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let fingerprints = context.writer.fingerprints();
        let is_untouched = |workload: &StatefulSet| fingerprints.is_untouched(&key_of(workload), workload);
        let mut observed = children.observed(&identity, at, is_untouched, digest);
        observed.handover = context.handovers.is_under_way(&identity.uid);
        observed.initialised |= status.is_some_and(is_initialised);
        Self { identity, children, observed }
    }

    /// Adds the Secrets, which no watch shows.
    pub(in crate::controller) async fn with_secrets(self, context: &Context) -> Result<LayerFacts, Request> {
        let Self { identity, children, observed } = self;
        let secrets = Secrets::read(context, &identity).await?;
        let resolved = Resolved::of(&children, &context.defaults);
        let defaults = context.defaults.clone();
        Ok(LayerFacts { identity, children, observed, secrets, resolved, defaults })
    }
}

/// Whether a status says that the layer was found as declared. Its objects are marked before it is told Ready; the status keeps the
/// mark where all of them are deleted together.
fn is_initialised(status: &DataLayerStatus) -> bool {
    let ready = status.conditions.iter().find(|known| known.type_ == ConditionKind::Ready);
    status.initialised == Some(true) || ready.is_some_and(|ready| ready.status == "True" || ready.reason == RECORDING)
}

/// What Kubernetes has of a layer.
pub(in crate::controller) struct LayerFacts {
    pub(in crate::controller) identity: LayerIdentity,
    pub(in crate::controller) children: Children,
    /// What the watches show, in the planner's words; no server was asked yet.
    pub(in crate::controller) observed: Observed,
    pub(in crate::controller) secrets: Secrets,
    /// Defaults that are recorded on the layer's objects.
    pub(in crate::controller) resolved: Resolved,
    defaults: Defaults,
}

/// A layer that a pass can be made over, and what is wrong with its present specification.
pub(in crate::controller) struct AcceptedLayer {
    pub(in crate::controller) layer: ValidatedLayer,
    /// The object with the specification that `layer` was made from.
    pub(in crate::controller) object: DataLayer,
    /// Faults of the present specification, where an earlier one is gone on with.
    pub(in crate::controller) faults: Vec<Fault>,
}

impl LayerFacts {
    /// Everything that Kubernetes has of the layer. `status`: of the layer; `None`: it cannot be read.
    pub(in crate::controller) async fn observe(
        context: &Context,
        metadata: &ObjectMeta,
        status: Option<&DataLayerStatus>,
    ) -> Result<Self, Request> {
        Objects::of(context, metadata, status).with_secrets(context).await
    }

    /// The layer as it is declared, or, where that is wrong, as it was accepted last. An error: it never was.
    pub(in crate::controller) fn judge(&self, object: &DataLayer) -> Result<AcceptedLayer, Vec<Fault>> {
        match validate(object, &self.resolved.for_validation(&self.defaults)) {
            Ok(layer) => Ok(AcceptedLayer { layer, object: object.clone(), faults: Vec::new() }),
            Err(faults) => match self.earlier(&object.metadata) {
                Some(accepted) => Ok(AcceptedLayer { faults, ..accepted }),
                None => Err(faults),
            },
        }
    }

    /// The layer as it was accepted last.
    pub(in crate::controller) fn earlier(&self, metadata: &ObjectMeta) -> Option<AcceptedLayer> {
        let object = specification::earlier(metadata, self.secrets.system.as_ref())?;
        let layer = validate_accepted(&object, &self.resolved.for_validation(&self.defaults)).ok()?;
        Some(AcceptedLayer { layer, object, faults: Vec::new() })
    }

    /// Every node's address: its Service's, or the one that a Service which is gone had and gets again.
    pub(in crate::controller) fn addresses(&self, declared: &[NodeId]) -> BTreeMap<NodeId, Address> {
        let live = self.observed.nodes.iter().filter_map(|(node, seen)| Some((*node, seen.address.clone()?)));
        let mut addresses = self.children.announced.clone();
        // Documents of yesterday name nodes that are gone.
        addresses.retain(|node, _| declared.contains(node) || self.observed.nodes.contains_key(node));
        addresses.extend(live);
        addresses
    }

    /// The layer's passwords. Only a Secret that belongs to this very layer is believed.
    pub(in crate::controller) fn passwords(&self, context: &Context) -> Passwords {
        let ours = |secret: &&Secret| secret.owner_references().iter().any(|owner| owner.uid == self.identity.uid);
        let Secrets { system, application, administrator } = &self.secrets;
        let [system, application, administrator] =
            [system, application, administrator].map(|secret| secret.as_ref().filter(ours));
        context.passwords.passwords(&self.identity.uid, PasswordSecrets { system, application, administrator })
    }
}

/// The layer's Secrets as they are.
pub(in crate::controller) struct Secrets {
    pub(in crate::controller) system: Option<Secret>,
    pub(in crate::controller) application: Option<Secret>,
    pub(in crate::controller) administrator: Option<Secret>,
}

impl Secrets {
    async fn read(context: &Context, layer: &LayerIdentity) -> Result<Self, Request> {
        let read = async |name: String| {
            context.secrets.read(&context.client, &layer.namespace, &name, SECRETS_CACHED_FOR).await
        };
        Ok(Self {
            system: read(names::system_secret(&layer.name)).await?,
            application: read(names::application_secret(&layer.name)).await?,
            administrator: read(names::administrator_secret(&layer.name)).await?,
        })
    }

    pub(in crate::controller) fn live(&self, name: &str) -> Option<&Secret> {
        [&self.system, &self.application, &self.administrator]
            .into_iter()
            .flatten()
            .find(|secret| secret.name_any() == name)
    }
}
