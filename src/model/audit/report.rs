//! What an agent tells of one whole pass over the keys of its server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::prefixes::PrefixAudit;

/// Version of [`AuditReport`]. A reader refuses a newer one.
pub(crate) const AUDIT_FORMAT: u32 = 1;
/// Examples of keys that a report has of each fault.
pub(crate) const MOST_EXAMPLES: usize = 5;
pub(crate) const MOST_LARGEST: usize = 10;

/// What one whole pass over the keys of a server found: `GET /audit` of its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// [`AUDIT_FORMAT`] of the writer.
    pub format: u32,
    /// [`short_hash`] of the list of uses that the pass went by; empty: there was none, and no key counts as outside.
    pub list: String,
    /// When the pass was over, milliseconds since the Unix epoch.
    pub finished: u64,
    /// How long it took, pauses included, milliseconds.
    pub took_milliseconds: u64,
    /// How long the server was busy with it, milliseconds.
    pub busy_milliseconds: u64,
    /// Keys of all databases.
    pub keys: u64,
    /// Keys without an expiry; our own are left out.
    pub without_expiry: u64,
    /// Keys under no declared prefix.
    pub outside: u64,
    /// Their bytes, and all others', estimated.
    pub bytes: u64,
    /// With a probability of 95 % the true sum is at most this far from [`Self::bytes`].
    pub bytes_error: u64,
    /// [`short_hash`] of some keys without an expiry.
    pub examples: Vec<String>,
    /// [`short_hash`] of some keys under no declared prefix.
    pub outside_examples: Vec<String>,
    /// The largest of the keys that were measured, the largest first.
    pub largest: Vec<LargeKey>,
    /// What was counted by prefix; one without keys is left out.
    pub prefixes: BTreeMap<String, PrefixAudit>,
}

/// One of the largest keys of a pass. It is told by its hash: names of keys may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LargeKey {
    /// [`short_hash`] of the key.
    pub key: String,
    /// The declared prefix that it begins with; empty: none.
    pub prefix: String,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// What an agent says with each answer of its report, so that the report is asked for only when it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditMark {
    /// [`AuditReport::fingerprint`]; empty: there is no report.
    pub fingerprint: String,
    /// [`AuditReport::finished`].
    pub finished: u64,
}

impl AuditReport {
    /// The same for two reports that found the same, whenever and however fast.
    pub(crate) fn fingerprint(&self) -> String {
        let findings = Self { finished: 0, took_milliseconds: 0, busy_milliseconds: 0, ..self.clone() };
        short_hash(serde_json::to_string(&findings).unwrap_or_default().as_bytes())
    }

    /// What reports of servers with different keys amount to. `None`: there is none.
    pub(crate) fn together<'a>(reports: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        reports.into_iter().cloned().reduce(Self::with)
    }

    fn with(mut self, other: Self) -> Self {
        self.finished = self.finished.min(other.finished);
        self.took_milliseconds = self.took_milliseconds.max(other.took_milliseconds);
        for (sum, more) in [
            (&mut self.busy_milliseconds, other.busy_milliseconds),
            (&mut self.keys, other.keys),
            (&mut self.without_expiry, other.without_expiry),
            (&mut self.outside, other.outside),
            (&mut self.bytes, other.bytes),
            (&mut self.bytes_error, other.bytes_error),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.examples.extend(other.examples);
        self.examples.truncate(MOST_EXAMPLES);
        self.outside_examples.extend(other.outside_examples);
        self.outside_examples.truncate(MOST_EXAMPLES);
        self.largest.extend(other.largest);
        self.largest.sort_by_key(|large| std::cmp::Reverse(large.bytes));
        self.largest.truncate(MOST_LARGEST);
        for (prefix, found) in other.prefixes {
            let sum = self.prefixes.entry(prefix).or_default();
            *sum = PrefixAudit {
                keys: sum.keys.saturating_add(found.keys),
                without_expiry: sum.without_expiry.saturating_add(found.without_expiry),
                bytes: sum.bytes.saturating_add(found.bytes),
                bytes_error: sum.bytes_error.saturating_add(found.bytes_error),
                budget_bytes: sum.budget_bytes.or(found.budget_bytes),
            };
        }
        self
    }

    /// What is said of it with each answer.
    pub(crate) fn mark(&self) -> AuditMark {
        AuditMark { fingerprint: self.fingerprint(), finished: self.finished }
    }
}

/// The first 16 hexadecimal characters of the SHA-256: `printf %s KEY | sha256sum | cut -c1-16`.
pub fn short_hash(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_the_same_findings_has_the_same_fingerprint_whenever_it_was_made() {
        let one = AuditReport { keys: 7, finished: 1, took_milliseconds: 2, ..AuditReport::default() };
        let later = AuditReport { finished: 9, busy_milliseconds: 3, ..one.clone() };
        assert_eq!(one.fingerprint(), later.fingerprint());
        assert_ne!(one.fingerprint(), AuditReport { keys: 8, ..one }.fingerprint());
    }

    #[test]
    fn reports_of_several_servers_are_added_up() {
        let large = |key: &str, bytes| LargeKey { key: key.to_owned(), prefix: String::new(), bytes };
        let found = |keys| PrefixAudit { keys, ..PrefixAudit::default() };
        let of = |keys, finished, bytes| AuditReport {
            keys,
            finished,
            examples: vec!["one".to_owned(); 3],
            largest: vec![large("key", bytes)],
            prefixes: [("web:".to_owned(), found(keys))].into(),
            ..AuditReport::default()
        };
        let together = AuditReport::together([&of(7, 20, 100), &of(5, 10, 900)]).unwrap();
        assert_eq!((together.keys, together.finished, together.prefixes["web:"].keys), (12, 10, 12));
        assert_eq!((together.examples.len(), together.largest[0].bytes), (MOST_EXAMPLES, 900));
        assert_eq!(AuditReport::together([]), None);
    }

    #[test]
    fn a_hash_is_what_the_command_line_says() {
        assert_eq!(short_hash(b"web:1"), "8724d338e1260492".to_owned());
    }
}
