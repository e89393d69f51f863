//! No module of `src` imports one that imports it back, also not inside a folder. A module is a file; a name that a module only hands
//! on (`use`, `pub use`) belongs to the module where it is defined, so that a folder's `mod.rs` may list what its files offer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

use super::imports::{sources, without_tests};

/// Path of a module from the crate's root.
type Module = Vec<String>;

/// A name that a `use` brings into a module.
struct Import {
    path: Vec<String>,
    name: String,
}

/// The code of one module, apart from its `use` items.
struct Code {
    imports: Vec<Import>,
    body: String,
}

fn words(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The imports of one `use` tree.
fn imports(tree: &str, prefix: &[String], found: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let prefix = [prefix, &words(head)].concat();
        let group = &group[..group.rfind('}').unwrap_or(group.len())];
        let (mut depth, mut begin) = (0_i32, 0);
        for (position, letter) in group.char_indices().chain([(group.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    imports(&group[begin..position], &prefix, found);
                    begin = position + 1;
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim())));
        let mut path = [prefix, &words(path)].concat();
        let is_self = path.len() > 1 && path.last().is_some_and(|word| word == "self");
        if is_self {
            path.pop();
        }
        let name = name.map_or_else(|| path.last().cloned().unwrap_or_default(), str::to_owned);
        found.push(Import { path, name });
    }
}

/// A line without the module that `pub(in …)` names: to be seen there needs nothing of it.
fn without_visibility(line: &str) -> String {
    line.split_once("pub(in ").map_or_else(
        || line.to_owned(),
        |(before, rest)| [before, "pub", rest.split_once(')').map_or("", |(_, after)| after)].concat(),
    )
}

/// Reads the code of a module.
fn read(text: &str) -> Code {
    let (mut found, mut body, mut rest) = (Vec::new(), Vec::new(), String::new());
    for line in without_tests(text) {
        let item = line.trim_start();
        let begins =
            ["use ", "pub use ", "pub(crate) use ", "pub(super) use "].iter().any(|word| item.starts_with(word));
        if rest.is_empty() && !begins {
            body.push(without_visibility(line));
            continue;
        }
        rest.push_str(item);
        if let Some(tree) = rest.strip_suffix(';') {
            imports(tree.split_once("use ").map_or("", |(_, tree)| tree), &[], &mut found);
            rest.clear();
        }
    }
    Code { imports: found, body: body.join("\n") }
}

/// All modules by their paths.
struct Crate(BTreeMap<Module, Code>);

impl Crate {
    /// A path as it is written in a module, from the crate's root; `None`: it is of another crate, or of the module itself.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let below = || [module, std::slice::from_ref(first)].concat();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|word| *word == "super").count();
                Some([module.get(..module.len().checked_sub(ups)?)?, &path[ups..]].concat())
            }
            _ if self.0.contains_key(&below()) => Some([below().as_slice(), rest].concat()),
            _ => None,
        }
    }

    /// The module in which the thing at an absolute path is defined. `hops`: imports that may hand it on.
    fn home(&self, path: &[String], hops: usize) -> Option<Module> {
        let module = (0..=path.len()).rev().map(|end| &path[..end]).find(|path| self.0.contains_key(*path))?;
        let handed_on = path.get(module.len()).filter(|_| hops > 0).and_then(|name| {
            let import = self.0.get(module)?.imports.iter().find(|import| import.name == *name)?;
            let import = self.absolute(module, &import.path)?;
            self.home(&[&import, &path[module.len() + 1..]].concat(), hops - 1)
        });
        handed_on.or_else(|| Some(module.to_vec()))
    }

    /// The modules that a module needs things of. To bring a module's name in is no need, to name a thing of it is.
    fn needs(&self, module: &Module, code: &Code) -> BTreeSet<Module> {
        let mut paths: Vec<Vec<String>> = Vec::new();
        let mut names = BTreeMap::new();
        for import in &code.imports {
            let Some(path) = self.absolute(module, &import.path) else { continue };
            if self.0.contains_key(&path) {
                names.insert(import.name.clone(), path);
            } else {
                paths.push(path);
            }
        }
        let is_of_path = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
        for text in code.body.split(|letter| !is_of_path(letter)).filter(|text| text.contains("::")) {
            let path = words(text);
            let Some((first, rest)) = path.split_first() else { continue };
            match names.get(first) {
                Some(of_name) => paths.push([of_name.as_slice(), rest].concat()),
                None => paths.extend(self.absolute(module, &path)),
            }
        }
        let mut homes: BTreeSet<Module> = paths.iter().filter_map(|path| self.home(path, 8)).collect();
        homes.remove(module);
        // The root only lists the modules.
        homes.remove(&Vec::new());
        homes
    }

    /// Each circle once, as the modules on the shortest way round.
    fn circles(&self) -> Vec<String> {
        let needs: BTreeMap<&Module, BTreeSet<Module>> =
            self.0.iter().map(|(module, code)| (module, self.needs(module, code))).collect();
        let mut found = BTreeMap::new();
        for module in needs.keys() {
            let mut ways: BTreeMap<&Module, Vec<&Module>> = BTreeMap::new();
            let mut queue = VecDeque::from([(*module, Vec::new())]);
            while let Some((at, way)) = queue.pop_front() {
                for next in needs.get(at).into_iter().flatten() {
                    if !ways.contains_key(next) {
                        let way = [way.as_slice(), &[next]].concat();
                        queue.push_back((next, way.clone()));
                        ways.insert(next, way);
                    }
                }
            }
            if let Some(way) = ways.get(module) {
                let members: BTreeSet<&Module> = way.iter().copied().collect();
                let words: Vec<String> = way.iter().map(|module| module.join("/")).collect();
                found.entry(members).or_insert_with(|| words.join(" → "));
            }
        }
        found.into_values().collect()
    }
}

fn of_source() -> Crate {
    let module = |path: &Path| {
        let mut words: Module = path
            .strip_prefix("src")
            .unwrap()
            .with_extension("")
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        if words.last().is_some_and(|word| word == "mod" || word == "lib") {
            words.pop();
        }
        words
    };
    let files = sources(Path::new("src")).into_iter().filter(|path| !path.ends_with("main.rs"));
    Crate(files.map(|path| (module(&path), read(&fs::read_to_string(&path).unwrap()))).collect())
}

#[test]
fn no_module_imports_one_that_imports_it_back() {
    let source = of_source();
    let arrows: usize = source.0.iter().map(|(module, code)| source.needs(module, code).len()).sum();
    // Or the paths are not understood.
    assert!(source.0.len() > 150 && arrows > 500, "{} modules, {arrows} arrows", source.0.len());
    let circles = source.circles();
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
}

fn circles_of(modules: &[(&str, &str)]) -> Vec<String> {
    Crate(modules.iter().map(|(module, text)| (words(module), read(text))).collect()).circles()
}

#[test]
fn circles_of_siblings_and_of_a_parent_and_its_child_are_found() {
    let siblings = [("", ""), ("a", "use crate::b::B;\npub struct A;"), ("b", "fn f() {\n    super::a::g();\n}")];
    assert_eq!(circles_of(&siblings), ["b → a"]);
    let family =
        [("", ""), ("a", "mod child;\npub struct A;\nfn f() {\n    child::g()\n}"), ("a::child", "use super::A;")];
    assert_eq!(circles_of(&family), ["a/child → a"]);
    let three = [
        ("", ""),
        ("a", "use crate::{\n    b::B,\n};"),
        ("b", "use super::c;\nfn f() { c::g() }"),
        ("c", "use super::a::A as Other;"),
    ];
    assert_eq!(circles_of(&three), ["b → c → a"]);
}

#[test]
fn what_is_handed_on_belongs_to_where_it_is_defined() {
    let listed = [
        ("", ""),
        ("a", "mod kind;\nmod user;\npub use kind::A;\nfn f() {\n    user::g()\n}"),
        ("a::kind", "pub struct A;"),
        ("a::user", "use super::A;"),
    ];
    assert!(circles_of(&listed).is_empty());
    let seen = [("", ""), ("a", "mod b;\nfn f() {\n    b::g()\n}"), ("a::b", "pub(in crate::a) fn g() {}")];
    assert!(circles_of(&seen).is_empty());
    let of_tests = [
        ("", ""),
        ("a", "use crate::b::B;"),
        ("b", "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}"),
    ];
    assert!(circles_of(&of_tests).is_empty());
}
