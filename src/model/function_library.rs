//! A library of Lua functions that a user wrote: what it is called on a server, and which names are not the user's to take.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the names of users' libraries begin with, and no other library's.
pub(crate) const LIBRARY_PREFIX: &str = "fnl_";
/// What the names of the functions begin with that are the operator's to register: its own, and those that answer digests.
const RESERVED: [&str; 2] = ["redoubt", LIBRARY_PREFIX];
/// Bytes of a source at most.
pub(crate) const LARGEST_SOURCE: usize = 256 << 10;

/// Functions of one user's library at most. Those of all uses of a layer fit into one answer of a server.
pub(crate) const MOST_FUNCTIONS: u64 = 100;
/// Bytes of the names and descriptions of its functions at most.
pub(crate) const LONGEST_WORDS: usize = 16 << 10;
/// Bytes of a server's memory that the load of a user's library may take at most, what its Lua holds included.
pub(crate) const LARGEST_IN_MEMORY: u64 = 8 << 20;
/// Bytes that the functions of a server may take together after the load of a user's library. No limit of a server counts them.
pub(crate) const LARGEST_TOGETHER: u64 = 16 << 20;
/// The longest that a server lets one library load.
pub(crate) const LONGEST_LOAD: Duration = Duration::from_millis(500);
/// A load of a user's library that holds the server up for this long or longer is followed by a pause.
pub(crate) const SLOW_LOAD: Duration = Duration::from_millis(50);

/// Functions of one library: name, and whether `FCALL_RO` takes it too (flag `no-writes`).
pub type Functions = BTreeMap<String, bool>;

/// What one `FunctionLibrary` asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LibraryPolicy {
    /// The use, `NAMESPACE/NAME`.
    pub owner: String,
    /// `metadata.generation` of the use.
    pub generation: i64,
    /// The Lua, or the ConfigMap that has it.
    pub source: LibrarySource,
}

/// Where the Lua of a library is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LibrarySource {
    /// The text itself.
    Inline(String),
    /// In a ConfigMap of the use's namespace.
    ConfigMap {
        /// `metadata.name` of the ConfigMap.
        name: String,
        /// The key in it.
        key: String,
    },
}

/// Whether a library of this name is a user's.
pub(crate) fn is_users_library(library: &str) -> bool {
    library.starts_with(LIBRARY_PREFIX)
}

/// Whether a function of this name is the operator's to register. Servers know functions in any case of letters.
pub(crate) fn is_reserved(function: &str) -> bool {
    let function = function.to_ascii_lowercase();
    RESERVED.iter().any(|prefix| function.starts_with(prefix))
}

/// Whether servers take it as the name of a function: it then has no character that means something in an ACL rule.
pub(crate) fn is_function_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_ours_are_reserved_in_any_case() {
        for name in ["redoubt", "redoubt_session_get", "REDOUBT_limit", "fnl_tools_digest", "Fnl_x"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["my_redoubt", "fn", "tools"] {
            assert!(!is_reserved(name), "{name}");
        }
        for name in ["", "a b", "a|b", "x +@all", "é"] {
            assert!(!is_function_name(name), "{name}");
        }
        assert!(is_function_name("add_1"));
    }
}
