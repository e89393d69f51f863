//! Commands that go through the keys of a data node, a page at a time. What they answer holds names of keys: it must not get into logs.
//!
//! Each asks the server for its time before and after, in the same write: what the server needed for it, and for nothing else but what
//! other clients had done in between.

use std::time::Duration;

use ::redis::{Cmd, FromRedisValue as _, Value, cmd};

use super::connection::Connection;
use super::error::{Class, Result};
use super::reply::{items, number, text};

/// Commands that are sent in one write at most: a server carries out all that it has read before it serves the next client.
const TOGETHER: usize = 512;
/// Keys that one call of a function removes at most: it looks at each of them, for up to some 10 µs.
const BY_FUNCTION: usize = 128;
/// Bytes that are removed in one command at most, unless one key has more.
const BYTES_TOGETHER: u64 = 1 << 20;
/// Elements of a value that `MEMORY USAGE` looks at: with more it would take as long as the value is large.
const SAMPLES: u8 = 5;

/// How long a server was busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    /// With all writes together.
    pub busy: Duration,
    /// With what was sent in one write, at most.
    pub longest: Duration,
}

impl Meter {
    fn note(&mut self, took: Duration) {
        (self.busy, self.longest) = (self.busy + took, self.longest.max(took));
    }

    /// Sends commands in one write; each one's reply or error.
    async fn send(&mut self, connection: &Connection, commands: &[Cmd]) -> Result<Vec<Result<Value>>> {
        let time = || std::iter::once(cmd("TIME"));
        let all: Vec<Cmd> = time().chain(commands.iter().cloned()).chain(time()).collect();
        let mut replies = connection.query_all(&all).await?;
        let clock = |reply: Option<Result<Value>>| {
            let reply = reply.unwrap_or(Ok(Value::Nil))?;
            let (seconds, micros) = <(u64, u64)>::from_redis_value(reply)
                .map_err(|_| connection.bad_reply("TIME", "neither seconds nor microseconds"))?;
            Ok::<_, super::Error>(Duration::from_secs(seconds) + Duration::from_micros(micros))
        };
        let (after, before) = (clock(replies.pop())?, clock((!replies.is_empty()).then(|| replies.remove(0)))?);
        // A clock that is set back meanwhile says nothing.
        self.note(after.saturating_sub(before));
        Ok(replies)
    }
}

/// `SELECT`: the database of all commands that follow on this connection and its clones.
pub(crate) async fn select(connection: &Connection, database: u32) -> Result<()> {
    connection.query(cmd("SELECT").arg(database)).await
}

/// One page of `SCAN`: the next cursor (0: that was the last) and names of keys, about `count` of them.
pub(crate) async fn scan(
    connection: &Connection,
    meter: &mut Meter,
    cursor: u64,
    count: u16,
) -> Result<(u64, Vec<Vec<u8>>)> {
    page(connection, meter, cmd("SCAN").arg(cursor).arg("COUNT").arg(count).clone()).await
}

/// The same, with the names that match a pattern; those that do not are looked at all the same.
pub(crate) async fn scan_for(
    connection: &Connection,
    meter: &mut Meter,
    cursor: u64,
    count: u16,
    pattern: &[u8],
) -> Result<(u64, Vec<Vec<u8>>)> {
    let command = cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count).clone();
    page(connection, meter, command).await
}

async fn page(connection: &Connection, meter: &mut Meter, command: Cmd) -> Result<(u64, Vec<Vec<u8>>)> {
    let reply = meter.send(connection, &[command]).await?.pop().unwrap_or(Ok(Value::Nil))?;
    parse_page(reply).ok_or_else(|| connection.bad_reply("SCAN", "neither a cursor nor keys"))
}

fn parse_page(reply: Value) -> Option<(u64, Vec<Vec<u8>>)> {
    // A cursor has 64 bits without a sign, and is a text.
    let next = text(items(&reply)?.first()?)?.parse().ok()?;
    let Value::Array(parts) = reply else { return None };
    let Value::Array(keys) = parts.into_iter().nth(1)? else { return None };
    let name = |key| match key {
        Value::BulkString(name) => Some(name),
        _ => None,
    };
    Some((next, keys.into_iter().map(name).collect::<Option<_>>()?))
}

/// `PTTL` of each key, milliseconds: -1 without an expiry, -2 where it is gone.
pub(crate) async fn lifetimes(connection: &Connection, meter: &mut Meter, keys: &[Vec<u8>]) -> Result<Vec<i64>> {
    let commands: Vec<Cmd> = keys.iter().map(|key| cmd("PTTL").arg(key.as_slice()).clone()).collect();
    let replies = numbers(connection, meter, "PTTL", &commands).await?;
    Ok(replies.into_iter().map(|reply| reply.unwrap_or(-2)).collect())
}

/// `MEMORY USAGE` of each key, bytes: by a few of its elements where it has many. `None`: it is gone.
pub(crate) async fn sizes(connection: &Connection, meter: &mut Meter, keys: &[&[u8]]) -> Result<Vec<Option<u64>>> {
    let command = |key: &&[u8]| cmd("MEMORY").arg("USAGE").arg(*key).arg("SAMPLES").arg(SAMPLES).clone();
    let replies = numbers(connection, meter, "MEMORY USAGE", &keys.iter().map(command).collect::<Vec<_>>()).await?;
    Ok(replies.into_iter().map(|reply| u64::try_from(reply?).ok()).collect())
}

/// `PEXPIRE … NX`: gives each key that has no expiry one, milliseconds from now. How many got it: one that was given an expiry
/// meanwhile, or is gone, did not.
pub(crate) async fn give_expiry(connection: &Connection, meter: &mut Meter, keys: &[(&[u8], u64)]) -> Result<u64> {
    let command = |(key, lifetime): &(&[u8], u64)| cmd("PEXPIRE").arg(*key).arg(*lifetime).arg("NX").clone();
    let replies = numbers(connection, meter, "PEXPIRE", &keys.iter().map(command).collect::<Vec<_>>()).await?;
    Ok(replies.into_iter().flatten().map(i64::cast_unsigned).sum())
}

/// What is left of keys that are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing, as where the server evicts them.
    Eviction,
    /// The versions of a cache's entries, for the rest of their TTLs: so that no older version is stored again.
    Invalidation,
}

impl Removal {
    const fn most(self) -> usize {
        match self {
            Self::Eviction => TOGETHER,
            Self::Invalidation => BY_FUNCTION,
        }
    }

    fn of(self, keys: &[&[u8]]) -> Cmd {
        match self {
            Self::Eviction => cmd("UNLINK").arg(keys).clone(),
            Self::Invalidation => cmd("FCALL").arg("redoubt_caches_remove").arg(keys.len()).arg(keys).clone(),
        }
    }
}

/// Removes keys, as [`removed_together`] puts them together. How many were there.
pub(crate) async fn remove(
    connection: &Connection,
    meter: &mut Meter,
    keys: &[&[u8]],
    removal: Removal,
) -> Result<u64> {
    let replies = numbers(connection, meter, "the removal of keys", &[removal.of(keys)]).await?;
    Ok(replies.into_iter().flatten().map(i64::cast_unsigned).sum())
}

/// Keys with their sizes, in parts that are removed together: at most 512 keys, by a function 128, and 1 MiB, or one key. A server frees a value of few
/// elements while others wait, however large it is: one of 1 MiB in some 0.5 ms.
pub(crate) fn removed_together<'a>(keys: &[(&'a [u8], u64)], removal: Removal) -> Vec<Vec<&'a [u8]>> {
    let mut parts: Vec<(u64, Vec<&[u8]>)> = Vec::new();
    for (key, bytes) in keys {
        match parts.last_mut() {
            Some((sum, part)) if part.len() < removal.most() && sum.saturating_add(*bytes) <= BYTES_TOGETHER => {
                *sum += bytes;
                part.push(key);
            }
            Some(_) | None => parts.push((*bytes, vec![key])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// The replies to commands that answer a number each, or nothing. The first error is that of all.
async fn numbers(connection: &Connection, meter: &mut Meter, name: &str, commands: &[Cmd]) -> Result<Vec<Option<i64>>> {
    let mut all = Vec::with_capacity(commands.len());
    for together in commands.chunks(TOGETHER) {
        for reply in meter.send(connection, together).await? {
            all.push(match reply {
                Ok(Value::Nil) => None,
                Ok(reply) => {
                    let bad = || connection.bad_reply(name, "not a number");
                    Some(number(&reply).ok_or_else(bad)?)
                }
                // Some types of modules have no size that they tell.
                Err(error) if error.class() == Class::Other && name == "MEMORY USAGE" => None,
                Err(error) => return Err(error),
            });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reply::tests::{any_reply, bulk};
    use super::*;

    #[test]
    fn a_page_is_read_with_cursors_of_sixty_four_bits_and_keys_of_any_bytes() {
        let page = |cursor: &str| {
            let keys = Value::Array(vec![bulk("a"), Value::BulkString(vec![0xFF, 0])]);
            parse_page(Value::Array(vec![bulk(cursor), keys]))
        };
        let keys = vec![b"a".to_vec(), vec![0xFF, 0]];
        assert_eq!(page("0"), Some((0, keys.clone())));
        assert_eq!(page("18446744073709551615"), Some((u64::MAX, keys)));
        assert_eq!(page("x"), None);
    }

    proptest! {
        /// Whatever the sizes, each key goes once, in its order, and no command frees much.
        #[test]
        fn what_is_removed_together_is_few_and_small(
            sizes in prop::collection::vec(0_u64..(3 << 20), 0..2_000),
            removal in prop::sample::select(vec![Removal::Eviction, Removal::Invalidation]),
        ) {
            let names: Vec<Vec<u8>> = (0..sizes.len()).map(|number| number.to_string().into_bytes()).collect();
            let keys: Vec<(&[u8], u64)> = names.iter().map(Vec::as_slice).zip(sizes.iter().copied()).collect();
            let parts = removed_together(&keys, removal);
            let size = |key: &[u8]| sizes[std::str::from_utf8(key).unwrap().parse::<usize>().unwrap()];
            for part in &parts {
                prop_assert!((1..=removal.most()).contains(&part.len()));
                prop_assert!(part.len() == 1 || part.iter().map(|key| size(key)).sum::<u64>() <= BYTES_TOGETHER);
            }
            let all: Vec<&[u8]> = parts.into_iter().flatten().collect();
            prop_assert_eq!(all, names.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn no_reply_makes_the_page_parser_fail(reply in any_reply()) {
            let _ = parse_page(reply);
        }
    }
}
