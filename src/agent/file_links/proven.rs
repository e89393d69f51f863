//! Kept folders whose data turned out to be in the layer.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::state::State;
use crate::agent::{ancestry, peers};
use crate::model::Address;
use crate::model::lineage::{AsideReason, Lineage};

/// How long a node must be in sync, and a kept folder's data known to be in its primary's history, before the folder is removed.
const PROVEN_AFTER: Duration = Duration::from_mins(10);

/// Which kept folders turned out to be in the layer.
#[derive(Debug, Default)]
pub(super) struct ProvenFolders {
    asked: Option<Instant>,
    /// Those that are to be removed.
    found: Vec<String>,
}

impl ProvenFolders {
    /// Notes kept folders whose data is known to be in the primary's history. `in_sync`: since when the node is.
    pub(super) async fn note(&mut self, state: &State, primary: Option<Address>, in_sync: Option<Instant>) {
        let is_over = |since: Instant| since.elapsed() >= PROVEN_AFTER;
        if !(in_sync.is_some_and(is_over) && self.asked.is_none_or(is_over)) {
            return;
        }
        self.asked = Some(Instant::now());
        for kept in state.aside() {
            let Some(record) = kept.lineage.as_ref().filter(|_| kept.reason != AsideReason::LossAccepted) else {
                continue;
            };
            if is_contained(state, primary.as_ref(), record).await == Some(true) {
                self.found.push(kept.folder);
            }
        }
    }

    /// The kept folders that are to be removed.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found)
    }
}

/// Whether the primary's history contains what the record speaks of; of a primary, its own. `None`: its agent does not say.
pub(super) async fn is_contained(state: &State, primary: Option<&Address>, record: &Lineage) -> Option<bool> {
    let config = state.config();
    let answer = match primary {
        None => state.lineage_answer(),
        Some(primary) => {
            let (ordinal, address) = config.data_nodes.iter().find(|(_, address)| *address == primary)?;
            peers::ask_agent(&config, *ordinal, address).await?
        }
    };
    // An agent that has not looked since its server has another history tells the chain of the one before.
    let followed = state.lineage().map(|own| own.replication_id)?;
    let told = answer.lineage.as_ref().map(|theirs| &theirs.replication_id);
    (answer.ancestry.of == followed && told == Some(&followed)).then(|| ancestry::contains(&answer, record))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::super::FileLinks;
    use super::super::tests::primary;
    use super::*;
    use crate::agent::aside::{self, tests::node};
    use crate::agent::config::Environment;
    use crate::agent::late_election::tests::config;
    use crate::agent::volume_tasks::VolumeTasks;
    use crate::model::lineage::{Ancestor, Ancestry};
    use crate::model::position::{Position, Tail};
    use crate::model::{Offset, ReplicationId};
    use crate::redis::info::Info;

    /// The state of a node's agent, with a history that contains `b` up to 20.
    fn state(environment: &Environment, own: &Lineage) -> State {
        fs::create_dir_all(&environment.secrets).unwrap();
        fs::write(environment.secrets.join("agent-password"), "secret").unwrap();
        let state = State::new(config(true), environment).unwrap();
        state.set_lineage(Some(own.clone()));
        let before = Ancestor {
            position: Position {
                replication_id: ReplicationId("b".to_owned()),
                offset: Offset(20),
                epoch: 1,
                term: 1,
                tail: Tail::None,
                led: false,
                went_on: false,
            },
            trail: Vec::new(),
        };
        state.set_ancestry(Ancestry { of: own.replication_id.clone(), ancestors: vec![before] });
        state.set_aside(aside::list(environment));
        state
    }

    /// Each folder is as large as a dataset, and three of them keep a node from protecting more: what the layer has goes, and nothing else.
    #[tokio::test(start_paused = true)]
    async fn a_kept_folder_goes_after_ten_minutes_in_sync_with_its_data_and_no_other_ever_goes() {
        let environment = node("standing-proven");
        let environment = Environment { secrets: environment.data.join("secrets"), ..environment };
        let of = |id: &str| primary(id, "0000", 0).1;
        let keep = |reason, id| aside::keep(&environment, reason, Some(&of(id))).unwrap().unwrap().folder;
        let proven = keep(AsideReason::Replaced, "b");
        let (chosen, unknown) = (keep(AsideReason::LossAccepted, "b"), keep(AsideReason::Replaced, "x"));
        fs::create_dir_all(environment.data.join("aside/by-hand")).unwrap();
        let (info, own) = primary("a", "b", 0);
        let state = state(&environment, &own);
        let mut links = FileLinks::open(&environment, Some(&own));
        let mut volume_tasks = VolumeTasks::default();
        let folders = || aside::list(&environment).into_iter().map(|kept| kept.folder).collect::<BTreeSet<_>>();
        let all = BTreeSet::from([proven.clone(), chosen.clone(), unknown.clone(), "by-hand".to_owned()]);
        // A poll each minute, and what it began on the volume, to its end.
        let mut minutes = async |count: u32, info: &Info| {
            for _ in 0..count {
                tokio::time::advance(Duration::from_mins(1)).await;
                links.update(&environment, &state, info, Some(&own)).await;
                while !links.disk.is_idle() {
                    links.advance();
                    std::thread::yield_now();
                }
                volume_tasks.remove(links.take_proven());
                volume_tasks.advance(&environment, &state);
                while !volume_tasks.is_idle() {
                    volume_tasks.advance(&environment, &state);
                    std::thread::yield_now();
                }
            }
        };
        minutes(10, &info).await;
        assert_eq!(folders(), all, "the first poll began the ten minutes");
        // A primary that it follows and has no link to.
        let cut_off = Info::parse("role:slave\nmaster_host:10.0.0.1\nmaster_link_status:down\nmaster_replid:a\n");
        minutes(1, &cut_off).await;
        minutes(10, &info).await;
        assert_eq!(folders(), all, "they began again");
        minutes(1, &info).await;
        let rest = BTreeSet::from([chosen, unknown, "by-hand".to_owned()]);
        assert_eq!(folders(), rest);
        assert_eq!(state.aside().len(), rest.len(), "its answer tells what is left");
        minutes(60, &info).await;
        assert_eq!(folders(), rest, "not known to be in the history, or a person's decision");
        fs::remove_dir_all(&environment.data).unwrap();
    }
}
