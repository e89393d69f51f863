//! The administrator's user of a layer: its rights, and what is put to the live servers with `ACL DRYRUN`.
//!
//! What neither access has, and why:
//! - `CONFIG GET` answers `masterauth`, the password with which replicas read all data, and a rule cannot name a directive;
//! - `MONITOR` shows every value of every user, and slows the server down;
//! - `CONFIG SET`, `REPLICAOF`, `ACL SETUSER`, `FUNCTION LOAD`, `CLIENT PAUSE`, `SHUTDOWN` and `DEBUG` change what the operator promises;
//! - `FLUSHALL`, `FLUSHDB`, `SWAPDB` and `KEYS` take or stop the data of every use at once.

use crate::model::AdministratorAccess;

/// Name of the user.
pub const ADMINISTRATOR: &str = "admin";

/// What is looked at of a server that is slow. The slow log shows the first 128 bytes of arguments, passwords left out.
pub(super) const DIAGNOSTICS: &str = "+ping +info +role +time +dbsize +command +client|list +client|info +client|getname +slowlog|get +slowlog|len \
     +latency|latest +latency|history +latency|doctor +latency|graph +latency|histogram +memory|stats +memory|doctor \
     +memory|usage +function|stats +acl|whoami";
/// What is looked at of keys: names, types, sizes and ends, and no value (`redis-cli --bigkeys`, `--memkeys`).
pub(super) const SIZES: &str = "+scan +type +ttl +pttl +exists +object +strlen +llen +scard +hlen +zcard +xlen";
/// Logs are cleared, and clients that do harm are ended.
pub(super) const UPKEEP: &str = "+slowlog|reset +latency|reset +client|kill";
/// What a client says of itself when it connects. What only newer engines have is granted by its category.
pub(super) const CONNECTION: &str = "+@connection -@admin -@dangerous -client|tracking";
/// Keys whose sizes may be asked.
pub(super) const LOOKS_AT: &str = "%R~*";
/// What it may ask a Sentinel next to what an application may.
pub(super) const ON_SENTINEL: &str = "+client|list +sentinel|ckquorum";

/// What the user may do and must not on a data node. `+`: must be allowed; `-`: must not.
pub fn expectations(access: AdministratorAccess) -> Vec<&'static str> {
    let further = match access {
        AdministratorAccess::Diagnostics => OF_DIAGNOSTICS,
        AdministratorAccess::Full => OF_FULL,
    };
    OF_BOTH.iter().chain(further).copied().collect()
}

const OF_BOTH: &[&str] = &[
    "+PING",
    "+INFO everything",
    "+ROLE",
    "+DBSIZE",
    "+COMMAND DOCS get",
    "+COMMAND COUNT",
    "+CLIENT LIST",
    "+CLIENT INFO",
    "+CLIENT GETNAME",
    "+CLIENT SETNAME x",
    "+SELECT 1",
    "+SLOWLOG GET 10",
    "+SLOWLOG LEN",
    "+LATENCY LATEST",
    "+LATENCY HISTORY command",
    "+LATENCY DOCTOR",
    "+LATENCY HISTOGRAM get",
    "+MEMORY STATS",
    "+MEMORY DOCTOR",
    "+MEMORY USAGE key SAMPLES 5",
    "+FUNCTION STATS",
    "+ACL WHOAMI",
    "+SCAN 0 COUNT 100",
    "+TYPE key",
    "+TTL key",
    "+EXISTS key",
    "+OBJECT ENCODING key",
    "+STRLEN key",
    "+HLEN key",
    "+ZCARD key",
    "-CONFIG GET masterauth",
    "-CONFIG GET *",
    "-CONFIG SET maxmemory 0",
    "-CONFIG RESETSTAT",
    "-CONFIG REWRITE",
    "-ACL LIST",
    "-ACL GETUSER app",
    "-ACL SETUSER x",
    "-ACL DELUSER x",
    "-ACL LOG RESET",
    "-MONITOR",
    "-KEYS *",
    "-FLUSHALL",
    "-FLUSHDB",
    "-SWAPDB 0 1",
    "-REPLICAOF NO ONE",
    "-SHUTDOWN",
    "-DEBUG SLEEP 0",
    "-SAVE",
    "-BGSAVE",
    "-PSYNC ? -1",
    "-SYNC",
    "-MODULE LIST",
    "-FUNCTION LOAD x",
    "-FUNCTION DELETE redoubt",
    "-FUNCTION FLUSH",
    "-SCRIPT DEBUG SYNC",
    "-CLIENT PAUSE 1",
    "-CLIENT UNPAUSE",
    "-CLIENT NO-EVICT on",
    "-PUBLISH __sentinel__:hello m",
    "-SPUBLISH __sentinel__:hello m",
    "-PUBLISH __keyevent@0__:expired m",
];
const OF_DIAGNOSTICS: &[&str] = &[
    "-GET key",
    "-GETRANGE key 0 1",
    "-HGETALL key",
    "-HSCAN key 0",
    "-SMEMBERS key",
    "-LRANGE key 0 1",
    "-ZRANGE key 0 1",
    "-XRANGE key - +",
    "-DUMP key",
    "-SORT key",
    "-SET key value",
    "-DEL key",
    "-EXPIRE key 1",
    "-RESTORE key 0 x",
    "-FCALL f 0",
    "-FCALL_RO f 0",
    "-EVAL x 0",
    "-FUNCTION LIST",
    "-PUBLISH c m",
    "-SUBSCRIBE c",
    "-PSUBSCRIBE *",
    "-CLIENT TRACKING on BCAST",
    "-CLIENT KILL TYPE normal",
    "-SLOWLOG RESET",
    "-LATENCY RESET",
];
const OF_FULL: &[&str] = &[
    "+GET key",
    "+SET key value",
    "+DEL key",
    "+UNLINK key",
    "+EXPIRE key 1",
    "+HGETALL key",
    "+FCALL f 0",
    "+EVAL x 0",
    "+FUNCTION LIST",
    "+PUBLISH c m",
    "+SUBSCRIBE c",
    "+PSUBSCRIBE *",
    "+CLIENT KILL TYPE normal",
    "+SLOWLOG RESET",
    "+LATENCY RESET",
];
