//! The audit of a layer's keys: what the agents are told of its uses, what they count, and what they tell. Pure.
//!
//! An agent goes through the keys of its server with `SCAN`, in pages, over and over. What it tells speaks of one whole pass. No name
//! of a key leaves the agent: the name of a session's key is its secret.

mod largest;
mod pass;
mod prefixes;
mod report;
mod shrink;
mod tally;

pub use self::largest::Hunt;
pub use self::pass::{LONGEST_COMMAND, PageSize, Pass, Position, Standing, pause_after};
pub use self::prefixes::{
    AuditMode, DeclaredPrefix, DeclaredPrefixes, MemoryBudget, PREFIXES_FORMAT, PrefixAudit, Prefixes,
};
pub use self::report::{AUDIT_FORMAT, AuditMark, AuditReport, LargeKey, MOST_EXAMPLES, MOST_LARGEST, short_hash};
pub use self::shrink::{Candidate, MOST_REMOVED, Shrink};
pub use self::tally::{Expiry, FIRST_KEYS, Found, Part, SAMPLE_EACH, Tally};
