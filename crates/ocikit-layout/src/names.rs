//! Names of entries that readers take for different files.
//!
//! Readers that extract an archive, such as skopeo, resolve `x/../index.json`, `/index.json` and `d/index.json` below a
//! link `d` to the `index.json` itself; readers that look names up, such as this one, do not. An archive must not hold
//! different images for different readers, so such names are rejected. Entries with the same spelling are not: all
//! readers use the last.

use std::collections::{HashMap, HashSet};

use ocikit_archive::{Entry, Kind, TarIndex};

use crate::docker::MANIFEST_JSON;
use crate::edit::REPOSITORIES;
use crate::roots::{BLOBS, INDEX_JSON, OCI_LAYOUT_FILE};

/// The names in an archive so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The spelling of each file of a layout or docker archive, by its place after extraction.
    spellings: HashMap<String, String>,
    /// An entry below each directory.
    below: HashMap<String, String>,
    links: HashSet<String>,
}

/// Names about which readers disagree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AmbiguousName {
    #[error("its entries `{one}` and `{other}` are the same file for some readers and different files for others")]
    Spelling { one: String, other: String },
    #[error("its entry `{entry}` is below `{link}`, which is a link: readers disagree about its place")]
    BelowLink { entry: String, link: String },
}

impl Names {
    /// Adds the next entry.
    ///
    /// # Errors
    ///
    /// [`AmbiguousName`] if readers disagree about the place of this entry or an earlier one.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), AmbiguousName> {
        // Directories have no contents, and those that only exist for other entries are not listed at all.
        let Some(spelling) = spelling(entry).filter(|_| entry.kind != Kind::Directory) else { return Ok(()) };
        let place = place(spelling);
        if matches!(entry.kind, Kind::Link(_)) {
            if let Some(below) = self.below.get(&place) {
                return Err(below_link(below, &place));
            }
            self.links.insert(place.clone());
        }
        for (end, _) in place.rmatch_indices('/') {
            let directory = &place[..end];
            if self.links.contains(directory) {
                return Err(below_link(spelling, directory));
            }
            if self.below.contains_key(directory) {
                break;
            }
            self.below.insert(directory.to_owned(), spelling.to_owned());
        }
        if !is_read(&place) {
            return Ok(());
        }
        if entry.name.as_deref() != Some(&place) {
            return Err(ambiguous(&place, spelling));
        }
        match self.spellings.get(&place) {
            Some(first) if first != spelling => Err(ambiguous(first, spelling)),
            Some(_) => Ok(()),
            None => {
                self.spellings.insert(place, spelling.to_owned());
                Ok(())
            }
        }
    }
}

/// Returns the spelling of an entry that exists, so that another one of it replaces it for all readers, or the name
/// itself.
pub(crate) fn spelled(index: &TarIndex, name: &str) -> String {
    index.entry(name).and_then(spelling).unwrap_or(name).to_owned()
}

fn spelling(entry: &Entry) -> Option<&str> {
    entry.spelling.as_deref().or(entry.name.as_deref())
}

/// Returns the place of an entry after extraction, relative to the directory of the archive.
fn place(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns whether a name has a meaning for a reader of OCI or docker archives.
fn is_read(name: &str) -> bool {
    [INDEX_JSON, MANIFEST_JSON, OCI_LAYOUT_FILE, REPOSITORIES].contains(&name)
        || name.strip_prefix(BLOBS).is_some_and(|rest| rest.starts_with('/'))
}

fn ambiguous(one: &str, other: &str) -> AmbiguousName {
    AmbiguousName::Spelling { one: one.to_owned(), other: other.to_owned() }
}

fn below_link(entry: &str, link: &str) -> AmbiguousName {
    AmbiguousName::BelowLink { entry: entry.to_owned(), link: link.to_owned() }
}

#[cfg(test)]
mod tests {
    use ocikit_archive::Span;

    use super::*;

    fn add_all(entries: &[(&str, Kind)]) -> Result<(), AmbiguousName> {
        let mut names = Names::default();
        for (written, kind) in entries {
            let plain = !written.starts_with('/') && !written.contains("..");
            let entry = Entry {
                name: plain.then(|| place(written)),
                spelling: (!plain || place(written) != *written).then(|| (*written).into()),
                kind: kind.clone(),
                start: 0,
                data: Span { offset: 512, size: 0 },
            };
            names.add(&entry)?;
        }
        Ok(())
    }

    #[test]
    fn names_that_readers_resolve_differently_are_rejected() {
        let link = || Kind::Link(Some(String::new()));
        for other in
            ["/index.json", "./index.json", ".//index.json", "x/../index.json", "../index.json", "index.json/."]
        {
            for entries in [["index.json", other], [other, "index.json"]] {
                let problem = add_all(&entries.map(|name| (name, Kind::File))).unwrap_err().to_string();
                assert!(problem.contains(&format!("`{other}`")) && problem.contains("`index.json`"), "{problem}");
            }
        }
        for name in ["manifest.json", "repositories", "oci-layout", "blobs/sha256/00"] {
            assert!(add_all(&[(&format!("/{name}"), Kind::File)]).is_err(), "{name}");
        }
        for target in [Some(String::new()), None] {
            let below = ("d/index.json", Kind::File);
            assert!(add_all(&[("d", Kind::Link(target.clone())), below.clone()]).is_err());
            assert!(add_all(&[below, ("d", Kind::Link(target))]).is_err());
        }
        assert!(add_all(&[("a/b", link()), ("a/b/c/index.json", Kind::File)]).is_err());
    }

    #[test]
    fn names_that_all_readers_resolve_alike_are_accepted() {
        let file = |name| (name, Kind::File);
        for entries in [
            // `tar -cf a.tar .`, and with more entries added.
            &[("./", Kind::Directory), file("./index.json"), file("./blobs/sha256/00"), file("oci-layout")][..],
            &[file("index.json"), file("index.json")],
            &[file("./index.json"), file("./index.json")],
            // `docker save` before version 25.
            &[file("1/layer.tar"), ("2/layer.tar", Kind::Link(Some("1/layer.tar".to_owned()))), file("manifest.json")],
            // No reader finds it.
            &[file("../x"), file("/etc/passwd"), file("index.json")],
        ] {
            assert!(add_all(entries).is_ok(), "{entries:?}");
        }
    }
}
