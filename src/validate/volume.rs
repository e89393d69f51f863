//! The data nodes' volumes. Their size is decided once: a StatefulSet's claims cannot be changed.

use super::{Fault, quantity};
use crate::api::data_layer::{DataLayerSpec, Reclaim};
use crate::model::memory::MemoryPlan;

/// Size and class of a data node's volume. It is made once and never resized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes that the claim asks for.
    pub size: u64,
    /// Class; `None`: the cluster's default.
    pub storage_class: Option<String>,
    /// Whether the claim outlives the layer.
    pub retain: bool,
}

/// `quantity_rules::LEAST_VOLUME`, bytes.
const LEAST: u64 = 64 << 20;

impl Volume {
    /// What is wrong with a volume that cannot hold the data: the append-only file and the one that it is rewritten into, each as large
    /// as `maxmemory`. `made_with`: the volumes that the data nodes have.
    pub(super) fn too_small(&self, made_with: DataVolumes, keeps_data: bool, memory: MemoryPlan) -> Option<Fault> {
        let needed = memory.maxmemory.saturating_mul(2);
        // Of one without its unit the rule of admission says more.
        if !keeps_data || self.size >= needed || self.size < LEAST {
            return None;
        }
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let why = format!(
            "maxmemory is {}Mi, and the files of the data are twice as large while they are rewritten",
            mebibytes(memory.maxmemory)
        );
        Some(match made_with {
            DataVolumes::Of(size) => {
                let problem = format!("the volumes have {}Mi and cannot grow: {why}; lower it", size >> 20);
                fault("spec.memory.limit", &problem)
            }
            DataVolumes::Undecided | DataVolumes::Without => {
                let problem =
                    format!("{}Mi are too few: {why}; write {}Mi or more", self.size >> 20, mebibytes(needed));
                fault(SIZE, &problem)
            }
        })
    }
}

/// The volumes that a layer's data nodes were made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataVolumes {
    /// They are not made yet.
    #[default]
    Undecided,
    /// None: the data goes with the pod.
    Without,
    /// Of this size, bytes.
    Of(u64),
}

impl DataVolumes {
    /// What to record of a layer: what was decided before, or what is decided now.
    #[must_use]
    pub(crate) fn or_decide(self, volume: Option<&Volume>) -> Self {
        match self {
            Self::Undecided => volume.map_or(Self::Without, |volume| Self::Of(volume.size)),
            decided => decided,
        }
    }
}

/// The volume of each data node. `keeps_data`: whether the specification asks for any persistence.
pub(super) fn decide(
    spec: &DataLayerSpec,
    made_with: DataVolumes,
    keeps_data: bool,
    memory: MemoryPlan,
    faults: &mut Vec<Fault>,
) -> Option<Volume> {
    let volume = spec.persistence.clone().unwrap_or_default().volume.unwrap_or_default();
    let asked = match volume.size.as_ref().map(|size| (size, quantity::parse(&size.0, 1))) {
        None => None,
        Some((_, Some(size))) if size > 0 => Some(size),
        Some((size, _)) => {
            faults.push(fault(SIZE, &super::not_bytes(&size.0)));
            return None;
        }
    };
    let size = match made_with {
        // Room for the data twice, while the append-only file is rewritten, and as much again for what grows meanwhile.
        DataVolumes::Undecided if keeps_data => asked.unwrap_or_else(|| memory.limit.saturating_mul(4).max(1 << 30)),
        DataVolumes::Undecided => return None,
        DataVolumes::Without => {
            if keeps_data {
                let problem = "cannot be switched on: the layer's pods were made without volumes; make a new layer";
                faults.push(fault("spec.persistence", problem));
            }
            return None;
        }
        // Kept although nothing may be written to it any more: pods without it cannot be made under the same StatefulSet.
        DataVolumes::Of(size) => {
            if let Some(problem) = asked.and_then(|asked| difference(asked, size)) {
                faults.push(fault(SIZE, &problem));
            }
            size
        }
    };
    Some(Volume { size, storage_class: volume.storage_class_name, retain: volume.reclaim != Some(Reclaim::Delete) })
}

const SIZE: &str = "spec.persistence.volume.size";

fn fault(field: &'static str, problem: &str) -> Fault {
    Fault { field, problem: problem.to_owned() }
}

/// Why volumes of `size` bytes cannot become volumes of `asked` bytes.
fn difference(asked: u64, size: u64) -> Option<String> {
    match asked.cmp(&size) {
        std::cmp::Ordering::Less => Some(format!("the volumes have {size} bytes and cannot shrink to {asked}")),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => {
            Some(format!("the volumes have {size} bytes; growing to {asked} is not implemented in this version"))
        }
    }
}
