//! The Lua function libraries: their sources, their digests, and loading them.
//!
//! Knows what a library must look like and when it counts as loaded. Must never see Kubernetes; which server gets which
//! library is the planner's to say.

pub mod library;
pub mod sessions;

pub use library::{Error, Library, built_in_libraries, load};
pub use sessions::session_library;
