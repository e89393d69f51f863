//! Functions of a server that keeps nothing: they are in it before it takes its first call.
//!
//! A server without files starts without functions, and the operator loads them some seconds later, or much later where it is away.
//! So the operator puts the sources of all libraries among the node's secrets, and the agent writes a snapshot that holds them and
//! no keys where the engine looks for one. Tried on Redis 7.0, 8.0 and 8.6 and Valkey 8.1 and 9.1: the first call that is answered
//! finds its function.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::Environment;
use super::{Result, durable};
use crate::model::node_config::{FUNCTIONS_FILE, NodeConfig};

/// Where an engine looks for its snapshot: `dbfilename` is not to be changed.
const SNAPSHOT: &str = "dump.rdb";
/// The oldest version of the format that holds functions: each newer engine reads it.
const HEADER: &[u8] = b"REDIS0010";
/// A function library follows (`RDB_OPCODE_FUNCTION2`).
const LIBRARY: u8 = 0xF5;
/// Nothing follows but the checksum, of which zeros say that there is none.
const END: [u8; 9] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 0];

/// A snapshot that holds these libraries and no keys.
fn snapshot(sources: &[String]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for source in sources {
        bytes.push(LIBRARY);
        length(&mut bytes, source.len());
        bytes.extend(source.as_bytes());
    }
    bytes.extend(END);
    bytes
}

/// A length as the format has it: six bits, fourteen bits, or 32.
fn length(bytes: &mut Vec<u8>, length: usize) {
    let [_, _, _, _, a, b, c, d] = (length as u64).to_be_bytes();
    match length {
        0..0x40 => bytes.push(d),
        0x40..0x4000 => bytes.extend([0x40 | c, d]),
        _ => bytes.extend([0x80, a, b, c, d]),
    }
}

/// Whether a snapshot is one of ours: an engine writes fields about itself before anything else.
fn is_ours(bytes: &[u8]) -> bool {
    bytes.len() > HEADER.len()
        && bytes.starts_with(b"REDIS")
        && (bytes[HEADER.len()] == LIBRARY || bytes.ends_with(&END) && bytes.len() == HEADER.len() + END.len())
}

fn path(environment: &Environment) -> PathBuf {
    environment.data.join(SNAPSHOT)
}

/// Whether there is a snapshot that is not ours: nothing is written over it.
fn is_taken(path: &Path) -> bool {
    fs::read(path).map_or_else(|error| error.kind() != std::io::ErrorKind::NotFound, |bytes| !is_ours(&bytes))
}

/// Writes the snapshot before a server that keeps nothing starts as primary; a replica gets the functions from its primary. Answers
/// whether it was written.
pub(super) fn put(environment: &Environment, config: &NodeConfig) -> Result<bool> {
    let path = path(environment);
    if config.keeps_data || is_taken(&path) {
        return Ok(false);
    }
    let Some(text) = durable::read(&environment.secrets.join(FUNCTIONS_FILE))? else { return Ok(false) };
    let sources: Vec<String> = match serde_json::from_str(&text) {
        Ok(sources) => sources,
        Err(error) => {
            tracing::warn!(%error, "the functions among the secrets cannot be read: the operator loads them");
            return Ok(false);
        }
    };
    if sources.is_empty() {
        return Ok(false);
    }
    fs::write(&path, snapshot(&sources)).map_err(durable::failed("writing", &path))?;
    Ok(true)
}

/// Removes the snapshot: the server has read it, or ended over it.
pub(super) fn remove(environment: &Environment) {
    let path = path(environment);
    if !is_taken(&path)
        && let Err(error) = fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the snapshot of the functions stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_the_format_has_them() {
        let written = |number: usize| {
            let mut bytes = Vec::new();
            length(&mut bytes, number);
            bytes
        };
        assert_eq!(written(0x3F), [0x3F]);
        assert_eq!(written(0x40), [0x40, 0x40]);
        assert_eq!(written(0x3FFF), [0x7F, 0xFF]);
        assert_eq!(written(0x4000), [0x80, 0, 0, 0x40, 0]);
        assert_eq!(written(0x0012_3456), [0x80, 0, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn only_a_snapshot_of_functions_is_ours() {
        assert!(is_ours(&snapshot(&["#!lua name=a\n".to_owned()])));
        assert!(is_ours(&snapshot(&[])));
        // An engine's begins with fields about itself.
        assert!(!is_ours(b"REDIS0010\xFA\x09redis-ver\x067.0.15"));
        assert!(!is_ours(b"") && !is_ours(b"REDIS0010") && !is_ours(b"something else entirely"));
    }
}
