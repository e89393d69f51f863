//! The lineage record on the volume.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::append_files::{self, Sizes, TruncatedFile};
use super::config::Environment;
use super::held::{self, Sample};
use super::{Result, durable};
use crate::model::lineage::{LINEAGE_FORMAT, Lineage};
use crate::model::{Offset, ReplicationId, Role};

/// What an engine with an append-only file loads: its manifest, or the one file of versions before 7.0. Nothing else: next to
/// them a `dump.rdb` is ignored, and without them the server starts empty (Redis documentation, "Redis persistence").
const APPEND_ONLY_FILES: [&str; 2] = ["appendonlydir/appendonly.aof.manifest", "appendonly.aof"];
/// What an engine without one loads.
const SNAPSHOT_FILES: [&str; 1] = ["dump.rdb"];

fn path(environment: &Environment) -> PathBuf {
    environment.data.join("redoubt/lineage.json")
}

/// The record as it is on the volume.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredRecord {
    #[serde(flatten)]
    lineage: Lineage,
    /// No peer needs them. Empty: an older agent's record, or data that is in no append-only file.
    #[serde(default, skip_serializing_if = "Sizes::is_empty")]
    append_files: Sizes,
    /// `None`: it was not known, or an older agent wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<Sample>,
}

/// What a data node has on its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dataset {
    pub lineage: Lineage,
    /// Whether the engine has to be started with an append-only file to load it.
    pub append_only: bool,
}

/// Reads what is there. `None`: the volume holds no dataset, whatever a record says: a volume whose files were lost under a running
/// server gets a new record when that server stops. A dataset whose record is missing or damaged is never "empty": it is some data,
/// older than any that we know of, and it yields to every other. `wanted`: whether the engine is to have an append-only file, which
/// counts only where no record says what the data is in: where that was changed shortly before the server ended, the other file
/// is there as well, and old.
pub(crate) fn read(environment: &Environment, wanted: bool) -> Result<Option<Dataset>> {
    let path = path(environment);
    let record = match durable::read(&path)? {
        // Data that another process put there.
        None => of_unknown_origin(),
        Some(text) => match parse(&text) {
            Ok(lineage) => lineage,
            Err(fault @ Fault::Newer(_)) => {
                return Err(durable::failed("parse", &path)(std::io::Error::other(fault)));
            }
            Err(fault @ Fault::Damaged(_)) => {
                if holds(environment, wanted) {
                    durable::set_aside(&path, &fault.to_string());
                }
                of_unknown_origin()
            }
        },
    };
    let append_only = record.append_only.unwrap_or(wanted);
    if !holds(environment, append_only) {
        return Ok(None);
    }
    let held = held::position(environment, &record, sample(environment).as_ref(), append_only);
    Ok(Some(Dataset { lineage: Lineage { held: held.map(Box::new), ..record }, append_only }))
}

/// Whether to start with an append-only file a node that counts as empty: where a person chose it all the same, whatever is there
/// is loaded, and not overwritten.
pub(crate) fn starts_with(environment: &Environment, wanted: bool) -> bool {
    if holds(environment, wanted) || !holds(environment, !wanted) { wanted } else { !wanted }
}

/// Whether the files are there that an engine with, or without, an append-only file loads.
fn holds(environment: &Environment, append_only: bool) -> bool {
    let files: &[&str] = if append_only { &APPEND_ONLY_FILES } else { &SNAPSHOT_FILES };
    files.iter().any(|name| environment.data.join(name).exists())
}

/// Whether there is a snapshot that was written after the last append-only file was.
pub(crate) fn snapshot_is_newest(environment: &Environment) -> bool {
    let written = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let entries = fs::read_dir(environment.data.join("appendonlydir")).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).chain([environment.data.join("appendonly.aof")]);
    let append_only = files.filter_map(|path| written(&path)).max();
    written(&environment.data.join("dump.rdb")).is_some_and(|snapshot| append_only.is_none_or(|other| other < snapshot))
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is no record, or half of one.
    #[error("not a lineage record: {0}")]
    Damaged(String),
    /// A later version of Redoubt wrote it: guessing at it could lose data, and only going back to that version helps.
    #[error("format {0} is of a later version of Redoubt")]
    Newer(u64),
}

/// Reads a record's text. The format is looked at first: a later one may have other fields.
pub fn parse(text: &str) -> Result<Lineage, Fault> {
    let damaged = |error: serde_json::Error| Fault::Damaged(error.to_string());
    let value: serde_json::Value = serde_json::from_str(text).map_err(damaged)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format > u64::from(LINEAGE_FORMAT) => Err(Fault::Newer(format)),
        _ => {
            let lineage: Lineage = serde_json::from_value(value).map_err(damaged)?;
            match lineage.absurd_number() {
                Some(name) => Err(Fault::Damaged(format!("its {name} is larger than any layer's"))),
                None => Ok(lineage),
            }
        }
    }
}

/// A record as JSON. An error: serde cannot write it, which no record causes.
pub fn render(lineage: &Lineage) -> Result<String, serde_json::Error> {
    serde_json::to_string(lineage)
}

/// How long the append-only files were by the record. Empty: it does not say.
pub(crate) fn sizes(environment: &Environment) -> Sizes {
    stored(environment)
        .filter(|stored| stored.lineage.append_only != Some(false))
        .map(|stored| stored.append_files)
        .unwrap_or_default()
}

/// How long the append-only files were at the offset of the record. `None`: it does not say.
pub(crate) fn sample(environment: &Environment) -> Option<Sample> {
    stored(environment)?.sample
}

fn stored(environment: &Environment) -> Option<StoredRecord> {
    serde_json::from_str(&durable::read(&path(environment)).ok().flatten()?).ok()
}

/// The append-only file that lost what the record says it had.
pub(crate) fn truncated(environment: &Environment) -> Option<TruncatedFile> {
    sizes(environment).truncated(&Sizes::measure(environment), |name| append_files::is_unnamed(environment, name))
}

/// Has the data count as of unknown origin: it is not what the record speaks of.
pub(crate) fn mark_unknown_origin(environment: &Environment) {
    let path = path(environment);
    if path.exists() {
        durable::set_aside(&path, "it speaks of other data than the volume has");
    }
}

fn of_unknown_origin() -> Lineage {
    Lineage {
        format: LINEAGE_FORMAT,
        layer_uid: String::new(),
        epoch: 0,
        term: 0,
        role: Role::Replica,
        replication_id: ReplicationId::default(),
        previous_replication_id: None,
        previous_offset: None,
        offset: Offset(0),
        synced: true,
        link_up: true,
        keys: 0,
        clean_stop: false,
        append_only: None,
        accepted: None,
        held: None,
    }
}

/// Writes the record of data whose files are as the record before says.
pub(crate) fn write(environment: &Environment, lineage: &Lineage) -> Result<()> {
    write_with(environment, lineage, sizes(environment), sample(environment))
}

/// Writes the record of data in files that have at least these sizes. `sample`: how long they were at its offset.
pub(crate) fn write_with(
    environment: &Environment,
    lineage: &Lineage,
    append_files: Sizes,
    sample: Option<Sample>,
) -> Result<()> {
    let path = path(environment);
    let stored = StoredRecord { lineage: Lineage { held: None, ..lineage.clone() }, append_files, sample };
    let text = serde_json::to_string(&stored).map_err(|error| durable::failed("render", &path)(error.into()))?;
    durable::replace(&path, &text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_record_without_the_files_that_the_engine_loads_is_none() {
        let folder = std::env::temp_dir().join(format!("redoubt-lineage-{}", std::process::id()));
        fs::create_dir_all(folder.join("redoubt")).unwrap();
        let nowhere = PathBuf::new;
        let environment =
            Environment { data: folder.clone(), config: nowhere(), secrets: nowhere(), run: nowhere(), bind: None };
        let keys = |wanted| read(&environment, wanted).unwrap().map(|dataset| dataset.lineage.keys);
        let record = Lineage { keys: 7, clean_stop: true, ..of_unknown_origin() };
        write(&environment, &record).unwrap();
        assert_eq!(keys(true), None);
        // What a server saves when it stops: with an append-only file it is not loaded.
        fs::write(folder.join("dump.rdb"), "REDIS").unwrap();
        assert_eq!(keys(true), None);
        assert_eq!(keys(false), Some(7));
        let sudden = Lineage { layer_uid: "uid".to_owned(), offset: Offset(900), epoch: 106, ..of_unknown_origin() };
        let head = |fields: &[u8]| [&b"REDIS0010"[..], fields, b"\xFE"].concat();
        let of_d = head(b"\xFA\x07repl-id\x01d\xFA\x0brepl-offset\xC0\x07");
        let own = head(b"\xFA\x07repl-id\x00\xFA\x0brepl-offset\xC0\x08");
        // A snapshot is older than the record of a sudden end, and may be of a history before: it has no epoch of memory.
        for (clean_stop, dump, id, offset, epoch) in [
            (true, &of_d, "", 900, 106),
            (false, &of_d, "d", 7, 0),
            (false, &own, "", 8, 106),
            (false, &head(b""), "", 0, 106),
        ] {
            fs::write(folder.join("dump.rdb"), dump).unwrap();
            write(&environment, &Lineage { clean_stop, ..sudden.clone() }).unwrap();
            let read = read(&environment, false).unwrap().unwrap().lineage.position();
            assert_eq!((read.replication_id.0.as_str(), read.offset.0, read.epoch), (id, offset, epoch));
        }
        write(&environment, &record).unwrap();
        fs::create_dir_all(folder.join("appendonlydir")).unwrap();
        assert_eq!(keys(true), None);
        fs::write(folder.join("appendonlydir/appendonly.aof.manifest"), "file").unwrap();
        assert_eq!(keys(true), Some(7));
        // Both are there, and one is old: the record says which.
        for holds in [true, false] {
            write(&environment, &Lineage { append_only: Some(holds), ..record.clone() }).unwrap();
            for wanted in [true, false] {
                assert_eq!(read(&environment, wanted).unwrap().map(|dataset| dataset.append_only), Some(holds));
            }
        }
        // The file that the record names is lost; the other is older than it says.
        fs::remove_file(folder.join("appendonlydir/appendonly.aof.manifest")).unwrap();
        write(&environment, &Lineage { append_only: Some(true), ..record.clone() }).unwrap();
        assert_eq!((keys(true), keys(false)), (None, None));
        assert!(!starts_with(&environment, true), "the snapshot is loaded where a person chose this node");
        fs::remove_dir_all(folder).unwrap();
    }
}
