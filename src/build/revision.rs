//! Digests that say whether something changed, and what that change costs.
//!
//! - *workload digest*: the whole StatefulSet; a difference is applied, which restarts nothing (`OnDelete`);
//! - *restart revision*: its pod template without the node-config document, and of the document's directives those that a
//!   running server does not take; a difference needs a new pod;
//! - *config digest*: the node-config document; a difference is patched into the running pod.

use sha2::{Digest as _, Sha256};

/// The first 16 hexadecimal characters of the SHA-256 of a text.
pub(crate) fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}
