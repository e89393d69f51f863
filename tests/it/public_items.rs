//! Nothing of `src` is there for claims alone: what no code of the product names is dead, and `rustc` does not say so of what is public.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::imports::{sources, without_tests};

/// Words before the name of an item.
const ITEMS: [&str; 8] = ["fn", "struct", "enum", "const", "static", "type", "trait", "mod"];
/// What may be between `pub` and those.
const QUALIFIERS: [&str; 3] = ["async", "const", "unsafe"];

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// The name of the item that a line declares public, in whatever scope.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let mut words = rest.strip_prefix(' ')?.split(' ').skip_while(|word| QUALIFIERS.contains(word)).peekable();
    // `const NAME` and `const fn`: the qualifier was the item.
    let word = words.next()?;
    let name = if ITEMS.contains(&word) { words.next()? } else { word.strip_suffix(':')? };
    self::words(name).next()
}

/// The public items that code names nowhere but where they are declared.
fn unnamed(code: &str) -> BTreeSet<&str> {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    words(code).for_each(|word| *named.entry(word).or_default() += 1);
    code.lines().filter_map(declared).filter(|name| named[name] == 1).collect()
}

/// Code without its comments, those of claims aside.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    without_tests(&text).join("\n")
}

#[test]
fn nothing_is_public_for_claims_alone() {
    let files = sources(Path::new("src")).into_iter().filter(|path| !path.ends_with("tests.rs"));
    let all: Vec<String> = files.map(|path| code(&path)).collect();
    let all = all.join("\n");
    assert!(all.lines().filter_map(declared).count() > 500);
    assert_eq!(unnamed(&all), BTreeSet::new(), "no code of the product names these");
}

#[test]
fn an_item_that_no_code_names_is_found_and_one_that_some_code_names_is_not() {
    let text = "pub async fn alone() {}\npub(crate) const LIMIT: u8 = 1;\npub const fn both() -> u8 {\n    LIMIT\n}\n\
                pub(in crate::x) struct Kept(u8);\nfn private(kept: Kept) {}\n    pub field: u8,\npub static ALSO: u8 = both();";
    assert_eq!(unnamed(text), BTreeSet::from(["ALSO", "alone", "field"]));
}
