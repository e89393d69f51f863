//! The generated pages of the documents, `docs/reference`: made of the definitions, the tables of directives and the Lua
//! library's headers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use redoubt::api::custom_resource_definitions;
use redoubt::dataplane::template::Template;
use redoubt::dataplane::{caches, limits, sessions};
use redoubt::model::UseKind;
use redoubt::model::directives::{self, DirectiveClass};
use redoubt::validate::uses::eviction::{Judgement, Verdict, judge};
use serde_json::{Value, json};

use crate::docs::files;
use crate::monitoring;

/// Fields whose inside is Kubernetes' own and described there.
const OF_KUBERNETES: [&str; 5] = ["affinity", "tolerations", "selector", "conditions", "pullSecrets"];

/// Folder of the generated pages.
pub const REFERENCE: &str = "docs/reference";
const GENERATED: &str = "Generated; do not edit. Generate it again with `UPDATE=1 cargo test --test it docs`.\n";

/// The generated pages by file name.
fn reference() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::from([
        ("directives.md".to_owned(), directive_tables()),
        ("functions.md".to_owned(), functions()),
        ("eviction.md".to_owned(), eviction_matrix()),
    ]);
    let mut index = format!("# Reference\n\n{GENERATED}\n| page | made of |\n|---|---|\n");
    for definition in custom_resource_definitions() {
        let kind = &definition.spec.names.kind;
        let name = format!("{}.md", words_of(kind).join("-"));
        let _ = writeln!(index, "| [{kind}]({name}) | the definition of the custom resource, in `crds/` |");
        pages.insert(name, resource(&definition));
    }
    index.push_str("| [Functions](functions.md) | the headers of the Lua libraries, one for each kind of use |\n");
    index.push_str(
        "| [Eviction](eviction.md) | the matrix of uses and eviction policies in `src/validate/uses/eviction.rs` |\n",
    );
    index.push_str("| [Metrics](metrics.md) | the names and helps in the code of agent and operator |\n");
    pages.insert("metrics.md".to_owned(), metrics());
    index.push_str("| [Directives](directives.md) | the tables of directives in `src/model/directives.rs` |\n");
    pages.insert("README.md".to_owned(), index);
    pages
}

/// Every metric, by who serves it.
fn metrics() -> String {
    let mut text = format!(
        "# Metrics\n\n{GENERATED}\n[Monitoring](../monitoring.md) says how to scrape them, and which to look at.\n"
    );
    for (served, words) in [("agent", "The agent, in each pod"), ("operator", "The operator")] {
        let _ = write!(text, "\n## {words}\n\n| metric | |\n|---|---|\n");
        for (name, (_, help)) in monitoring::metrics().iter().filter(|(_, (by, _))| *by == served) {
            let _ = writeln!(text, "| `{name}` | {help} |");
        }
    }
    text
}

/// `DataLayer`: `data`, `layer`.
fn words_of(kind: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in kind.chars() {
        match words.last_mut() {
            Some(word) if letter.is_lowercase() => word.push(letter),
            _ => words.push(letter.to_lowercase().to_string()),
        }
    }
    words
}

fn resource(definition: &CustomResourceDefinition) -> String {
    let version = &definition.spec.versions[0];
    let names = &definition.spec.names;
    let mut text = format!(
        "# {}\n\n{GENERATED}\n`apiVersion: {}/{}`, plural `{}`, short `{}`.\n",
        names.kind,
        definition.spec.group,
        version.name,
        names.plural,
        names.short_names.clone().unwrap_or_default().join("`, `")
    );
    let schema = serde_json::to_value(&version.schema).unwrap();
    for part in ["spec", "status"] {
        section(&mut text, part, &schema["openAPIV3Schema"]["properties"][part]);
    }
    let _ = write!(text, "\n## What admission refuses\n\n");
    let mut messages = Vec::new();
    collect_messages(&schema["openAPIV3Schema"], &mut messages);
    for message in messages {
        let _ = writeln!(text, "- {message}");
    }
    text
}

/// The policies of which the table speaks, in its order.
pub const POLICIES: [&str; 8] = [
    "noeviction",
    "volatile-ttl",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
];

/// How each kind of use gets on with each eviction policy, and what was measured.
fn eviction_matrix() -> String {
    let kinds = || UseKind::ALL.into_iter().filter(|kind| kind.has_user());
    let mut text = format!(
        "# Eviction\n\n{GENERATED}\nWhat a server does when its memory is full (`memory.evictionPolicy` of the layer) decides which uses it \
         can serve. A use that is refused is not served, with `Accepted` false and reason `Evicts`; one that is warned is served, and its \
         condition `EvictionSuits` is false. A layer of any purpose but `Cache` cannot have `allkeys-*`, and one of several purposes \
         (`Mixed`) only `noeviction` or `volatile-ttl`.\n\n| policy |"
    );
    kinds().for_each(|kind| _ = write!(text, " {} |", kind.words().kind));
    text.push_str("\n|---|");
    kinds().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for policy in POLICIES {
        let _ = write!(text, "| `{policy}` |");
        for kind in kinds() {
            let Judgement { verdict, ground } = judge(kind, policy);
            let word = match verdict {
                Verdict::Fine => "fine",
                Verdict::Warned => "**warned**",
                Verdict::Refused => "**refused**",
            };
            let _ = write!(text, " {word}: {ground} |");
        }
        text.push('\n');
    }
    text.push_str(
        "\nUnder `volatile-ttl` the keys go that are nearest to their end, of whatever use. So entries of caches should live shorter than \
         sessions (`maxTtl` and `staleFor` together below `idleTimeout`), and sessions shorter than limits (the longest window). A use that \
         lives longer than one that should outlive it has `EvictionSuits` false with reason `TtlOrder`.\n\nHow it was measured:\n\n- 20,000 \
         sessions: with 2,000 limits and a flood of 100,000 cache entries in 24 MiB, on Redis 7.0.\n- 2,000 subjects that had used all \
         of an hourly limit: with 250,000 that call once, on Redis 7.0 and 8.0 in 24 MiB and Valkey 8.1 in 14 MiB.\n- 1,000 sessions or \
         500 subjects: a test floods them with 25,000 entries of 1 KiB in 4 MiB, under that policy, on Redis 7.0, Redis 8.0 and Valkey \
         8.1. The cell has the worst of the three.\n",
    );
    text
}

/// The libraries, each with the title and the first words of its part of the page.
const LIBRARIES: [(Template, &str, &str); 3] = [
    (
        sessions::TEMPLATE,
        "Sessions",
        "`FCALL redoubt_session_get 1 'web:{t7}s:4fzk…'`. What they are for: [sessions](../uses/sessions.md).",
    ),
    (limits::TEMPLATE, "Rate limits", "`FCALL redoubt_limit 1 'api:{customer-7}'`."),
    (
        caches::TEMPLATE,
        "Caches",
        "`FCALL redoubt_cache_get 1 'web:{0}product:42'`. How to use them: [functions of a cache](../uses/cache-functions.md).",
    ),
];

/// The headers of the Lua sources: of each library what holds for all its functions, then each of them.
fn functions() -> String {
    let mut text =
        format!("# Functions\n\n{GENERATED}\nCalled with any client. A layer has the functions of its uses.\n");
    for (template, title, example) in LIBRARIES {
        let _ = write!(text, "\n## {title}\n\n{example}\n\n");
        for line in template.things.lines().map_while(comment).skip(2) {
            let _ = writeln!(text, "{line}");
        }
        let mut shows = false;
        for line in template.functions.lines().map(|line| comment(line).unwrap_or_default().trim_end()) {
            let is_name = line.starts_with("redoubt_") && !line.contains([' ', ':']);
            if shows && !line.starts_with("  ") {
                text.push_str("```\n");
            }
            if is_name {
                let _ = write!(text, "\n### {line}\n\n```text\n");
            }
            shows = is_name || (shows && line.starts_with("  "));
            if shows && !is_name {
                let _ = writeln!(text, "{}", &line[2..]);
            }
        }
    }
    text
}

/// What a line of Lua says, if it is a comment.
fn comment(line: &str) -> Option<&str> {
    line.strip_prefix("--").map(|words| words.strip_prefix(' ').unwrap_or(words))
}

/// A table of an object's fields, then those of the objects in it.
fn section(text: &mut String, path: &str, schema: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = write!(text, "\n## `{path}`\n\n| field | type | |\n|---|---|---|\n");
    for (name, field) in fields {
        let must = if path == "spec" && required.contains(&name.as_str()) { "**Required.** " } else { "" };
        let description = one_line(field["description"].as_str().unwrap_or_default());
        let _ = writeln!(text, "| `{name}` | {} | {must}{description} |", type_of(field));
    }
    // `dedicated` is the specification of a DataLayer, which has its own page.
    let elsewhere = |name: &str| OF_KUBERNETES.contains(&name) || name == "dedicated";
    for (name, field) in fields.iter().filter(|(name, _)| !elsewhere(name)) {
        let is_list = field["type"] == "array";
        let (path, inner) =
            if is_list { (format!("{path}.{name}[]"), &field["items"]) } else { (format!("{path}.{name}"), field) };
        section(text, &path, inner);
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn type_of(field: &Value) -> String {
    let words: Vec<String> = field["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    if field["x-kubernetes-int-or-string"] == json!(true) {
        return "quantity".to_owned();
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => "map of string".to_owned(),
        Some("integer") => match (field["minimum"].as_f64(), field["maximum"].as_f64()) {
            (Some(least), Some(most)) => format!("integer, {least} to {most}"),
            _ => "integer".to_owned(),
        },
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

/// What an expression says, without the value: the field, and the first of its texts that is chosen.
fn message_of(expression: &str) -> String {
    if expression.contains("self.filter(") {
        // What a table picks is a word for each value.
        let field = expression.trim_start_matches('\'').split(':').next().unwrap_or_default();
        let texts: Vec<&str> =
            expression.split('\'').skip(1).step_by(2).filter(|text| text.starts_with([' ', '"', ':'])).collect();
        return format!("{field}: NAME{}", texts.last().unwrap_or(&"").replace('"', ""));
    }
    let chosen = expression.split("? '").nth(1).or_else(|| expression.split("+ '\" ").nth(1)).unwrap_or(expression);
    let chosen = chosen.split('\'').next().unwrap_or_default();
    let field = expression.strip_prefix('\'').and_then(|rest| rest.split(':').next());
    field.map_or_else(|| chosen.to_owned(), |field| format!("{field}: {chosen}"))
}

fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let told = rule["message"].as_str().map(str::to_owned);
        let told = told.or_else(|| rule["messageExpression"].as_str().map(message_of));
        let message = one_line(&told.expect("every rule has a message"));
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    for (_, field) in schema["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "dedicated") {
        collect_messages(field, messages);
    }
}

fn directive_tables() -> String {
    let mut text = format!(
        "# Directives of `spec.config`\n\n{GENERATED}\nValues are brought into the form in which the server reports them; one that \
         it would not take is refused. A directive that is in none of these lists is allowed: it is put into `redis.conf` as \
         it is written, is not compared with the running servers, and rolls the pods when it changes. The engine may still \
         be one that does not have it.\n"
    );
    let of = |wanted: DirectiveClass| {
        let names = directives::known_names().filter(|name| directives::class(name) == wanted);
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let _ = write!(text, "\n**Set live:** {}.\n", of(DirectiveClass::Live));
    let _ = write!(text, "\n**Roll the pods:** {}.\n", of(DirectiveClass::StartOnly));
    let fields: Vec<String> = directives::field_names().map(|(name, field)| format!("`{name}` ({field})")).collect();
    let _ = write!(text, "\n**Refused, because a field sets them:** {}.\n", fields.join(", "));
    let ours: Vec<String> = directives::our_names().map(|name| format!("`{name}`")).collect();
    let (prefixes, suffixes) = directives::our_affixes();
    let affixes: Vec<String> =
        prefixes.map(|prefix| format!("`{prefix}*`")).chain(suffixes.map(|suffix| format!("`*{suffix}`"))).collect();
    let _ = write!(text, "\n**Refused, because Redoubt sets them:** {}, {}.\n", ours.join(", "), affixes.join(", "));
    let renamed: Vec<String> = directives::renamed_names().map(|(old, new)| format!("`{old}` (`{new}`)")).collect();
    let _ = write!(text, "\n**Refused, because the name is old:** {}.\n", renamed.join(", "));
    text
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    let pages = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(REFERENCE).unwrap();
        for path in files(REFERENCE, "md") {
            fs::remove_file(path).unwrap();
        }
        for (name, text) in &pages {
            fs::write(Path::new(REFERENCE).join(name), text).unwrap();
        }
    }
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let committed: BTreeMap<String, String> =
        files(REFERENCE, "md").iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    let differing: Vec<&String> =
        pages.keys().chain(committed.keys()).filter(|name| pages.get(*name) != committed.get(*name)).collect();
    assert!(
        differing.is_empty(),
        "{REFERENCE} {differing:?}: write them again with: UPDATE=1 cargo test --test it docs"
    );
}

#[test]
fn the_reference_has_every_function_that_is_registered() {
    let page = functions();
    let registers = |line: &'static str| line.strip_prefix("register('")?.split('\'').next();
    let names: Vec<&str> =
        LIBRARIES.iter().flat_map(|(template, ..)| template.functions.lines().filter_map(registers)).collect();
    let missing: Vec<&&str> = names.iter().filter(|name| !page.contains(&format!("\n### {name}\n"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(page.lines().filter(|line| line.starts_with("### redoubt_")).count(), names.len());
}
