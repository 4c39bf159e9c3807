//! Lists of files in images.

use std::collections::BTreeMap;

use ocikit::files::{FileKind, Kind, Metadata, Path, Whiteout};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output;

/// A file of an image or entry of a layer, as it is listed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u64,
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    modified: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// The number of the layer that has the file.
    layer: usize,
    /// The path as it is printed, with unprintable bytes escaped.
    #[serde(skip)]
    shown: String,
    #[serde(skip)]
    bits: u32,
}

/// The size of a chunk of output, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Prints rows: as JSON lines with `--json`, in the notation of `ls -l` if `is_long` is set, and else only their paths. They are
/// printed in chunks, because the text of all rows may be larger than the image.
pub(crate) fn print<I: Iterator<Item = Row>>(context: &Context, is_long: bool, rows: impl Fn() -> I) -> Result {
    let widths = if is_long && !context.output.json { ColumnWidths::of(rows()) } else { ColumnWidths::default() };
    let mut lines = String::new();
    for row in rows() {
        if context.output.json {
            lines += &serde_json::to_string(&row).map_err(|error| Failure::new(Code::Other, error))?;
            lines.push('\n');
        } else if is_long {
            lines += &row.long(&widths);
        } else {
            lines += &format!("{}\n", output::line(&row.shown));
        }
        if lines.len() > CHUNK_BYTES {
            context.output.bytes(lines.as_bytes())?;
            lines.clear();
        }
    }
    context.output.bytes(lines.as_bytes())
}

impl Row {
    pub(crate) fn of(path: &Path, kind: &Kind, metadata: &Metadata, layer: usize) -> Row {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (word, size, target, device) = match kind {
            Kind::File(FileKind::Regular { size }) => ("file", Some(*size), None, None),
            Kind::File(FileKind::Directory) => ("directory", None, None, None),
            Kind::File(FileKind::Symlink { target }) => ("symlink", None, Some(text(target)), None),
            Kind::File(FileKind::CharacterDevice { major, minor }) => {
                ("character-device", None, None, Some((*major, *minor)))
            }
            Kind::File(FileKind::BlockDevice { major, minor }) => ("block-device", None, None, Some((*major, *minor))),
            Kind::File(FileKind::Fifo) => ("fifo", None, None, None),
            Kind::HardLink { target } => ("hardlink", None, Some(format!("/{}", text(target.as_bytes()))), None),
            Kind::Whiteout(Whiteout::Path(_)) => ("whiteout", None, None, None),
            Kind::Whiteout(Whiteout::Contents(_)) => ("opaque", None, None, None),
        };
        let end = if word == "directory" { "/" } else { "" };
        Row {
            path: format!("/{}", text(path.as_bytes())),
            kind: word,
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size,
            modified: metadata.modified.to_string(),
            target,
            device,
            xattrs: metadata.xattrs.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            layer,
            shown: if path.is_root() { "/".to_owned() } else { format!("/{path}{end}") },
            bits: metadata.mode,
        }
    }

    fn size(&self) -> String {
        match (self.size, self.device) {
            (Some(size), _) => size.to_string(),
            (None, Some((major, minor))) => format!("{major},{minor}"),
            (None, None) => "-".to_owned(),
        }
    }

    fn owner(&self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }

    fn long(&self, widths: &ColumnWidths) -> String {
        let target = match (&self.target, self.kind) {
            (Some(target), "hardlink") => format!(" = {}", output::line(target)),
            (Some(target), _) => format!(" -> {}", output::line(target)),
            (None, _) => String::new(),
        };
        let ColumnWidths { size: sizes, owner: owners, time: times } = widths;
        let (bits, owner, size, time) = (self.permissions(), self.owner(), self.size(), &self.modified);
        let shown = output::line(&self.shown);
        format!("{bits} {owner:<owners$} {size:>sizes$} {time:<times$} {:>2} {shown}{target}\n", self.layer)
    }

    /// Returns the file type and the permissions in the notation of `ls -l`.
    fn permissions(&self) -> String {
        let kind = match self.kind {
            "directory" => 'd',
            "symlink" => 'l',
            "hardlink" => 'h',
            "character-device" => 'c',
            "block-device" => 'b',
            "fifo" => 'p',
            "whiteout" | "opaque" => 'w',
            _ => '-',
        };
        let mut text = String::from(kind);
        for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = self.bits >> shift;
            text.push(if bits & 4 == 0 { '-' } else { 'r' });
            text.push(if bits & 2 == 0 { '-' } else { 'w' });
            text.push(match (self.bits & special != 0, bits & 1 != 0) {
                (false, false) => '-',
                (false, true) => 'x',
                (true, true) => letter,
                (true, false) => letter.to_ascii_uppercase(),
            });
        }
        text
    }
}

/// The widths of the columns with `--long`, in characters.
#[derive(Default)]
struct ColumnWidths {
    size: usize,
    owner: usize,
    time: usize,
}

impl ColumnWidths {
    fn of(rows: impl Iterator<Item = Row>) -> ColumnWidths {
        let wider = |widths: ColumnWidths, row: Row| ColumnWidths {
            size: widths.size.max(row.size().len()),
            owner: widths.owner.max(row.owner().len()),
            time: widths.time.max(row.modified.len()),
        };
        rows.fold(ColumnWidths::default(), wider)
    }
}
