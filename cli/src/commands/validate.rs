use clap::Args;
use ocikit::{Location, Problem, Report, Severity, ValidateDepth, ValidateOptions};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::inside::lazy_formats;
use crate::output::{self, Lines, counted, without_nulls};

const EXAMPLES: &str = "\
Examples:
  ocikit validate app.tar
  ocikit validate --fast oci:layout
  ocikit validate ghcr.io/acme/app:1";

/// Check digests, sizes and structure of an archive, layout or image
///
/// Reads every document and blob. Checks sizes, digests, media types, platforms, references between documents, layers
/// against their config, and the tables and bootstraps of lazy formats against their layers. Checks the whole content of an archive or layout; with a tag or digest, and in a
/// registry, checks one image and its referrers. Continues after a problem and prints all problems; exits with 5 if
/// there are errors.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Validate {
    /// Archive, layout or image to check
    location: Location,
    /// Check digests only; do not decompress layers
    #[arg(long)]
    fast: bool,
    /// Limit the decompressed size of a layer, such as `500MiB` or `20GiB`
    ///
    /// The default is 1 GiB plus 100 times the compressed size of the layer.
    #[arg(long, alias = "max-inflated", value_name = "SIZE", value_parser = size)]
    max_uncompressed: Option<u64>,
}

impl Validate {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let default = ValidateOptions::default();
        let jobs = context.jobs().unwrap_or(default.jobs);
        let options = default
            .jobs(jobs)
            .depth(if self.fast { ValidateDepth::Digests } else { ValidateDepth::Contents })
            .max_uncompressed_bytes(self.max_uncompressed)
            .observer(context.progress.of_copy())
            .formats(Some(lazy_formats()));
        let report = context.session(&[&location])?.validate(&location, &options).await?;
        let name = location.to_string();
        context.output.result(&result(&name, &report), || words(&name, &report))?;
        match report.is_valid() {
            true => Ok(()),
            false => Err(Failure::new(Code::Unverified, format_args!("{name} is not valid"))),
        }
    }
}

fn result(location: &str, report: &Report) -> Value {
    json!({
        "location": location,
        "valid": report.is_valid(),
        "errors": report.errors,
        "warnings": report.warnings(),
        "documents": report.documents,
        "blobs": report.blobs,
        "bytes": report.bytes,
        "problems": report.problems.iter().map(described).collect::<Vec<_>>(),
        // The number of further problems, which are not listed.
        "omitted": report.omitted,
    })
}

fn described(problem: &Problem) -> Value {
    without_nulls(json!({
        "severity": problem.severity().as_str(),
        "kind": problem.fault.as_str(),
        "place": problem.place,
        "digest": problem.digest,
        "message": problem.fault.to_string(),
    }))
}

fn words(location: &str, report: &Report) -> Lines {
    // Errors come first, because there may be many more warnings.
    let of = |severity| report.problems.iter().filter(move |problem| problem.severity() == severity);
    let ordered = of(Severity::Error).chain(of(Severity::Warning));
    let mut lines: Lines = ordered.map(|problem| format!("{}: {problem}", problem.severity().as_str())).collect();
    if report.omitted > 0 {
        lines.push(format!("and {} more problems", report.omitted));
    }
    let (documents, blobs, bytes) = (report.documents, report.blobs, output::bytes(report.bytes));
    let [errors, warnings] =
        [counted(report.errors, "error", "errors"), counted(report.warnings(), "warning", "warnings")];
    let [documents, blobs] = [counted(documents, "document", "documents"), counted(blobs, "blob", "blobs")];
    lines.push(format!("{location}: {errors}, {warnings}; {documents}, {blobs}, {bytes}"));
    lines
}

/// Parses a number of bytes with an optional binary unit.
fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        unit => return Err(format!("`{unit}` is not B, KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.parse().map_err(|_| "it is not a number with a unit, such as 20GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}
