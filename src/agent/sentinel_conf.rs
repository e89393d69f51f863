//! A Sentinel's configuration file: rendered afresh at each boot around the state that must survive.
//!
//! Votes, epochs and the known primary stay; addresses that no declared node has go. The Sentinel rewrites the file itself
//! while it runs.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::config::Environment;
use crate::model::Address;
use crate::model::lineage::LARGEST_NUMBER;
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::redis::{Secret, users};

/// What a Sentinel's old file says that a new one must keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentinelState {
    /// Address in `sentinel monitor`; `None`: the file has no such line.
    pub primary: Option<Address>,
    /// `current-epoch`, `config-epoch` and `leader-epoch`.
    pub current_epoch: u64,
    /// Epoch of the known primary.
    pub config_epoch: u64,
    /// Epoch of the last vote.
    pub leader_epoch: u64,
    /// Replicas: without them a Sentinel that restarts next to a dead primary could elect no replica.
    pub replicas: BTreeSet<Address>,
    /// Other Sentinels: address and id.
    pub sentinels: BTreeSet<(Address, String)>,
}

impl SentinelState {
    /// Raises the epochs to one that the layer had already: a lower one would be taken for older than it.
    pub(crate) fn raise_to(&mut self, epoch: u64) {
        self.current_epoch = self.current_epoch.max(epoch);
        self.config_epoch = self.config_epoch.max(epoch);
    }
}

/// Reads an old file. Total: lines that it does not know are left out.
pub fn remember(text: &str, config: &NodeConfig) -> SentinelState {
    let mut remembered = SentinelState::default();
    let is_data = |address: &Address| config.data_nodes.values().any(|declared| declared == address);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('"')).collect();
        let number =
            || words.last().and_then(|word| word.parse().ok()).filter(|number| *number <= LARGEST_NUMBER).unwrap_or(0);
        match words.as_slice() {
            ["sentinel", "current-epoch", _] => remembered.current_epoch = number(),
            ["sentinel", key, name, rest @ ..] if *name == config.master_name => match (*key, rest) {
                ("config-epoch", [_]) => remembered.config_epoch = number(),
                ("leader-epoch", [_]) => remembered.leader_epoch = number(),
                ("monitor", [address, ..]) => {
                    remembered.primary = Some(Address((*address).to_owned())).filter(is_data);
                }
                ("known-replica" | "known-slave", [address, ..]) => {
                    remembered.replicas.extend(Some(Address((*address).to_owned())).filter(is_data));
                }
                ("known-sentinel", [address, _, id]) => {
                    let address = Address((*address).to_owned());
                    if config.sentinels.values().any(|declared| *declared == address) {
                        remembered.sentinels.insert((address, (*id).to_owned()));
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
    remembered
}

/// What is wrong with a file that a Sentinel or we wrote; `None`: it is whole, or there is none yet. What can be read of a
/// damaged one is still used: an epoch or a vote that survived is better than none, and the other Sentinels bring the rest.
pub fn damage(text: &str, master_name: &str) -> Option<&'static str> {
    if text.is_empty() {
        return None;
    }
    let has = |words: &[&str]| {
        text.lines().any(|line| {
            let mut found = line.split_whitespace().map(|word| word.trim_matches('"'));
            words.iter().all(|word| found.next() == Some(word))
        })
    };
    if text.contains(['\0', char::REPLACEMENT_CHARACTER]) {
        return Some("holds bytes that are no text");
    }
    if !text.ends_with('\n') {
        return Some("ends in the middle of a line");
    }
    let monitors = has(&["sentinel", "monitor", master_name]);
    let is_epoch =
        |words: &[&str]| words.first() == Some(&"sentinel") && words.iter().any(|word| word.ends_with("-epoch"));
    let is_absurd = text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('"')).collect();
        is_epoch(&words)
            && words.last().is_none_or(|word| word.parse::<u64>().map_or(true, |epoch| epoch > LARGEST_NUMBER))
    });
    match () {
        () if is_absurd => Some("holds an epoch that no layer reaches"),
        () if !has(&["sentinel", "myid"]) => Some("holds no identity"),
        () if !has(&["sentinel", "current-epoch"]) => Some("holds no current epoch"),
        () if monitors && !has(&["sentinel", "config-epoch", master_name]) => Some("holds no epoch of the primary"),
        () if monitors && !has(&["sentinel", "leader-epoch", master_name]) => Some("holds no epoch of the last vote"),
        () => None,
    }
}

/// The fixed identity of a Sentinel: the first 40 hexadecimal characters of the digest of layer and ordinal. A Sentinel
/// that lost its volume comes back as itself, not as one more voter.
pub(crate) fn my_id(layer_uid: &str, ordinal: u16) -> String {
    hex::encode(&Sha256::digest(format!("{layer_uid}/sentinel/{ordinal}"))[..20])
}

/// Options of the monitored primary, as pairs for `SENTINEL SET`.
pub(crate) fn options(config: &NodeConfig, password: &Secret) -> Vec<(&'static str, String)> {
    vec![
        ("down-after-milliseconds", config.detection_milliseconds.to_string()),
        ("failover-timeout", config.failover_timeout_milliseconds.to_string()),
        ("parallel-syncs", config.data_nodes.len().max(1).to_string()),
        // Otherwise a primary that restarts and loads for minutes counts as alive.
        ("master-reboot-down-after-period", config.detection_milliseconds.to_string()),
        ("auth-user", users::SENTINEL.to_owned()),
        ("auth-pass", password.reveal().to_owned()),
    ]
}

/// The text of `sentinel.conf`, with the epochs and nodes that the old file knew (`remembered`).
pub fn render(
    environment: &Environment,
    config: &NodeConfig,
    own_address: &Address,
    remembered: &SentinelState,
    password: &Secret,
    users_file: &str,
) -> String {
    let name = &config.master_name;
    let bind = environment.bind.map_or_else(|| "* -::*".to_owned(), |address| address.to_string());
    let mut lines = vec![
        format!("port {SENTINEL_PORT}"),
        format!("bind {bind}"),
        "protected-mode no".to_owned(),
        "daemonize no".to_owned(),
        // An entry has the refused name as it was sent, up to a mebibyte.
        "acllog-max-len 0".to_owned(),
        format!("dir \"{}\"", environment.data.display()),
        format!("sentinel myid {}", my_id(&config.layer.uid, config.node.ordinal)),
        format!("sentinel announce-ip {own_address}"),
        format!("sentinel announce-port {SENTINEL_PORT}"),
        "sentinel resolve-hostnames no".to_owned(),
        format!("sentinel sentinel-user {}", users::SENTINEL),
        format!("sentinel sentinel-pass {}", password.reveal()),
        format!("sentinel current-epoch {}", remembered.current_epoch),
    ];
    if let Some(primary) = &remembered.primary {
        lines.push(format!("sentinel monitor {name} {primary} {REDIS_PORT} {}", config.quorum));
        for (option, value) in options(config, password) {
            lines.push(format!("sentinel {option} {name} {value}"));
        }
        lines.push(format!("sentinel config-epoch {name} {}", remembered.config_epoch));
        lines.push(format!("sentinel leader-epoch {name} {}", remembered.leader_epoch));
        for replica in remembered.replicas.iter().filter(|replica| *replica != primary) {
            lines.push(format!("sentinel known-replica {name} {replica} {REDIS_PORT}"));
        }
        for (address, id) in remembered.sentinels.iter().filter(|(address, _)| address != own_address) {
            lines.push(format!("sentinel known-sentinel {name} {address} {SENTINEL_PORT} {id}"));
        }
    }
    lines.extend(users_file.lines().map(str::to_owned));
    lines.join("\n") + "\n"
}
