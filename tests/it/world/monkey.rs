//! What goes wrong, and what people change their minds about.

use proptest::prelude::*;
use redoubt::model::{NodeId, NodeKind};
use redoubt::plan::Plan;

use super::data::Boot;
use super::{FIRST_BAD_REVISION, REFUSED_REVISION, Server, World};

/// One event of a history.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Rounds of a healthy operator.
    Rounds(u8),
    /// The operator dies after so many steps of its pass.
    Crash(u8),
    /// The operator is away for so many seconds.
    Absent(u8),
    KillEngine(u8),
    DeletePod(u8),
    DeleteService(u8),
    DeleteWorkload(u8),
    EditWorkload(u8),
    /// `kubectl rollout restart`.
    RestartWorkload(u8),
    /// A machine loses its network.
    Cut(u8),
    /// All machines have it again.
    Mend,
    /// A node does not answer the operator's next pass.
    Mute(u8),
    /// A pod is deleted and its volume with it.
    LoseVolume(u8),
    /// All Sentinels' pods are deleted.
    StopSentinels,
    /// Steps of an earlier pass are carried out now.
    Stale,
    Revision(u8),
    BadRevision,
    /// A revision whose pods are refused.
    RefusedRevision,
    Setting(u8),
    Scale(u16, u16),
    Approval(bool),
    Pause(bool),
    /// A person asks for a primary.
    Promote(u16),
}

/// Events, quiet ones more often.
pub fn event() -> impl Strategy<Value = Event> {
    let node = || 0..16_u8;
    prop_oneof![
        6 => (1..40_u8).prop_map(Event::Rounds),
        1 => (0..4_u8).prop_map(Event::Crash),
        1 => (1..30_u8).prop_map(Event::Absent),
        1 => node().prop_map(Event::KillEngine),
        1 => node().prop_map(Event::DeletePod),
        1 => node().prop_map(Event::DeleteService),
        1 => node().prop_map(Event::DeleteWorkload),
        1 => node().prop_map(Event::EditWorkload),
        1 => node().prop_map(Event::RestartWorkload),
        1 => node().prop_map(Event::Cut),
        1 => Just(Event::Mend),
        1 => node().prop_map(Event::Mute),
        1 => node().prop_map(Event::LoseVolume),
        1 => Just(Event::StopSentinels),
        2 => Just(Event::Stale),
        2 => (1..4_u8).prop_map(Event::Revision),
        1 => Just(Event::BadRevision),
        1 => Just(Event::RefusedRevision),
        1 => (1..4_u8).prop_map(Event::Setting),
        2 => (2..5_u16, prop::sample::select(vec![3_u16, 5])).prop_map(|(data, sentinels)| Event::Scale(data, sentinels)),
        1 => any::<bool>().prop_map(Event::Approval),
        1 => any::<bool>().prop_map(Event::Pause),
        2 => (0..5_u16).prop_map(Event::Promote),
    ]
}

/// A history: the layer's size, and what happens.
pub fn history(longest: usize) -> impl Strategy<Value = ((u16, u16), Vec<Event>)> {
    let size = (2..5_u16, prop::sample::select(vec![3_u16, 5]));
    (size, prop::collection::vec(event(), 0..longest))
}

/// A world with a past.
#[derive(Clone, Debug)]
pub struct Past {
    pub world: World,
    /// The last passes' plans.
    plans: Vec<Plan>,
}

impl Past {
    pub fn new(world: World) -> Self {
        Self { world, plans: Vec::new() }
    }

    fn round(&mut self, steps: usize) {
        let plan = self.world.round(steps);
        if !plan.steps.is_empty() {
            self.plans.push(plan);
        }
    }

    fn nth(&self, index: u8) -> Option<NodeId> {
        let nodes: Vec<NodeId> = self.world.pods.keys().copied().collect();
        nodes.get(usize::from(index).checked_rem(nodes.len())?).copied()
    }

    pub fn apply_event(&mut self, event: Event) {
        match event {
            Event::Rounds(rounds) => (0..rounds).for_each(|_| self.round(usize::MAX)),
            Event::Crash(after) => self.round(usize::from(after)),
            Event::Absent(seconds) => (0..seconds).for_each(|_| self.world.tick()),
            Event::StopSentinels => {
                let pods = self.world.pods.iter_mut();
                pods.filter(|(node, _)| node.kind == NodeKind::Sentinel).for_each(|(_, pod)| pod.deleting = true);
            }
            Event::Mend => self.world.cut.clear(),
            Event::Stale => {
                let steps = self.plans.iter().rev().nth(1).map(|plan| plan.steps.clone()).unwrap_or_default();
                for step in &steps {
                    self.world.carry_out(step);
                }
            }
            Event::Revision(revision) => self.world.specification.revision = revision,
            Event::BadRevision => self.world.specification.revision = FIRST_BAD_REVISION,
            Event::RefusedRevision => self.world.specification.revision = REFUSED_REVISION,
            Event::Setting(setting) => self.world.specification.setting = setting,
            Event::Scale(data, sentinels) => {
                (self.world.specification.data, self.world.specification.sentinels) = (data, sentinels);
            }
            Event::Approval(needed) => self.world.specification.needs_approval = needed,
            Event::Pause(paused) => self.world.specification.paused = paused,
            Event::Promote(ordinal) => self.world.specification.promote = Some(ordinal),
            Event::KillEngine(index)
            | Event::DeletePod(index)
            | Event::DeleteService(index)
            | Event::DeleteWorkload(index)
            | Event::EditWorkload(index)
            | Event::RestartWorkload(index)
            | Event::Cut(index)
            | Event::Mute(index)
            | Event::LoseVolume(index) => {
                if let Some(node) = self.nth(index) {
                    hit(&mut self.world, event, node);
                }
            }
        }
    }

    /// Faults cease: networks are whole, images exist, people approve.
    pub fn stable(mut self) -> World {
        let world = &mut self.world;
        world.cut.clear();
        world.specification.needs_approval = false;
        world.specification.paused = false;
        if world.specification.revision >= REFUSED_REVISION {
            world.specification.revision = 1;
        }
        self.world
    }
}

fn hit(world: &mut World, event: Event, node: NodeId) {
    let time = world.time;
    match event {
        Event::KillEngine(_) => {
            if let Some(pod) = world.pods.get_mut(&node)
                && pod.server.is_some()
            {
                pod.server = (node.kind == NodeKind::Data).then(|| Server::Booting(Boot::begin(time)));
            }
        }
        Event::DeletePod(_) => world.pods.get_mut(&node).into_iter().for_each(|pod| pod.deleting = true),
        Event::DeleteService(_) => drop(world.services.remove(&node)),
        Event::DeleteWorkload(_) => {
            world.workloads.get_mut(&node).into_iter().for_each(|workload| workload.deleting = true);
        }
        Event::EditWorkload(_) => {
            world.workloads.get_mut(&node).into_iter().for_each(|workload| workload.edited = true);
        }
        Event::RestartWorkload(_) => {
            let at = time.to_string();
            let workload = world.workloads.get_mut(&node).into_iter();
            workload.for_each(|workload| drop(workload.restarts.insert("restarted".to_owned(), at.clone())));
        }
        Event::Cut(_) => drop(world.cut.insert(node)),
        Event::Mute(_) => drop(world.mute.insert(node)),
        Event::LoseVolume(_) => {
            // The loss of the last copy needs a person: no history of this model has it.
            let others = world.volumes.iter().filter(|(id, _)| **id != node && id.kind == NodeKind::Data);
            let is_kept = others.filter(|(id, _)| world.is_ready(**id)).count() > 0;
            if is_kept && world.was_ready {
                world.pods.remove(&node);
                world.volumes.remove(&node);
            }
        }
        _ => {}
    }
}
