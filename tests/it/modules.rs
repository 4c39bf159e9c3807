//! The import structure of each crate: the modules form layers, without cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// A path in a crate, without `crate`.
type ItemPath = Vec<String>;

/// One file of a crate, with the inline modules in it.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    /// Imported names, and the paths behind them as written.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// The paths that imports and code name, as written.
    imported: BTreeSet<Vec<String>>,
    used: BTreeSet<Vec<String>>,
}

/// All modules of a crate, by their paths.
#[derive(Debug, Default)]
struct Modules(BTreeMap<ItemPath, Module>);

impl Modules {
    fn of(source: &Path) -> Modules {
        let mut modules = Modules::default();
        modules.add(&source.join("lib.rs"), source, Vec::new());
        modules
    }

    fn add(&mut self, file: &Path, directory: &Path, path: ItemPath) {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add_items(&parsed.items, file, directory, path);
    }

    fn add_items(&mut self, items: &[syn::Item], file: &Path, directory: &Path, path: ItemPath) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            if is_test(attributes(item)) {
                continue;
            }
            match item {
                syn::Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    let child = [path.clone(), vec![name.clone()]].concat();
                    let below = directory.join(&name);
                    match &inner.content {
                        Some((_, items)) => self.add_items(items, file, &below, child),
                        None => {
                            let flat = directory.join(format!("{name}.rs"));
                            let file = if flat.exists() { flat } else { below.join("mod.rs") };
                            self.add(&file, &below, child);
                        }
                    }
                    module.children.insert(name);
                }
                syn::Item::Use(import) => {
                    let is_reexport = !matches!(import.vis, syn::Visibility::Inherited);
                    add_use(&mut module, &import.tree, &[], is_reexport);
                }
                item => {
                    module.items.extend(name(item));
                    Paths(&mut module.used).visit_item(item);
                }
            }
        }
        self.0.insert(path, module);
    }

    /// Returns the module that defines what a path leads to, seen from a module, and whether that is an item of it;
    /// `None` for other crates.
    fn resolve(&self, from: &[String], written: &[String], depth: usize) -> Option<(ItemPath, bool)> {
        if depth > 16 {
            return None;
        }
        let (first, rest) = written.split_first()?;
        let module = self.0.get(from)?;
        let mut start = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_vec(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            name if module.children.contains(name) => [from, &[name.to_owned()]].concat(),
            name if module.items.contains(name) => return Some((from.to_vec(), true)),
            name => match module.imports.get(name) {
                // `use serde::…` in a module that has no child of that name leads to another crate.
                Some(import) if import.first().is_some_and(|found| found != first || import.len() > 1) => {
                    let import = [import, rest].concat();
                    return self.resolve(from, &import, depth + 1);
                }
                Some(_) => return None,
                None => {
                    let globs = module.globs.iter();
                    return globs
                        .filter(|glob| glob.first().is_some_and(|first| first != name))
                        .find_map(|glob| self.resolve(from, &[glob, written].concat(), depth + 1));
                }
            },
        };
        for (position, segment) in rest.iter().enumerate() {
            let module = self.0.get(&start)?;
            if segment == "super" {
                start.pop();
            } else if module.children.contains(segment) {
                start.push(segment.clone());
            } else if module.items.contains(segment) {
                return Some((start, true));
            } else {
                return self.resolve(&start, &rest[position..], depth + 1);
            }
        }
        Some((start, false))
    }

    /// Returns which files use which, and by which path.
    fn uses(&self) -> BTreeMap<&Path, BTreeMap<&Path, String>> {
        let mut uses: BTreeMap<&Path, BTreeMap<&Path, String>> = BTreeMap::new();
        for (path, module) in &self.0 {
            let imported =
                module.imported.iter().filter_map(|written| Some((self.resolve(path, written, 0)?, written)));
            let used = module.used.iter().filter_map(|written| Some((self.resolve(path, written, 0)?, written)));
            // In code, the name of a module alone is a variable, or a visibility.
            for ((found, _), written) in imported.chain(used.filter(|((_, is_item), _)| *is_item)) {
                let used = self.0[&found].file.as_path();
                if used != module.file {
                    uses.entry(&module.file).or_default().insert(used, written.join("::"));
                }
            }
        }
        uses
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn name(item: &syn::Item) -> Option<String> {
    Some(match item {
        syn::Item::Const(item) => item.ident.to_string(),
        syn::Item::Enum(item) => item.ident.to_string(),
        syn::Item::Fn(item) => item.sig.ident.to_string(),
        syn::Item::Static(item) => item.ident.to_string(),
        syn::Item::Struct(item) => item.ident.to_string(),
        syn::Item::Trait(item) => item.ident.to_string(),
        syn::Item::Type(item) => item.ident.to_string(),
        syn::Item::Macro(item) => item.ident.as_ref()?.to_string(),
        _ => return None,
    })
}

/// Adds an import. One that is no re-export counts as used, since it may bring a trait into scope.
fn add_use(module: &mut Module, tree: &syn::UseTree, before: &[String], is_reexport: bool) {
    let mut leaf = |name: &syn::Ident, bound: &syn::Ident| {
        let path = match name.to_string().as_str() {
            "self" => before.to_vec(),
            name => [before, &[name.to_owned()]].concat(),
        };
        let bound = if bound == "self" { before.last().cloned().unwrap_or_default() } else { bound.to_string() };
        if !is_reexport {
            module.imported.insert(path.clone());
        }
        module.imports.insert(bound, path);
    };
    match tree {
        syn::UseTree::Path(path) => {
            add_use(module, &path.tree, &[before, &[path.ident.to_string()]].concat(), is_reexport);
        }
        syn::UseTree::Name(name) => leaf(&name.ident, &name.ident),
        syn::UseTree::Rename(rename) => leaf(&rename.ident, &rename.rename),
        syn::UseTree::Glob(_) => module.globs.push(before.to_vec()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| add_use(module, tree, before, is_reexport)),
    }
}

/// Collects the paths in the code of a module, without its unit tests.
struct Paths<'a>(&'a mut BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }
}

/// Returns the groups of files that use each other in a circle.
fn cycles<'a>(uses: &BTreeMap<&'a Path, BTreeMap<&'a Path, String>>) -> Vec<BTreeSet<&'a Path>> {
    let reach = |start: &'a Path| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![start]);
        while let Some(file) = waiting.pop() {
            waiting.extend(uses.get(file).into_iter().flat_map(BTreeMap::keys).filter(|used| seen.insert(**used)));
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = uses.keys().map(|file| (*file, reach(file))).collect();
    let mutual = |file: &&'a Path| {
        let others = reached[file].iter().copied();
        others.filter(|other| reached.get(other).is_some_and(|back| back.contains(file))).collect::<BTreeSet<_>>()
    };
    let groups: BTreeSet<BTreeSet<&Path>> = reached.keys().map(mutual).filter(|group| !group.is_empty()).collect();
    groups.into_iter().collect()
}

#[test]
fn modules_of_a_crate_have_no_cycle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut crates: Vec<PathBuf> =
        std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.push(root.join("cli"));
    crates.sort();
    assert!(crates.len() >= 10);
    let (mut report, mut files) = (String::new(), 0);
    for member in &crates {
        let modules = Modules::of(&member.join("src"));
        files += modules.0.len();
        let uses = modules.uses();
        for group in cycles(&uses) {
            writeln!(report, "{}: {} files use each other:", member.display(), group.len()).unwrap();
            for file in &group {
                for (used, path) in uses[file].iter().filter(|(used, _)| group.contains(*used)) {
                    let shown = |file: &Path| file.strip_prefix(member).unwrap().display().to_string();
                    writeln!(report, "  {} uses {}: {path}", shown(file), shown(used)).unwrap();
                }
            }
        }
    }
    assert!(files > 300, "{files} modules were read");
    assert!(report.is_empty(), "{report}");
}

#[test]
fn cycle_between_modules_is_found() {
    let directory = tempfile::TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    std::fs::create_dir(directory.path().join("c")).unwrap();
    write("lib.rs", "mod a; mod b; mod c; pub use a::A;");
    write("a.rs", "use crate::b::B; pub struct A(B); #[cfg(test)] mod tests { use crate::c::C; }");
    write("c/mod.rs", "mod d; pub use d::C;");
    write("c/d.rs", "use super::super::A; pub struct C(A);");
    let count = || {
        let modules = Modules::of(directory.path());
        cycles(&modules.uses()).iter().map(BTreeSet::len).collect::<Vec<_>>()
    };
    write("b.rs", "pub struct B;");
    assert_eq!(count(), Vec::<usize>::new());
    write("b.rs", "pub struct B; fn c() -> crate::c::C { loop {} }");
    assert_eq!(count(), [3], "a, b and c/d; the module that re-exports is not part of it");
}
