//! Records of a directory tree in the format of mtree(5), as umoci reads and writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::layer::{FileKind, Metadata, Path, Time};
use crate::unpack::snapshot::{Snapshot, State};

/// The keywords that umoci compares.
const KEYWORDS: &str = "size,type,uid,gid,mode,link,nlink,tar_time,sha256digest,xattr";

/// The maximum number of entries of a record, which is untrusted input.
const MAX_ENTRIES: usize = 4_000_000;

impl Snapshot {
    /// Writes the record of a tree.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_mtree(&self, writer: &mut impl Write) -> io::Result<()> {
        writeln!(writer, "#mtree")?;
        writeln!(writer, "#      keywords: {KEYWORDS}\n")?;
        let mut files: Vec<_> = self.files.iter().collect();
        // Contents directly follow their directory.
        files.sort_by(|(left, _), (right, _)| left.parts().cmp(right.parts()));
        let mut open: Vec<&Path> = Vec::new();
        let mut line = String::new();
        for (path, state) in files {
            while open.last().is_some_and(|directory| !path.is_within(directory)) {
                open.pop();
                writer.write_all(b"..\n")?;
            }
            line.clear();
            match path.is_root() {
                true => line.push('.'),
                false => encode(&mut line, path.name()),
            }
            keywords(&mut line, state);
            line.push('\n');
            writer.write_all(line.as_bytes())?;
            if state.kind == FileKind::Directory {
                open.push(path);
            }
        }
        for _ in open {
            writer.write_all(b"..\n")?;
        }
        Ok(())
    }

    /// Parses the record of a tree.
    ///
    /// # Errors
    ///
    /// [`Error::Mtree`].
    pub fn parse_mtree(text: &[u8]) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let mut defaults: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut at: Option<Path> = None;
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let invalid = |problem| Error::Mtree { line: number as u64 + 1, problem };
            let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
            let Some(first) = words.next() else { continue };
            let pairs = words.map(|word| match word.iter().position(|byte| *byte == b'=') {
                Some(end) => (word[..end].to_vec(), word[end + 1..].to_vec()),
                None => (word.to_vec(), Vec::new()),
            });
            match first {
                [b'#', ..] => {}
                b"/set" => defaults.extend(pairs),
                b"/unset" => pairs.for_each(|(key, _)| drop(defaults.remove(&key))),
                b".." => at = at.as_ref().ok_or_else(|| invalid("it leads out of the tree"))?.parent(),
                name => {
                    let name = decode(name).ok_or_else(|| invalid("a name has an invalid escape"))?;
                    let path = match (&at, &name[..]) {
                        (None, b".") => Path::root(),
                        (None, _) => return Err(invalid("it does not start with the root")),
                        (Some(_), b"." | b".." | b"") => return Err(invalid("a name is not plain")),
                        (Some(_), name) if name.contains(&b'/') => return Err(invalid("a name has a slash")),
                        (Some(directory), name) => directory.join(name),
                    };
                    let pairs: Vec<_> = pairs.collect();
                    // go-mtree writes the comment of a directory whose name has a line break over two lines.
                    if pairs.is_empty() {
                        continue;
                    }
                    let mut all = defaults.clone();
                    all.extend(pairs);
                    let state = parse_state(&all).ok_or_else(|| invalid("a keyword has an invalid value"))?;
                    if state.kind == FileKind::Directory {
                        at = Some(path.clone());
                    }
                    snapshot.files.insert(path, state);
                    if snapshot.files.len() > MAX_ENTRIES {
                        return Err(invalid("it has too many entries"));
                    }
                }
            }
        }
        Ok(snapshot)
    }
}

fn keywords(line: &mut String, state: &State) {
    let Metadata { mode, uid, gid, modified, xattrs, .. } = &state.metadata;
    let kind = match state.kind {
        FileKind::Regular { .. } => "file",
        FileKind::Directory => "dir",
        FileKind::Symlink { .. } => "link",
        FileKind::CharacterDevice { .. } => "char",
        FileKind::BlockDevice { .. } => "block",
        FileKind::Fifo => "fifo",
    };
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        " size={} type={kind} uid={uid} gid={gid} mode=0{mode:o} nlink={} tar_time={}.000000000",
        state.size, state.links, modified.seconds
    );
    if let FileKind::Symlink { target } = &state.kind {
        line.push_str(" link=");
        encode(line, target);
    }
    if let Some(digest) = &state.digest {
        let _ = write!(line, " sha256digest={}", digest.hex());
    }
    for (name, value) in xattrs {
        line.push_str(" xattr.");
        encode(line, name.as_bytes());
        line.push('=');
        STANDARD.encode_string(value, line);
    }
}

fn parse_state(all: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<State> {
    let text = |key: &str| std::str::from_utf8(all.get(key.as_bytes())?).ok();
    let number = |key: &str| text(key)?.parse::<u64>().ok();
    let size = number("size").unwrap_or_default();
    let kind = match text("type")? {
        "file" => FileKind::Regular { size },
        "dir" => FileKind::Directory,
        "link" => FileKind::Symlink { target: decode(all.get(&b"link"[..])?)?.into() },
        "char" => FileKind::CharacterDevice { major: 0, minor: 0 },
        "block" => FileKind::BlockDevice { major: 0, minor: 0 },
        "fifo" => FileKind::Fifo,
        _ => return None,
    };
    let seconds = text("tar_time").or_else(|| text("time")).unwrap_or("0").split('.').next()?.parse().ok()?;
    let mut xattrs = BTreeMap::new();
    for (key, value) in all {
        let name = key.strip_prefix(b"xattr.").or_else(|| key.strip_prefix(b"xattrs."));
        if let Some(name) = name {
            let name = String::from_utf8(decode(name)?).ok()?;
            xattrs.insert(name.into_boxed_str(), STANDARD.decode(value).ok()?.into_boxed_slice());
        }
    }
    let metadata = Metadata {
        mode: u32::from_str_radix(text("mode")?, 8).ok()? & 0o7777,
        uid: number("uid")?,
        gid: number("gid")?,
        modified: Time { seconds, nanoseconds: 0 },
        xattrs,
        ..Metadata::default()
    };
    let digest = match text("sha256digest").or_else(|| text("sha256")) {
        Some(hex) => Some(format!("sha256:{hex}").parse().ok()?),
        None => None,
    };
    Some(State { kind, metadata, links: number("nlink").unwrap_or(1), digest, inode: (0, 0), size })
}

/// Encodes a name as vis(3) with octal escapes.
fn encode(line: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => line.push(char::from(*byte)),
            b'.' | b'_' | b'-' | b'/' | b'+' | b',' | b':' | b'@' | b'%' | b'~' | b'=' => line.push(char::from(*byte)),
            b'\\' => line.push_str("\\\\"),
            other => drop(write!(line, "\\{other:03o}")),
        }
    }
}

/// Decodes a name from vis(3).
fn decode(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escape, more) = rest.split_first()?;
        rest = more;
        bytes.push(match escape {
            b'0'..=b'3' if matches!(rest, [b'0'..=b'7', b'0'..=b'7', ..]) => {
                let byte = (escape - b'0') << 6 | (rest[0] - b'0') << 3 | (rest[1] - b'0');
                rest = &rest[2..];
                byte
            }
            b'0' => 0,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b's' => b' ',
            b'a' => 7,
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            b'\\' => b'\\',
            _ => return None,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use ocikit_spec::Digest;

    use super::*;

    fn state(kind: FileKind) -> State {
        let size = if let FileKind::Regular { size } = kind { size } else { 4096 };
        let metadata = Metadata { mode: 0o4751, uid: 1, gid: 2, ..Metadata::default() };
        State { kind, metadata, links: 2, digest: None, inode: (0, 0), size }
    }

    #[test]
    fn records_are_read_back() {
        let mut snapshot = Snapshot::default();
        let file = FileKind::Regular { size: 7 };
        for (name, kind) in [
            (&b""[..], FileKind::Directory),
            (b"a", FileKind::Directory),
            (b"a/deep", FileKind::Directory),
            (b"a/deep/x", file.clone()),
            (b"a-b", file.clone()),
            (b"sp ace\n[*#\\=\xff", file),
            (b"z", FileKind::Symlink { target: b"/x y"[..].into() }),
            (b"p", FileKind::Fifo),
        ] {
            snapshot.files.insert(Path::confined(name), state(kind));
        }
        let special = snapshot.files.get_mut(&Path::confined(b"a-b")).unwrap();
        special.digest = Some(Digest::sha256_of(b"x"));
        for length in 0..5_u8 {
            let value = (250..).take(length.into()).map(|byte: u32| byte as u8).collect();
            special.metadata.xattrs.insert(format!("user.{length}").into(), value);
        }
        let mut text = Vec::new();
        snapshot.write_mtree(&mut text).unwrap();
        assert_eq!(Snapshot::parse_mtree(&text).unwrap(), snapshot);
    }

    #[test]
    fn the_format_of_umoci_is_read() {
        let text = b"#          user: root\n# .\n/set type=file nlink=1 mode=0664 uid=0 gid=0\n\
            . size=4096 type=dir mode=0755 nlink=3 tar_time=1795866834.000000000\n\
            \x20   ff size=0 type=fifo mode=0644 tar_time=1795866834.000000000\n\n# etc\n\
            etc size=4096 type=dir mode=0755 nlink=2 tar_time=1795866834.000000000\n\
            \x20   sp\\040ace size=11 mode=0644 tar_time=1.000000000 xattr.user.a=YmluAHg=\n..\n..\n";
        let snapshot = Snapshot::parse_mtree(text).unwrap();
        let names: Vec<_> = snapshot.files.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["", "etc", "etc/sp ace", "ff"]);
        let file = snapshot.get(&Path::confined(b"etc/sp ace")).unwrap();
        assert_eq!(&*file.metadata.xattrs["user.a"], b"bin\0x");
    }

    #[test]
    fn invalid_records_are_refused() {
        for text in ["..", "x type=file mode=0 uid=0 gid=0", ". type=socket mode=0 uid=0 gid=0", ". type=dir"] {
            assert!(Snapshot::parse_mtree(text.as_bytes()).is_err(), "{text}");
        }
        let inside = ". type=dir mode=0755 uid=0 gid=0\n";
        for name in ["\\057etc", ".", "\\", "a/b", "\\056\\056"] {
            let text = format!("{inside}{name} type=file mode=0 uid=0 gid=0\n");
            assert!(Snapshot::parse_mtree(text.as_bytes()).is_err(), "{name}");
        }
    }
}
