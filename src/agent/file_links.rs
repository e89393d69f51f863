//! Links to the files of the node's dataset, renewed while it is the same: what they hold outlives a full sync.
//!
//! A server that is told to follow another replaces its data within milliseconds, and nothing asks its agent before. So the agent always
//! has links to the files ([`super::aside`]). After each full sync it asks whether the new history contains what the links hold. Where it
//! does, they are renewed; where that cannot be shown, they become a kept folder.

mod keeping;
mod kept;
mod noting;
mod opening;
mod proven;

use std::time::Duration;

use tokio::time::Instant;

use self::proven::{ProvenFolders, is_contained};
use super::aside;
use super::config::Environment;
use super::disk::Disk;
use super::state::State;
use crate::model::lineage::Lineage;
use crate::model::{Address, ReplicationId, Role};
use crate::redis::info::{AppendOnly, Info};
use keeping::Keeping;
use noting::Noting;

/// Between two renewals while the server says nothing of other files, and after one that failed.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long the new primary's agent is asked what its history contains. Then the data is kept: nothing showed that it need not be.
const ASK_FOR: Duration = Duration::from_secs(10);

/// What is followed of the links.
#[derive(Debug, Default)]
pub(super) struct FileLinks {
    /// The record of the newest data that they may hold. `None`: there are none, or what they hold is known to be in the node's history.
    of: Option<Lineage>,
    /// Bytes of the append-only files when the server said what that record says. `None`: it has none, or did not say.
    appended: Option<u64>,
    /// Whether the server began without data: the links are of files that are gone, or that were no dataset any more.
    is_without_files: bool,
    /// Whether that data was written by this very engine as primary, and its successor may lack some of it.
    as_primary: bool,
    /// The id of the server when it had read its files and followed no primary yet; an empty one where it followed one at the first poll.
    loaded_as: Option<ReplicationId>,
    renewal: Renewal,
    /// The files that the links are of, while nothing else was seen.
    linked: Option<Files>,
    /// Whether the server had these very files at the last poll.
    is_current: bool,
    renewed: Option<Instant>,
    failed: Option<Instant>,
    /// Since when another history replaced that data, and nothing is decided yet.
    replaced: Option<Instant>,
    keeping: Keeping,
    noting: Noting,
    in_sync: Option<Instant>,
    proven: ProvenFolders,
    disk: Disk,
}

/// The files of a server, as far as it says: they are others after a full sync, and after each rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Files {
    history: ReplicationId,
    rewrites: (Option<u64>, bool),
}

impl Files {
    fn of(info: &Info) -> Self {
        Self { history: info.replication_id(), rewrites: info.rewrites() }
    }
}

/// How far the renewal of the links is. A server replaces its files without a word, so between the links and their taking the place of
/// the ones before it is asked again: what was linked is of the history that it had before only if it has that one still.
#[derive(Debug, Default)]
enum Renewal {
    #[default]
    Rests,
    /// Links are being made, of a server that said this before.
    Linking(Files),
    /// They are made, and the server was not asked since.
    Linked(Files),
    /// They are being put in the place of the ones before.
    Taking(Files, Lineage),
}

impl FileLinks {
    /// The record of what the links hold at the least. `None`: there are none.
    pub(super) fn record(&self, environment: &Environment) -> Option<Lineage> {
        self.of.clone().filter(|_| self.is_current).or_else(|| aside::links_record(environment))
    }

    /// The record of the newest data that the links may hold, where it is not known to be in the node's history.
    pub(super) fn held(&self) -> Option<&Lineage> {
        self.of.as_ref()
    }

    /// The id of the server when it had read its files and followed no primary yet. `None`: it is not known.
    pub(super) fn loaded_as(&self) -> Option<&ReplicationId> {
        self.loaded_as.as_ref().filter(|id| !id.0.is_empty())
    }

    /// Notes the id of a server that has read its files, at the first poll.
    pub(super) fn note_loaded(&mut self, info: &Info) {
        let follows = |info: &Info| info.primary_link().is_some_and(|link| link.up || link.syncing);
        self.loaded_as.get_or_insert_with(|| {
            if info.role() == Some(Role::Replica) && !follows(info) {
                info.replication_id()
            } else {
                ReplicationId::default()
            }
        });
    }

    /// Takes in what ended on the volume. `false`: links were made just now, and the server was asked before that: what it said may be older
    /// than they are.
    fn advance(&mut self) -> bool {
        match (self.disk.ended(), std::mem::take(&mut self.renewal)) {
            (Some(Err(error)), _) => {
                tracing::warn!(error = %super::chain(&error), "the links to the node's files are not up to date");
                self.failed = Some(Instant::now());
            }
            (Some(Ok(())), Renewal::Linking(files)) => {
                self.renewal = Renewal::Linked(files);
                return false;
            }
            (Some(Ok(())), Renewal::Taking(files, record)) => {
                self.linked = Some(files);
                self.noting.note_written(&record);
                // The server may have been promoted since.
                if !self.of.as_ref().is_some_and(|of| is_continued(&record, of)) {
                    self.of = Some(record);
                }
            }
            (_, renewal) => self.renewal = renewal,
        }
        true
    }

    /// Looks at a server that answers. `own`: its record now.
    pub(super) async fn update(
        &mut self,
        environment: &Environment,
        state: &State,
        info: &Info,
        own: Option<&Lineage>,
    ) {
        // What a layer that keeps nothing had is no loss, and folders of it would wait for a person.
        let is_asked_since = self.advance();
        self.note_kept(state);
        if !state.config().keeps_data {
            return;
        }
        self.note_primary(info, own);
        let is_free = self.disk.is_idle() && self.keeping.is_idle();
        let of_primary = self.of.as_ref().filter(|_| self.as_primary);
        self.noting.keep_up(environment, of_primary, info.role() == Some(Role::Primary), is_free);
        if !is_asked_since {
            return;
        }
        let link = info.primary_link();
        let is_primary = info.role() == Some(Role::Primary);
        let in_sync = is_primary || link.as_ref().is_some_and(|link| link.up && !link.syncing);
        if !in_sync || !self.is_idle() {
            self.in_sync = None;
            return;
        }
        self.in_sync.get_or_insert_with(Instant::now);
        let Some(own) = own.filter(|own| own.replication_id == info.replication_id()) else { return };
        let is_same = self.of.as_ref().is_none_or(|of| is_continued(of, own) || (is_primary && self.is_read(own)));
        if is_same {
            self.replaced = None;
            self.renew(environment, info, own);
            self.proven.note(state, link.map(|link| link.primary), self.in_sync).await;
        } else if let Some(of) = self.of.clone() {
            self.judge(environment, state, &of, link.map(|link| link.primary)).await;
        }
    }

    /// Whether a primary has what it read from its files: it followed no primary since. One without replicas takes another id after a while.
    fn is_read(&self, own: &Lineage) -> bool {
        let followed_none = own.previous_replication_id.as_ref().is_none_or(|before| Some(before) == self.loaded_as());
        followed_none && !self.is_without_files
    }

    /// A primary appends to the very files that the links are of, and so does a promoted one. It may follow another at the next poll, or
    /// before links that are being made are taken: its data counted as that of the primary then, or its last writes were not counted.
    fn note_primary(&mut self, info: &Info, own: Option<&Lineage>) {
        let Some(own) = own.filter(|own| own.replication_id == info.replication_id()) else { return };
        let is_of_links = |of: &Lineage| is_continued(of, own);
        if info.role() == Some(Role::Primary) && self.of.as_ref().is_some_and(is_of_links) {
            (self.of, self.as_primary, self.appended) = (Some(own.clone()), true, info.appended());
        }
    }

    fn renew(&mut self, environment: &Environment, info: &Info, own: &Lineage) {
        let files = Files::of(info);
        self.as_primary = info.role() == Some(Role::Primary);
        let is_current = self.linked.as_ref() == Some(&files);
        self.is_current = is_current;
        if self.of.is_some() {
            // The server appends to the very files, at least until it writes them again.
            (self.of, self.appended) = (Some(own.clone()), info.appended());
        }
        let environment = environment.clone();
        match std::mem::take(&mut self.renewal) {
            Renewal::Linked(before) if before == files => {
                self.renewed = Some(Instant::now());
                self.renewal = Renewal::Taking(files, own.clone());
                self.appended = info.appended();
                let record = own.clone();
                self.disk.begin(move || aside::take_links(&environment, &record));
            }
            Renewal::Rests | Renewal::Linking(_) | Renewal::Linked(_) | Renewal::Taking(..) => {
                let is_old = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= RENEW_EVERY);
                let is_due = is_old(self.failed) && (!is_current || is_old(self.renewed));
                // The files of before have all that is written until a rewrite ends, but not what a full sync brought.
                let is_whole = info.append_only() != AppendOnly::Rewriting || own.append_only == Some(true);
                if is_due && is_whole {
                    self.renewal = Renewal::Linking(files);
                    self.disk.begin(move || aside::link_files(&environment));
                }
            }
        }
    }

    /// The data that the links hold was replaced: is it in the new history?
    async fn judge(&mut self, environment: &Environment, state: &State, of: &Lineage, primary: Option<Address>) {
        let since = *self.replaced.get_or_insert_with(Instant::now);
        // A record that counts no keys may be older than what was written.
        if of.is_empty() {
            match self.keeping.has_commands(environment) {
                Some(true) => {}
                Some(false) => {
                    self.forget();
                    return;
                }
                None => return,
            }
        }
        // A primary asked to go on from where it was, and was refused: the other has less than it had.
        if !self.as_primary {
            match is_contained(state, primary.as_ref(), of).await {
                Some(true) => {
                    tracing::info!("what this node had is in the history of its primary");
                    self.forget();
                    return;
                }
                None if since.elapsed() < ASK_FOR => return,
                Some(false) | None => {}
            }
        }
        self.keeping.keep_replaced(environment, of, self.appended);
    }

    /// Notes that the successor of a primary has all that this one had: writers waited until it followed. It may be refused to go on from
    /// where it was all the same, for a `PING` that it sent meanwhile.
    pub(super) const fn note_handed_over(&mut self) {
        self.as_primary = false;
    }

    /// Whether no work on the links is under way.
    pub(super) const fn is_idle(&self) -> bool {
        self.disk.is_idle() && self.keeping.is_idle() && self.noting.is_idle()
    }

    /// Whether the record on the volume says what the links hold of a server that was demoted. Until then the node's own must not say
    /// that the files are another's.
    pub(super) const fn are_noted(&self) -> bool {
        !self.noting.is_late()
    }

    /// The kept folders that are to be removed.
    pub(crate) fn take_proven(&mut self) -> Vec<String> {
        self.proven.take()
    }

    /// The next poll takes the files as they are.
    fn forget(&mut self) {
        (self.of, self.as_primary, self.replaced, self.renewed) = (None, false, None, None);
        self.is_without_files = false;
        self.keeping.forget();
        self.noting.forget();
        (self.renewal, self.linked, self.is_current, self.appended) = (Renewal::Rests, None, false, None);
    }
}

/// Whether data with the second record is that of the first, or what became of it.
fn is_continued(before: &Lineage, now: &Lineage) -> bool {
    now.replication_id == before.replication_id || now.previous_replication_id.as_ref() == Some(&before.replication_id)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::agent::aside::tests::node;
    use crate::agent::lineage_file;

    pub(crate) fn primary(history: &str, before: &str, rewrites: u64) -> (Info, Lineage) {
        let info = Info::parse(&format!(
            "role:master\nmaster_replid:{history}\nmaster_replid2:{before}\naof_enabled:1\naof_rewrites:{rewrites}\n\
             aof_rewrite_in_progress:0\naof_last_bgrewrite_status:ok\n"
        ));
        let before = if before == "0000" { "null".to_owned() } else { format!("\"{before}\"") };
        let text = format!(
            r#"{{"format":1,"layerUid":"uid","epoch":1,"term":2,"role":"Primary","replicationId":"{history}","previousReplicationId":{before},
            "offset":7,"synced":true,"linkUp":true,"keys":1,"cleanStop":false,"appendOnly":true}}"#
        );
        (info, lineage_file::parse(&text).unwrap())
    }

    pub(crate) fn incr(environment: &Environment, folder: &str) -> std::path::PathBuf {
        environment.data.join(folder).join("appendonlydir/appendonly.aof.1.incr.aof")
    }

    pub(crate) fn replace_files(environment: &Environment, text: &str) {
        let incr = incr(environment, "");
        fs::remove_file(&incr).unwrap();
        fs::write(&incr, text).unwrap();
    }

    /// A poll, and what it began on the volume, to its end.
    fn update_to_end(links: &mut FileLinks, environment: &Environment, (info, own): &(Info, Lineage)) {
        links.renew(environment, info, own);
        while !links.disk.is_idle() {
            links.advance();
            std::thread::yield_now();
        }
    }

    /// A full sync of a stranger between what the server said and the links to its files: they were links to the stranger's files.
    #[test]
    fn links_take_the_place_of_others_only_where_the_server_has_the_same_history_afterwards() {
        let environment = node("standing-other");
        let (a, stranger) = (primary("a", "0000", 0), primary("s", "0000", 1));
        let mut links = FileLinks::open(&environment, Some(&a.1));
        let held = || fs::read_to_string(incr(&environment, "aside/.standing")).unwrap();
        update_to_end(&mut links, &environment, &a);
        update_to_end(&mut links, &environment, &a);
        assert_eq!(links.linked, Some(Files::of(&a.0)));
        links.renewed = None;
        replace_files(&environment, "SET s 1");
        update_to_end(&mut links, &environment, &a);
        assert!(matches!(links.renewal, Renewal::Linked(_)), "the server is asked again first");
        assert_eq!(held(), "SET a 1");
        update_to_end(&mut links, &environment, &stranger);
        assert_eq!(held(), "SET a 1");
        assert!(aside::restore_links(&environment, &links.record(&environment).unwrap()).unwrap());
        assert_eq!(fs::read_to_string(incr(&environment, "")).unwrap(), "SET a 1");
        fs::remove_dir_all(&environment.data).unwrap();
    }

    /// The record on the volume is written at other times: it was linked next to files of which it did not speak, and what was in the
    /// layer all the time was kept aside.
    #[test]
    fn the_record_of_the_links_is_that_of_their_data() {
        let environment = node("standing-record");
        let a = primary("a", "0000", 0);
        let mut links = FileLinks::open(&environment, Some(&a.1));
        lineage_file::write(&environment, &Lineage { synced: false, ..primary("r", "0000", 0).1 }).unwrap();
        replace_files(&environment, "SET b 1");
        let b = primary("b", "a", 1);
        update_to_end(&mut links, &environment, &b);
        update_to_end(&mut links, &environment, &b);
        assert_eq!(aside::links_record(&environment), Some(b.1.clone()));
        assert!(aside::links_have_commands(&environment), "whatever the record counts");
        fs::remove_dir_all(&environment.data).unwrap();
    }

    /// The next poll may see a replica: the kept folder's record did not count the last writes.
    #[test]
    fn what_a_primary_wrote_while_links_were_made_is_counted() {
        let environment = node("standing-counts");
        let (info, own) = primary("a", "0000", 0);
        let mut links = FileLinks::open(&environment, Some(&own));
        links.renew(&environment, &info, &own);
        assert!(!links.disk.is_idle());
        let later = Lineage { keys: own.keys + 1, ..own.clone() };
        links.note_primary(&info, Some(&later));
        assert_eq!((links.of.as_ref(), links.as_primary), (Some(&later), true));
        let (stranger, theirs) = primary("s", "0000", 1);
        links.note_primary(&stranger, Some(&theirs));
        assert_eq!(links.of, Some(later), "a stranger's data is not in the links");
        while !links.disk.is_idle() {
            links.advance();
            std::thread::yield_now();
        }
        fs::remove_dir_all(&environment.data).unwrap();
    }

    #[test]
    fn a_primary_that_was_promoted_from_an_unknown_history_has_not_what_it_read() {
        let mut links = FileLinks::default();
        links.note_loaded(&Info::parse("role:slave\nmaster_host:10.0.0.1\nmaster_link_status:down\nmaster_replid:r\n"));
        links.note_loaded(&Info::parse("role:master\nmaster_replid:c\nmaster_replid2:s\n"));
        assert!(!links.is_read(&primary("c", "s", 0).1), "it followed a primary between two polls");
        assert!(links.is_read(&primary("c", "r", 0).1), "promoted before it followed anybody");
        assert!(links.is_read(&primary("d", "0000", 0).1), "without replicas for an hour");
    }
}
