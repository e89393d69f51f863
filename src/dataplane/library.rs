//! A function library as one piece: name, source, digest; and the only way in which one gets into a server.

use std::time::Duration;

use ::redis::cmd;
use sha2::{Digest as _, Sha256};

use crate::model::function_library::{
    LARGEST_IN_MEMORY, LARGEST_TOGETHER, LONGEST_WORDS, MOST_FUNCTIONS, is_reserved, is_users_library,
};
use crate::redis::error::Result as CommandResult;
use crate::redis::functions::{self, FunctionCosts, digest_question};
use crate::redis::{Class, Connection, Error as CommandError};

/// Where the digest goes in a source.
const DIGEST_PLACE: &str = "@DIGEST@";
/// Bytes of a digest, two characters each: 64 bits are enough to tell the revisions of one library apart.
const DIGEST_BYTES: usize = 8;
/// Redis gives the Lua of a library 500 ms to load; the server may be busy before it begins.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A function library, ready to load.
///
/// Rule: it has a function `<name>_digest` without keys and writes that answers [`Library::digest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name, as in `#!lua name=…`.
    pub name: String,
    /// The Lua source with the digest filled in.
    pub source: String,
    /// First 16 hexadecimal characters of the SHA-256 of the source before the digest was filled in.
    pub digest: String,
}

impl Library {
    /// Makes a library of a source in which `@DIGEST@` stands for the digest.
    pub(crate) fn from_template(name: &str, template: &str) -> Self {
        let digest = Self::digest_of(template);
        Self { name: name.to_owned(), source: template.replace(DIGEST_PLACE, &digest), digest }
    }

    pub(super) fn digest_of(source: &str) -> String {
        hex::encode(&Sha256::digest(source)[..DIGEST_BYTES])
    }
}

/// The libraries that every layer has: one function without keys. It proves the way of functions (the load, the digest, replicas, the
/// file of an empty start) on each layer before its first use, and shows a primary that takes no function while no use waits for one.
pub fn built_in_libraries() -> Vec<Library> {
    vec![Library::from_template("redoubt", include_str!("lua/redoubt.lua"))]
}

/// Why a library is not on a server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server did not take it. A load is a write: full memory, too few replicas and a replica refuse it.
    #[error("cannot load function library {library}")]
    Load {
        /// Its name, as in `#!lua name=…`.
        library: String,
        /// Of the command that failed.
        #[source]
        source: CommandError,
    },
    /// It was taken, but does not say its digest.
    #[error("cannot ask function library {library} for its digest")]
    Verify {
        /// Its name, as in `#!lua name=…`.
        library: String,
        /// Of the command that failed.
        #[source]
        source: CommandError,
    },
    /// It says another digest: another process loaded one of this name at the same time.
    #[error("function library {library} answers digest {found} instead of {wanted}")]
    Differs {
        /// Its name, as in `#!lua name=…`.
        library: String,
        /// Digest that the loaded library answers, 16 hexadecimal digits.
        found: String,
        /// Digest of the text that was loaded.
        wanted: String,
    },
    /// A user's library registered a function that is the operator's, and was deleted again.
    #[error(
        "function library {library} registered {function}: names that begin with redoubt or fnl_ are the operator's"
    )]
    Reserved {
        /// Its name, as in `#!lua name=…`.
        library: String,
        /// Name that it registered.
        function: String,
    },
    /// A user's library takes more of the server than any may, and was deleted again.
    #[error("function library {library} {what}")]
    TooLarge {
        /// Its name, as in `#!lua name=…`.
        library: String,
        /// What it has, and how much of it is allowed.
        what: String,
    },
}

impl Error {
    /// What it says of the server: [`Class::OutOfMemory`], [`Class::TooFewReplicas`] and [`Class::Busy`] pass by themselves.
    pub fn class(&self) -> Class {
        match self {
            Self::Load { source, .. } | Self::Verify { source, .. } => source.class(),
            Self::Differs { .. } | Self::Reserved { .. } | Self::TooLarge { .. } => Class::Other,
        }
    }

    /// What is wrong with the source, in the server's own words where it gave some; `None`: the source is not to blame.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Load { source, .. } if source.class() == Class::Other => source.server_text(),
            Self::Reserved { .. } | Self::TooLarge { .. } => Some(self.to_string()),
            Self::Load { .. } | Self::Verify { .. } | Self::Differs { .. } => None,
        }
    }
}

/// Loads a library on a primary, over an older one of its name, and asks it for its digest. One attempt. Of a user's library that is
/// refused the older one stays.
pub async fn load(connection: &Connection, library: &Library) -> Result<(), Error> {
    let connection = connection.with_response_timeout(LOAD_TIMEOUT);
    let name = || library.name.clone();
    let older = if is_users_library(&library.name) {
        let asked = before_load(&connection, &library.name).await;
        Some(asked.map_err(|source| Error::Verify { library: name(), source })?)
    } else {
        None
    };
    let loaded = load_source(&connection, &library.name, &library.source).await;
    if loaded.is_err() && older.is_some() {
        // What it made before it was refused is garbage, of any size. A server that does not say has it until the next load.
        let _ = costs_within(&connection, LARGEST_TOGETHER).await;
    }
    let loaded = loaded?;
    let found: String = connection
        .query(&digest_question(&library.name))
        .await
        .map_err(|source| Error::Verify { library: name(), source })?;
    if found != library.digest || loaded != library.name {
        return Err(Error::Differs { library: name(), found, wanted: library.digest.clone() });
    }
    match older {
        Some(older) => is_admissible(&connection, library, older).await,
        None => Ok(()),
    }
}

/// What a server has before a user's library is loaded.
struct BeforeLoad {
    /// The source of the library that is replaced.
    source: Option<String>,
    /// Its functions, the one that answers its digest included.
    functions: u64,
    of_server: FunctionCosts,
}

async fn before_load(connection: &Connection, library: &str) -> CommandResult<BeforeLoad> {
    let source = functions::source_of(connection, library).await?;
    let own = if source.is_some() { functions::of_library(connection, library).await?.0.len() as u64 + 1 } else { 0 };
    Ok(BeforeLoad { source, functions: own, of_server: costs_within(connection, LARGEST_TOGETHER).await? })
}

/// What the functions of a server take. Above this many bytes garbage is collected first, so that none of it counts.
async fn costs_within(connection: &Connection, most: u64) -> CommandResult<FunctionCosts> {
    let costs = functions::costs(connection).await?;
    if costs.bytes <= most {
        return Ok(costs);
    }
    if let Err(error) = functions::collect_garbage(connection).await {
        // A primary without the operator's library: all counts.
        tracing::debug!(%error, "the garbage of functions is not collected");
    }
    functions::costs(connection).await
}

async fn load_source(connection: &Connection, name: &str, source: &str) -> Result<String, Error> {
    let loaded = connection.query(cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(source)).await;
    loaded.map_err(|source| Error::Load { library: name.to_owned(), source })
}

/// Deletes a user's library that no layer may have, and loads the one that it replaced. The source was searched for the operator's names
/// before, so one that has such a name put it together while it was loaded. The server's count and memory are read before the library is
/// listed: no list may grow beyond what one reply may have, or the operator no longer sees any library of the server.
async fn is_admissible(connection: &Connection, library: &Library, before: BeforeLoad) -> Result<(), Error> {
    let failed = |source| Error::Verify { library: library.name.clone(), source };
    let Some(error) = fault(connection, &library.name, &before).await.map_err(failed)? else { return Ok(()) };
    functions::delete(connection, &library.name).await.map_err(failed)?;
    // What was loaded before passed this check.
    if let Some(older) = before.source.filter(|older| *older != library.source) {
        load_source(connection, &library.name, &older).await?;
    }
    let _ = costs_within(connection, LARGEST_TOGETHER).await;
    Err(error)
}

async fn fault(connection: &Connection, library: &str, before: &BeforeLoad) -> CommandResult<Option<Error>> {
    let too_large = |what: String| Some(Error::TooLarge { library: library.to_owned(), what });
    let before_bytes = before.of_server.bytes;
    let costs = costs_within(connection, LARGEST_TOGETHER.min(before_bytes.saturating_add(LARGEST_IN_MEMORY))).await?;
    let count = costs.count.saturating_sub(before.of_server.count.saturating_sub(before.functions));
    if count > MOST_FUNCTIONS + 1 {
        return Ok(too_large(format!("registers {} functions; at most {MOST_FUNCTIONS} are allowed", count - 1)));
    }
    let own = costs.bytes.saturating_sub(before_bytes);
    for (subject, bytes, most) in [
        ("takes", own, LARGEST_IN_MEMORY),
        ("and the libraries of the layer that are loaded already take", costs.bytes, LARGEST_TOGETHER),
    ] {
        if bytes > most {
            return Ok(too_large(format!(
                "{subject} {} MiB of memory when it is loaded; at most {} are allowed",
                bytes >> 20,
                most >> 20
            )));
        }
    }
    let (listed, words) = functions::of_library(connection, library).await?;
    if words > LONGEST_WORDS {
        let what = format!("has names and descriptions of {words} bytes; at most {LONGEST_WORDS} are allowed");
        return Ok(too_large(what));
    }
    let reserved = listed.into_keys().find(|name| is_reserved(name));
    Ok(reserved.map(|function| Error::Reserved { library: library.to_owned(), function }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_carries_the_digest_of_its_source() {
        let first = Library::from_template("one", "return '@DIGEST@'");
        assert_eq!(first.source, format!("return '{}'", first.digest));
        assert_eq!(first.digest.len(), 16);
        assert_ne!(Library::from_template("one", "return '@DIGEST@' ").digest, first.digest);
    }

    #[test]
    fn every_built_in_library_names_itself_and_has_a_digest_function() {
        for library in built_in_libraries() {
            assert!(library.source.starts_with(&format!("#!lua name={}\n", library.name)));
            assert!(library.source.contains(&format!("'{}_digest'", library.name)));
            assert!(library.source.contains(&library.digest));
        }
    }
}
