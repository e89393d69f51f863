//! The users of a layer, the system's and those of its uses, and their least rights, as `ACL SETUSER` rules. Whether a server has them so: [`super::user_forms`].
//!
//! Sources of the rules: Redis "ACL" page (subcommand and channel rules) and Sentinel page, "ACL authentication".

use std::collections::BTreeMap;

use super::administrator::{ADMINISTRATOR, CONNECTION, DIAGNOSTICS, LOOKS_AT, ON_SENTINEL, SIZES, UPKEEP};
use super::rights::{self, Grant};
use crate::model::desired::DesiredUser;
use crate::model::prefix_job::JOBS;
use crate::model::{AdministratorAccess, UseKind};

/// SHA-256 digests (64 hexadecimal characters) of the passwords of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordDigests {
    /// Of the operator.
    pub operator: String,
    /// Of the agents.
    pub agent: String,
    /// Of replicas towards their primary.
    pub replication: String,
    /// Of the Sentinels.
    pub sentinel: String,
    /// Of the layer's application user; `None`: the layer has none.
    pub application: Option<String>,
    /// Of the layer's administrator, with what that may do; `None`: the layer has none.
    pub administrator: Option<(AdministratorAccess, String)>,
}

/// User of the operator on every server.
pub const OPERATOR: &str = "redoubt-operator";
/// User of the agents on every server.
pub const AGENT: &str = "redoubt-agent";
/// User with which replicas follow their primary.
pub const REPLICATION: &str = "redoubt-replication";
/// User of the Sentinels on data nodes and on each other.
pub const SENTINEL: &str = "redoubt-sentinel";
/// What the names of the system's users begin with, and no other's.
pub(crate) const SYSTEM_PREFIX: &str = "redoubt-";
/// Redis' own user for connections that did not log in: off and without a password on every server. `CLIENT KILL USER` finds them by it.
pub const DEFAULT: &str = "default";
/// The layer's application user.
pub const APPLICATION: &str = "app";

// Every command named here must exist on all engines: a server that meets an unknown one in its ACL file does not start.
// What only newer engines have (`CLIENT SETINFO`) is granted by its category. What the operator and the agents have, they send:
// `tests/it/rights.rs` compares. (`TIME` is sent by the functions that tell the counters.)
const OPERATOR_ON_DATA: &str = "+ping +info +role +config|get +config|set +acl|list +acl|setuser +acl|deluser \
     +acl|dryrun +client|kill +client|pause +client|unpause +client|list +function|list +function|load +function|delete +function|kill \
     +script|kill +fcall_ro +replicaof";
const AGENT_ON_DATA: &str = "+ping +info +role +config|get +config|set +config|resetstat +client|kill +client|list +client|pause \
     +client|unpause +acl|users +command|list +replicaof +shutdown +function|kill +function|list +function|dump \
     +fcall_ro +script|kill +script|flush +bgsave +select +scan +pttl +memory|usage +time";
/// On a layer with caches: to call the function that asks for keys to be removed, and what that runs.
const OPERATOR_FOR_CACHES: &str =
    "+fcall|redoubt_cache_invalidate_prefix +time +hget +hgetall +hset +hdel +pexpire +publish";
/// On a layer with caches: to remove keys, to call the function that remembers their versions with what that runs, and to write how
/// far it is.
const AGENT_FOR_CACHES: &str =
    "+fcall|redoubt_caches_remove +type +hget +unlink +hlen +hexists +hgetall +hset +pexpire +publish";
/// In mode `Cluster`: to give slots away and to have forgotten what is gone.
const OPERATOR_IN_CLUSTER: &str = "+cluster|nodes +cluster|info +cluster|addslotsrange +cluster|forget";
/// In mode `Cluster`: to become and stay a member, to have a replica take over, and to look at the keys of one.
const AGENT_IN_CLUSTER: &str = "+cluster|nodes +cluster|info +cluster|meet +cluster|replicate +cluster|set-config-epoch \
     +cluster|failover +readonly";
/// The agents look at every key, for the audit: whether it ends, and how large it is. What is in it they cannot read.
const AGENT_LOOKS_AT: &str = "%R~*";
/// Where the audit repairs. A selector of its own: with it nothing but an expiry is changed.
const AGENT_REPAIRS: &str = "(~* +pexpire)";
const REPLICATION_ON_DATA: &str = "+psync +replconf +ping";
const SENTINEL_ON_DATA: &str = "+multi +slaveof +replicaof +ping +exec +subscribe +config|rewrite +role +publish +info \
     +client|setname +client|kill +script|kill";
/// What Sentinels say to each other, on data nodes and in each other's ear: a message there may name another primary, to which
/// all data nodes then turn.
const HELLO_CHANNEL: &str = "&__sentinel__:hello";
// ROLE is what Sentinel-aware clients ask a server before they trust it; functions are the operator's to load. A debugged script
// (SCRIPT DEBUG SYNC) keeps the server from all else until its caller goes on.
const APPLICATION_ON_DATA: &str = "+@all -@admin -@dangerous -function +function|list -script|debug +info +role";
/// A server compares its memory with `maxmemory` before a command. These make a copy of what is there, which no term of the plan of
/// memory bounds; a bitmap or a value that is set is bounded by `proto-max-bulk-len`.
const NO_COPIES: &str = "-copy -sunionstore -sinterstore -sdiffstore -zunionstore -zinterstore -zdiffstore -zrangestore \
     -geosearchstore -georadius -georadiusbymember";
/// Channels that the application may publish to: all but those that begin with `__s` or `__k`. `__sentinel__:hello` is the
/// Sentinels' word, `__keyspace@…` and `__keyevent@…` are the server's.
const APPLICATION_PUBLISHES: &str = "&[^_]* &_ &_[^_]* &__ &__[^sk]*";
/// It may listen on every channel. A pattern that is subscribed to must be granted literally, or all are: so this is a selector of
/// its own, with which nothing is published.
const APPLICATION_SUBSCRIBES: &str = "(allchannels +subscribe +psubscribe +ssubscribe +pubsub)";
// SENTINEL DEBUG exists since 7.0, the oldest engine that we serve, and only sets intervals: see `super::info_window`.
const OPERATOR_ON_SENTINEL: &str = "+ping +info +role +subscribe +acl|list +acl|setuser +acl|deluser +client|kill \
     +sentinel|masters +sentinel|replicas +sentinel|sentinels +sentinel|get-master-addr-by-name +sentinel|set \
     +sentinel|reset +sentinel|failover +sentinel|debug";
// The event that the operator waits for.
const OPERATOR_CHANNELS_ON_SENTINEL: &str = "&+switch-master";
const AGENT_ON_SENTINEL: &str = "+ping +info +role +acl|users +client|kill +shutdown +sentinel|masters +sentinel|replicas \
     +sentinel|sentinels +sentinel|get-master-addr-by-name +sentinel|monitor +sentinel|remove +sentinel|set \
     +sentinel|failover +sentinel|debug +sentinel|is-master-down-by-addr +publish +subscribe";
// What agents say in the Sentinels' words, and the event that they wait for: see `super::hello`.
const AGENT_CHANNELS_ON_SENTINEL: &str = "&__sentinel__:hello &+failover-state-wait-promotion";
const SENTINEL_ON_SENTINEL: &str =
    "+ping +info +role +subscribe +publish +client|setname +sentinel|is-master-down-by-addr +sentinel|myid +hello";
// No connection has the default user, but a server that reads its append-only file is: what `EXEC` finds there, and so what every
// function and script wrote, is checked against this user's rights and left out without a word where they lack (Redis up to
// 8.4, issue 14541; Valkey issue 3983).
const DEFAULT_ON_DATA: &str = "allkeys allchannels +@all";
const APPLICATION_ON_SENTINEL: &str = "+@connection -@admin -@dangerous +ping +role +info +subscribe +psubscribe \
     +unsubscribe +punsubscribe +sentinel|get-master-addr-by-name +sentinel|masters +sentinel|master +sentinel|replicas \
     +sentinel|slaves +sentinel|sentinels";

/// Whether it is the user of an application, the layer's or a use's, or of a person, and not of the system.
pub(crate) fn is_application_user(name: &str) -> bool {
    name == APPLICATION || name == ADMINISTRATOR || UseKind::of_user(name).is_some()
}

/// Name of a use's user. Namespaces and uses have no '.' in their names, so no two share one; nor does any with a system
/// user. Each rotation is a user of its own: whose connection is whose is then beyond doubt.
pub fn use_user_name(kind: UseKind, namespace: &str, name: &str, rotation: u32) -> String {
    let prefix = kind.words().user;
    match rotation {
        0 => format!("{prefix}.{namespace}.{name}"),
        rotation => format!("{prefix}.{namespace}.{name}.{rotation}"),
    }
}

fn user(digest: &str, scope: &str, commands: &str) -> DesiredUser {
    let password = format!("#{digest}");
    let words =
        ["reset", "on", &password].into_iter().chain(scope.split_whitespace()).chain(commands.split_whitespace());
    DesiredUser { rules: words.map(str::to_owned).collect() }
}

fn switched_off(rights: &str) -> DesiredUser {
    let words = ["reset", "off"].into_iter().chain(rights.split_whitespace());
    DesiredUser { rules: words.map(str::to_owned).collect() }
}

/// Users of every data node.
pub fn data_users(digests: &PasswordDigests) -> BTreeMap<String, DesiredUser> {
    let mut users = BTreeMap::from([
        (OPERATOR.to_owned(), user(&digests.operator, "", OPERATOR_ON_DATA)),
        (AGENT.to_owned(), user(&digests.agent, AGENT_LOOKS_AT, AGENT_ON_DATA)),
        (REPLICATION.to_owned(), user(&digests.replication, "", REPLICATION_ON_DATA)),
        (SENTINEL.to_owned(), user(&digests.sentinel, HELLO_CHANNEL, SENTINEL_ON_DATA)),
        (DEFAULT.to_owned(), switched_off(DEFAULT_ON_DATA)),
    ]);
    if let Some(application) = &digests.application {
        let scope = format!("allkeys {APPLICATION_PUBLISHES}");
        let commands = format!("{APPLICATION_ON_DATA} {NO_COPIES} {APPLICATION_SUBSCRIBES}");
        users.insert(APPLICATION.to_owned(), user(application, &scope, &commands));
    }
    if let Some((access, digest)) = &digests.administrator {
        users.insert(ADMINISTRATOR.to_owned(), administrator_on_data(*access, digest));
    }
    users
}

/// Gives the agents and the operator what they need for the caches of the layer, given by prefix with the channel of each: the operator
/// asks for keys to be removed and reads how far that is, and the agent of the primary removes them.
pub fn serve_caches(users: &mut BTreeMap<String, DesiredUser>, caches: &BTreeMap<String, String>) {
    if caches.is_empty() {
        return;
    }
    let channels: Vec<String> = caches.values().map(|channel| format!("&{channel}")).collect();
    // A selector of its own: with the keys of the root the agents look at every key, and what is in it they are not to read.
    let mut give = |name: &str, keys: Vec<String>, commands: &str| {
        if let Some(user) = users.get_mut(name) {
            let selector = format!("({} {} {commands})", keys.join(" "), channels.join(" "));
            user.rules.extend(selector.split_whitespace().map(str::to_owned));
        }
    };
    give(OPERATOR, caches.keys().map(|prefix| format!("~{prefix}{JOBS}")).collect(), OPERATOR_FOR_CACHES);
    give(AGENT, caches.keys().map(|prefix| format!("~{prefix}*")).collect(), AGENT_FOR_CACHES);
}

/// Gives the operator and the agents, among the users of a data node, what they need in mode `Cluster`.
pub fn serve_cluster(users: &mut BTreeMap<String, DesiredUser>) {
    for (name, commands) in [(OPERATOR, OPERATOR_IN_CLUSTER), (AGENT, AGENT_IN_CLUSTER)] {
        if let Some(user) = users.get_mut(name) {
            user.rules.extend(commands.split_whitespace().map(str::to_owned));
        }
    }
}

/// Gives the agents, among the users of a data node, the right to give keys an expiry.
pub fn let_agents_repair(users: &mut BTreeMap<String, DesiredUser>) {
    if let Some(agent) = users.get_mut(AGENT) {
        agent.rules.extend(AGENT_REPAIRS.split_whitespace().map(str::to_owned));
    }
}

/// Users of every Sentinel.
pub fn sentinel_users(digests: &PasswordDigests) -> BTreeMap<String, DesiredUser> {
    let mut users = BTreeMap::from([
        (OPERATOR.to_owned(), user(&digests.operator, OPERATOR_CHANNELS_ON_SENTINEL, OPERATOR_ON_SENTINEL)),
        (AGENT.to_owned(), user(&digests.agent, AGENT_CHANNELS_ON_SENTINEL, AGENT_ON_SENTINEL)),
        (SENTINEL.to_owned(), user(&digests.sentinel, HELLO_CHANNEL, SENTINEL_ON_SENTINEL)),
        (DEFAULT.to_owned(), switched_off("")),
    ]);
    if let Some(application) = &digests.application {
        users.insert(APPLICATION.to_owned(), user(application, "allchannels", APPLICATION_ON_SENTINEL));
    }
    if let Some((_, digest)) = &digests.administrator {
        users.insert(ADMINISTRATOR.to_owned(), administrator_on_sentinel(digest));
    }
    users
}

/// The user of a use on every data node: only keys and channels whose name begins with its prefix, and its channel.
pub fn use_on_data(grant: Grant<'_>, digest: &str) -> DesiredUser {
    let rights = rights::of(grant.kind);
    let mut commands = vec![rights.commands.to_owned()];
    for (function, reads_only) in rights.functions {
        commands.push(format!("+fcall|{function}"));
        commands.extend(reads_only.then(|| format!("+fcall_ro|{function}")));
    }
    for (function, reads_only) in grant.functions {
        commands.push(format!("+fcall|{function}"));
        commands.extend(reads_only.then(|| format!("+fcall_ro|{function}")));
    }
    commands.extend(grant.scripts.then(|| rights::SCRIPTS.to_owned()));
    commands.extend(grant.tracking.then(|| rights::TRACKING.to_owned()));
    let prefix = grant.prefix;
    let channel = grant.channel.map(|channel| format!(" &{channel}")).unwrap_or_default();
    user(digest, &format!("~{prefix}* &{prefix}*{channel}"), &commands.join(" "))
}

/// The user of a use on every Sentinel: it may ask where the primary is.
pub fn use_on_sentinel(digest: &str) -> DesiredUser {
    user(digest, "allchannels", APPLICATION_ON_SENTINEL)
}

/// The administrator on a data node. `digest`: of its password.
pub fn administrator_on_data(access: AdministratorAccess, digest: &str) -> DesiredUser {
    match access {
        AdministratorAccess::Diagnostics => user(digest, LOOKS_AT, &format!("{CONNECTION} {DIAGNOSTICS} {SIZES}")),
        AdministratorAccess::Full => {
            let commands = format!("{APPLICATION_ON_DATA} {DIAGNOSTICS} {UPKEEP} {APPLICATION_SUBSCRIBES}");
            user(digest, &format!("allkeys {APPLICATION_PUBLISHES}"), &commands)
        }
    }
}

/// The administrator on a Sentinel: it may ask, whatever its access is.
pub fn administrator_on_sentinel(digest: &str) -> DesiredUser {
    user(digest, "allchannels", &format!("{APPLICATION_ON_SENTINEL} {ON_SENTINEL}"))
}

/// An ACL file (also the `user` lines of a Sentinel's configuration) of exactly these users. Where the default user is not
/// among them it is off, and has no rights.
pub fn acl_file(users: &BTreeMap<String, DesiredUser>) -> String {
    let line = |(name, user): (&String, &DesiredUser)| format!("user {name} {}\n", user.rules.join(" "));
    let without = (!users.contains_key(DEFAULT)).then(|| format!("user {DEFAULT} reset off\n"));
    without.into_iter().chain(users.iter().map(line)).collect()
}
