//! Files that the engine does not load: set aside as soon as another node has as much, and otherwise left to a person.
//!
//! A damaged file ends the engine each time it is started. Its node has a record all the same, and the others would wait for the data
//! that the record promises. So after [`ENDS`] ends the files are examined. Where an answering peer has loaded all that they held, they
//! are moved aside ([`super::aside`]) and the node is an empty one that is filled from that peer. Until then the node says that its data
//! cannot be used: a peer that has as much takes it for empty, and may start or be elected.
//!
//! An append-only file that is shorter than the record says would load, with a part of the data. It counts as damaged before any start
//! ([`super::append_files`]), unless the node has no peers, or a person chose what is left. So does one of which the engine would cut off
//! more than a sudden end of the machine may have taken: a garbled length in its middle makes all behind it one command without an end.
//! The engine is told to refuse such a file (`aof-load-truncated no`), and what a sudden end leaves is cut off here.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use super::append_files::TruncatedFile;
use super::config::Environment;
use super::engine::StartupProgress;
use super::file_check::{self, Examined};
use super::state::State;
use super::{Result, aside, lineage_file, peers};
use crate::model::boot::{PeerData, in_force, replaces_damaged};
use crate::model::lineage::{AsideReason, LineageAnswer};

/// Ends in a row before the engine served after which its files are examined. One may be chance: a port that was still bound.
const ENDS: u32 = 2;
/// With what a server ends that finds damage which no check of its own foresaw.
const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

/// What is known of the files from how the engine ended.
#[derive(Debug, Default)]
pub(super) struct DamagedFiles {
    /// Ends in a row by the engine's own exit, before it served.
    ends: u32,
    /// Whether it had answered that it loads before it ended.
    was_loading: bool,
    /// Whether the files were examined since the last end.
    verdict: Option<bool>,
    /// Whether a file was found that lost its end.
    was_short: bool,
}

impl DamagedFiles {
    /// Notes an end. An engine that was killed (want of memory) says nothing of its files; one that crashes over them was loading.
    pub(super) fn note(&mut self, reached: StartupProgress, status: Option<ExitStatus>) {
        let crashed = status.is_some_and(|status| matches!(status.signal(), Some(SIGABRT | SIGSEGV)));
        match reached {
            StartupProgress::Serving => *self = Self::default(),
            StartupProgress::Loading | StartupProgress::Nothing
                if crashed || status.is_some_and(|status| status.code().is_some()) =>
            {
                self.ends = self.ends.saturating_add(1);
                self.was_loading |= crashed || reached == StartupProgress::Loading;
                // What was found whole may not be so any more.
                self.verdict = self.verdict.filter(|is_damaged| *is_damaged);
            }
            StartupProgress::Loading | StartupProgress::Nothing => {}
        }
    }

    /// Whether the files are known not to load.
    pub(super) fn is_known(&self) -> bool {
        self.verdict == Some(true)
    }

    /// Where the files do not load: sets them aside if another node has as much, or a person chose another node's data; otherwise says so
    /// in the node's answer. Nothing is known again of files that were examined already.
    ///
    /// # Errors
    /// The files cannot be moved, or there are too many kept folders already.
    pub(super) async fn set_aside_damaged(
        &mut self,
        environment: &Environment,
        state: &State,
        program: &Path,
    ) -> Result<()> {
        let truncated = truncated(environment, state);
        let was_short = std::mem::replace(&mut self.was_short, truncated.is_some());
        match &truncated {
            Some(truncated) if !was_short => tracing::warn!(%truncated, "the node's files lost some of its data"),
            None if was_short => state.set_unusable(None),
            Some(_) | None => {}
        }
        // An engine that refuses a torn end does so each time.
        let enough = if refuses_torn_end(state, program) { 1 } else { ENDS };
        if self.ends < enough && truncated.is_none() {
            return Ok(());
        }
        let Some(own) = state.lineage() else {
            state.set_unusable(None);
            return Ok(());
        };
        if truncated.is_none() && self.verdict.is_none() {
            let append_only = own.append_only.unwrap_or(true);
            let examined = file_check::examine(state, environment, program, append_only).await;
            if let Examined::TornEnd(end) = &examined
                && lineage_file::sizes(environment).allow(&end.name, end.whole)
            {
                end.cut_off(environment)?;
                *self = Self::default();
                return Ok(());
            }
            self.verdict = Some((self.was_loading && self.ends >= ENDS) || examined != Examined::Whole);
        }
        if truncated.is_none() && !self.is_known() {
            return Ok(());
        }
        let config = state.config();
        let answers = peers::ask_agents(&config).await;
        // Records that promise as much may be of files that do not load either: seen where all are damaged.
        let others: Vec<PeerData<'_>> =
            answers.iter().map(|(ordinal, answer)| peer(*ordinal, answer.as_ref())).collect();
        let Some(taken_from) =
            replaces_damaged((config.node.ordinal, &own), &config.layer.uid, config.accept_loss, &others)
        else {
            let damage = truncated.map_or_else(
                || "the engine does not load the node's files".to_owned(),
                |truncated| format!("the node's files lost some of its data ({truncated})"),
            );
            state.set_unusable(Some(&format!(
                "DataUnloadable: {damage}, and no other node that answers has loaded as much; mend the files, or choose a \
                 node's data (redoubt.dev/accept-loss)"
            )));
            return Ok(());
        };
        tracing::warn!(taken_from, "the files do not load: they are set aside, and the node is filled from another");
        let moved = aside::move_away(environment, AsideReason::Damaged, Some(&own));
        if let Err(error) = &moved {
            state.set_unusable(Some(&format!("DataUnloadable: {error}")));
        }
        moved?;
        state.set_aside(aside::list(environment));
        state.set_unusable(None);
        state.set_lineage(None);
        *self = Self::default();
        Ok(())
    }
}

/// Whether the engine is to refuse an append-only file that ends in the middle of a command: another node may have what it would cut off.
pub(super) fn refuses_torn_end(state: &State, program: &Path) -> bool {
    may_have_peers(state) && !is_chosen(state) && file_check::has_checker(program)
}

/// The append-only file that lost its end, where another node may have it and no person chose what is left.
pub(super) fn truncated(environment: &Environment, state: &State) -> Option<TruncatedFile> {
    if is_chosen(state) { None } else { lost_end(environment, state) }
}

/// Whether a file lost its end and a person chose what is left.
pub(super) fn is_chosen_in_part(environment: &Environment, state: &State) -> bool {
    is_chosen(state) && lost_end(environment, state).is_some()
}

/// The append-only file that lost its end, where another node may have it.
fn lost_end(environment: &Environment, state: &State) -> Option<TruncatedFile> {
    if may_have_peers(state) && state.lineage().is_some() { lineage_file::truncated(environment) } else { None }
}

/// Whether other nodes of the layer keep the same data.
fn may_have_peers(state: &State) -> bool {
    let config = state.config();
    config.keeps_data && config.data_nodes.len() > 1
}

/// Whether a person chose this node's data, in this incident.
pub(super) fn is_chosen(state: &State) -> bool {
    let (config, own) = (state.config(), state.lineage());
    let (ordinal, accept_loss) = (config.node.ordinal, config.accept_loss);
    accept_loss == Some(ordinal) && in_force(accept_loss, &config.layer.uid, own.iter()) == Some(ordinal)
}

fn peer(ordinal: u16, answer: Option<&LineageAnswer>) -> PeerData<'_> {
    let record = answer.and_then(|answer| answer.lineage.as_ref());
    PeerData { ordinal, record, is_loaded: answer.is_some_and(|answer| answer.loaded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::lineage_file;
    use crate::model::ReplicationId;
    use crate::model::boot::holds_all;
    use crate::model::lineage::Lineage;

    fn record(offset: u64, clean_stop: bool, link_up: bool) -> Lineage {
        let text = format!(
            r#"{{"format":1,"layerUid":"uid","epoch":1,"term":2,"role":"Replica","replicationId":"a","previousReplicationId":null,
            "offset":{offset},"synced":true,"linkUp":{link_up},"keys":1,"cleanStop":{clean_stop}}}"#
        );
        lineage_file::parse(&text).unwrap()
    }

    #[test]
    fn files_give_way_only_to_who_has_all_that_was_in_them() {
        let has = |theirs: Lineage, own| holds_all(&theirs, &own, "uid", std::iter::empty());
        assert!(has(record(7, true, true), record(7, true, true)));
        assert!(!has(record(6, true, true), record(7, true, true)), "all was sent before a clean stop");
        assert!(has(record(6, false, true), record(7, false, true)), "in sync until the sudden end");
        assert!(!has(record(6, false, false), record(7, false, true)), "its link was down before");
        let next_to = |rest: Option<&Lineage>| {
            holds_all(&record(6, false, true), &record(7, false, true), "uid", std::iter::once(rest))
        };
        assert!(next_to(Some(&record(6, false, true))));
        assert!(!next_to(Some(&record(7, false, true))), "it ended before that one, which confirmed more");
        assert!(!next_to(None), "who has lost its data may have confirmed more");
        assert!(!next_to(Some(&Lineage { synced: false, ..record(0, false, false) })), "and has begun to be filled");
        let unrecorded =
            Lineage { layer_uid: String::new(), replication_id: ReplicationId::default(), ..record(0, false, true) };
        assert!(!next_to(Some(&unrecorded)), "its record is lost, and its data may be more");
        let other = Lineage { replication_id: ReplicationId("b".to_owned()), ..record(9, false, true) };
        assert!(!has(other, record(7, false, true)), "another history");
        assert!(!has(Lineage { synced: false, ..record(9, true, true) }, record(7, true, true)), "half a dataset");
    }

    /// The annotation may stand for long after the incident that it was made for.
    #[test]
    fn a_decision_that_was_carried_out_gives_no_damaged_file_away() {
        let own = record(7, true, true);
        let chosen = |own: &Lineage, by: &Lineage| {
            let peer = PeerData { ordinal: 2, record: Some(by), is_loaded: true };
            replaces_damaged((0, own), "uid", Some(1), &[peer])
        };
        assert_eq!(chosen(&own, &record(6, true, true)), Some(1), "a person chose it after the damage");
        let spent = Lineage { accepted: Some(1), ..own.clone() };
        assert_eq!(chosen(&spent, &record(6, true, true)), None, "it was made for another incident");
        assert_eq!(chosen(&spent, &own), Some(2), "who has all needs no decision");
        assert_eq!(replaces_damaged((1, &own), "uid", Some(1), &[]), None, "the chosen one's own file");
    }

    #[test]
    fn an_engine_that_was_killed_says_nothing_of_its_files() {
        let mut files = DamagedFiles::default();
        for _ in 0..5 {
            files.note(StartupProgress::Loading, Some(ExitStatus::from_raw(9)));
        }
        assert_eq!(files.ends, 0);
        for _ in 0..ENDS {
            files.note(StartupProgress::Nothing, Some(ExitStatus::from_raw(1 << 8)));
        }
        assert_eq!(files.ends, ENDS);
        files.note(StartupProgress::Serving, Some(ExitStatus::from_raw(1 << 8)));
        assert_eq!(files.ends, 0, "they were loaded");
        files.note(StartupProgress::Nothing, Some(ExitStatus::from_raw(SIGABRT)));
        assert_eq!((files.ends, files.was_loading), (1, true), "\"Duplicated key found in RDB file\"");
    }
}
