//! The function libraries of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};

use super::connection::Connection;
use super::error::Result;
use super::info::Info;
use super::reply::{entry, items, text};
use super::server;
use crate::model::function_library::{Functions, is_users_library};

/// The libraries in an answer of `FUNCTION LIST`: name, and the functions that it registered.
pub(super) fn libraries(reply: &Value) -> BTreeMap<String, Functions> {
    let libraries = items(reply).unwrap_or_default().iter();
    libraries.filter_map(|library| Some((text(entry(library, "library_name")?)?, functions(library)))).collect()
}

fn functions(library: &Value) -> Functions {
    let listed = entry(library, "functions").and_then(items).unwrap_or_default().iter();
    let function = |function: &Value| {
        let flags = entry(function, "flags").and_then(items).unwrap_or_default();
        let reads_only = flags.iter().any(|flag| text(flag).as_deref() == Some("no-writes"));
        Some((text(entry(function, "name")?)?, reads_only))
    };
    listed.filter_map(function).collect()
}

/// Of these libraries the users', each without the function that answers its digest.
pub(super) fn of_users(libraries: &BTreeMap<String, Functions>) -> BTreeMap<String, Functions> {
    let users = libraries.iter().filter(|(library, _)| is_users_library(library));
    users
        .map(|(library, functions)| {
            let digest = format!("{library}_digest");
            let own = functions.iter().filter(|(name, _)| **name != digest);
            (library.clone(), own.map(|(name, reads_only)| (name.clone(), *reads_only)).collect())
        })
        .collect()
}

/// The functions of a user's library as the server lists them (`FUNCTION LIST LIBRARYNAME`), without the one that answers its digest; and
/// the bytes of all names and descriptions.
pub(crate) async fn of_library(connection: &Connection, library: &str) -> Result<(Functions, usize)> {
    let reply: Value = connection.query(cmd("FUNCTION").arg("LIST").arg("LIBRARYNAME").arg(library)).await?;
    Ok((of_users(&libraries(&reply)).remove(library).unwrap_or_default(), words(&reply)))
}

/// Bytes of the names and descriptions of all functions in an answer of `FUNCTION LIST`.
fn words(reply: &Value) -> usize {
    let listed = items(reply).unwrap_or_default().iter().filter_map(|library| items(entry(library, "functions")?));
    let bytes = |function: &Value, key| match entry(function, key) {
        Some(Value::BulkString(bytes)) => bytes.len(),
        _ => 0,
    };
    listed.flatten().map(|function| bytes(function, "name") + bytes(function, "description")).sum()
}

/// What the functions of a server take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FunctionCosts {
    /// Functions of all libraries.
    pub count: u64,
    /// Bytes of them, and of the memory of the virtual machine that runs them.
    pub bytes: u64,
}

/// Asks for them (`INFO memory`).
pub(crate) async fn costs(connection: &Connection) -> Result<FunctionCosts> {
    let info = server::info(connection).await?;
    let number = |name| info.number(name).unwrap_or_default();
    let bytes = number("used_memory_functions").saturating_add(number("used_memory_vm_functions"));
    Ok(FunctionCosts { count: number("number_of_functions"), bytes })
}

/// Frees the garbage of all libraries: what those that were refused or deleted left behind counts until then.
pub(crate) async fn collect_garbage(connection: &Connection) -> Result<()> {
    connection.query(cmd("FCALL_RO").arg("redoubt_collect").arg(0)).await
}

/// Time that the server spent on loads of libraries since its start, those that it refused included (`INFO commandstats`).
pub(crate) async fn load_time(connection: &Connection) -> Result<Duration> {
    let info = Info::parse(&connection.text(cmd("INFO").arg("commandstats")).await?);
    let loads = info.commands().find(|command| command.name == "function|load");
    Ok(loads.map_or(Duration::ZERO, |loads| Duration::from_micros(loads.microseconds)))
}

/// The source of a library as the server has it (`FUNCTION LIST LIBRARYNAME … WITHCODE`); `None`: it has no such library.
pub(crate) async fn source_of(connection: &Connection, library: &str) -> Result<Option<String>> {
    let mut list = cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(library).arg("WITHCODE");
    let reply: Value = connection.query(&list).await?;
    let first = items(&reply).and_then(<[Value]>::first);
    Ok(first.and_then(|library| text(entry(library, "library_code")?)))
}

/// Asks a library for its digest: `FCALL_RO <library>_digest 0`.
pub(crate) fn digest_question(library: &str) -> Cmd {
    let mut question = cmd("FCALL_RO");
    question.arg(format!("{library}_digest")).arg(0);
    question
}

/// The libraries of a server with the digest of each; empty where it tells none.
pub(crate) async fn digests(connection: &Connection) -> Result<BTreeMap<String, String>> {
    let listed = libraries(&connection.query(cmd("FUNCTION").arg("LIST")).await?);
    let questions: Vec<Cmd> = listed.keys().map(|library| digest_question(library)).collect();
    let answers = connection.query_all(&questions).await?;
    let digest = |answer: Result<Value>| answer.ok().as_ref().and_then(text).unwrap_or_default();
    Ok(listed.into_keys().zip(answers.into_iter().map(digest)).collect())
}

pub(crate) async fn dump(connection: &Connection) -> Result<Vec<u8>> {
    connection.query(cmd("FUNCTION").arg("DUMP")).await
}

/// `FUNCTION DELETE`.
pub async fn delete(connection: &Connection, library: &str) -> Result<()> {
    connection.query(cmd("FUNCTION").arg("DELETE").arg(library)).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reply::tests::any_reply;
    use super::*;

    proptest! {
        #[test]
        fn no_reply_makes_the_parser_fail(reply in any_reply()) {
            let _ = of_users(&libraries(&reply));
        }
    }
}
