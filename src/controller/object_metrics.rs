//! What the status of each layer and use says, as metrics of the leader: read from the watches when Prometheus asks, so nothing has
//! to be kept, and what is deleted is gone from the next answer.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::runtime::reflector::Store;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use super::watches::{WatchedLayer, WatchedUse};
use crate::api::data_layer::DataPurpose;

/// The metrics, in the order of their names and labels.
const METRICS: [(&str, &str, &[&str]); 5] = [
    (
        "redoubt_condition",
        "State of a condition of an object: 1 true, 0 false, -1 unknown.",
        &["kind", "namespace", "name", "condition"],
    ),
    (
        "redoubt_generations_unobserved",
        "Changes of an object's specification that its status does not speak of yet.",
        &["kind", "namespace", "name"],
    ),
    (
        "redoubt_unreadable",
        "1 for each object that is stored in a form that cannot be read.",
        &["kind", "namespace", "name"],
    ),
    (
        "redoubt_layer_info",
        "1 for each layer, with its mode, what it is for, its primary and the version of its servers.",
        &["namespace", "name", "mode", "purpose", "primary", "version"],
    ),
    (
        "redoubt_use_info",
        "1 for each use, with the layer that it names.",
        &["kind", "namespace", "name", "layer_namespace", "layer"],
    ),
];

/// Answers for the objects of these watches.
#[derive(Clone)]
pub(super) struct ObjectMetrics {
    layers: Store<WatchedLayer>,
    uses: Vec<Store<WatchedUse>>,
    descriptions: Vec<Desc>,
}

impl ObjectMetrics {
    /// Of layers and of uses of every kind.
    pub(super) fn new(layers: Store<WatchedLayer>, uses: Vec<Store<WatchedUse>>) -> Result<Self, prometheus::Error> {
        let describe = |(name, help, labels): (&str, &str, &[&str])| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        Ok(Self { layers, uses, descriptions: METRICS.into_iter().map(describe).collect::<Result<_, _>>()? })
    }
}

impl Collector for ObjectMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A name that Prometheus refuses would be refused by `new` already.
        let Ok(gauges) = ObjectGauges::new() else { return Vec::new() };
        for layer in self.layers.state() {
            gauges.layer(&layer);
        }
        for used in self.uses.iter().flat_map(Store::state) {
            gauges.used(&used);
        }
        gauges.families()
    }
}

struct ObjectGauges {
    conditions: IntGaugeVec,
    unobserved: IntGaugeVec,
    unreadable: IntGaugeVec,
    layers: IntGaugeVec,
    uses: IntGaugeVec,
}

impl ObjectGauges {
    fn new() -> Result<Self, prometheus::Error> {
        let [conditions, unobserved, unreadable, layers, uses] =
            METRICS.map(|(name, help, labels)| IntGaugeVec::new(Opts::new(name, help), labels));
        Ok(Self {
            conditions: conditions?,
            unobserved: unobserved?,
            unreadable: unreadable?,
            layers: layers?,
            uses: uses?,
        })
    }

    fn layer(&self, watched: &WatchedLayer) {
        let layer = match &watched.0 {
            Ok(layer) => layer,
            Err(invalid) => return self.unreadable("DataLayer", &invalid.metadata),
        };
        let status = layer.status.clone().unwrap_or_default();
        self.object("DataLayer", &layer.metadata, &status.conditions, status.observed_generation);
        let (namespace, name) = place(&layer.metadata);
        let mode = layer.spec.mode.word();
        let purpose = layer.spec.purpose.unwrap_or(DataPurpose::Mixed).word();
        let (primary, version) = (status.primary.unwrap_or_default(), status.version.unwrap_or_default());
        self.layers.with_label_values(&[namespace, name, mode, purpose, &primary, &version]).set(1);
    }

    fn used(&self, watched: &WatchedUse) {
        let kind = watched.kind().words().kind;
        let declared = match &watched.0 {
            Ok(declared) => declared,
            Err(unreadable) => return self.unreadable(kind, &unreadable.metadata),
        };
        let status = declared.status.clone().unwrap_or_default();
        self.object(kind, &declared.metadata, &status.conditions, status.observed_generation);
        let (namespace, name) = place(&declared.metadata);
        let (layer_namespace, layer) = watched.layer().unwrap_or_default();
        self.uses.with_label_values(&[kind, namespace, name, &layer_namespace, &layer]).set(1);
    }

    fn object(&self, kind: &str, metadata: &ObjectMeta, conditions: &[Condition], observed: Option<i64>) {
        let (namespace, name) = place(metadata);
        for condition in conditions {
            let value = match condition.status.as_str() {
                "True" => 1,
                "False" => 0,
                _ => -1,
            };
            self.conditions.with_label_values(&[kind, namespace, name, &condition.type_]).set(value);
        }
        let behind = metadata.generation.unwrap_or_default() - observed.unwrap_or_default();
        self.unobserved.with_label_values(&[kind, namespace, name]).set(behind.max(0));
    }

    fn unreadable(&self, kind: &str, metadata: &ObjectMeta) {
        let (namespace, name) = place(metadata);
        self.unreadable.with_label_values(&[kind, namespace, name]).set(1);
    }

    fn families(&self) -> Vec<MetricFamily> {
        let all = [&self.conditions, &self.unobserved, &self.unreadable, &self.layers, &self.uses];
        all.into_iter().flat_map(Collector::collect).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn place(metadata: &ObjectMeta) -> (&str, &str) {
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}
