//! What a running node's agent does on the volume, its record and the links to its files apart: the chain of histories is written, and
//! folders and a snapshot that are not needed any more are removed. Nothing of it keeps the agent waiting.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::Environment;
use super::disk::Disk;
use super::state::State;
use super::{ancestry, aside, chain, functions};
use crate::model::lineage::Ancestry;

/// What is to be done, and what is being done.
#[derive(Debug, Default)]
pub(super) struct VolumeTasks {
    chain: Option<Ancestry>,
    writing: Disk,
    unneeded: BTreeSet<String>,
    removing: Disk<BTreeSet<String>>,
    /// Whether the snapshot of the functions is still to be removed.
    has_functions: bool,
}

impl VolumeTasks {
    /// Has a chain written with the next poll. Of several only the last is.
    pub(super) fn write_chain(&mut self, chain: Ancestry) {
        self.chain = Some(chain);
    }

    /// The chain that is not written yet, for who writes it now.
    pub(super) fn take_chain(&mut self) -> Option<Ancestry> {
        self.chain.take()
    }

    /// Has kept folders removed with the next poll.
    pub(super) fn remove(&mut self, folders: impl IntoIterator<Item = String>) {
        self.unneeded.extend(folders);
    }

    /// Has the snapshot of the functions removed with the next poll.
    pub(super) const fn remove_functions(&mut self) {
        self.has_functions = true;
    }

    /// Takes in what ended, and begins what is due.
    pub(super) fn advance(&mut self, environment: &Environment, state: &State) {
        if let Some(Ok(gone)) = self.removing.ended() {
            // Not what the volume has: a folder may have been made since it was read.
            state.set_aside(state.aside().into_iter().filter(|kept| !gone.contains(&kept.folder)).collect());
        }
        self.remove(dropped(state));
        if self.removing.is_idle() && !self.unneeded.is_empty() {
            let (environment, folders) = (environment.clone(), std::mem::take(&mut self.unneeded));
            self.removing.begin(move || Ok(remove(&environment, folders)));
        }
        self.writing.ended();
        if self.writing.is_idle() && (self.chain.is_some() || self.has_functions) {
            let (environment, chain) = (environment.clone(), self.chain.take());
            let has_functions = std::mem::take(&mut self.has_functions);
            self.writing.begin(move || {
                if let Some(chain) = chain {
                    ancestry::write(&environment, &chain);
                }
                if has_functions {
                    functions::remove(&environment);
                }
                Ok(())
            });
        }
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub(super) const fn is_idle(&self) -> bool {
        self.removing.is_idle() && self.writing.is_idle()
    }

    /// For how long the chain hangs, where it does. A removal may last: a folder is as large as a dataset.
    pub(super) fn hangs(&self) -> Option<Duration> {
        self.writing.hangs()
    }
}

/// The kept folders that a person says are not needed.
pub(super) fn dropped(state: &State) -> BTreeSet<String> {
    let config = state.config();
    let kept = state.aside().into_iter().map(|kept| kept.folder);
    kept.filter(|folder| config.drop_aside.contains(folder)).collect()
}

/// Removes kept folders, and answers which are gone.
pub(super) fn remove(environment: &Environment, mut folders: BTreeSet<String>) -> BTreeSet<String> {
    folders.retain(|folder| match aside::remove(environment, folder) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(error = %chain(&error), folder, "not removed");
            false
        }
    });
    folders
}
