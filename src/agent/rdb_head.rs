//! The head of a snapshot: of which history it is, and how far it reaches.
//!
//! A snapshot begins with `REDIS` and four digits (Valkey 9: `VALKEY` and three), then has auxiliary fields: the byte `0xFA`, a name and
//! a value. Among them are `repl-id` and `repl-offset` of the moment of the fork
//! ([RDB format](https://rdb.fnordig.de/file_format.html), "Auxiliary fields"). A server that has no replication backlog writes neither.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::model::{Offset, ReplicationId};

/// Bytes that are read: the fields in question come first, and are short.
const HEAD: u64 = 4 << 10;
const MAGIC: usize = 9;
const AUXILIARY: u8 = 0xFA;

/// Of which history the snapshot is, and how far it reaches. `None`: it does not say, or it cannot be read.
pub(super) fn position(path: &Path) -> Option<(ReplicationId, Offset)> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    parse(&head)
}

fn parse(head: &[u8]) -> Option<(ReplicationId, Offset)> {
    if !(head.starts_with(b"REDIS") || head.starts_with(b"VALKEY")) {
        return None;
    }
    let mut rest = head.get(MAGIC..)?;
    let (mut id, mut offset) = (None, None);
    while let Some((&AUXILIARY, behind)) = rest.split_first() {
        let (name, behind) = string(behind)?;
        let (value, behind) = string(behind)?;
        match name.as_slice() {
            b"repl-id" => id = String::from_utf8(value).ok(),
            b"repl-offset" => offset = String::from_utf8(value).ok()?.parse().ok(),
            _ => {}
        }
        rest = behind;
        if id.is_some() && offset.is_some() {
            break;
        }
    }
    Some((ReplicationId(id?), Offset(offset?)))
}

/// A string, as text where it is stored as a number, and what comes after it. `None`: it is compressed or cut off.
fn string(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let number = |size: usize| {
        let (digits, rest) = rest.split_at_checked(size)?;
        let mut padded = [if digits.last()? & 0x80 == 0 { 0 } else { 0xFF }; 4];
        padded[..size].copy_from_slice(digits);
        Some((i32::from_le_bytes(padded).to_string().into_bytes(), rest))
    };
    let (length, rest) = match (first >> 6, first & 0x3F) {
        (0, length) => (usize::from(length), rest),
        (1, high) => {
            let (low, rest) = rest.split_first()?;
            (usize::from(high) << 8 | usize::from(*low), rest)
        }
        (2, _) => {
            let (length, rest) = rest.split_at_checked(4)?;
            (u32::from_be_bytes(length.try_into().ok()?).try_into().ok()?, rest)
        }
        (_, 0) => return number(1),
        (_, 1) => return number(2),
        (_, 2) => return number(4),
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    Some((text.to_vec(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "630ec7ad6fd4b2f3a45c1e6f4a8a9d0a5b1c2d3e";

    fn field(name: &str, value: &[u8]) -> Vec<u8> {
        [&[AUXILIARY, u8::try_from(name.len()).unwrap()], name.as_bytes(), value].concat()
    }

    fn head(magic: &str, offset: &[u8]) -> Vec<u8> {
        let id = [&[40], ID.as_bytes()].concat();
        [
            magic.as_bytes().to_vec(),
            field("redis-ver", b"\x067.0.15"),
            field("redis-bits", b"\xC0\x40"),
            field("ctime", b"\xC2\x00\x00\x00\x65"),
            field("repl-stream-db", b"\xC0\x00"),
            field("repl-id", &id),
            field("repl-offset", offset),
            b"\xFE\x00".to_vec(),
        ]
        .concat()
    }

    #[test]
    fn the_head_of_each_engines_snapshot_is_read() {
        for magic in ["REDIS0010", "REDIS0012", "VALKEY080"] {
            for (stored, offset) in [
                (&b"\xC0\x07"[..], 7),
                (b"\xC1\x3C\x03", 828),
                (b"\xC2\xFC\x3B\x03\x00", 211_964),
                (b"\x0A4294967301", 4_294_967_301),
                (b"\x40\x0A4294967301", 4_294_967_301),
                (b"\x80\x00\x00\x00\x0A4294967301", 4_294_967_301),
            ] {
                assert_eq!(
                    parse(&head(magic, stored)),
                    Some((ReplicationId(ID.to_owned()), Offset(offset))),
                    "{magic}"
                );
            }
        }
    }

    #[test]
    fn a_head_that_does_not_say_is_none() {
        let whole = head("REDIS0010", b"\xC1\x3C\x03");
        for length in 0..whole.len() - 2 {
            assert_eq!(parse(&whole[..length]), None, "cut off after {length} bytes");
        }
        assert_eq!(parse(&head("REDIS0010", b"\xC3\x05\x05abcde")), None, "compressed");
        assert_eq!(parse(&head("REDIS0010", b"\xC0\xFF")), None, "negative");
        assert_eq!(parse(&head("NOREDIS00", b"\xC0\x07")), None);
        let without = [b"REDIS0010".to_vec(), field("redis-ver", b"\x067.0.15"), b"\xFE\x00".to_vec()].concat();
        assert_eq!(parse(&without), None, "no backlog");
    }
}
