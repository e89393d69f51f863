//! Libraries that users wrote: what is made of their source, so that each is the operator's to name and says its digest.

use sha2::{Digest as _, Sha256};

use super::library::Library;
use crate::model::function_library::{LARGEST_SOURCE, LIBRARY_PREFIX, is_function_name, is_reserved};

/// What the first line begins with.
const SHEBANG: &str = "#!lua name=";
const REGISTERS: &str = "register_function";
/// Bytes of the digest that makes the name of a library unique, two characters each.
const NAME_DIGEST_BYTES: usize = 6;

/// Why a source is not given to any server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// More bytes than [`LARGEST_SOURCE`]; how many.
    #[error("the source has {0} bytes; at most {LARGEST_SOURCE} are loaded")]
    TooLarge(usize),
    /// Its first line is not that of a library.
    #[error("the first line of the source must be #!lua name=NAME, with a NAME of letters, digits and '_'")]
    NoShebang,
    /// It registers nothing.
    #[error("the source registers no function: redis.register_function is not in it")]
    NoFunctions,
    /// It names a function that is the operator's.
    #[error("the source names {0}: names of functions that begin with redoubt or fnl_ are the operator's")]
    Reserved(String),
}

/// The name of the library of a use. Callers never see it: they call functions.
pub(crate) fn user_library_name(namespace: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    let unique = hex::encode(&digest[..NAME_DIGEST_BYTES]);
    format!("{LIBRARY_PREFIX}{}_{unique}", name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"))
}

/// Makes a library of a user's source: it gets the operator's name, and a function that answers its digest. That function is
/// registered on the user's second line, so that the line numbers in the server's messages are the user's.
pub fn user_library(namespace: &str, name: &str, source: &str) -> Result<Library, SourceError> {
    if source.len() > LARGEST_SOURCE {
        return Err(SourceError::TooLarge(source.len()));
    }
    let (first, rest) = source.split_once('\n').unwrap_or((source, ""));
    let given = first.strip_prefix(SHEBANG).map(str::trim_end);
    if !given.is_some_and(is_function_name) {
        return Err(SourceError::NoShebang);
    }
    if !rest.contains(REGISTERS) {
        return Err(SourceError::NoFunctions);
    }
    if let Some(reserved) = reserved_literal(rest) {
        return Err(SourceError::Reserved(reserved.to_owned()));
    }
    let library = user_library_name(namespace, name);
    let digest = Library::digest_of(&format!("{library}\n{rest}"));
    let answers = format!(
        "redis.register_function{{function_name='{library}_digest',callback=function() return '{digest}' end,\
         flags={{'no-writes','allow-stale'}}}};"
    );
    Ok(Library { source: format!("{SHEBANG}{library}\n{answers}{rest}"), name: library, digest })
}

/// A string literal of the source that is the name of a function of the operator's. One that is put together of pieces is found
/// after the load, in the functions that the server lists.
fn reserved_literal(source: &str) -> Option<&str> {
    let opening = source.char_indices().filter(|(_, letter)| matches!(letter, '\'' | '"' | '['));
    opening.map(|(at, _)| &source[at + 1..]).find_map(|rest| {
        let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))?;
        let closes = rest[end..].starts_with(['\'', '"', ']']);
        (closes && is_reserved(&rest[..end])).then_some(&rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#!lua name=mine\nredis.register_function('add', function() return 1 end)\n";

    #[test]
    fn a_library_has_our_name_the_users_line_numbers_and_its_digest() {
        let library = user_library("shop", "my-tools", SOURCE).unwrap();
        assert!(library.name.starts_with("fnl_my_tools_") && library.name.len() == "fnl_my_tools_".len() + 12);
        let lines: Vec<&str> = library.source.lines().collect();
        assert_eq!(lines[0], format!("#!lua name={}", library.name));
        assert!(lines[1].contains(&format!("'{}_digest'", library.name)) && lines[1].contains(&library.digest));
        assert!(lines[1].ends_with(";redis.register_function('add', function() return 1 end)"));
        assert_eq!(lines.len(), SOURCE.lines().count());
        assert_eq!(user_library("shop", "my-tools", &SOURCE.replace("mine", "other")).unwrap(), library);
        assert_eq!(user_library("shop", "my-tools", &SOURCE.replace("=mine", "=mine \r")).unwrap(), library);
        let changed = user_library("shop", "my-tools", &SOURCE.replace('1', "2")).unwrap();
        assert!(changed.digest != library.digest && changed.name == library.name);
        let stays = user_library("shop", "my-tools", &format!("{SOURCE}-- @DIGEST@\n")).unwrap();
        assert!(stays.source.contains("@DIGEST@"), "nothing of the user's is replaced");
    }

    #[test]
    fn no_two_uses_share_a_library() {
        let names =
            [("a", "b-c"), ("a", "b"), ("b", "b-c"), ("a-b", "c")].map(|(space, name)| user_library_name(space, name));
        for (index, name) in names.iter().enumerate() {
            assert!(!names[index + 1..].contains(name));
        }
    }

    #[test]
    fn sources_that_are_no_library_or_take_our_names_are_refused() {
        let with = |line: &str| format!("{SOURCE}{line}\n");
        for source in [
            "",
            "return 1",
            "#!js name=a\nredis.register_function",
            "#!lua\n",
            "#!lua name=\n",
            "#!lua name=a-b\n",
            "#!lua name=a engine=b\n",
            " #!lua name=a\n",
            "\u{feff}#!lua name=a\n",
        ] {
            assert_eq!(user_library("shop", "web", source), Err(SourceError::NoShebang), "{source}");
        }
        assert_eq!(user_library("shop", "web", "#!lua name=a\nreturn 1\n"), Err(SourceError::NoFunctions));
        for (line, found) in [
            ("redis.register_function('redoubt_session_get', f)", "redoubt_session_get"),
            ("redis.register_function{function_name=\"REDOUBT_x\"}", "REDOUBT_x"),
            ("local n = [[fnl_x_digest]]", "fnl_x_digest"),
        ] {
            assert_eq!(
                user_library("shop", "web", &with(line)),
                Err(SourceError::Reserved(found.to_owned())),
                "{line}"
            );
        }
        for line in ["local k = 'redoubt:key'", "-- of the redoubt_operator", "local é = 'fn'"] {
            user_library("shop", "web", &with(line)).unwrap();
        }
        let large = with(&"-".repeat(LARGEST_SOURCE));
        assert_eq!(user_library("shop", "web", &large), Err(SourceError::TooLarge(large.len())));
    }
}
