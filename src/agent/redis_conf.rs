//! The data node's `redis.conf`: the specification's directives, and those that are the agent's own.

use std::collections::BTreeMap;

use super::cluster::files::NODES_FILE;
use super::config::Environment;
use crate::model::node_config::{NodeConfig, REDIS_PORT};
use crate::model::{Address, directives};
use crate::redis::{Secret, users};

/// Replica priority of a node whose data is whole (Redis' default).
pub(crate) const PRIORITY_WHOLE: u32 = 100;

/// What every server of a Cluster is started with. One that was never in sync is no candidate of an election until its agent says so; whom
/// it copies is in its `nodes.conf`, and no server looks for another primary by itself.
const CLUSTER: [(&str, &str); 7] = [
    ("cluster-enabled", "yes"),
    ("cluster-config-file", NODES_FILE),
    ("cluster-require-full-coverage", "no"),
    ("cluster-allow-replica-migration", "no"),
    ("cluster-replica-validity-factor", "0"),
    ("cluster-replica-no-failover", "yes"),
    ("cluster-allow-reads-when-down", "no"),
];

/// Renders the file. `primary` is whom to follow, `electable` whether the Sentinels may promote the node before its first
/// sync, `refuses_torn_end` whether the engine does not load an append-only file that ends in the middle of a command.
pub fn render(
    environment: &Environment,
    config: &NodeConfig,
    own_address: &Address,
    replication: &Secret,
    primary: Option<&Address>,
    electable: bool,
    refuses_torn_end: bool,
) -> String {
    let bind = environment.bind.map_or_else(|| "* -::*".to_owned(), |address| address.to_string());
    let port = REDIS_PORT.to_string();
    let priority = if primary.is_some() && !electable { 0 } else { PRIORITY_WHOLE }.to_string();
    let data = environment.data.display().to_string();
    let users_file = environment.run.join("users.acl").display().to_string();
    let written = config.settings.iter().filter(|(name, _)| !directives::is_set_live_only(name));
    let mut text: String = written.map(|(name, value)| line(name, &split(name, value))).collect();
    let mut own = |name: &str, values: &[&str]| text.push_str(&line(name, values));
    own("port", &[&port]);
    own("bind", &bind.split(' ').collect::<Vec<_>>());
    own("protected-mode", &["no"]);
    own("daemonize", &["no"]);
    own("dir", &[&data]);
    own("aclfile", &[&users_file]);
    own("masteruser", &[users::REPLICATION]);
    own("masterauth", &[replication.reveal()]);
    own("replica-announce-ip", &[&own_address.0]);
    own("replica-announce-port", &[&port]);
    own("replica-priority", &[&priority]);
    own("enable-debug-command", &["no"]);
    own("enable-module-command", &["no"]);
    if refuses_torn_end {
        own("aof-load-truncated", &["no"]);
    }
    match (&config.cluster, primary) {
        (Some(_), _) => {
            for (name, value) in CLUSTER {
                own(name, &[value]);
            }
            own("cluster-node-timeout", &[&config.detection_milliseconds.to_string()]);
            own("cluster-announce-ip", &[&own_address.0]);
        }
        (None, Some(primary)) => own("replicaof", &[&primary.0, &port]),
        (None, None) => {}
    }
    text
}

/// Has the engine load the append-only file, or the snapshot, whatever is wanted of it once it runs. One that has only a snapshot
/// writes it when it stops.
pub(crate) fn load_from(settings: &mut BTreeMap<String, String>, append_only: bool) {
    let wanted = settings.get("appendonly").is_some_and(|value| value == "yes");
    if wanted != append_only {
        tracing::warn!(append_only, wanted, "the data is in the other file: the server is started with that one");
        settings.insert("appendonly".to_owned(), if append_only { "yes" } else { "no" }.to_owned());
        settings.insert("shutdown-on-sigterm".to_owned(), if append_only { "nosave" } else { "save" }.to_owned());
    }
}

/// Directives that take several words get them as several; all others are one word, whatever it holds.
fn split<'a>(name: &str, value: &'a str) -> Vec<&'a str> {
    match name {
        name if directives::takes_words(name) => value.split(' ').collect(),
        _ => vec![value],
    }
}

fn line(name: &str, values: &[&str]) -> String {
    let mut line = name.to_owned();
    for value in values {
        line.push(' ');
        line.push_str(&quote(value));
    }
    line.push('\n');
    line
}

/// A word in the double quotes of `redis.conf` (`sdssplitargs`): no value can end its line or add a word.
fn quote(value: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::from("\"");
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(quoted, "\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_value_ends_its_line_or_its_quotes(value in "(?s).{0,60}") {
            let quoted = quote(&value);
            prop_assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert!(!inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
        }
    }

    #[test]
    fn a_directive_of_several_words_keeps_them_apart() {
        assert_eq!(line("save", &split("save", "3600 1")), "save \"3600\" \"1\"\n");
        assert_eq!(line("save", &split("save", "")), "save \"\"\n");
        assert_eq!(
            line("maxmemory-policy", &split("maxmemory-policy", "no eviction")),
            "maxmemory-policy \"no eviction\"\n"
        );
    }
}
