use clap::Args;
use ocikit::{Area, Change, Class, Diff as Found, Difference, Location, Platform, Root};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::inside::{for_platform, lazy_formats};
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit diff alpine:3.21 alpine:3.22
  ocikit diff --platform linux/amd64 app.tar ghcr.io/acme/app:1
  ocikit diff --exact one.tar two.tar";

/// Compare two images down to their files
///
/// Exits with 0 if the images are the same or differ only in times, order or encoding, and with 5 if they differ in
/// anything else.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// First image
    left: Location,
    /// Second image
    right: Location,
    /// Compare the images for this platform instead of the indexes
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Exit with 5 on any difference
    #[arg(long)]
    exact: bool,
}

#[derive(Serialize)]
struct DiffOutput<'a> {
    same: bool,
    semantic: bool,
    #[serde(flatten)]
    found: &'a Found,
}

impl Diff {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let (left, right) = (context.expand(&self.left), context.expand(&self.right));
        let session = context.session(&[&left, &right])?;
        let open = async |location: &Location| -> Result<Root> {
            Ok(for_platform(session.open(location).await?, self.platform.as_ref()).await?)
        };
        let found = ocikit::diff_with(&open(&left).await?, &open(&right).await?, Some(&lazy_formats())).await?;
        let result = DiffOutput { same: found.left == found.right, semantic: found.is_semantic(), found: &found };
        if context.output.json || !context.output.quiet {
            context.output.result(&result, || found.differences.iter().map(line).collect::<Lines>())?;
        }
        let counts = counts(&found);
        if found.is_semantic() || self.exact && !result.same {
            let failure = Failure::new(Code::Unverified, format_args!("{left} and {right} differ ({counts})"));
            // With --quiet, the exit code is the only output.
            return Err(if context.output.quiet { failure.silent() } else { failure });
        }
        if !result.same {
            let files = found.differences.iter().any(|difference| difference.area == Area::File);
            let same = if files { "" } else { "; they have the same files" };
            context.output.say(format!("{left} and {right} have no relevant differences ({counts}){same}"));
        }
        Ok(())
    }
}

/// Returns a difference as a line: where it is, and the values of both sides.
fn line(difference: &Difference) -> String {
    let mark = match (difference.change, difference.class) {
        (Change::Added, _) => '+',
        (Change::Removed, _) => '-',
        (Change::Changed, Class::Semantic) => '!',
        (Change::Changed, _) => '~',
    };
    let area = match difference.area {
        Area::Index => "index",
        Area::Descriptor => "descriptor",
        Area::Manifest => "manifest",
        Area::Config => "config",
        Area::Layer => "layer",
        Area::File => "file",
    };
    let class = match difference.class {
        Class::Semantic => "",
        Class::Time => " (time)",
        Class::Order => " (order)",
        Class::Encoding => " (encoding)",
    };
    let words = [difference.entry.as_deref(), Some(area), Some(&difference.at), difference.what];
    let words: Vec<_> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let values = match (&difference.left, &difference.right) {
        (Some(left), Some(right)) => format!(": {left} => {right}"),
        (Some(value), None) | (None, Some(value)) => format!(": {value}"),
        (None, None) => String::new(),
    };
    format!("{mark} {}{values}{class}", words.join(" "))
}

fn counts(found: &Found) -> String {
    let words = [
        (Class::Semantic, "relevant differences"),
        (Class::Time, "in time"),
        (Class::Order, "in order"),
        (Class::Encoding, "in encoding"),
    ];
    let counts = words.map(|(class, word)| (found.count(class), word)).into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    if counts.is_empty() { "only the digest".to_owned() } else { counts.join(", ") }
}
