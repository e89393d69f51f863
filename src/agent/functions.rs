//! Functions of a server that keeps nothing: they are in it before it takes its first call.
//!
//! A server without files starts without functions, and the operator loads them some seconds later, or much later where it is away.
//! So the agent writes a snapshot that holds them and no keys where the engine looks for one. They are what this node's server had
//! last, what another node's had, or what the operator put among the node's secrets. Tried on Redis 7.0, 8.0 and 8.6 and Valkey 8.1
//! and 9.1: the first call that is answered finds its function.

pub(crate) mod file;
mod snapshot;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::config::Environment;
use super::state::State;
use super::{Result, chain, durable, peers};
use crate::dataplane::packed;
use crate::model::node_config::{FUNCTIONS_FILE, NodeConfig};

/// Where an engine looks for its snapshot: `dbfilename` is not to be changed.
const SNAPSHOT: &str = "dump.rdb";

/// Where functions come from, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// What this node's server had last.
    Own,
    /// What another node's server had last.
    Peer,
    /// What the operator put among the secrets.
    Secret,
}

impl Source {
    const fn words(self) -> &'static str {
        match self {
            Self::Own => "what it had last",
            Self::Peer => "another node",
            Self::Secret => "the Secret",
        }
    }
}

/// Functions for a server that starts.
#[derive(Clone, Debug)]
pub(super) struct FunctionSnapshot {
    pub(super) source: Source,
    snapshot: Vec<u8>,
}

/// Looks for functions for a server that keeps nothing and starts as primary; a replica gets its primary's. `refused`: the source
/// of which an engine did not take them; it and those before it are not asked again.
pub(super) async fn find(
    environment: &Environment,
    state: &State,
    refused: Option<Source>,
) -> Option<FunctionSnapshot> {
    let is_asked = |source: Source| refused.is_none_or(|refused| source > refused);
    let found = |source, snapshot: Option<Vec<u8>>| Some(FunctionSnapshot { source, snapshot: snapshot? });
    if is_asked(Source::Own)
        && let own @ Some(_) = found(Source::Own, file::read(environment).as_deref().and_then(snapshot::of_dump))
    {
        return own;
    }
    if is_asked(Source::Peer) {
        let dumps = peers::ask_functions(&state.config()).await;
        if let theirs @ Some(_) = found(Source::Peer, dumps.iter().find_map(|dump| snapshot::of_dump(dump))) {
            return theirs;
        }
    }
    found(Source::Secret, if is_asked(Source::Secret) { of_secret(environment) } else { None })
}

/// The snapshot of the sources among the secrets. Without them the server starts all the same.
fn of_secret(environment: &Environment) -> Option<Vec<u8>> {
    let bytes = match durable::read_bytes(&environment.secrets.join(FUNCTIONS_FILE)) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the operator loads the functions");
            return None;
        }
    };
    match packed::unpack(&bytes) {
        Ok(sources) => (!sources.is_empty()).then(|| snapshot::of_sources(&sources)),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the operator loads the functions");
            None
        }
    }
}

fn path(environment: &Environment) -> PathBuf {
    environment.data.join(SNAPSHOT)
}

/// Whether there is a snapshot that is not ours: nothing is written over it.
fn is_taken(path: &Path) -> bool {
    // Its head tells: a snapshot may be as large as the memory.
    let head = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(snapshot::HEAD).read_to_end(&mut bytes).map(|_| bytes)
    };
    head().map_or_else(|error| error.kind() != std::io::ErrorKind::NotFound, |bytes| !snapshot::is_ours(&bytes))
}

/// Writes what was found where the engine looks for it. `None`: nothing was found, or there is a snapshot.
pub(super) fn put(environment: &Environment, found: Option<&FunctionSnapshot>) -> Result<Option<Source>> {
    let path = path(environment);
    let Some(found) = found.filter(|_| !is_taken(&path)) else { return Ok(None) };
    fs::write(&path, &found.snapshot).map_err(durable::failed("write", &path))?;
    tracing::info!(source = found.source.words(), "the server starts with its functions");
    Ok(Some(found.source))
}

/// Whether a server that starts as primary is of no use to applications before the operator has loaded its functions: they call
/// some, and nothing has them. Of a layer that was never Ready no application knows.
pub(super) fn is_waited_for(environment: &Environment, config: &NodeConfig, put: Option<Source>) -> bool {
    let is_needed = !config.keeps_data && config.initialised && !config.functions.is_empty();
    is_needed && put.is_none() && !is_taken(&path(environment))
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
