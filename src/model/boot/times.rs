//! How long the boot rule waits for what.

use std::time::Duration;

/// Silence after which a peer no longer blocks the others. Long enough for a pod that is moved to another Kubernetes node
/// whose image is there; shorter than a person waits for a service.
pub(crate) const SILENT_PEER: Duration = Duration::from_mins(1);

/// Silence that an uncleanly stopped primary, which the Sentinels still name, bears before it resumes: its peers may just
/// be starting as well, with a newer file. The Sentinels' default detection time.
pub const UNCLEAN_PRIMARY_WAITS: Duration = Duration::from_secs(5);

/// Silence of the Sentinels' majority after which a node may become primary without them, if every data node answers. When all pods
/// start at once the Sentinels are often a moment late, and they remember who is primary: a node that began without them would be
/// a second one. Sentinels that take longer than this are not just starting, and the layer's data nodes agree among themselves.
pub(crate) const SILENT_SENTINELS: Duration = Duration::from_secs(10);

/// How long a primary that ended waits for its replicas' records to reach what its own one says. A replica's agent looks every 250 ms,
/// and what the primary sent last may still lie in the replica's socket.
pub(crate) const CATCHES_UP: Duration = Duration::from_secs(1);

/// How long a named primary asks for a failover in vain before it looks for another way: Sentinels that can elect do within 2 s,
/// and those in TILT refuse for 30 s.
pub(crate) const REFUSED_FAILOVER: Duration = Duration::from_secs(10);

/// After this long in any state a person's decision is consulted, and the node says that it waits for one: what ends by itself has
/// ended by then.
pub const LONGEST_WAIT: Duration = Duration::from_secs(90);

/// Silence after which a peer of a layer that keeps nothing no longer blocks the others: it can only have what lies in its memory.
pub(crate) const SILENT_PEER_OF_A_CACHE: Duration = Duration::from_secs(30);

/// Silence after which a peer counts as off where a person chose another node's data. It is asked about twice a second at the least, so
/// that many questions in a row were not answered in time.
pub(super) const WITHOUT_ANSWER: Duration = Duration::from_secs(5);

/// How long another primary must have served before this one does anything about it. Sentinels demote a primary that came back after
/// 8 s, and a record is told a second after a promotion.
pub(crate) const RIVALRY: Duration = Duration::from_secs(15);

/// Times of detection within which the Sentinels have elected another primary: one until each has noticed, and room for a second round
/// of votes.
pub(super) const ELECTS_WITHIN: u32 = 3;
