//! What an agent does for its server in mode Cluster: membership, the votes for a successor, and the end of a primary without loss.
//!
//! Sentinels have no part in it. Where the rest of the agent asks who is primary, it is the owner of the slots of the node's shard: as its
//! own server believes while that runs, and as the owners of the other shards say while it is off ([`electors`]).

pub(crate) mod electors;
pub(crate) mod files;
pub(crate) mod handover;
pub mod join;
pub(crate) mod takeover;
mod votes;
pub(crate) mod watch;
