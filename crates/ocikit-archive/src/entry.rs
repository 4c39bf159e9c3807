/// One entry of an archive, by its header; the bytes stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name in its plain form: no leading `./`, no doubled or trailing slashes. If it leads out of the archive
    /// (`/etc/passwd`, `../x`) or is not UTF-8 this is `None`, and nothing finds the entry.
    pub name: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Where its first header begins: the extended header, where it has one.
    pub start: u64,
    /// Where its bytes are.
    pub data: Span,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes of its own.
    File,
    /// A hard or symbolic link to another entry of the archive, by that entry's plain name; `None` if it leads out.
    Link(Option<String>),
    /// A directory.
    Directory,
    /// A sparse file, a device, a pipe, or something unheard of: never opened.
    Other,
}

/// A range of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

impl Entry {
    /// Where the next header begins.
    pub fn end(&self) -> u64 {
        self.data.offset + self.data.size + crate::padding(self.data.size)
    }
}

/// The plain form of a name relative to a directory of the archive, or `None` if it leads out of it.
pub(crate) fn plain_name(directory: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            // A name of an entry has no business with `..`; the target of a link does, as long as it stays inside.
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_or_lead_out() {
        for (directory, name, plain) in [
            ("", "a/b", Some("a/b")),
            ("", "./a//b/", Some("a/b")),
            ("", ".", Some("")),
            ("", "/a", None),
            ("", "../a", None),
            ("", "a/../../b", None),
            ("x/y", "../z/layer.tar", Some("x/z/layer.tar")),
            ("x", "../../z", None),
            ("", "a\0b", None),
        ] {
            assert_eq!(plain_name(directory, name.as_bytes()).as_deref(), plain, "{name}");
        }
        assert_eq!(plain_name("", b"\xff"), None);
    }
}
