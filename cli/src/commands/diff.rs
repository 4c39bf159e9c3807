use clap::Args;
use ocikit::{Area, Change, Class, Diff as Found, Difference, Location, Platform, Root};
use serde::Serialize;

use crate::commands::inspect::for_platform;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;

/// Compare two images, wherever they are, down to their files
///
/// Exits with 0 if they are the same, or differ in nothing but times, orders and encodings; with 5 if they differ in earnest.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The one image
    left: Location,
    /// The other
    right: Location,
    /// Compare the images for this platform instead of the indexes
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Exit with 5 whatever differs
    #[arg(long)]
    exact: bool,
}

#[derive(Serialize)]
struct Facts<'a> {
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
            let root = session.open(location).await?;
            match &self.platform {
                Some(platform) => for_platform(root, platform).await,
                None => Ok(root),
            }
        };
        let found = ocikit::diff(&open(&left).await?, &open(&right).await?).await?;
        let facts = Facts { same: found.left == found.right, semantic: found.is_semantic(), found: &found };
        if context.output.json || !context.output.quiet {
            context.output.facts(&facts, || found.differences.iter().map(line).collect::<Lines>())?;
        }
        let counts = counts(&found);
        if found.is_semantic() || self.exact && !facts.same {
            let failure = Failure::new(Code::Unverified, format_args!("{left} and {right} differ ({counts})"));
            // Whoever asks for quiet asks for the exit code.
            return Err(if context.output.quiet { failure.silent() } else { failure });
        }
        if !facts.same {
            context.output.say(format!("{left} and {right} are the same in all that matters ({counts})"));
        }
        Ok(())
    }
}

/// One difference in one line: what it is in, where, and what both sides have.
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
        (Class::Semantic, "differences that matter"),
        (Class::Time, "in time"),
        (Class::Order, "in order"),
        (Class::Encoding, "in encoding"),
    ];
    let counts = words.map(|(class, word)| (found.count(class), word)).into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    if counts.is_empty() { "in nothing but the digest".to_owned() } else { counts.join(", ") }
}
