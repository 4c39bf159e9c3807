use std::collections::BTreeMap;

use clap::Args;
use ocikit::files::{FileKind, Kind, Last, Metadata, Path, Whiteout};
use ocikit::{Error, Image, Location};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::inside::ImageSelection;
use crate::output;
use crate::quote::quoted;

const EXAMPLES: &str = "\
Examples:
  ocikit ls alpine:3.22
  ocikit ls -l app.tar /etc
  ocikit ls --layer 0 app.tar";

/// List the files in an image
///
/// Lists the files that a container would see. With `--layer`, lists the entries of one layer in their order, including
/// whiteouts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {
    /// Image to read
    location: Location,
    /// File or directory to list, with everything below it
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    inside: ImageSelection,
    /// Also show permissions, owner, size, time and layer
    #[arg(long, short)]
    long: bool,
}

/// An entry of the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
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

impl Ls {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let image = self.inside.image(context, &location).await?;
        let listed = match self.inside.layer(&image)? {
            Some((number, layer)) => {
                let path = Path::confined(self.path.as_bytes());
                let entries = layer.entries().await?;
                let rows = || {
                    let rows = entries.iter().filter(|entry| entry.path.is_within(&path));
                    rows.map(|entry| row(&entry.path, &entry.kind, &entry.metadata, number))
                };
                match rows().next().is_none() && !path.is_root() {
                    true => Err(self.missing(&image)),
                    false => self.print(context, rows),
                }
            }
            None => self.merged(context, &image).await,
        };
        listed.map_err(|failure| match (failure.code, &failure.hints[..]) {
            (Code::Missing, []) => {
                failure.hint(format_args!("`ocikit ls {}` lists all files", quoted(&location.to_string())))
            }
            _ => failure,
        })
    }

    async fn merged(&self, context: &Context, image: &Image) -> Result {
        let files = image.files().await?;
        let found = files.resolve(self.path.as_bytes(), Last::Follow).unwrap_or_default();
        // An image without files has no root directory; its list is empty.
        let path = match found {
            Some(path) => path,
            None if files.is_empty() && Path::confined(self.path.as_bytes()).is_root() => Path::root(),
            None => return Err(self.missing(image)),
        };
        let kind = |kind: &FileKind| Kind::File(kind.clone());
        self.print(context, || {
            let rows = files.within(&path).filter(|(path, _)| !path.is_root());
            rows.map(|(path, located)| row(path, &kind(&located.file.kind), &located.file.metadata, located.layer))
        })
    }

    /// Prints rows in chunks, because the text of all rows may be larger than the image.
    fn print<I: Iterator<Item = Row>>(&self, context: &Context, rows: impl Fn() -> I) -> Result {
        let widths = if self.long && !context.output.json { ColumnWidths::of(rows()) } else { ColumnWidths::default() };
        let mut lines = String::new();
        for row in rows() {
            if context.output.json {
                lines += &serde_json::to_string(&row).map_err(|error| Failure::new(Code::Other, error))?;
                lines.push('\n');
            } else if self.long {
                lines += &long(&row, &widths);
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

    fn missing(&self, image: &Image) -> Failure {
        Failure { hints: Vec::new(), ..Error::not_found(format!("file {}", self.path), image.source()).into() }
    }
}

/// The size of a chunk of output, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

fn row(path: &Path, kind: &Kind, metadata: &Metadata, layer: usize) -> Row {
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
            size: widths.size.max(size(&row).len()),
            owner: widths.owner.max(owner(&row).len()),
            time: widths.time.max(row.modified.len()),
        };
        rows.fold(ColumnWidths::default(), wider)
    }
}

fn size(row: &Row) -> String {
    match (row.size, row.device) {
        (Some(size), _) => size.to_string(),
        (None, Some((major, minor))) => format!("{major},{minor}"),
        (None, None) => "-".to_owned(),
    }
}

fn owner(row: &Row) -> String {
    format!("{}:{}", row.uid, row.gid)
}

fn long(row: &Row, widths: &ColumnWidths) -> String {
    let target = match (&row.target, row.kind) {
        (Some(target), "hardlink") => format!(" = {}", output::line(target)),
        (Some(target), _) => format!(" -> {}", output::line(target)),
        (None, _) => String::new(),
    };
    let ColumnWidths { size: sizes, owner: owners, time: times } = widths;
    let (bits, owner, size, time) = (permissions(row), owner(row), size(row), &row.modified);
    let shown = output::line(&row.shown);
    format!("{bits} {owner:<owners$} {size:>sizes$} {time:<times$} {:>2} {shown}{target}\n", row.layer)
}

/// Returns the file type and the permissions in the notation of `ls -l`.
fn permissions(row: &Row) -> String {
    let kind = match row.kind {
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
        let bits = row.bits >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (row.bits & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}
