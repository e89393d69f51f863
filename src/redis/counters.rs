//! What the function libraries of the operator's counted: `FCALL_RO <library>_counters 0 FIRST`.

use std::collections::BTreeSet;

use ::redis::{Value, cmd};

use super::connection::Connection;
use super::error::Result;
use super::reply::{entry, items, number, text};
use crate::model::UseKind;
use crate::model::counters::Row;

/// Some rows of one library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Another number after each load of the library.
    pub load: u64,
    /// The rows; none: there are no further ones.
    pub rows: Vec<Row>,
}

/// The kinds that count and whose library the server has (`FUNCTION LIST`). A function that is not there is not called: each such
/// call would count as an error of the server's.
pub(crate) async fn counting_kinds(connection: &Connection) -> Result<Vec<UseKind>> {
    let reply: Value = connection.query(cmd("FUNCTION").arg("LIST").arg("LIBRARYNAME").arg("redoubt_*")).await?;
    let libraries = items(&reply).unwrap_or_default().iter();
    let loaded: BTreeSet<String> = libraries.filter_map(|library| text(entry(library, "library_name")?)).collect();
    let counts = |kind: &UseKind| kind.words().counters.is_some() && loaded.contains(kind.words().library);
    Ok(UseKind::ALL.into_iter().filter(counts).collect())
}

/// The rows of a kind from the one of this number on, from 0; some hundreds at most.
pub async fn page(connection: &Connection, kind: UseKind, first: usize) -> Result<Page> {
    let function = format!("{}_counters", kind.words().library);
    let reply: Value = connection.query(cmd("FCALL_RO").arg(&function).arg(0).arg(first)).await?;
    read_page(kind, &reply).ok_or_else(|| connection.bad_reply(&function, "no load and rows"))
}

fn read_page(kind: UseKind, reply: &Value) -> Option<Page> {
    let (load, rows) = items(reply)?.split_first()?;
    let has_part = kind.words().counters?.part.is_some();
    Some(Page { load: number(load)?, rows: rows.iter().map(|row| read_row(has_part, row)).collect::<Option<_>>()? })
}

fn read_row(has_part: bool, row: &Value) -> Option<Row> {
    let (owner, rest) = items(row)?.split_first()?;
    let (part, counts) =
        if has_part { rest.split_first().map(|(part, rest)| (text(part), rest))? } else { (Some(String::new()), rest) };
    Some(Row { owner: text(owner)?, part: part?, counts: counts.iter().map(number).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reply::tests::any_reply;
    use super::*;

    proptest! {
        #[test]
        fn no_reply_makes_the_parser_fail(reply in any_reply()) {
            let _ = UseKind::ALL.map(|kind| read_page(kind, &reply));
        }
    }
}
