//! The form of the rights of one kind of user, and the rules that kinds share.

/// The rights of the users of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// Rules of commands, as `ACL SETUSER` takes them.
    pub commands: &'static str,
    /// Functions that the user may call, and whether `FCALL_RO` takes them too.
    pub functions: &'static [(&'static str, bool)],
    /// What is put to the live server besides [`COMMON`](super::COMMON).
    pub expectations: &'static [&'static str],
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
// - DUMP makes a copy of a whole value before the limit of replies is compared. LPOS and LINSERT go through a whole value for a short
//   answer, and no stock library needs them for sessions, limits or caches;
// - INFO and ROLE are what clients ask before they trust a server; TIME is what the functions ask for.
pub(super) const KEYS_OF_ITS_OWN: &str = "+@read +@write +@connection +@transaction +@pubsub -@admin -@dangerous -@scripting \
     -@bitmap -@geo -@hyperloglog -@stream -setrange -copy -sunionstore -sinterstore -sdiffstore -zunionstore -zinterstore \
     -zdiffstore -zrangestore -sunion -sinter -sdiff -sintercard -zunion -zinter -zdiff -zintercard -lcs -dump -lpos \
     -linsert -scan -randomkey -dbsize -pubsub -client|tracking +info +role +time";
