//! What becomes of links whose data was replaced, or that a person chose.

use std::time::Duration;

use tokio::time::Instant;

use super::super::config::Environment;
use super::super::state::State;
use super::super::{Result, chain};
use super::FileLinks;
use super::keeping::Answer;
use crate::model::lineage::{Aside, AsideReason};

impl FileLinks {
    /// Has the links become a kept folder, because a person chose their data and this node was promoted with it. Only while no work on them
    /// is under way.
    pub(in crate::agent) fn keep_chosen(&mut self, environment: &Environment, state: &State) {
        if let Some(of) = self.of.as_ref().filter(|_| state.config().keeps_data) {
            self.keeping.begin(environment, AsideReason::LossAccepted, of, None);
        }
    }

    /// Takes in what the volume answered.
    pub(super) fn note_kept(&mut self, state: &State) {
        if let Some(outcome) = self.keeping.disk.ended() {
            self.take_in(state, outcome);
        }
    }

    fn take_in(&mut self, state: &State, outcome: Result<Answer>) {
        let is_chosen = self.keeping.reason == Some(AsideReason::LossAccepted);
        match outcome {
            Ok(Answer::HasCommands(has_commands)) => self.keeping.has_commands = Some(has_commands),
            Ok(Answer::Kept(kept)) => {
                // Not what the volume has: folders are removed at any time, and those that are gone are told then.
                let mut all: Vec<Aside> = state.aside().into_iter().chain(kept).collect();
                all.sort_by(|first, second| first.folder.cmp(&second.folder));
                state.set_aside(all);
                if !is_chosen {
                    state.set_unusable(None);
                }
                self.forget();
            }
            // The node goes on with that data, so nothing of it is lost.
            Err(error) if is_chosen => {
                tracing::warn!(error = %chain(&error), "no copy is kept of the data that a person chose");
                self.keeping.forget();
            }
            // The links stay as they are, and are not renewed, until there is room.
            Err(error) => {
                self.keeping.failed = Some(Instant::now());
                state.set_unusable(Some(&format!(
                    "AsideFull: what this node had before it followed its primary is in /data/aside/.standing: {error}"
                )));
            }
        }
    }

    /// Waits for the end of the work on the links, for as long as `limit`: what comes next takes the files as they are.
    pub(in crate::agent) async fn finish_work(&mut self, state: &State, limit: Duration) {
        self.disk.wait_until_free(limit).await;
        self.noting.finish(limit).await;
        if let Some(outcome) = self.keeping.disk.outcome_within(limit).await {
            self.take_in(state, outcome);
        }
    }

    /// For how long it hangs that what the links hold is noted, or becomes a folder, where it does.
    pub(in crate::agent) fn hangs(&self) -> Option<Duration> {
        self.keeping.disk.hangs().max(self.noting.hangs())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::keeping::NOT_APPENDED;
    use super::super::tests::primary;
    use super::*;
    use crate::agent::aside::tests::node;
    use crate::agent::late_election::tests::config;

    fn node_and_state(name: &str) -> (Environment, State) {
        let environment = node(name);
        let environment = Environment { secrets: environment.data.join("secrets"), ..environment };
        fs::create_dir_all(&environment.secrets).unwrap();
        fs::write(environment.secrets.join("agent-password"), "secret").unwrap();
        let state = State::new(config(true), &environment).unwrap();
        (environment, state)
    }

    /// The agent was paused while its server went on as primary: ten minutes later the folder would have been removed, because the layer
    /// has what the record of before spoke of.
    #[tokio::test]
    async fn what_was_appended_after_the_last_poll_is_counted_in_the_kept_record() {
        let (environment, state) = node_and_state("links-appended");
        let (_, own) = primary("a", "0000", 0);
        let incr = environment.data.join("appendonlydir/appendonly.aof.1.incr.aof");
        let size = fs::metadata(&incr).unwrap().len();
        for (appended, least, most) in [("", 0, 0), ("SET b 2", 7, 7 + NOT_APPENDED)] {
            let mut links = FileLinks::open(&environment, Some(&own));
            let text = fs::read_to_string(&incr).unwrap() + appended;
            fs::write(&incr, text).unwrap();
            links.keeping.keep_replaced(&environment, &own, Some(size));
            links.finish_work(&state, Duration::from_secs(10)).await;
            let kept = state.aside().pop().unwrap();
            let more = kept.lineage.unwrap().offset.0 - own.offset.0;
            assert!((least..=most).contains(&more), "{more} for {appended:?}");
        }
        fs::remove_dir_all(&environment.data).unwrap();
    }

    /// A volume that has no room says so, and a second later the links are tried again.
    #[tokio::test]
    async fn links_without_room_stay_and_are_kept_once_there_is() {
        let (environment, state) = node_and_state("links-keeping");
        let (_, own) = primary("a", "0000", 0);
        let mut links = FileLinks::open(&environment, Some(&own));
        let folders: Vec<_> = (0..3).map(|number| environment.data.join(format!("aside/by-hand-{number}"))).collect();
        for folder in &folders {
            fs::create_dir_all(folder).unwrap();
        }
        let limit = Duration::from_secs(10);
        links.keeping.keep_replaced(&environment, &own, None);
        links.finish_work(&state, limit).await;
        let unusable = || state.lineage_answer().unusable.unwrap_or_default();
        assert!(unusable().starts_with("AsideFull"), "{}", unusable());
        assert_eq!((state.aside().len(), links.of.as_ref()), (0, Some(&own)));
        fs::remove_dir(&folders[0]).unwrap();
        links.keeping.keep_replaced(&environment, &own, None);
        assert!(links.is_idle(), "not before a second has passed");
        links.keeping.failed = None;
        links.keeping.keep_replaced(&environment, &own, None);
        links.finish_work(&state, limit).await;
        assert_eq!((unusable().as_str(), state.aside().len(), links.of.as_ref()), ("", 1, None));
        fs::remove_dir_all(&environment.data).unwrap();
    }
}
