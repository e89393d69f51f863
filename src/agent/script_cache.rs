//! The scripts that a server keeps for `EVALSHA`.
//!
//! A server keeps each script that it was sent, Redis 7.0 without a limit, and no term of the memory plan has them. A client that calls one
//! that is not there (`NOSCRIPT`) sends it again, as it has to after a failover. So the cache is emptied once it is large.

use super::state::State;
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// One poll may fall into a script that uses much memory.
const POLLS: u32 = 2;
/// What scripts and the interpreter of `EVAL` may take, bytes. A thousand scripts of usual size take less.
const MOST: u64 = 8 << 20;

/// For how many polls it has been too large.
#[derive(Debug, Default)]
pub(super) struct ScriptCache {
    polls: u32,
}

impl ScriptCache {
    /// Looks at a server that answers.
    pub(super) async fn flush_if_large(&mut self, state: &State, connection: &Connection, info: &Info) {
        let bytes = bytes(info);
        self.polls = if bytes > MOST { self.polls + 1 } else { 0 };
        if self.polls < POLLS {
            return;
        }
        self.polls = 0;
        match server::flush_scripts(connection).await {
            Ok(()) => {
                tracing::warn!(bytes, "the cache of scripts is emptied: no limit counts what it takes");
                state.notice("its cache of scripts was emptied: clients had sent more than it has room for".to_owned());
            }
            Err(error) => tracing::warn!(bytes, %error, "the cache of scripts may stay as large as it is"),
        }
    }
}

/// What the scripts of `EVAL` take; 0 where none is kept.
fn bytes(info: &Info) -> u64 {
    let number = |name| info.number(name).unwrap_or_default();
    if number("number_of_cached_scripts") == 0 {
        return 0;
    }
    number("used_memory_vm_eval").saturating_add(number("used_memory_scripts_eval"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_counts_where_scripts_are_kept() {
        let of = |scripts: u64| {
            let text = format!(
                "# Memory\r\nused_memory_vm_eval:900\r\nnumber_of_cached_scripts:{scripts}\r\nused_memory_scripts_eval:70\r\n"
            );
            bytes(&Info::parse(&text))
        };
        assert_eq!([of(0), of(1)], [0, 970]);
    }
}
