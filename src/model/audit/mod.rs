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

pub(crate) use self::largest::LargeKeySearch;
pub use self::pass::{CursorScope, LONGEST_COMMAND, Pass, Position};
pub(crate) use self::pass::{PageSize, pause_after};
pub(crate) use self::prefixes::PrefixAudit;
pub use self::prefixes::{AuditMode, DeclaredPrefix, DeclaredPrefixes, MemoryBudget, PREFIXES_FORMAT, Prefixes};
pub(crate) use self::report::{AUDIT_FORMAT, AuditMark, LargeKey};
pub use self::report::{AuditReport, short_hash};
pub use self::shrink::{Candidate, Shrink};
pub use self::tally::CountedKey;
pub(crate) use self::tally::{Expiry, Tally};
