//! Folders of kept data: listed, made, removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::files::{link_or_copy, size};
use crate::agent::config::Environment;
use crate::agent::{Error, Result, durable};
use crate::model::lineage::{Aside, AsideReason, Lineage};

/// Folders that a node keeps. Each may be as large as the dataset, and a volume is four times the memory by default. Where there are as
/// many, the node overwrites nothing more until a person removed one.
pub(crate) const MOST: usize = 3;

/// What holds a dataset: all that any engine loads, and the record.
pub(super) const FILES: [&str; 4] = ["appendonlydir", "appendonly.aof", "dump.rdb", "redoubt/lineage.json"];

/// The folder of the links, renewed while the dataset is the same ([`crate::agent::file_links`]). It is no kept folder.
pub(super) const LINKS: &str = ".standing";

const NOTE: &str = "note.json";
/// A folder that is not whole yet. Its originals are still in place.
const LINKING: &str = ".linking-";
/// A folder that files are moved into. It may be the only place where they are.
const MOVING: &str = ".moving-";

pub(super) fn root(environment: &Environment) -> PathBuf {
    environment.data.join("aside")
}

/// What is kept now, the oldest first. A folder whose move was interrupted is completed; half a set of links is removed.
pub(crate) fn list(environment: &Environment) -> Vec<Aside> {
    let mut kept: Vec<Aside> = names(environment).iter().filter_map(|name| completed(environment, name)).collect();
    kept.sort_by(|first, second| first.folder.cmp(&second.folder));
    kept
}

fn names(environment: &Environment) -> Vec<String> {
    let entries = fs::read_dir(root(environment)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn completed(environment: &Environment, name: &str) -> Option<Aside> {
    let folder = root(environment).join(name);
    if name == LINKS {
        return None;
    }
    if name.starts_with(LINKING) {
        // What it linked to is still the node's dataset.
        let _ = fs::remove_dir_all(&folder);
        return None;
    }
    if let Some(end) = name.strip_prefix(MOVING) {
        return match fs::rename(&folder, root(environment).join(end)) {
            Ok(()) => completed(environment, end),
            Err(error) => {
                tracing::error!(%error, folder = name, "an interrupted move stays as it is");
                None
            }
        };
    }
    if name.starts_with('.') {
        return None;
    }
    let note = fs::read_to_string(folder.join(NOTE)).ok().and_then(|text| serde_json::from_str::<Aside>(&text).ok());
    // A folder without a note that can be read was put there by a person, or its note is damaged: it is kept, and counts.
    Some(note.filter(|note| note.folder == name).unwrap_or_else(|| Aside {
        folder: name.to_owned(),
        reason: AsideReason::Replaced,
        at: 0,
        bytes: 0,
        lineage: None,
    }))
}

/// Keeps links to the node's files, which stay where they are. `None`: there are none. Where the volume takes no links they are copied.
///
/// # Errors
/// [`Error::NoRoom`]: too many folders are kept already, or the volume has no room for another dataset. The caller must then let nothing
/// overwrite the files.
pub(crate) fn keep(environment: &Environment, reason: AsideReason, lineage: Option<&Lineage>) -> Result<Option<Aside>> {
    store(environment, reason, lineage, LINKING, link_or_copy)
}

/// Moves the node's files away: the node has no dataset then. `None`: there were none.
///
/// # Errors
/// As [`keep`]. Moving takes no room, but what replaces the files does.
pub(super) fn move_away(
    environment: &Environment,
    reason: AsideReason,
    lineage: Option<&Lineage>,
) -> Result<Option<Aside>> {
    store(environment, reason, lineage, MOVING, |from, to| fs::rename(from, to))
}

fn store(
    environment: &Environment,
    reason: AsideReason,
    lineage: Option<&Lineage>,
    part: &str,
    take: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> Result<Option<Aside>> {
    let files: Vec<&str> = FILES.into_iter().filter(|name| environment.data.join(name).exists()).collect();
    if files.iter().all(|name| *name == "redoubt/lineage.json") {
        return Ok(None);
    }
    let bytes = files.iter().map(|name| size(&environment.data.join(name))).sum();
    has_room(environment, bytes)?;
    let note = note(environment, reason, lineage, bytes);
    let unfinished = root(environment).join(format!("{part}{}", note.folder));
    let _ = fs::remove_dir_all(root(environment).join(format!("{LINKING}{}", note.folder)));
    fs::create_dir_all(unfinished.join("redoubt")).map_err(durable::failed("make", &unfinished))?;
    write_note(&unfinished, &note)?;
    for name in files {
        let (from, to) = (environment.data.join(name), unfinished.join(name));
        take(&from, &to).map_err(durable::failed("keep aside", &from))?;
    }
    finish(environment, &unfinished, &note)?;
    Ok(Some(note))
}

pub(super) fn finish(environment: &Environment, unfinished: &Path, note: &Aside) -> Result<()> {
    let folder = root(environment).join(&note.folder);
    fs::rename(unfinished, &folder).map_err(durable::failed("move to", &folder))?;
    for path in [&folder, &root(environment), &environment.data] {
        fs::File::open(path).and_then(|open| open.sync_all()).map_err(durable::failed("flush", path))?;
    }
    tracing::warn!(folder = %folder.display(), reason = note.reason.word(), bytes = note.bytes, "data is kept aside");
    Ok(())
}

pub(super) fn write_note(folder: &Path, note: &Aside) -> Result<()> {
    let path = folder.join(NOTE);
    let text = serde_json::to_string(note).map_err(|error| durable::failed("render", &path)(error.into()))?;
    durable::replace(&path, &text)
}

pub(super) fn note(environment: &Environment, reason: AsideReason, lineage: Option<&Lineage>, bytes: u64) -> Aside {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let taken = names(environment);
    let base = format!("{}-{}", time_name(at), reason.word());
    // Two of one second have different names.
    let numbered = (1..).map(|number| if number == 1 { base.clone() } else { format!("{base}-{number}") });
    let folder = numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or(base);
    Aside { folder, reason, at, bytes, lineage: lineage.cloned() }
}

/// Whether one more dataset of `bytes` may be kept.
pub(super) fn has_room(environment: &Environment, bytes: u64) -> Result<()> {
    let kept = list(environment);
    if kept.len() >= MOST {
        let folders: Vec<&str> = kept.iter().map(|aside| aside.folder.as_str()).collect();
        return Err(Error::NoRoom(format!(
            "{} folders are kept already ({}); remove one that is not needed",
            kept.len(),
            folders.join(", ")
        )));
    }
    // Unknown counts as room: not to follow is worse where no figure can be had.
    let free = rustix::fs::statvfs(&environment.data).map_or(u64::MAX, |volume| volume.f_bavail * volume.f_frsize);
    if free < bytes {
        return Err(Error::NoRoom(format!(
            "the volume has {free} bytes left, and {bytes} are needed to fill the node"
        )));
    }
    Ok(())
}

/// Removes a kept folder: a person said so, or its data is known to be in the layer.
pub(crate) fn remove(environment: &Environment, folder: &str) -> Result<()> {
    // The name comes from a document: only one of a kept folder is ever used as a path. Not by [`list`], which removes half a set of
    // links: another thread may be making one.
    if folder.starts_with('.') || !names(environment).iter().any(|name| name == folder) {
        return Ok(());
    }
    let path = root(environment).join(folder);
    fs::remove_dir_all(&path).map_err(durable::failed("remove", &path))?;
    tracing::warn!(folder, "data that was kept aside is removed");
    Ok(())
}

/// `20261128T062033Z`: names in the order of time (days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn time_name(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
pub(in crate::agent) mod tests {
    use super::*;
    use crate::agent::aside::links::{self, free_links, links_record, renew_links};

    /// A node's folders with a small dataset.
    pub(crate) fn node(name: &str) -> Environment {
        let data = std::env::temp_dir().join(format!("redoubt-aside-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(data.join("appendonlydir")).unwrap();
        fs::create_dir_all(data.join("redoubt")).unwrap();
        for (file, text) in [
            ("appendonlydir/appendonly.aof.manifest", "manifest"),
            ("appendonlydir/appendonly.aof.1.incr.aof", "SET a 1"),
            ("redoubt/lineage.json", "{}"),
        ] {
            fs::write(data.join(file), text).unwrap();
        }
        let nowhere = PathBuf::new;
        Environment { data, config: nowhere(), secrets: nowhere(), run: nowhere(), bind: None }
    }

    #[test]
    fn what_is_kept_outlives_its_original_and_its_number_is_bounded() {
        let environment = node("keep");
        let kept = keep(&environment, AsideReason::Replaced, None).unwrap().unwrap();
        let incr = |folder: &Path| fs::read_to_string(folder.join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
        fs::remove_file(environment.data.join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
        assert_eq!(incr(&root(&environment).join(&kept.folder)), "SET a 1");
        assert_eq!(list(&environment), std::slice::from_ref(&kept));
        for _ in 1..MOST {
            keep(&environment, AsideReason::LossAccepted, None).unwrap().unwrap();
        }
        assert!(matches!(keep(&environment, AsideReason::Replaced, None), Err(Error::NoRoom(_))));
        assert!(environment.data.join("appendonlydir").exists());
        remove(&environment, "../appendonlydir").unwrap();
        assert!(environment.data.join("appendonlydir").exists(), "only a kept folder is ever removed");
        remove(&environment, &kept.folder).unwrap();
        assert_eq!(list(&environment).len(), MOST - 1);
        fs::remove_dir_all(environment.data).unwrap();
    }

    #[test]
    fn what_is_moved_away_leaves_an_empty_node_and_a_move_that_was_interrupted_is_completed() {
        let environment = node("move");
        let moved = move_away(&environment, AsideReason::Damaged, None).unwrap().unwrap();
        assert!(!environment.data.join("appendonlydir").exists());
        assert_eq!(keep(&environment, AsideReason::Replaced, None).unwrap(), None, "nothing is left");
        let folder = root(&environment).join(&moved.folder);
        fs::rename(&folder, root(&environment).join(format!("{MOVING}{}", moved.folder))).unwrap();
        assert_eq!(list(&environment), [moved]);
        assert!(folder.exists());
        fs::remove_dir_all(environment.data).unwrap();
    }

    #[test]
    fn links_hold_the_files_of_before_where_others_were_put_in_their_place() {
        let environment = node("other");
        let text = r#"{"format":1,"layerUid":"uid","epoch":1,"term":2,"role":"Replica","replicationId":"a","previousReplicationId":null,
            "offset":7,"synced":true,"linkUp":true,"keys":1,"cleanStop":true}"#;
        fs::write(environment.data.join("redoubt/lineage.json"), text).unwrap();
        let record = crate::agent::lineage_file::parse(text).unwrap();
        renew_links(&environment, &record).unwrap();
        assert_eq!(links_record(&environment), Some(record.clone()));
        free_links(&environment).unwrap();
        assert_eq!(list(&environment), [], "they are links to the node's files");
        let incr = environment.data.join("appendonlydir/appendonly.aof.1.incr.aof");
        fs::remove_file(&incr).unwrap();
        fs::write(&incr, "SET b 2").unwrap();
        free_links(&environment).unwrap();
        let kept = list(&environment);
        let held = root(&environment).join(&kept[0].folder).join("appendonlydir/appendonly.aof.1.incr.aof");
        assert_eq!(fs::read_to_string(held).unwrap(), "SET a 1");
        renew_links(&environment, &record).unwrap();
        assert!(links::is_current(&environment));
        links::move_away(&environment, AsideReason::Damaged, Some(&record)).unwrap();
        assert_eq!(links_record(&environment), None, "the folder has the same files");
        fs::remove_dir_all(environment.data).unwrap();
    }

    #[test]
    fn a_time_is_a_name_that_sorts() {
        assert_eq!(time_name(0), "19700101T000000Z");
        assert_eq!(time_name(1_709_210_096), "20240229T123456Z");
        assert_eq!(time_name(1_795_847_633), "20261128T063353Z");
    }
}
