//! A primary that runs while another data node serves as one too, or while the Sentinels name one that is silent
//! ([`crate::model::boot::rivalry`]).
//!
//! Sentinels that lost what they knew name one of the two, and know nothing of the other that they could demote.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::boot::LayerPoll;
use super::state::State;
use crate::model::boot::{Rivalry, WaitReason, prevailing};
use crate::model::lineage::{Activity, Lineage, LineageAnswer};
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Role};

/// Between two polls of the other data nodes.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// The same while another primary serves.
const POLL_RIVAL_EVERY: Duration = Duration::from_secs(1);

/// What is followed of other primaries.
#[derive(Default)]
pub(super) struct Rivals {
    polled: Option<Instant>,
    /// While another primary serves, or is named and silent: since when, and what was heard.
    poll: Option<LayerPoll>,
    needs_person: bool,
    tells_sentinels: bool,
}

impl Rivals {
    /// Whether the node waits for a person's decision, though it serves.
    pub(super) const fn needs_person(&self) -> bool {
        self.needs_person
    }

    /// Whether the Sentinels are to be told that this node is the primary.
    pub(super) const fn tells_sentinels(&self) -> bool {
        self.tells_sentinels
    }

    /// Looks if it is time to, at a node whose engine runs as primary: why that engine is to end.
    pub(super) async fn reason_to_step_down(&mut self, state: &State) -> Option<&'static str> {
        let every = if self.poll.is_some() { POLL_RIVAL_EVERY } else { POLL_EVERY };
        if !state.config().has_sentinels() || self.polled.is_some_and(|at| at.elapsed() < every) {
            return None;
        }
        self.polled = Some(Instant::now());
        let mut poll = self.poll.take().unwrap_or_default();
        let (rivalry, is_chosen) = poll.rivalry(state).await;
        self.tells_sentinels = rivalry == Rivalry::TellsSentinels;
        if rivalry != Rivalry::Alone {
            self.poll = Some(poll);
        }
        match rivalry {
            Rivalry::Alone | Rivalry::GoesOn | Rivalry::TellsSentinels => {
                self.say(state, None, false);
                None
            }
            Rivalry::StepsDown => {
                self.say(state, None, false);
                Some("the Sentinels name another primary")
            }
            Rivalry::NeedsPerson(reason) => {
                self.say(state, Some(reason), is_chosen);
                is_chosen.then_some("a person chose its data")
            }
        }
    }

    fn say(&mut self, state: &State, reason: Option<WaitReason>, is_accepting: bool) {
        // What another part said of this node as a replica is over.
        self.needs_person = reason.is_some();
        state.set_needs_person(reason.map(|reason| reason.word().to_owned()));
        state.set_accepting(is_accepting);
    }
}

/// The data node that serves as the layer's primary. `None`: there is none, or nothing shows which of several it is.
pub(super) fn serving_primary(config: &NodeConfig, answers: &BTreeMap<u16, Option<LineageAnswer>>) -> Option<Address> {
    let serving = answers.values().flatten().filter(|answer| answer.activity == Activity::Serving);
    let primaries: Vec<_> = serving.filter_map(primary_record).collect();
    config.data_nodes.get(&prevailing(&primaries, &config.layer.uid, config.keeps_data)?).cloned()
}

fn primary_record(answer: &LineageAnswer) -> Option<(u16, &Lineage)> {
    let record = answer.lineage.as_ref().filter(|record| record.role == Role::Primary)?;
    Some((answer.ordinal, record))
}
