//! The least rights of the users of uses, and what they may do and must not, kind by kind: commands and expectations side by side.

mod caches;
mod limits;
mod sessions;

use std::borrow::Cow;

use crate::model::UseKind;
use crate::model::function_library::Functions;

/// The rights of the users of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// Rules of commands, as `ACL SETUSER` takes them.
    pub commands: &'static str,
    /// Functions that the user may call, and whether `FCALL_RO` takes them too.
    pub functions: &'static [(&'static str, bool)],
    /// What is put to the live server beside [`COMMON`].
    pub expectations: &'static [&'static str],
}

/// What the user of one use is for.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Kind of the use.
    pub kind: UseKind,
    /// What each of its keys and channels begins with; holds none of the characters `*?[]\\` that mean something in a pattern.
    pub prefix: &'a str,
    /// A channel of its own beside those; holds none of these characters either.
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
    pub fn expectations(&self) -> impl Iterator<Item = Cow<'static, str>> {
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
/// Of a user without scripts.
const WITHOUT_SCRIPTS: &[&str] = &["-EVAL x 0", "-EVALSHA x 0", "-SCRIPT LOAD x"];
/// Of a user with scripts.
const WITH_SCRIPTS: &[&str] =
    &["+EVAL x 0", "+EVALSHA x 0", "+EVAL_RO x 0", "+SCRIPT LOAD x", "+SCRIPT EXISTS x", "-EVAL x 1 !"];

/// What `tracking: true` adds.
pub const TRACKING: &str = "+client|tracking";
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

// What stock libraries and the functions use, by category, and nothing that shows or stops another tenant's:
// - the name of a session's key is its secret (a Flask-Session cookie is nothing else). SCAN and RANDOMKEY answer names of all
//   keys, and CLIENT TRACKING in broadcast mode sends those of all writes, whatever the user's key patterns are;
// - scripts of one tenant that do not end stop all, so of @scripting only the functions that the operator loaded, and of those
//   not the ones that tell of all tenants;
// - a server compares its memory with `maxmemory` before a command, not after: a command that makes more of what is there than
//   its caller sent (SETRANGE, SETBIT, COPY, the unions) passes it. APPEND adds what was sent, and Spring Session uses it;
// - a command that goes through whole sets once for each time that a set is named (the unions, intersections and differences that
//   are only answered) keeps the server from all else for hours, and is no script that could be ended. LCS compares each byte of a
//   value with each of another, and keeps four bytes for each pair;
// - INFO and ROLE are what clients ask before they trust a server; TIME is what the functions ask for.
const KEYS_OF_ITS_OWN: &str = "+@read +@write +@connection +@transaction +@pubsub -@admin -@dangerous -@scripting \
     -@bitmap -@geo -@hyperloglog -@stream -setrange -copy -sunionstore -sinterstore -sdiffstore -zunionstore -zinterstore \
     -zdiffstore -zrangestore -sunion -sinter -sdiff -sintercard -zunion -zinter -zdiff -zintercard -lcs -scan \
     -randomkey -dbsize -pubsub -client|tracking +info +role +time";

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
