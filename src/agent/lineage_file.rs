//! The lineage record on the volume.

use std::path::PathBuf;

use super::config::Environment;
use super::{Result, durable};
use crate::model::lineage::{LINEAGE_FORMAT, Lineage};
use crate::model::{Offset, ReplicationId, Role};

/// Names under which an engine keeps its dataset.
const DATA_FILES: [&str; 3] = ["appendonlydir", "appendonly.aof", "dump.rdb"];

fn path(environment: &Environment) -> PathBuf {
    environment.data.join("redoubt/lineage.json")
}

/// Reads the record. `None`: the volume holds no dataset, whatever a record without one says. A dataset whose record is
/// missing or damaged is never "empty": it is some data, older than any that we know of, and it yields to every other.
pub fn read(environment: &Environment) -> Result<Option<Lineage>> {
    if !DATA_FILES.iter().any(|name| environment.data.join(name).exists()) {
        return Ok(None);
    }
    let path = path(environment);
    // Data that somebody else put there.
    let Some(text) = durable::read(&path)? else { return Ok(Some(of_unknown_origin())) };
    match parse(&text) {
        Ok(lineage) => Ok(Some(lineage)),
        Err(fault @ Fault::Newer(_)) => Err(durable::failed("parsing", &path)(std::io::Error::other(fault))),
        Err(fault @ Fault::Damaged(_)) => {
            durable::set_aside(&path, &fault.to_string());
            Ok(Some(of_unknown_origin()))
        }
    }
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
        _ => serde_json::from_value(value).map_err(damaged),
    }
}

/// A record's text.
pub fn render(lineage: &Lineage) -> Result<String, serde_json::Error> {
    serde_json::to_string(lineage)
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

/// Writes the record.
pub fn write(environment: &Environment, lineage: &Lineage) -> Result<()> {
    let path = path(environment);
    let text = render(lineage).map_err(|error| durable::failed("rendering", &path)(error.into()))?;
    durable::replace(&path, &text)
}
