//! The record on the volume: written so that a crash leaves the old one or the new one, never half of one.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::config::Environment;
use super::{Error, Result};
use crate::model::lineage::{LINEAGE_FORMAT, Lineage};
use crate::model::{Offset, ReplicationId, Role};

/// Names under which an engine keeps its dataset.
const DATA_FILES: [&str; 3] = ["appendonlydir", "appendonly.aof", "dump.rdb"];

fn path(environment: &Environment) -> PathBuf {
    environment.data.join("redoubt/lineage.json")
}

/// Reads the record. `None`: the volume holds no dataset, whatever a record without one says.
pub fn read(environment: &Environment) -> Result<Option<Lineage>> {
    if !DATA_FILES.iter().any(|name| environment.data.join(name).exists()) {
        return Ok(None);
    }
    let path = path(environment);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Data that somebody else put there: it is some data, older than any that we know of.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(of_unknown_origin())),
        Err(source) => return Err(file_error("reading", &path)(source)),
    };
    let lineage: Lineage =
        serde_json::from_str(&text).map_err(|error| file_error("parsing", &path)(std::io::Error::other(error)))?;
    if lineage.format > LINEAGE_FORMAT {
        let problem = format!("format {} is of a later version of Redoubt", lineage.format);
        return Err(file_error("parsing", &path)(std::io::Error::other(problem)));
    }
    Ok(Some(lineage))
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
        offset: Offset(0),
        synced: true,
        link_up: true,
        keys: 0,
        clean_stop: false,
    }
}

/// Writes the record: to a file beside it, to the disk, and then in its place.
pub fn write(environment: &Environment, lineage: &Lineage) -> Result<()> {
    let path = path(environment);
    let folder = environment.data.join("redoubt");
    let part = path.with_extension("part");
    let text = serde_json::to_string(lineage).map_err(|error| file_error("rendering", &path)(error.into()))?;
    fs::create_dir_all(&folder).map_err(file_error("making", &folder))?;
    let mut file = File::create(&part).map_err(file_error("creating", &part))?;
    file.write_all(text.as_bytes()).map_err(file_error("writing", &part))?;
    file.sync_all().map_err(file_error("flushing", &part))?;
    fs::rename(&part, &path).map_err(file_error("moving to", &path))?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(file_error("flushing", &folder))
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| Error::File { doing, path, source }
}
