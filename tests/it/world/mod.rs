//! A small model of the world that the planner plans for: Kubernetes' objects and controllers, agents with the real boot
//! rule, data servers, Sentinels. One tick is one second. Knows nothing of the planner but its steps.

pub mod act;
mod data;
mod kubernetes;
pub mod monkey;
mod observe;
mod sentinels;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use redoubt::model::desired::{Desired, DesiredLibrary, DesiredNode, PromotionRequest, SentinelSettings};
use redoubt::model::lineage::Lineage;
use redoubt::model::{Address, LayerIdentity, NodeId, NodeKind, PodRole};
use redoubt::plan::{Plan, Promotion, Step, plan};

pub use data::{Boot, Data};
pub use sentinels::{Sentinel, SentinelView};

/// Seconds of silence after which a Sentinel takes its primary for down.
pub const DETECTION: u64 = 5;
/// Seconds of `failover-timeout`.
pub const FAILOVER_TIMEOUT: u64 = 15;
/// Objects that need no order, in the order in which a pass applies them; pods mount the first.
pub const STATIC: [&str; 6] =
    ["Secret system", "Secret app", "Service primary", "Service replicas", "Service sentinels", "PodDisruptionBudget"];
/// Images of this revision and above do not exist.
pub const FIRST_BAD_REVISION: u8 = 100;
/// Pods of this revision are refused: by a quota, say.
pub const REFUSED_REVISION: u8 = 50;

/// What a person wants.
#[derive(Clone, Debug)]
pub struct Specification {
    pub data: u16,
    pub sentinels: u16,
    pub revision: u8,
    pub setting: u8,
    pub needs_approval: bool,
    pub paused: bool,
    pub accept_loss: Option<u16>,
    /// The data node that a person asks to make primary.
    pub promote: Option<u16>,
}

/// What a node is told of the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub nodes: BTreeMap<NodeId, Address>,
    pub initialised: bool,
    pub accept_loss: Option<u16>,
    pub setting: u8,
    pub quorum: u16,
}

/// A StatefulSet as built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub revision: u8,
    pub document: Document,
}

#[derive(Clone, Debug)]
pub struct Workload {
    pub uid: String,
    pub built: Built,
    /// Restarts that were asked for by name.
    pub restarts: BTreeMap<String, String>,
    pub edited: bool,
    pub deleting: bool,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: String,
    pub built: Built,
    pub restarts: BTreeMap<String, String>,
    pub deleting: bool,
    /// Whether the kubelet has told it to stop.
    pub stopped: bool,
    pub reads: bool,
    pub role: Option<PodRole>,
    pub server: Option<Server>,
}

/// What runs in a pod.
#[derive(Clone, Debug)]
pub enum Server {
    Booting(Boot),
    Data(Data),
    Sentinel(Sentinel),
}

/// What outlives a pod.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    pub lineage: Option<Lineage>,
    pub library: bool,
    pub stray: bool,
    pub memory: Option<SentinelView>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub time: u64,
    pub specification: Specification,
    pub services: BTreeMap<NodeId, Address>,
    pub workloads: BTreeMap<NodeId, Workload>,
    pub pods: BTreeMap<NodeId, Pod>,
    /// Since when a StatefulSet has no pod.
    pub missing_since: BTreeMap<NodeId, u64>,
    /// Since when a StatefulSet has no ready pod.
    pub away_since: BTreeMap<NodeId, u64>,
    pub volumes: BTreeMap<NodeId, Volume>,
    /// Those of [`STATIC`] that are there.
    pub statics: BTreeSet<&'static str>,
    pub primary_service: Option<NodeId>,
    /// What status has recorded.
    pub was_ready: bool,
    /// Writes of the operator so far: objects, the primary's Service, steps, the record of having been Ready.
    pub effects: usize,
    /// Nodes whose machine is cut from everybody.
    pub cut: BTreeSet<NodeId>,
    /// Nodes that do not answer the operator in its next pass.
    pub mute: BTreeSet<NodeId>,
    /// StatefulSets that were ever built, by digest: what a step applies.
    pub built: BTreeMap<String, Built>,
    /// Nodes that are away by the operator's hand.
    pub away: BTreeSet<NodeId>,
    /// What the operator must never do, and did.
    pub violations: Vec<String>,
    pub counter: u64,
}

impl World {
    pub fn new(data: u16, sentinels: u16) -> Self {
        Self {
            time: 1_000,
            specification: Specification {
                data,
                sentinels,
                revision: 1,
                setting: 1,
                needs_approval: false,
                paused: false,
                accept_loss: None,
                promote: None,
            },
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            pods: BTreeMap::new(),
            missing_since: BTreeMap::new(),
            away_since: BTreeMap::new(),
            volumes: BTreeMap::new(),
            statics: BTreeSet::new(),
            primary_service: None,
            was_ready: false,
            effects: 0,
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            built: BTreeMap::new(),
            away: BTreeSet::new(),
            violations: Vec::new(),
            counter: 0,
        }
    }

    /// A world in which the operator has done all it had to.
    pub fn converged(data: u16, sentinels: u16) -> Self {
        let mut world = Self::new(data, sentinels);
        assert!(world.run_until_converged(300).is_some(), "a new layer does not come up: {:?}", world.plan());
        world
    }

    pub fn fresh(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}", self.counter)
    }

    pub fn declared(&self) -> Vec<NodeId> {
        let Specification { data, sentinels, .. } = self.specification;
        (0..data).map(NodeId::data).chain((0..sentinels).map(NodeId::sentinel)).collect()
    }

    /// Addresses as the controller knows them: of Services, and those that documents name of nodes that are still there.
    pub fn addresses(&self) -> BTreeMap<NodeId, Address> {
        let declared = self.declared();
        let is_there = |node: &NodeId| {
            declared.contains(node)
                || self.services.contains_key(node)
                || self.workloads.contains_key(node)
                || self.pods.contains_key(node)
        };
        let documents = self.workloads.values().map(|known| &known.built.document);
        let documents = documents.chain(self.pods.values().map(|pod| &pod.built.document));
        let mut addresses: BTreeMap<NodeId, Address> = BTreeMap::new();
        for document in documents {
            addresses.extend(document.nodes.iter().map(|(node, address)| (*node, address.clone())));
        }
        addresses.retain(|node, _| is_there(node));
        addresses.extend(self.services.iter().map(|(node, address)| (*node, address.clone())));
        addresses
    }

    /// Those that documents name: a Sentinel that is to go is introduced to nobody.
    fn named(&self) -> BTreeMap<NodeId, Address> {
        let declared = self.declared();
        let mut named = self.addresses();
        named.retain(|node, _| node.kind == NodeKind::Data || declared.contains(node));
        named
    }

    pub fn quorum(&self) -> u16 {
        self.specification.sentinels / 2 + 1
    }

    /// What `build` makes of the specification.
    pub fn wanted(&self) -> Built {
        Built {
            revision: self.specification.revision,
            document: Document {
                nodes: self.named(),
                initialised: self.was_ready,
                accept_loss: self.specification.accept_loss,
                setting: self.specification.setting,
                quorum: self.quorum(),
            },
        }
    }

    pub fn desired(&self) -> Desired {
        let wanted = self.wanted();
        let node = DesiredNode {
            workload_digest: wanted.digest(),
            restart_revision: wanted.revision.to_string(),
            config_digest: wanted.document.digest(),
        };
        Desired {
            in_cluster: false,
            layer: LayerIdentity { uid: "uid".into(), namespace: "shop".into(), name: "web".into() },
            generation: 1,
            paused: self.specification.paused,
            engine: None,
            reads_files: true,
            disruption_needs_approval: self.specification.needs_approval,
            nodes: self.declared().into_iter().map(|id| (id, node.clone())).collect(),
            settings: BTreeMap::from([("setting".to_owned(), self.specification.setting.to_string())]),
            start_only: BTreeSet::new(),
            users: BTreeMap::new(),
            sentinel_users: BTreeMap::new(),
            libraries: BTreeMap::from([("library".to_owned(), DesiredLibrary { digest: "digest".to_owned() })]),
            kept_libraries: BTreeSet::new(),
            gathering: false,
            sentinel_settings: SentinelSettings {
                quorum: self.quorum(),
                detection: Duration::from_secs(DETECTION),
                failover_timeout: Duration::from_secs(FAILOVER_TIMEOUT),
                parallel_syncs: 1,
            },
            master_name: "web-uid".to_owned(),
            promotion: self.specification.promote.map(|ordinal| PromotionRequest {
                node: Some(NodeId::data(ordinal)).filter(|node| self.declared().contains(node)),
                failed: None,
            }),
        }
    }

    pub fn plan(&self) -> Plan {
        plan(&self.desired(), &self.observed())
    }

    /// One second of everybody but the operator.
    pub fn tick(&mut self) {
        self.time += 1;
        self.tick_kubernetes();
        self.tick_data();
        self.tick_sentinels();
        self.note_absences();
        let declared = self.declared();
        // One that is no longer declared is counted on by nobody: it is away only while it leaves.
        let is_back = |node: &NodeId| {
            (self.is_ready(*node) || !declared.contains(node))
                && self.pods.get(node).is_some_and(|pod| !pod.deleting)
                && self.workloads.get(node).is_some_and(|workload| !workload.deleting)
        };
        let back: Vec<NodeId> =
            self.away.iter().copied().filter(|node| is_back(node) || !self.workloads.contains_key(node)).collect();
        for node in back {
            self.away.remove(&node);
        }
    }

    /// One pass of the operator, which ends for good after so many side effects, and a second of everybody else.
    pub fn round(&mut self, effects: usize) -> Plan {
        let plan = self.plan();
        let faults = redoubt::plan::lint::lint(&self.desired(), &plan);
        self.violations.extend(faults.into_iter().map(|fault| format!("{fault}: {plan:?}")));
        let is_idle = plan.steps.is_empty() && plan.waiting.is_empty() && plan.refused.is_empty();
        self.answer(&plan);
        self.remember_built();
        let last = self.effects.saturating_add(effects);
        if !self.specification.paused {
            self.apply_statics(last);
            // What a pass leaves undone the next one does: only one that was not cut short has to have done everything.
            if is_idle && self.effects < last && !self.is_as_declared() {
                self.violations.push("neither converged nor explained".to_owned());
            }
            for step in &plan.steps {
                if self.effects < last {
                    self.effects += 1;
                    self.carry_out(step);
                }
            }
        }
        if is_idle && !self.was_ready && self.effects < last {
            self.effects += 1;
            self.was_ready = true;
        }
        self.mute.clear();
        self.tick();
        plan
    }

    /// What status remembers of a request to move the primary.
    fn answer(&mut self, plan: &Plan) {
        let Some(ordinal) = self.specification.promote else { return };
        match &plan.promotion {
            Some(Promotion::Done) if !self.is_primary(NodeId::data(ordinal)) => {
                self.violations.push(format!("redis-{ordinal} is called primary and is none"));
            }
            Some(Promotion::Done | Promotion::Impossible(_) | Promotion::Failed(_)) => {
                self.specification.promote = None;
            }
            Some(Promotion::Held(_) | Promotion::Begins) => {}
            None => self.violations.push("a request is not answered".to_owned()),
        }
    }

    fn apply_statics(&mut self, last: usize) {
        for object in STATIC {
            if self.effects < last && self.statics.insert(object) {
                self.effects += 1;
            }
        }
    }

    /// Rounds until the world is as desired, `limit` at most; how many it took.
    pub fn run_until_converged(&mut self, limit: u64) -> Option<u64> {
        (0..limit).find(|_| {
            if self.is_converged() && self.plan().steps.is_empty() {
                return true;
            }
            self.round(usize::MAX);
            false
        })
    }

    /// What a step would apply.
    pub fn remember_built(&mut self) {
        let wanted = self.wanted();
        self.built.insert(wanted.digest(), wanted);
    }

    /// Whether everything is as the specification says, and recorded as having been so.
    pub fn is_converged(&self) -> bool {
        self.was_ready && self.is_as_declared()
    }

    /// Whether everything is as the specification says, by the world's own facts and not by the planner's.
    pub fn is_as_declared(&self) -> bool {
        let declared: BTreeSet<NodeId> = self.declared().into_iter().collect();
        let keys = |nodes: Vec<NodeId>| nodes.into_iter().collect::<BTreeSet<_>>() == declared;
        let are_exact = keys(self.services.keys().copied().collect())
            && keys(self.workloads.keys().copied().collect())
            && keys(self.pods.keys().copied().collect());
        let wanted = self.wanted();
        let are_built = self.workloads.values().all(|known| known.built == wanted && !known.edited && !known.deleting);
        let restarts = |node: &NodeId| self.workloads.get(node).map(|known| &known.restarts);
        let are_run = self
            .pods
            .iter()
            .all(|(node, pod)| pod.built == wanted && !pod.deleting && restarts(node) == Some(&pod.restarts));
        let primaries: Vec<NodeId> = self.pods.keys().copied().filter(|node| self.is_primary(*node)).collect();
        let [primary] = primaries.as_slice() else { return false };
        let data = declared.iter().filter(|node| node.kind == NodeKind::Data);
        let follow = data.into_iter().all(|node| {
            self.data(*node)
                .is_some_and(|data| data.setting == self.specification.setting && data.library && !data.stray)
                && (node == primary || self.is_linked(*node, *primary))
        });
        self.cut.is_empty()
            && self.mute.is_empty()
            && are_exact
            && are_built
            && are_run
            && follow
            && self.primary_service == Some(*primary)
            && self.statics.len() == STATIC.len()
            && self.pods.iter().all(|(id, pod)| id.kind == NodeKind::Sentinel || pod.reads == (id != primary))
            && self.pods.iter().all(|(id, pod)| pod.role == Some(role(*id, *primary)))
            && declared.iter().filter(|id| id.kind == NodeKind::Sentinel).all(|id| self.knows_exactly(*id, *primary))
            && !self.specification.paused
    }

    /// The pod's server, if anybody can reach it.
    pub fn server(&self, node: NodeId) -> Option<&Server> {
        self.pods.get(&node)?.server.as_ref().filter(|_| !self.cut.contains(&node))
    }

    /// The node that answers at an address, for one who asks from `from`.
    pub fn reach(&self, from: NodeId, address: &Address) -> Option<NodeId> {
        let (owner, _) = self.services.iter().find(|(_, known)| *known == address)?;
        let is_open = *owner == from || !self.cut.contains(&from);
        self.server(*owner).filter(|_| is_open).map(|_| *owner)
    }
}

impl Document {
    pub fn digest(&self) -> String {
        hash(self)
    }

    pub fn of_kind(&self, kind: NodeKind) -> impl Iterator<Item = (NodeId, &Address)> {
        self.nodes.iter().filter(move |(node, _)| node.kind == kind).map(|(node, address)| (*node, address))
    }
}

impl Built {
    pub fn digest(&self) -> String {
        hash(self)
    }
}

fn hash(value: &impl std::fmt::Debug) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{value:?}").hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// What the label of a pod's role should say.
const fn role(node: NodeId, primary: NodeId) -> PodRole {
    match node.kind {
        NodeKind::Sentinel => PodRole::Sentinel,
        NodeKind::Data if node.ordinal == primary.ordinal => PodRole::Primary,
        NodeKind::Data => PodRole::Replica,
    }
}

/// Whether a step takes a pod away.
pub fn takes_away(step: &Step) -> bool {
    matches!(step, Step::RestartPod { .. } | Step::RemoveNode { workload_uid: Some(_), .. })
}
