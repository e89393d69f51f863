//! How long the append-only files were when the record was written.
//!
//! A server loads an append-only file that lost its end without a word (`aof-load-truncated yes`), and a record alone does not tell: the
//! node would begin as primary with what is left, and replicas that have all would be cut down to it. So each record has the length of
//! each file, and one that is shorter under the same name is damaged. A rewrite takes new names, so it is never taken for damage.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::config::Environment;

/// A length counts as kept on the disk after this long: `appendfsync everysec` flushes once a second, and the engine waits for a flush
/// that lasts longer for up to two. What a power cut takes of a younger end is no damage.
const DURABLE_AFTER: Duration = Duration::from_secs(3);

/// Bytes of each file that the manifest names, by the file's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sizes(BTreeMap<String, u64>);

/// A file that is shorter than the record says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} has {bytes} bytes, and had {recorded} when the node's record was written")]
pub(crate) struct TruncatedFile {
    name: String,
    bytes: u64,
    recorded: u64,
}

impl Sizes {
    /// Of the files as they are. Empty: there is no manifest, or none that can be read.
    pub(crate) fn measure(environment: &Environment) -> Self {
        let folder = environment.data.join("appendonlydir");
        let manifest = fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap_or_default();
        let measured = |name: &str| Some((name.to_owned(), fs::metadata(folder.join(name)).ok()?.len()));
        Self(manifest.lines().filter_map(named).filter_map(measured).collect())
    }

    /// Bytes of all.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Name of the file that a rewrite begins with: all others came after it.
    pub(crate) fn base(&self) -> Option<&String> {
        self.0.keys().find(|name| name.contains(".base.")).or_else(|| self.0.keys().next())
    }

    #[cfg(test)]
    pub(crate) fn of<const N: usize>(files: [(String, u64); N]) -> Self {
        Self(files.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first file that was longer in these sizes than it is now. One that is there and that no line of the manifest names counts as
    /// empty: the engine would not load it.
    pub(crate) fn truncated(&self, now: &Self, unnamed: impl Fn(&str) -> bool) -> Option<TruncatedFile> {
        self.0.iter().find_map(|(name, recorded)| {
            let bytes = now.0.get(name).copied().or_else(|| unnamed(name).then_some(0))?;
            (bytes < *recorded).then(|| TruncatedFile { name: name.clone(), bytes, recorded: *recorded })
        })
    }

    /// Whether the file may have only so many bytes: no more were known to be on the disk.
    pub(crate) fn allow(&self, name: &str, bytes: u64) -> bool {
        self.0.get(name).is_none_or(|recorded| *recorded <= bytes)
    }

    /// The smaller one of each file that both name.
    fn least(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(name, bytes)| Some((name.clone(), *other.0.get(name)?.min(bytes))));
        Self(both.collect())
    }
}

/// Whether the file is there and no line of the manifest names it. A rewrite removes what it replaced before the manifest forgets it.
pub(super) fn is_unnamed(environment: &Environment, name: &str) -> bool {
    let folder = environment.data.join("appendonlydir");
    let manifest = fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap_or_default();
    let is_named = manifest.lines().any(|line| line.split_ascii_whitespace().any(|word| word == name));
    !is_named && folder.join(name).exists()
}

/// Name of the file that the engine appends to.
pub(super) fn last(environment: &Environment) -> Option<String> {
    let manifest = fs::read_to_string(environment.data.join("appendonlydir/appendonly.aof.manifest")).ok()?;
    manifest.lines().filter_map(named).next_back().map(str::to_owned)
}

/// The file of a manifest's line: `file appendonly.aof.1.incr.aof seq 1 type i`. Files of type `h` are about to be removed.
fn named(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let value = |key| words.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
    value("file").filter(|_| value("type") != Some("h"))
}

/// The sizes of a running engine's files, some seconds old.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    settled: Sizes,
    seen: VecDeque<(Instant, Sizes)>,
}

impl Growth {
    /// Of an engine that is being started. `recorded`: what the record says; `now`: the files as they are.
    pub(super) fn new(recorded: &Sizes, now: &Sizes) -> Self {
        Self { settled: recorded.least(now), seen: VecDeque::new() }
    }

    /// The sizes that count as kept on the disk.
    pub(super) fn durable_sizes(&self) -> Sizes {
        self.settled.clone()
    }

    /// Those that were measured last, and when.
    pub(super) fn latest(&self) -> Option<&(Instant, Sizes)> {
        self.seen.back()
    }

    /// Notes the sizes at a time, and answers those that count as kept on the disk. Not while the engine loads: it cuts off an end that
    /// is no whole command.
    pub(super) fn note(&mut self, at: Instant, sizes: Sizes) -> Sizes {
        self.seen.push_back((at, sizes));
        let is_old = |(seen, _): &(Instant, Sizes)| at.duration_since(*seen) >= DURABLE_AFTER;
        while self.seen.get(1).is_some_and(is_old) {
            self.seen.pop_front();
        }
        if let Some((_, first)) = self.seen.front().filter(|oldest| is_old(oldest)) {
            // A write that found no room is cut off again.
            self.settled = self.seen.iter().fold(first.clone(), |least, (_, sizes)| least.least(sizes));
        }
        self.settled.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes<const N: usize>(files: [(&str, u64); N]) -> Sizes {
        Sizes(files.map(|(name, bytes)| (name.to_owned(), bytes)).into())
    }

    #[test]
    fn only_a_file_that_is_shorter_under_its_own_name_is_damaged() {
        let recorded = sizes([("1.base", 90), ("1.incr", 100)]);
        let is_damaged = |now: Sizes| recorded.truncated(&now, |_| false).is_some();
        assert!(is_damaged(sizes([("1.base", 90), ("1.incr", 99)])));
        assert!(is_damaged(sizes([("1.base", 90), ("1.incr", 0)])));
        assert!(!is_damaged(recorded.clone()) && !is_damaged(sizes([("1.base", 90), ("1.incr", 101)])));
        assert!(!is_damaged(sizes([("2.base", 40), ("2.incr", 0)])), "rewritten");
        let lost_line = recorded.truncated(&sizes([("1.base", 90)]), |name| name == "1.incr");
        assert_eq!(lost_line, Some(TruncatedFile { name: "1.incr".to_owned(), bytes: 0, recorded: 100 }));
        assert!(!is_damaged(sizes([("1.base", 90), ("1.incr", 100), ("2.incr", 0)])), "being rewritten");
        assert!(Sizes::default().truncated(&sizes([("1.incr", 0)]), |_| true).is_none(), "an older agent's record");
    }

    #[test]
    fn a_file_that_an_older_manifest_does_not_name_is_damaged_and_one_without_data_is_not() {
        let is_damaged = |recorded: &Sizes, now: Sizes| recorded.truncated(&now, |_| true).is_some();
        let recorded = sizes([("1.base", 90), ("9.incr", 100)]);
        assert!(is_damaged(&recorded, sizes([("1.base", 90), ("8.incr", 100)])), "an older manifest");
        assert!(is_damaged(&recorded, sizes([("9.incr", 100)])), "the line of the base is lost");
        assert!(!is_damaged(&sizes([("1.base", 90), ("9.incr", 0)]), sizes([("1.base", 90)])), "nothing was in it");
    }

    #[test]
    fn a_manifest_names_its_files() {
        assert_eq!(named("file appendonly.aof.1.incr.aof seq 1 type i"), Some("appendonly.aof.1.incr.aof"));
        assert_eq!(named("file appendonly.aof.1.base.rdb seq 1 type h"), None, "about to be removed");
        assert_eq!((named(""), named("# x"), named("file")), (None, None, None));
    }

    #[test]
    fn an_end_that_a_power_cut_may_take_is_not_recorded() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut growth = Growth::new(&sizes([("1.incr", 50)]), &sizes([("1.incr", 40)]));
        assert_eq!(
            growth.note(at(0), sizes([("1.incr", 100)])),
            sizes([("1.incr", 40)]),
            "a person chose what is left"
        );
        assert_eq!(growth.note(at(1), sizes([("1.incr", 200)])), sizes([("1.incr", 40)]));
        assert_eq!(growth.note(at(3), sizes([("1.incr", 300)])), sizes([("1.incr", 100)]));
        assert_eq!(growth.note(at(5), sizes([("1.incr", 150)])), sizes([("1.incr", 150)]), "cut off again");
        assert_eq!(growth.note(at(6), sizes([("2.incr", 7)])), sizes([]), "rewritten");
        assert_eq!(growth.note(at(9), sizes([("2.incr", 8)])), sizes([("2.incr", 7)]));
    }
}
