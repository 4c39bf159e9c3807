//! The modules of a crate form layers: no module imports, over however many others, a module that imports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The crates without import cycles.
const LAYERED: [&str; 6] =
    ["ocikit-archive", "ocikit-build", "ocikit-http", "ocikit-layout", "ocikit-registry", "ocikit-spec"];

/// A module by its path in the crate; the root is empty.
type Module = Vec<String>;

#[test]
fn modules_import_without_cycles() {
    for name in LAYERED {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(name).join("src");
        let mut texts = BTreeMap::new();
        read(&source, &mut Vec::new(), &mut texts);
        let imports: BTreeMap<_, _> =
            texts.iter().map(|(module, text)| (module, imports(module, text, &texts))).collect();
        for module in texts.keys() {
            let mut waiting: Vec<_> = imports[module].iter().collect();
            let mut seen = BTreeSet::new();
            while let Some(next) = waiting.pop() {
                assert_ne!(next, module, "{name}: `{}` imports itself over others", module.join("::"));
                if seen.insert(next) {
                    waiting.extend(&imports[next]);
                }
            }
        }
    }
}

/// Reads the files of a directory, without their tests and comments.
fn read(directory: &Path, module: &mut Module, texts: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_own = name == "mod" || module.is_empty() && name == "lib";
        if !is_own {
            module.push(name.clone());
        }
        if path.is_dir() {
            read(&path, module, texts);
        } else if name != "tests" && path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            texts.insert(module.clone(), lines.collect::<Vec<_>>().join("\n"));
        }
        if !is_own {
            module.pop();
        }
    }
}

/// Returns the modules that a module names: in `use`, and in other paths that begin with `crate` or `super`. The root
/// imports nothing, since what it names it hands on.
fn imports(module: &Module, text: &str, texts: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    if module.is_empty() {
        return BTreeSet::new();
    }
    let mut paths = Vec::new();
    for statement in text.split(';') {
        if let Some((before, tree)) = statement.rsplit_once("use ")
            && before
                .trim_end()
                .lines()
                .last()
                .is_none_or(|line| line.is_empty() || line.starts_with("pub") || line.ends_with(['}', ']']))
        {
            expand("", &tree.split_whitespace().collect::<String>(), &mut paths);
        }
    }
    for start in ["crate::", "super::"] {
        let inside = |letter: &char| letter.is_alphanumeric() || matches!(letter, '_' | ':');
        let found = text.match_indices(start).map(|(at, _)| text[at..].chars().take_while(inside).collect());
        paths.extend::<Vec<String>>(found.collect());
    }
    let named = paths.iter().filter_map(|path| resolve(module, path, texts));
    named.filter(|found| found != module && !found.is_empty()).collect()
}

/// Expands `a::{b, c::{d, e}}` to `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((before, inner)) = tree.split_once('{') else { return paths.push(format!("{prefix}{tree}")) };
    let (prefix, inner) = (format!("{prefix}{before}"), inner.strip_suffix('}').unwrap_or(inner));
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if start < at {
                    expand(&prefix, &inner[start..at], paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Returns the module that a path in a module leads to; `None` if it leads out of the crate.
fn resolve(module: &Module, path: &str, texts: &BTreeMap<Module, String>) -> Option<Module> {
    let mut segments = path.split("::").filter(|segment| !segment.is_empty()).peekable();
    let mut found = match *segments.peek()? {
        "crate" => {
            segments.next();
            Vec::new()
        }
        "super" => {
            let mut found = module.clone();
            while segments.next_if_eq(&"super").is_some() {
                found.pop();
            }
            found
        }
        first => {
            let child = [module.as_slice(), &[first.to_owned()]].concat();
            texts.contains_key(&child).then(|| module.clone())?
        }
    };
    for segment in segments {
        found.push(segment.to_owned());
        if !texts.contains_key(&found) {
            found.pop();
            break;
        }
    }
    Some(found)
}
