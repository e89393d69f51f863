//! The Lua function libraries: their sources, their digests, and loading them.
//!
//! Knows what a library must look like and when it counts as loaded. Must never see Kubernetes; which server gets which
//! library is the planner's to say.

pub mod caches;
pub mod functions;
pub mod library;
pub mod limits;
pub mod packed;
pub mod sessions;
pub mod template;

pub use caches::cache_library;
pub use functions::user_library;
pub(crate) use functions::user_library_name;
pub use library::{Error, Library, built_in_libraries, load};
pub use limits::limit_library;
pub use sessions::session_library;

use crate::model::{Policy, UseKind};

/// The library of a kind of use, with these policies compiled in; those of another kind are left out. `None`: each use of the kind has
/// a library of its own ([`user_library`]).
pub fn library_of(kind: UseKind, policies: &[Policy]) -> Option<Library> {
    let library = match kind {
        UseKind::SessionStore => session_library(&own(policies, |policy| match policy {
            Policy::Sessions(policy) => Some(policy),
            Policy::Limits(_) | Policy::Caches(_) | Policy::Functions(_) => None,
        })),
        UseKind::RateLimitPolicy => limit_library(&own(policies, |policy| match policy {
            Policy::Limits(policy) => Some(policy),
            Policy::Sessions(_) | Policy::Caches(_) | Policy::Functions(_) => None,
        })),
        UseKind::CacheNamespace => cache_library(&own(policies, |policy| match policy {
            Policy::Caches(policy) => Some(policy),
            Policy::Sessions(_) | Policy::Limits(_) | Policy::Functions(_) => None,
        })),
        UseKind::FunctionLibrary => return None,
    };
    Some(library)
}

fn own<P: Clone>(policies: &[Policy], of: impl Fn(&Policy) -> Option<&P>) -> Vec<P> {
    policies.iter().filter_map(|policy| of(policy).cloned()).collect()
}
