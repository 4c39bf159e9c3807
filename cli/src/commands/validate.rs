use clap::Args;
use ocikit::{Location, Problem, Report, Severity, ValidateDepth, ValidateOptions};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::{self, Lines};

/// Check that everything that is stored is what it claims to be
///
/// Reads every document and blob once: sizes, digests, layers against their config, media types, platforms, what refers
/// to what. An archive or layout is checked with all that lies in it; with a tag or digest, and in a registry, one image
/// and its referrers. Goes on after a problem and prints all of them; ends with 5 if there are errors.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// An archive, a layout, or an image
    location: Location,
    /// Check digests only: do not decompress layers to compare them with the config
    #[arg(long)]
    fast: bool,
    /// How much a layer may inflate to, as `500MiB` or `20GiB`; 1 GiB and a hundred times its size if this is not given
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_inflated: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts<'a> {
    location: String,
    valid: bool,
    errors: usize,
    warnings: usize,
    documents: usize,
    blobs: usize,
    bytes: u64,
    problems: Vec<ProblemFacts<'a>>,
    /// Problems that are counted and not told.
    omitted: usize,
}

#[derive(Serialize)]
struct ProblemFacts<'a> {
    severity: &'static str,
    kind: &'static str,
    place: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<ocikit::Digest>,
    message: String,
}

impl Validate {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let default = ValidateOptions::default();
        let options = ValidateOptions {
            jobs: context.jobs().unwrap_or(default.jobs),
            depth: if self.fast { ValidateDepth::Digests } else { ValidateDepth::Contents },
            max_inflated_bytes: self.max_inflated,
            observer: context.progress.of_copy(),
            ..default
        };
        let report = context.session(&[&location])?.validate(&location, &options).await?;
        let name = location.to_string();
        context.output.facts(&facts(&name, &report), || words(&name, &report))?;
        match report.is_valid() {
            true => Ok(()),
            false => Err(Failure::new(Code::Unverified, format_args!("{name} is not valid"))),
        }
    }
}

fn facts<'a>(location: &str, report: &'a Report) -> Facts<'a> {
    Facts {
        location: location.to_owned(),
        valid: report.is_valid(),
        errors: report.errors,
        warnings: report.warnings(),
        documents: report.documents,
        blobs: report.blobs,
        bytes: report.bytes,
        problems: report.problems.iter().map(ProblemFacts::of).collect(),
        omitted: report.omitted,
    }
}

impl ProblemFacts<'_> {
    fn of(problem: &Problem) -> ProblemFacts<'_> {
        ProblemFacts {
            severity: problem.severity().as_str(),
            kind: problem.fault.as_str(),
            place: &problem.place,
            digest: problem.digest,
            message: problem.fault.to_string(),
        }
    }
}

fn words(location: &str, report: &Report) -> Lines {
    // Errors first: they may be few among many warnings.
    let of = |severity| report.problems.iter().filter(move |problem| problem.severity() == severity);
    let told = of(Severity::Error).chain(of(Severity::Warning));
    let mut lines: Lines = told.map(|problem| format!("{}: {problem}", problem.severity().as_str())).collect();
    if report.omitted > 0 {
        lines.push(format!("and {} more", report.omitted));
    }
    let (documents, blobs, bytes) = (report.documents, report.blobs, output::bytes(report.bytes));
    let number = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let [errors, warnings] = [number(report.errors, "error"), number(report.warnings(), "warning")];
    let [documents, blobs] = [number(documents, "document"), number(blobs, "blob")];
    lines.push(format!("{location}: {errors}, {warnings}; {documents}, {blobs}, {bytes}"));
    lines
}

/// A number of bytes with a unit or without one.
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
    let number: u64 = digits.parse().map_err(|_| "it is not a number with a unit, as in 20GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_owned())
}
