//! A library with policies: what all such libraries begin with, what this one's things are, its functions, and the policies,
//! compiled in as pages.
//!
//! Knows how a table of policies is written in Lua. Must not know what a policy says: its row does.

use std::fmt::Write as _;

use super::library::Library;

/// What every library with policies begins with.
const PRELUDE: &str = include_str!("lua/prelude.lua");
/// Where the pages go in [`PRELUDE`].
const PAGES_PLACE: &str = "@PAGES@\n";
/// Rows of a page, in the mean. The server searches a page from its beginning at the first use of a prefix.
const ROWS_OF_A_PAGE: usize = 64;
/// The hash of a prefix is below this, so that Lua computes it exactly.
const HASHES: usize = 1 << 24;

/// The source of a library without its policies.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Name of the library.
    pub name: &'static str,
    /// What its things are: keys, states, errors. Begins with a comment that says so.
    pub things: &'static str,
    /// Its functions. What each takes and answers is said in the comment above it.
    pub functions: &'static str,
}

impl Template {
    /// The library with these policies. Their order makes no difference.
    pub fn library(&self, rows: impl IntoIterator<Item = Row>) -> Library {
        let Self { name, things, functions } = self;
        let prelude = PRELUDE.replacen(PAGES_PLACE, &pages(rows.into_iter().collect()), 1);
        Library::from_template(name, &format!("#!lua name={name}\n{prelude}{things}{functions}"))
    }
}

/// One policy, as the library finds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    prefix: String,
    text: String,
}

impl Row {
    /// A row for the keys that begin with `prefix`. `text` begins with the policy's generation and a space. A character that
    /// separates rows cannot be in one: `?` stands for it, so that such a policy is not found and no other is changed.
    pub(crate) fn new(prefix: &str, text: &str) -> Self {
        let plain = |text: &str| text.replace(|letter: char| letter.is_control(), "?");
        Self { prefix: plain(prefix), text: plain(text) }
    }
}

/// The pages as items of a Lua table, one a line.
fn pages(mut rows: Vec<Row>) -> String {
    rows.sort();
    let mut pages = vec![String::from("\n"); rows.len().div_ceil(ROWS_OF_A_PAGE).max(1)];
    let count = pages.len();
    for Row { prefix, text } in &rows {
        let _ = writeln!(pages[page_of(prefix, count)], "{prefix}\t{text}"); // writing to a string cannot fail
    }
    let mut table = String::new();
    for page in &pages {
        write_string(&mut table, page);
        table.push_str(",\n");
    }
    table
}

/// Which of `pages` a prefix is in, from 0. `row_of` in `lua/prelude.lua` computes alike.
fn page_of(prefix: &str, pages: usize) -> usize {
    prefix.bytes().fold(0, |hash, byte| (hash * 31 + usize::from(byte)) % HASHES) % pages
}

/// A Lua string literal. Every byte that could mean something to Lua, or to the templates, is an escape.
fn write_string(source: &mut String, text: &str) {
    source.push('\'');
    for byte in text.bytes() {
        match byte {
            b'\n' => source.push_str("\\n"),
            b'\t' => source.push_str("\\t"),
            _ if byte.is_ascii_alphanumeric() || b" :/-_.|".contains(&byte) => source.push(char::from(byte)),
            _ => _ = write!(source, "\\{byte:03}"),
        }
    }
    source.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: Template = Template { name: "things", things: "-- things\n", functions: "-- functions\n" };

    #[test]
    fn a_string_cannot_leave_its_quotes() {
        let mut literal = String::new();
        write_string(&mut literal, "web:']=1}\n\\os.exit()--[[@DIGEST@é\0");
        assert_eq!(
            literal,
            "'web:\\039\\093\\0611\\125\\n\\092os.exit\\040\\041--\\091\\091\\064DIGEST\\064\\195\\169\\000'"
        );
    }

    #[test]
    fn a_row_cannot_be_another() {
        let rows = vec![Row::new("web:\napi:\t9 x", "1 a\nb\u{85}"), Row::new("web:", "2 b")];
        assert_eq!(pages(rows), "'\\nweb:\\t2 b\\nweb:\\063api:\\0639 x\\t1 a\\063b\\063\\n',\n");
    }

    #[test]
    fn every_row_is_in_the_page_of_its_prefix_and_their_order_makes_no_difference() {
        for count in [0_usize, 1, 64, 65, 1_000] {
            let rows: Vec<Row> = (0..count).map(|row| Row::new(&format!("p{row}:"), &format!("{row} x"))).collect();
            let table = pages(rows.clone());
            let lines: Vec<&str> = table.lines().collect();
            assert_eq!(lines.len(), count.div_ceil(64).max(1));
            for row in 0..count {
                let page = lines[page_of(&format!("p{row}:"), lines.len())];
                assert!(page.contains(&format!("\\np{row}:\\t{row} x\\n")), "{row}");
            }
            assert_eq!(table, pages(rows.into_iter().rev().collect()));
        }
    }

    #[test]
    fn a_library_is_its_name_then_prelude_things_and_functions() {
        let library = TEMPLATE.library([Row::new("web:", "3 x")]);
        assert!(library.source.starts_with("#!lua name=things\n"));
        assert!(library.source.contains(&format!("local DIGEST = '{}'", library.digest)));
        assert!(library.source.contains("{\n'\\nweb:\\t3 x\\n',\n}\n"));
        assert!(library.source.ends_with("-- things\n-- functions\n"));
        assert_ne!(library.digest, TEMPLATE.library([]).digest);
    }
}
