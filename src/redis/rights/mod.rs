//! The least rights of the users of uses, and what they may do and must not, kind by kind: commands and expectations side by side.

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
    /// Whether it may run scripts of its own.
    pub scripts: bool,
    /// Functions of users' libraries that it may call: those of its namespace.
    pub functions: &'a Functions,
}

impl Grant<'_> {
    /// What is put to the live server.
    pub fn expectations(&self) -> impl Iterator<Item = Cow<'static, str>> {
        let scripts = if self.scripts { WITH_SCRIPTS } else { WITHOUT_SCRIPTS };
        let fixed = COMMON.iter().chain(of(self.kind).expectations).chain(scripts);
        let further = self.functions.keys().map(|function| Cow::Owned(format!("+FCALL {function} 0")));
        fixed.map(|expectation| Cow::Borrowed(*expectation)).chain(further)
    }
}

/// What `access.scripts: true` adds. A script that does not end stops every tenant of the layer until it is killed; it cannot touch
/// another prefix.
pub const SCRIPTS: &str = "+eval +evalsha +eval_ro +evalsha_ro +script|load +script|exists";
/// Of a user without scripts.
const WITHOUT_SCRIPTS: &[&str] = &["-EVAL x 0", "-EVALSHA x 0", "-SCRIPT LOAD x"];
/// Of a user with scripts.
const WITH_SCRIPTS: &[&str] =
    &["+EVAL x 0", "+EVALSHA x 0", "+EVAL_RO x 0", "+SCRIPT LOAD x", "+SCRIPT EXISTS x", "-EVAL x 1 !"];

/// Of a kind without a user.
const NONE: Rights = Rights { commands: "", functions: &[], expectations: &[] };

/// The rights of a kind.
pub const fn of(kind: UseKind) -> Rights {
    match kind {
        UseKind::SessionStore => sessions::RIGHTS,
        UseKind::RateLimitPolicy => limits::RIGHTS,
        UseKind::FunctionLibrary => NONE,
    }
}

/// What the user of each kind may do and must not. `+`: must be allowed; `-`: must not. `@` is the use's prefix, `!` a key of nobody's.
pub const COMMON: &[&str] = &[
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
    "-CLIENT TRACKING on BCAST",
    "-PUBSUB CHANNELS",
    "-SCRIPT FLUSH",
    "-DBSIZE",
    "-FLUSHALL",
    "-CONFIG GET x",
    "-ACL LIST",
    "-FUNCTION LOAD x",
    "-FUNCTION LIST",
    "-CLIENT KILL TYPE normal",
    "-DEBUG SLEEP 0",
    "-REPLICAOF NO ONE",
];
