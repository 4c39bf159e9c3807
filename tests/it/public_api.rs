//! Rules of the public API of the libraries.

use std::fs;
use std::path::{Path, PathBuf};

use ocikit_tests::testdata;
use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, Type, Visibility};

/// The nouns of the front door, besides [`ocikit::Session`], with the crates that define them.
const NOUNS: [(&str, &str); 26] = [
    ("ocikit", "IndexSource"),
    ("ocikit", "Location"),
    ("ocikit", "Session"),
    ("ocikit", "SessionOptions"),
    ("ocikit-image", "AnnotateOptions"),
    ("ocikit-image", "Artifact"),
    ("ocikit-image", "ArtifactBuilder"),
    ("ocikit-image", "ArtifactFile"),
    ("ocikit-image", "BlobFile"),
    ("ocikit-image", "Body"),
    ("ocikit-image", "CopyOptions"),
    ("ocikit-image", "Image"),
    ("ocikit-image", "Index"),
    ("ocikit-image", "Layer"),
    ("ocikit-image", "Memory"),
    ("ocikit-image", "NewLayer"),
    ("ocikit-image", "Root"),
    ("ocikit-spec", "Annotations"),
    ("ocikit-spec", "Config"),
    ("ocikit-spec", "Descriptor"),
    ("ocikit-spec", "Digest"),
    ("ocikit-spec", "Index"),
    ("ocikit-spec", "Manifest"),
    ("ocikit-spec", "MediaType"),
    ("ocikit-spec", "Platform"),
    ("ocikit-spec", "Reference"),
];

/// Returns the source files of a crate.
fn files(name: &str) -> Vec<PathBuf> {
    fn below(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => below(&path, found),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    below(&testdata(&format!("../crates/{name}/src")), &mut found);
    found.sort();
    found
}

fn items(name: &str) -> impl Iterator<Item = (PathBuf, Item)> {
    files(name).into_iter().flat_map(|path| {
        let parsed = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
        parsed.items.into_iter().map(move |item| (path.clone(), item))
    })
}

/// Returns whether the documentation has an example.
fn has_example(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return false };
        let Expr::Lit(value) = &pair.value else { return false };
        pair.path.is_ident("doc") && matches!(&value.lit, Lit::Str(text) if text.value().contains("```"))
    })
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

#[test]
fn every_method_of_a_session_has_an_example() {
    let mut methods = 0;
    let mut without = Vec::new();
    for (path, item) in items("ocikit").filter(|(path, _)| !path.ends_with("blocking.rs")) {
        let Item::Impl(item) = item else { continue };
        let Type::Path(of) = &*item.self_ty else { continue };
        if item.trait_.is_some() || !of.path.is_ident("Session") {
            continue;
        }
        for method in &item.items {
            let ImplItem::Fn(method) = method else { continue };
            if is_public(&method.vis) {
                methods += 1;
                if !has_example(&method.attrs) {
                    without.push(format!("{}: {}", path.display(), method.sig.ident));
                }
            }
        }
    }
    assert!(methods > 40, "the methods were found: {methods}");
    assert!(without.is_empty(), "methods of `Session` without an example: {without:#?}");
}

#[test]
fn every_noun_has_an_example() {
    for (name, noun) in NOUNS {
        let has = items(name).any(|(_, item)| match item {
            Item::Struct(item) => item.ident == noun && has_example(&item.attrs),
            Item::Enum(item) => item.ident == noun && has_example(&item.attrs),
            _ => false,
        });
        assert!(has, "the documentation of {name}::{noun} has no example");
    }
}

/// A literal of such a struct in another program would stop compiling when a field is added.
#[test]
fn structs_of_options_can_get_more_fields() {
    let crates = fs::read_dir(testdata("../crates")).unwrap();
    let mut options = 0;
    for name in crates.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        for (path, item) in items(&name) {
            let Item::Struct(item) = item else { continue };
            let has_fields = item.fields.iter().any(|field| is_public(&field.vis));
            let name = item.ident.to_string();
            if is_public(&item.vis) && has_fields && (name.ends_with("Options") || name.ends_with("Settings")) {
                options += 1;
                let is_open = item.attrs.iter().any(|attribute| attribute.path().is_ident("non_exhaustive"));
                assert!(is_open, "{name} in {} is not #[non_exhaustive]", path.display());
            }
        }
    }
    assert!(options > 30, "they were found: {options}");
}
