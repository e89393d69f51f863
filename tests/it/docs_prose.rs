//! How the documents are written: one idea a paragraph, short bullets and sentences, plain words, terms that agree.

use std::fs;
use std::path::PathBuf;

use crate::docs::files;

/// Lines of the longest bullet.
const LONGEST_BULLET: usize = 5;

/// Words of the longest paragraph or bullet, of the longest cell of a table, and of the longest sentence of either. A piece of code is one.
const LONGEST_PARAGRAPH: usize = 75;
const LONGEST_CELL: usize = 50;
const LONGEST_SENTENCE: usize = 35;

/// Words for which there is a plainer one. Each begins and ends at a word's end.
const BANNED: [&str; 6] = ["nobody", "somebody", "whoever", "anew", "beside", "for ever"];

/// What people read: the pages and the charts' pages.
fn pages() -> Vec<PathBuf> {
    let folders = ["docs", "docs/tasks", "docs/uses", "docs/reference", "docs/design"];
    let pages = folders.iter().flat_map(|folder| files(folder, "md"));
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

/// A text without the targets of its links, and with one word for each piece of code.
fn bare(text: &str) -> String {
    let code = text.split('`').enumerate().map(|(number, part)| if number % 2 == 1 { "code" } else { part });
    let text: String = code.collect();
    let (first, links) = text.split_once("](").unwrap_or((&text, ""));
    let behind = links.split("](").map(|link| link.split_once(')').map_or("", |(_, behind)| behind));
    behind.fold(first.to_owned(), |bare, behind| bare + behind)
}

/// The paragraphs and bullets of a page, and the cells of its tables.
fn paragraphs_and_cells(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut paragraphs, mut cells): (Vec<String>, Vec<String>) = Default::default();
    let (mut is_code, mut goes_on) = (false, false);
    for line in text.lines().map(str::trim) {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        let is_row = !is_code && line.starts_with('|');
        if is_row {
            cells.extend(line.replace("\\|", " ").split('|').map(bare));
        }
        let is_prose = !is_code && !is_fence && !is_row && !line.is_empty() && !line.starts_with(['#', '<']);
        let is_item =
            line.starts_with("- ") || line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        match paragraphs.last_mut() {
            Some(last) if is_prose && goes_on && !is_item => *last = format!("{last} {line}"),
            _ if is_prose => paragraphs.push(line.to_owned()),
            _ => {}
        }
        goes_on = is_prose;
    }
    (paragraphs.iter().map(|text| bare(text)).collect(), cells)
}

/// How many words a text has, and its longest sentence.
fn lengths(bare: &str) -> (usize, usize) {
    let words: Vec<&str> = bare.split_whitespace().collect();
    let is_end = |word: &&str| word.trim_end_matches([')', '*', '"', ']']).ends_with(['.', '!', '?']);
    (words.len(), words.split_inclusive(is_end).map(<[_]>::len).max().unwrap_or_default())
}

#[test]
fn no_paragraph_no_cell_and_no_sentence_is_too_long() {
    let mut long = Vec::new();
    // Its paragraphs are lists of names.
    for page in pages().iter().filter(|page| !page.ends_with("reference/directives.md")) {
        let (paragraphs, cells) = paragraphs_and_cells(&fs::read_to_string(page).unwrap());
        let bounded = [(paragraphs, LONGEST_PARAGRAPH), (cells, LONGEST_CELL)];
        for (text, bound) in bounded.iter().flat_map(|(texts, bound)| texts.iter().map(move |text| (text, *bound))) {
            let (words, sentence) = lengths(text);
            if words > bound || sentence > LONGEST_SENTENCE {
                let begin: String = text.chars().take(80).collect();
                long.push(format!("{}: {words} words, a sentence of {sentence}: {begin}", page.display()));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    let sample =
        "# A title\n\nIt is\n[`a b`](c.md#d). It (is)!\n- one\n  two\n1. three\n```\ncode\n```\n| a | b c. d e f |\n";
    let (paragraphs, cells) = paragraphs_and_cells(sample);
    assert_eq!(paragraphs, ["It is [code. It (is)!", "- one two", "1. three"]);
    assert_eq!((lengths(&paragraphs[0]), lengths(&cells[2])), ((5, 3), (5, 3)));
}

/// Where a line of prose has the beginning of a bullet behind a sentence: what joins lines has joined two bullets.
fn joined_bullets(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let is_joined = |line: &&str| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && !line.starts_with('|') && [". - ", ": - ", "; - "].iter().any(|end| line.contains(end))
    };
    text.lines().filter(is_joined).collect()
}

#[test]
fn no_two_bullets_are_joined_in_a_line() {
    let mut found = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        found.extend(joined_bullets(&text).iter().map(|line| format!("{}: {line}", page.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    let sample = "- a\n  it is. - **B** is\n```\nx: - y\n```\n| a. - b |\n";
    assert_eq!(joined_bullets(sample), ["  it is. - **B** is"]);
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

/// What else a person reads: examples, charts, and how the tree is built and tested.
#[test]
fn no_example_no_chart_and_no_build_file_has_a_word_for_which_there_is_a_plainer_one() {
    let built = ["Makefile", "Dockerfile", "tests/pages", "tests/readme", "tests/run", "docs/uses/draw"];
    let of_tests = folders("tests").into_iter().map(|folder| folder.join("README.md")).filter(|path| path.exists());
    let all = ["examples", "charts"].into_iter().flat_map(all_files).chain(of_tests).chain(built.map(PathBuf::from));
    let (mut found, mut count) = (Vec::new(), 0);
    for path in all {
        // What is no text is a picture or a program.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        count += 1;
        for (number, line) in text.to_lowercase().lines().enumerate() {
            let words = BANNED.iter().filter(|word| has_word(line, word));
            found.extend(words.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(count > 60, "{count}");
}

/// Terms that only the code has.
const OF_CODE: [&str; 4] = ["step", "desired, observed", "revision", "initialised"];

/// The terms of a table and the first sentence about each, without its first capital and its end.
fn glossary(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().filter_map(|line| line.trim_start_matches("//! ").strip_prefix("| "));
    let pairs = rows.filter_map(|row| row.trim_end_matches(" |").split_once(" | "));
    let sentence = |text: &str| {
        let first = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
        first.chars().take(1).flat_map(char::to_lowercase).chain(first.chars().skip(1)).collect()
    };
    pairs.skip(1).map(|(term, text)| (term.to_owned(), sentence(text))).collect()
}

#[test]
fn the_glossaries_of_the_code_and_of_the_concepts_agree() {
    let section = |path: &str, title: &str| {
        let text = fs::read_to_string(path).unwrap();
        let section = text.split_once(title).unwrap().1;
        glossary(section.split("# ").next().unwrap())
    };
    let (code, concepts) = (section("src/lib.rs", "# The terms\n"), section("docs/concepts.md", "## Glossary\n"));
    assert!(code.len() > 18 && concepts.len() > 18, "{code:?} {concepts:?}");
    for (term, meaning) in code.iter().filter(|(term, _)| !OF_CODE.contains(&term.as_str())) {
        let told = concepts.iter().find(|(other, _)| other == term).map(|(_, meaning)| meaning);
        assert_eq!(told, Some(meaning), "{term}");
    }
}

/// A run id that a Sentinel is asked with, and the selector of a Service that selects no pod.
const LITERALS: [&str; 2] = ["\"nobody\"", "\"nobody-yet\""];

#[test]
fn no_source_and_no_name_of_a_test_has_a_word_for_which_there_is_a_plainer_one() {
    let mut found = Vec::new();
    for path in ["src", "tests/it", "tests/nodeless", "tests/e2e", "tests/support"].into_iter().flat_map(sources) {
        let is_product = path.starts_with("src");
        for (number, line) in fs::read_to_string(&path).unwrap().to_lowercase().lines().enumerate() {
            let line = LITERALS.iter().fold(line.to_owned(), |line, literal| line.replace(literal, ""));
            // Of tests, their names: they are what a run prints.
            let is_judged = is_product || line.contains("fn ");
            let words = BANNED.iter().filter(|word| is_judged && has_word(&line.replace('_', " "), word));
            found.extend(words.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Words that no name has: Redis and Kubernetes have terms for what they meant.
const DIALECT: [&str; 27] = [
    "strike",
    "struck",
    "heal",
    "heals",
    "healed",
    "settle",
    "settles",
    "amiss",
    "misled",
    "patience",
    "suffer",
    "hurry",
    "calm",
    "wish",
    "disown",
    "heir",
    "everybody",
    "besides",
    "belief",
    "whom",
    "unheard",
    "joining",
    "endless",
    "uncounted",
    "harvest",
    "chores",
    "dissent",
];

/// The words of the name that a line of code defines, in lower case; empty: it defines none.
fn words_of_definition(line: &str) -> String {
    const DEFINES: [&str; 8] = ["fn", "struct", "enum", "type", "const", "static", "trait", "mod"];
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with("//"));
    let is_keyword = |word: &&str| DEFINES.contains(word);
    let name = words.any(|word| is_keyword(&word)).then(|| words.find(|word| !is_keyword(word))).flatten();
    let mut spaced = String::new();
    for letter in name.unwrap_or_default().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_') {
        let begins_word = letter.is_uppercase() && spaced.ends_with(char::is_lowercase);
        spaced.extend(begins_word.then_some(' ').into_iter().chain([if letter == '_' { ' ' } else { letter }]));
    }
    spaced.to_lowercase()
}

#[test]
fn no_name_in_the_code_has_a_word_for_which_redis_or_kubernetes_have_a_term() {
    let mut found = Vec::new();
    for path in ["src", "tests/it", "tests/nodeless", "tests/e2e", "tests/support"].into_iter().flat_map(sources) {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let name = words_of_definition(line);
            let words = DIALECT.iter().filter(|word| has_word(&name, word));
            found.extend(words.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    // In two parts, so that these lines define nothing.
    assert_eq!(words_of_definition(&["    pub const fn", "heals_after(layer: &Layer) {"].join(" ")), "heals after");
    assert_eq!(words_of_definition(&["pub struct", "StruckLayer;"].join(" ")), "struck layer");
    assert_eq!(words_of_definition("// a type that heals"), "");
}

/// What is told in statuses, events and refusals, as the golden files have it.
#[test]
fn no_message_has_a_word_for_which_there_is_a_plainer_one_and_none_shows_how_a_type_is_printed() {
    // The debug output of Rust's types, and what `kube` puts around an answer of the API server.
    const OF_TYPES: [&str; 6] = ["Some(", "None)", " { ", "ApiError:", "Err(", "\\\""];
    let mut found = Vec::new();
    let told = |line: &str| {
        let line = line.trim_start();
        let field = line.split_once(": ").map(|(field, text)| (field.trim_start_matches("- "), text));
        field
            .filter(|(field, _)| ["message", "evidence", "note", "(status)"].contains(field))
            .map(|(_, text)| text.to_owned())
    };
    for (path, is_all) in [("tests/golden/statuses.yaml", false), ("tests/golden/messages.txt", true)] {
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            // What was written by a person is quoted as it is.
            let text = if is_all { line.strip_prefix("  ").map(str::to_owned) } else { told(line) };
            let Some(text) = text else { continue };
            let lower = text.to_lowercase();
            let banned = BANNED.iter().filter(|word| has_word(&lower, word));
            let types = OF_TYPES.iter().filter(|word| text.contains(**word));
            found.extend(banned.chain(types).map(|word| format!("{path}:{}: {word}: {text}", number + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The texts of errors, and those of the log's lines above information.
fn texts_of_failures(source: &str) -> Vec<String> {
    let attributes = source.split("#[error(\"").skip(1).filter_map(|text| text.split('"').next());
    let calls = ["warn!(", "error!("].into_iter().flat_map(|call| source.split(call).skip(1));
    let lines = calls.filter_map(|call| call.split(");").next()?.split('"').nth(1));
    attributes.chain(lines).map(str::to_owned).collect()
}

/// What we could not do is told in one form: "cannot", the verb, the object. A refusal is a sentence with its subject.
#[test]
fn what_could_not_be_done_is_reported_in_one_form() {
    let is_other = |text: &String| {
        let is_gerund = |first: &str| first.ends_with("ing") && first != "nothing";
        text.contains("could not") || text.split(' ').next().is_some_and(is_gerund)
    };
    let mut found = Vec::new();
    for path in sources("src") {
        let wrong = texts_of_failures(&fs::read_to_string(&path).unwrap()).into_iter().filter(is_other);
        found.extend(wrong.map(|text| format!("{}: {text}", path.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    let sample = texts_of_failures(
        "#[error(\"reading {path}\")]\n#[error(\"cannot read {path}\")]\nwarn!(%error, \"it could not be read\");",
    );
    assert_eq!(sample.iter().map(is_other).collect::<Vec<_>>(), [true, false, true], "it tells them apart");
}

/// Values whose debug output is what a person would write: times.
const TIMES: [&str; 9] =
    ["since.elapsed()", "pause", "delay", "waited", "limit", "hangs", "needed", "busy.elapsed()", "within"];

#[test]
fn no_line_of_the_log_shows_how_a_type_is_printed() {
    let mut found = Vec::new();
    for path in sources("src") {
        let text = fs::read_to_string(&path).unwrap();
        for call in text.split("tracing::").skip(1).filter(|call| !call.starts_with("field")) {
            let call = call.split(");").next().unwrap_or_default();
            for (at, _) in call.match_indices('?').filter(|(at, _)| call[..*at].ends_with(['(', ' ', '='])) {
                let value = call[at + 1..].trim_start();
                if !TIMES.iter().any(|time| value.starts_with(time)) {
                    found.push(format!("{}: ?{}", path.display(), value.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Values of messages whose debug output is the text of a person within quotes.
const QUOTED: [&str; 5] = ["{image:?", "{text:?", "{request:?", "{value:?", "{:?} is not "];

#[test]
fn no_message_shows_how_a_type_is_printed() {
    let mut found = Vec::new();
    for path in sources("src/validate").into_iter().chain(sources("src/report")) {
        let text = fs::read_to_string(&path).unwrap();
        let told = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_told = |line: &&str| line.contains(":?}") && !QUOTED.iter().any(|quoted| line.contains(quoted));
        let lines = told.lines().filter(is_told).map(|line| format!("{}: {}", path.display(), line.trim()));
        found.extend(lines.filter(|_| !path.ends_with("tests.rs")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn folders(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// The files of a folder and of those in it.
fn all_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(all_files(path.to_str().unwrap())) } else { found.push(path) }
    }
    found
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    all_files(folder).into_iter().filter(is_source).collect()
}
