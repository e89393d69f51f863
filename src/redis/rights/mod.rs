//! The least rights of the users of uses, and what they may do and must not, kind by kind: commands and expectations side by side.

mod caches;
mod limits;
mod rules;
mod sessions;

use std::borrow::Cow;

pub use self::rules::Rights;
use crate::model::UseKind;
use crate::model::function_library::Functions;

/// What the user of one use is for.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Kind of the use.
    pub kind: UseKind,
    /// What each of its keys and channels begins with; holds none of the characters `*?[]\\` that mean something in a pattern.
    pub prefix: &'a str,
    /// A channel of its own besides those; holds none of these characters either.
    pub channel: Option<&'a str>,
    /// Whether the server may track keys for it. In broadcast mode that shows the names of all keys.
    pub tracking: bool,
    /// Whether it may run scripts of its own.
    pub scripts: bool,
    /// Functions of users' libraries that it may call: those of its namespace.
    pub functions: &'a Functions,
}

impl<'a> Grant<'a> {
    /// The keys and channels of a prefix, and nothing further.
    pub const fn plain(kind: UseKind, prefix: &'a str, functions: &'a Functions) -> Self {
        Self { kind, prefix, channel: None, tracking: false, scripts: false, functions }
    }

    /// What is put to the live server.
    pub(crate) fn expectations(&self) -> impl Iterator<Item = Cow<'static, str>> {
        let scripts = if self.scripts { WITH_SCRIPTS } else { WITHOUT_SCRIPTS };
        let tracking = if self.tracking { WITH_TRACKING } else { WITHOUT_TRACKING };
        let fixed = COMMON.iter().chain(of(self.kind).expectations).chain(scripts).chain(tracking);
        let further = self.functions.keys().map(|function| format!("+FCALL {function} 0"));
        let further = further.chain(self.of_channel()).map(Cow::Owned);
        fixed.map(|expectation| Cow::Borrowed(*expectation)).chain(further)
    }

    /// What is asked of the channel: no other of that name's beginning, unless the prefix covers it.
    fn of_channel(&self) -> Vec<String> {
        let Some(channel) = self.channel else { return Vec::new() };
        let mut asked = vec![format!("+PUBLISH {channel} m"), format!("+SUBSCRIBE {channel}")];
        if !channel.starts_with(self.prefix) {
            asked.extend([format!("-PUBLISH {channel}x m"), format!("-PSUBSCRIBE {channel}*")]);
        }
        asked
    }
}

/// What `access.scripts: true` adds. A script that does not end stops every tenant of the layer until it is killed; it cannot touch
/// another prefix.
pub const SCRIPTS: &str = "+eval +evalsha +eval_ro +evalsha_ro +script|load +script|exists";
const WITHOUT_SCRIPTS: &[&str] = &["-EVAL x 0", "-EVALSHA x 0", "-SCRIPT LOAD x"];
const WITH_SCRIPTS: &[&str] =
    &["+EVAL x 0", "+EVALSHA x 0", "+EVAL_RO x 0", "+SCRIPT LOAD x", "+SCRIPT EXISTS x", "-EVAL x 1 !"];

/// What `tracking: true` adds.
pub(crate) const TRACKING: &str = "+client|tracking";
/// Of a user for which the server tracks no keys.
const WITHOUT_TRACKING: &[&str] = &["-CLIENT TRACKING on BCAST"];
/// Of a user for which it does.
const WITH_TRACKING: &[&str] = &["+CLIENT TRACKING on BCAST PREFIX @", "+CLIENT TRACKING off"];

/// Of a kind without a user.
const NONE: Rights = Rights { commands: "", functions: &[], expectations: &[] };

/// The rights of a kind.
pub const fn of(kind: UseKind) -> Rights {
    match kind {
        UseKind::SessionStore => sessions::RIGHTS,
        UseKind::RateLimitPolicy => limits::RIGHTS,
        UseKind::CacheNamespace => caches::RIGHTS,
        UseKind::FunctionLibrary => NONE,
    }
}

/// What the user of each kind may do and must not. `+`: must be allowed; `-`: must not. `@` is the use's prefix, `!` a key outside every prefix.
pub(crate) const COMMON: &[&str] = &[
    "+PING",
    "+ROLE",
    "+INFO",
    "+TIME",
    "+CLIENT SETNAME x",
    "+WAIT 1 0",
    "+GET @a",
    "+SET @a v",
    "+SETEX @a 1 v",
    "+SET @a v EX 1",
    "+APPEND @a x",
    "-SETRANGE @a 1 x",
    "-SETBIT @a 1 1",
    "-BITFIELD @a SET u8 0 1",
    "-BITOP NOT @a @b",
    "-COPY @a @b",
    "-SUNIONSTORE @a @b",
    "-ZUNIONSTORE @a 1 @b",
    "-SUNION @a @b",
    "-SINTER @a @b",
    "-SDIFF @a @b",
    "-SINTERCARD 2 @a @b",
    "-ZUNION 2 @a @b",
    "-ZINTER 2 @a @b",
    "-ZDIFF 2 @a @b",
    "-ZINTERCARD 2 @a @b",
    "-LCS @a @b",
    "-DUMP @a",
    "-LPOS @a x",
    "-LINSERT @a BEFORE x y",
    "+DEL @a",
    "+UNLINK @a",
    "+EXISTS @a",
    "+EXPIRE @a 1",
    "+PEXPIREAT @a 1",
    "+TTL @a",
    "+HSET @a f v",
    "+HGETALL @a",
    "+HMGET @a f",
    "+HDEL @a f",
    "+ZADD @a 1 m",
    "+ZRANGE @a 0 -1",
    "+ZREM @a m",
    "+SADD @a m",
    "+SMEMBERS @a",
    "+RENAME @a @b",
    "+MULTI",
    "+EXEC",
    "+WATCH @a",
    "+PUBLISH @c m",
    "+SUBSCRIBE @c",
    "-GET !",
    "-SET ! v",
    "-DEL !",
    "-RENAME @a !",
    "-PUBLISH ! m",
    "-PUBLISH __sentinel__:hello m",
    "-SPUBLISH __sentinel__:hello m",
    "-PUBLISH __keyevent@0__:expired m",
    "-PSUBSCRIBE *",
    "-SCAN 0",
    "-KEYS *",
    "-RANDOMKEY",
    "-PUBSUB CHANNELS",
    "-SCRIPT FLUSH",
    "-DBSIZE",
    "-FLUSHALL",
    "-CONFIG GET x",
    "-ACL LIST",
    "-FUNCTION LOAD x",
    "-FUNCTION LIST",
    "-FCALL_RO redoubt_collect 0",
    "-CLIENT KILL TYPE normal",
    "-DEBUG SLEEP 0",
    "-REPLICAOF NO ONE",
];
