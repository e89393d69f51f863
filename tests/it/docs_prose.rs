//! How the documents are written: short bullets, plain words.

use std::fs;
use std::path::PathBuf;

use crate::docs::files;

/// Lines of the longest bullet.
const LONGEST_BULLET: usize = 5;

/// Words for which there is a plainer one. Each begins and ends at a word's end.
const BANNED: [&str; 6] = ["nobody", "somebody", "whoever", "anew", "beside", "for ever"];

/// What people read: the pages and the charts' pages.
fn pages() -> Vec<PathBuf> {
    let folders = ["docs", "docs/tasks", "docs/uses", "docs/reference", "docs/design"];
    // Its text is that of the Lua sources, whose digest it would change.
    let is_lua = |path: &PathBuf| path.ends_with("reference/functions.md");
    let pages = folders.iter().flat_map(|folder| files(folder, "md")).filter(|path| !is_lua(path));
    let further = ["README.md", "charts/redoubt/README.md", "charts/redoubt-crds/README.md"];
    pages.chain(further.map(PathBuf::from)).collect()
}

/// The bullets of a page, each with the lines that continue it.
fn bullets(text: &str) -> Vec<Vec<&str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let (mut is_bullet, mut is_code) = (false, false);
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let begins = !is_code && line.trim_start().starts_with("- ");
        if begins {
            found.push(vec![line]);
        } else if is_bullet && line.starts_with(' ') {
            found.last_mut().unwrap().push(line);
        }
        is_bullet = begins || (is_bullet && line.starts_with(' '));
    }
    found
}

#[test]
fn no_bullet_is_longer_than_five_lines() {
    let mut long = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let bullets = bullets(&text);
        let of_page = bullets.iter().filter(|bullet| bullet.len() > LONGEST_BULLET);
        long.extend(of_page.map(|bullet| format!("{}: {} lines: {}", page.display(), bullet.len(), bullet[0])));
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    let sample = "- a\n  b\n\ntext\n- c\n  d\n  e\n  f\n  g\n  h\n";
    assert_eq!(bullets(sample).iter().map(Vec::len).collect::<Vec<_>>(), [2, 6], "the count counts");
}

/// Whether a word, or words, is in a text that is in lower case.
fn has_word(text: &str, word: &str) -> bool {
    let is_end = |end: Option<char>| end.is_none_or(|letter| !letter.is_alphanumeric());
    text.match_indices(word)
        .any(|(at, _)| is_end(text[..at].chars().next_back()) && is_end(text[at + word.len()..].chars().next()))
}

#[test]
fn no_page_has_a_word_for_which_there_is_a_plainer_one() {
    let mut found = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap().to_lowercase();
        for (number, line) in text.lines().enumerate() {
            let words = BANNED.iter().filter(|word| has_word(line, word));
            found.extend(words.map(|word| format!("{}:{}: {word}", page.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(has_word("and nobody.", "nobody") && !has_word("renewable", "anew"));
}
