//! Where an agent finds things, and what the operator told it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::model::node_config::{NODE_CONFIG_FORMAT, NodeConfig};
use crate::redis::Secret;

/// The places of one node. The defaults are those of a pod; tests run several nodes on one machine.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where the node's volume is mounted: `/data` in a pod.
    pub data: PathBuf,
    /// The node-config document.
    pub config: PathBuf,
    /// Folder of the secrets, one file each.
    pub secrets: PathBuf,
    /// Folder for rendered files, in memory.
    pub run: PathBuf,
    /// Address to listen on, for server and agent; `None`: all.
    pub bind: Option<IpAddr>,
}

impl Environment {
    /// The file that says that this pod's server had keys ([`super::state::State::note_keys`]).
    pub(crate) fn had_keys(&self) -> PathBuf {
        self.run.join("had-keys")
    }
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Path of the file in the pod.
        path: String,
        /// What the file system answered.
        #[source]
        source: std::io::Error,
    },
    /// The document is not what it should be.
    #[error("cannot parse {path}")]
    Parse {
        /// Path of the file in the pod.
        path: String,
        /// What serde could not read, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The document is of a later version of Redoubt.
    #[error("{path} has format {found}; this agent reads up to {NODE_CONFIG_FORMAT}")]
    Newer {
        /// Path of the file in the pod.
        path: String,
        /// `format` of the document, newer than [`NODE_CONFIG_FORMAT`](crate::model::node_config::NODE_CONFIG_FORMAT).
        found: u32,
    },
    /// The document does not list its own node.
    #[error("{path} does not list its own node {node}")]
    Unlisted {
        /// Path of the file in the pod.
        path: String,
        /// Name of the node that the document says it is for.
        node: String,
    },
}

/// Reads the node-config document.
pub fn read_node_config(environment: &Environment) -> Result<NodeConfig, Error> {
    parse_node_config(environment, &read_node_config_text(environment)?)
}

/// Reads the node-config document as it is written.
pub(crate) fn read_node_config_text(environment: &Environment) -> Result<String, Error> {
    read(&environment.config)
}

/// Parses what [`read_node_config_text`] read.
pub(crate) fn parse_node_config(environment: &Environment, text: &str) -> Result<NodeConfig, Error> {
    let path = environment.config.display().to_string();
    let config: NodeConfig =
        serde_json::from_str(text).map_err(|source| Error::Parse { path: path.clone(), source })?;
    if config.format > NODE_CONFIG_FORMAT {
        return Err(Error::Newer { path, found: config.format });
    }
    if config.own_address().is_none() {
        return Err(Error::Unlisted { path, node: config.node.to_string() });
    }
    Ok(config)
}

/// Reads one secret, without the newline that people leave at the end.
pub(crate) fn read_secret(environment: &Environment, name: &str) -> Result<Secret, Error> {
    Ok(Secret::new(read(&environment.secrets.join(name))?.trim_end_matches('\n')))
}

/// Reads the ACL file of this kind of node.
pub(crate) fn read_users(environment: &Environment) -> Result<String, Error> {
    read(&environment.secrets.join("users.acl"))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}
