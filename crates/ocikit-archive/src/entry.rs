/// An entry of an archive, without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name in its plain form: no leading `./`, no doubled or trailing slashes. `None` if it leads out of the
    /// archive (`/etc/passwd`, `../x`) or is not UTF-8; the entry is then never found by name.
    pub name: Option<String>,
    /// The name as it was written, if it is not written in its plain form: `./x`, `x/../y` or `/x`. Always `None` for
    /// directories, which most writers end with a slash.
    pub spelling: Option<Box<str>>,
    /// The type of the entry.
    pub kind: Kind,
    /// The position of its first header, which may be an extended header.
    pub start: u64,
    /// The position of its contents.
    pub data: Span,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with contents.
    File,
    /// A hard or symbolic link to another entry of the archive, by its plain name; `None` if it leads out of the
    /// archive.
    Link(Option<String>),
    /// A directory.
    Directory,
    /// A sparse file, a device, a pipe, or an unknown type: never opened.
    Other,
}

/// A range of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The offset of its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

impl Entry {
    /// Returns the position of the next header.
    pub fn end(&self) -> u64 {
        self.data.offset + self.data.size + crate::padding(self.data.size)
    }
}

/// Returns the plain form of a name relative to a directory of the archive, or `None` if it leads out of the archive.
pub(crate) fn plain_name(directory: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            // `..` is invalid in the name of an entry, but valid in the target of a link that stays inside.
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
