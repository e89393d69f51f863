//! Which engine reads whose files.
//!
//! Whether a server reads a file is decided by the version of the RDB format (`RDB_VERSION` in `rdb.h`), which the append-only
//! file's base and a full sync have too. What is not in the table is not known, and nothing is concluded from it.

use std::fmt;

/// An engine, as far as its files depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineVersion {
    family: Family,
    major: u16,
    minor: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Redis,
    Valkey,
}

/// The first RDB version that is Valkey's own; those of Redis from 12 up to it are foreign to Valkey.
const VALKEY_FORMATS: u16 = 80;
/// The last RDB version that Redis and Valkey have in common.
const LAST_COMMON_FORMAT: u16 = 11;

impl EngineVersion {
    /// What a server says of itself: `redis 7.0.15`.
    pub(crate) fn of_server(text: &str) -> Option<Self> {
        let (family, version) = text.split_once(' ')?;
        Self::of(family, version)
    }

    /// What the name of an image says: `docker.io/valkey/valkey:8.1-alpine`. `None`: it says nothing that can be relied on.
    pub fn of_image(reference: &str) -> Option<Self> {
        let without_digest = reference.split('@').next()?;
        let (name, tag) = without_digest.rsplit('/').next()?.split_once(':')?;
        Self::of(name, tag)
    }

    fn of(family: &str, version: &str) -> Option<Self> {
        let family = match family {
            "redis" => Family::Redis,
            "valkey" => Family::Valkey,
            _ => return None,
        };
        let mut numbers = version.split(['.', '-']);
        let mut number = || numbers.next()?.parse().ok();
        Some(Self { family, major: number()?, minor: number()? })
    }

    /// Version of the RDB format that it writes, where known.
    const fn format(self) -> Option<u16> {
        Some(match (self.family, self.major, self.minor) {
            (Family::Redis, 7, 0) => 10,
            (Family::Redis | Family::Valkey, 7, 2) | (Family::Valkey, 8, 0 | 1) => LAST_COMMON_FORMAT,
            (Family::Redis, 7, 4) | (Family::Redis, 8, 0) => 12,
            (Family::Valkey, 9, 0) => VALKEY_FORMATS,
            _ => return None,
        })
    }

    /// Whether it reads the files of the other; `None`: that is not known.
    pub(crate) fn reads(self, other: Self) -> Option<bool> {
        let (own, files) = (self.format()?, other.format()?);
        let is_foreign = self.family == Family::Valkey && files > LAST_COMMON_FORMAT && files < VALKEY_FORMATS;
        Some(files <= own && !is_foreign)
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Redis => "redis",
            Family::Valkey => "valkey",
        };
        write!(formatter, "{family} {}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_servers_say_their_versions_or_nothing() {
        let image = |text: &str| EngineVersion::of_image(text).map(|version| version.to_string());
        assert_eq!(image("docker.io/valkey/valkey:8.1-alpine").as_deref(), Some("valkey 8.1"));
        assert_eq!(image("localhost:5000/redis:7.0.15@sha256:0").as_deref(), Some("redis 7.0"));
        for silent in
            ["redis", "redis:latest", "redis:7", "example.test/engine:8.0", "redis@sha256:0", "localhost:5000/x"]
        {
            assert_eq!(image(silent), None, "{silent}");
        }
        assert_eq!(EngineVersion::of_server("valkey 8.1.1"), EngineVersion::of_image("valkey:8.1"));
        assert_eq!(EngineVersion::of_server(""), None);
    }

    #[test]
    fn a_lower_format_is_read_and_a_higher_or_foreign_one_is_not() {
        let reads = |own, other| EngineVersion::of_image(own).unwrap().reads(EngineVersion::of_image(other).unwrap());
        assert_eq!(reads("redis:8.0", "redis:7.0"), Some(true));
        assert_eq!(reads("redis:7.0", "redis:8.0"), Some(false));
        assert_eq!(reads("redis:7.4", "redis:8.0"), Some(true));
        assert_eq!(reads("valkey:8.1", "redis:7.0"), Some(true));
        assert_eq!(reads("valkey:8.1", "redis:8.0"), Some(false));
        assert_eq!(reads("valkey:9.0", "redis:8.0"), Some(false));
        assert_eq!(reads("redis:8.0", "valkey:9.0"), Some(false));
        assert_eq!(reads("redis:8.0", "redis:99.0"), None);
    }
}
