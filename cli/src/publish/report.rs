//! What `publish` prints and writes: the plan, the report, and the outputs of the job.

use std::path::PathBuf;

use clap::Args;
use ocikit::{Digest, Planned, Reference, Root};
use ocikit_lazy::Format;
use ocikit_publish::ci::{Delimiter, System, dotenv, set_variables, step_outputs};
use ocikit_publish::git::Event;
use ocikit_publish::project::ProjectReport;
use ocikit_publish::report::Report;
use ocikit_publish::tags::TagSet;
use ocikit_publish::{LazyPlacement, LazyRequest, Plan, Published, TagState};
use serde::Serialize;

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Code, FailedItem, Failure, Result};
use crate::file;
use crate::lazy::failure_of;
use crate::output::{self, Lines};

/// Where reports go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct ReportArguments {
    /// Write the report to this file (JSON)
    #[arg(long = "report", value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the build report of the image builder to this file (JSON)
    #[arg(long, alias = "build-report-path", value_name = "FILE")]
    build_report: Option<PathBuf>,
    /// Write a page that shows what was published to this file (HTML)
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the summary to this file (Markdown)
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Write the outputs of the job to this file as NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,
}

/// A report in every form that can be written.
pub(crate) struct ReportForms {
    report: serde_json::Value,
    build_report: serde_json::Value,
    html: String,
    markdown: String,
    outputs: Vec<(&'static str, String)>,
}

impl From<&Report> for ReportForms {
    fn from(report: &Report) -> ReportForms {
        ReportForms {
            report: serde_json::json!(report),
            build_report: serde_json::json!(report.build_report()),
            html: report.html(),
            markdown: report.markdown(),
            outputs: report.outputs(),
        }
    }
}

impl From<&ProjectReport> for ReportForms {
    fn from(report: &ProjectReport) -> ReportForms {
        ReportForms {
            report: serde_json::json!(report),
            build_report: serde_json::json!(report.build_reports()),
            html: report.html(),
            markdown: report.markdown(),
            outputs: report.outputs(),
        }
    }
}

impl ReportArguments {
    /// Prints a report and writes it to the files, and to the outputs of the CI system.
    pub(crate) fn write(&self, context: &Context, system: System, report: &Report) -> Result {
        // What is published is printed also if a file cannot be written.
        let written = self.write_forms(system, &ReportForms::from(report));
        say(context, report);
        let printed = context.output.result(report, || {
            let targets = report.targets.iter().flat_map(|target| target.tags.iter().map(move |tag| (target, tag)));
            let verified = targets.filter(|(_, tag)| tag.state == "verified");
            let plain = verified.map(|(target, tag)| format!("{}:{}@{}", target.read, tag.tag, report.digest));
            // An image in the index or beside it as a referrer has no name of its own.
            let lazy = report.lazy.iter().filter(|image| image.placement == LazyPlacement::Tag.name());
            let lazy = lazy.flat_map(|image| image.references.iter().zip(image.digests.iter().cycle()));
            plain.chain(lazy.map(|(reference, digest)| format!("{reference}@{digest}"))).collect::<Lines>()
        });
        written.and(printed)
    }

    /// Writes the report of a publication that failed. A file that cannot be written does not replace that failure.
    pub(crate) fn write_failed(&self, context: &Context, system: System, report: &Report) {
        if let Err(failure) = self.write_forms(system, &ReportForms::from(report)) {
            context.output.say(format!("warning: {failure}"));
        }
    }

    /// Checks that the files can be written, also those of the CI system, before anything is published.
    pub(crate) fn check(&self, system: System) -> Result {
        let files = [&self.report, &self.build_report, &self.html, &self.summary, &self.outputs];
        files.into_iter().flatten().try_for_each(|path| file::check_writable(path))?;
        job_files(system).try_for_each(|(_, path)| file::check_appendable(&path))
    }

    /// Writes a report to the files, and to the outputs of the CI system.
    pub(crate) fn write_forms(&self, system: System, report: &ReportForms) -> Result {
        let json = |value: &serde_json::Value| format!("{value}\n");
        for (path, text) in [
            (&self.report, json(&report.report)),
            (&self.build_report, json(&report.build_report)),
            (&self.html, report.html.clone()),
            (&self.summary, report.markdown.clone()),
        ] {
            if let Some(path) = path {
                file::write(path, text.as_bytes())?;
            }
        }
        let outputs = &report.outputs;
        if let Some(path) = &self.outputs {
            file::write(path, dotenv(outputs).map_err(Failure::usage)?.as_bytes())?;
        }
        for (file, path) in job_files(system) {
            let text = match file {
                JobFile::Outputs => {
                    let delimiter = Delimiter::random().map_err(|error| Failure::new(Code::Other, error))?;
                    step_outputs(outputs, &delimiter).map_err(Failure::usage)?
                }
                JobFile::Summary => report.markdown.clone(),
            };
            file::append(&path, text.as_bytes())?;
        }
        if system == System::AzureDevops {
            output::print_lines(set_variables(outputs).map_err(Failure::usage)?.iter().collect::<Lines>());
        }
        Ok(())
    }
}

/// Says what happened at each repository.
fn say(context: &Context, report: &Report) {
    for target in &report.targets {
        let counts = [(target.uploaded, "uploaded"), (target.mounted, "mounted"), (target.present, "already exist")];
        let counts = counts.into_iter().filter(|(count, _)| count.blobs > 0);
        let mut parts: Vec<_> = counts
            .map(|(count, word)| {
                format!("{} {word} ({})", output::counted(count.blobs, "blob", "blobs"), output::bytes(count.bytes))
            })
            .collect();
        if parts.is_empty() {
            parts.push("already exists".to_owned());
        }
        if target.signed {
            parts.push(match target.signatures.len() {
                0 => "signed before".to_owned(),
                _ => "signed".to_owned(),
            });
        }
        if !target.attestations.is_empty() {
            parts.push(format!("{} attestations signed", target.attestations.len()));
        }
        context.output.say(format!("{}: {}", target.repository, parts.join(", ")));
        for skipped in &target.skipped {
            context.output.say(format!("{}: tag {} not used: {}", target.repository, skipped.tag, skipped.reason));
        }
    }
    if report.signing.starts_with("not signed") && report.recorded_by.is_empty() {
        context.output.say(&report.signing);
    }
}

/// A file to which every step of a CI job appends.
enum JobFile {
    Outputs,
    Summary,
}

/// Returns the files of the CI job that get something of a report.
fn job_files(system: System) -> impl Iterator<Item = (JobFile, PathBuf)> {
    let files = match system {
        System::GithubActions => {
            vec![(JobFile::Outputs, "GITHUB_OUTPUT"), (JobFile::Summary, "GITHUB_STEP_SUMMARY")]
        }
        _ => Vec::new(),
    };
    files.into_iter().filter_map(|(file, name)| Some((file, PathBuf::from(variable(name)?))))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanOutput {
    event: Event,
    /// Not known before a build.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    signing: String,
    targets: Vec<PlannedTarget>,
    /// The lazily pulled images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lazy: Vec<PlannedLazy>,
    dry_run: bool,
}

/// A lazily pulled image that would be made, with the keys of the report.
#[derive(Serialize)]
struct PlannedLazy {
    format: &'static str,
    placement: &'static str,
    /// The references that would point to it; none for an index or a referrer, which has no name of its own.
    references: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedTarget {
    repository: String,
    read: String,
    tags: Vec<String>,
    skipped: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_blobs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_bytes: Option<u64>,
}

/// Prints what a dry run found: the digest and the missing blobs of an image, or the plan alone before a build.
pub(crate) fn print_plan(
    context: &Context,
    plan: &Plan,
    lazy: &LazyRequest,
    root: Option<&Root>,
    found: &[(Planned, TagSet)],
) -> Result {
    let tags_of = |position: usize| found.get(position).map_or(&plan.tags, |(_, tags)| tags);
    let targets = plan.destinations.iter().enumerate().map(|(position, destination)| {
        let (found, tags) = (found.get(position), tags_of(position));
        PlannedTarget {
            repository: destination.push.to_string(),
            read: destination.read.to_string(),
            tags: tags.tags.iter().map(|planned| planned.tag.to_string()).collect(),
            skipped: tags.skipped.iter().map(|skipped| format!("{}: {}", skipped.tag, skipped.reason)).collect(),
            missing_blobs: found.map(|(planned, _)| planned.blobs.iter().filter(|(_, present)| !present).count()),
            missing_bytes: found.map(|(planned, _)| planned.missing_bytes()),
        }
    });
    let (event, digest, signing) = (plan.event, root.map(Root::digest), plan.signing.words());
    let lazy_references = |format: &Format| -> Result<Vec<String>> {
        if lazy.placement != LazyPlacement::Tag {
            return Ok(Vec::new());
        }
        let each = plan.destinations.iter().enumerate();
        let each = each.flat_map(|(at, to)| tags_of(at).tags.iter().map(move |planned| (to, &planned.tag)));
        let each = each.map(|(to, tag)| {
            Ok(Reference::tagged(to.push.clone(), lazy.tag(format, tag).map_err(failure_of)?).to_string())
        });
        each.collect()
    };
    let planned = lazy.formats.iter().map(|format| {
        let (name, placement) = (format.name(), lazy.placement.name());
        Ok(PlannedLazy { format: name, placement, references: lazy_references(format)? })
    });
    let planned: Vec<_> = planned.collect::<Result<_>>()?;
    let result = PlanOutput { event, digest, signing, targets: targets.collect(), lazy: planned, dry_run: true };
    context.output.result(&result, || {
        let mut lines = Lines::default();
        let image = digest.map_or_else(|| "a build".to_owned(), |digest| digest.to_string());
        lines.push(format!("dry run: {event} event, {image}, {}", result.signing));
        for target in &result.targets {
            match (target.missing_blobs, target.missing_bytes) {
                (Some(blobs), Some(bytes)) => {
                    let bytes = output::bytes(bytes);
                    lines.push(format!(
                        "{}: would upload {} ({bytes})",
                        target.repository,
                        output::counted(blobs, "blob", "blobs")
                    ));
                }
                _ => lines.push(format!("{}: would build and upload", target.repository)),
            }
            if target.read != target.repository {
                lines.push(format!("  read as {}", target.read));
            }
            target.tags.iter().for_each(|tag| lines.push(format!("  tag {tag}")));
            target.skipped.iter().for_each(|skipped| lines.push(format!("  not used: {skipped}")));
        }
        for image in &result.lazy {
            let place = match lazy.placement {
                LazyPlacement::Tag => String::new(),
                LazyPlacement::Index => " in the index of the image".to_owned(),
                LazyPlacement::Referrer => " as a referrer of the image".to_owned(),
            };
            lines.push(format!("would also make a {} image{place}", image.format));
            image.references.iter().for_each(|reference| lines.push(format!("  {reference}")));
        }
        lines
    })
}

/// Returns the failure if a tag does not point to the image, or a statement about the publication is missing.
pub(crate) fn outcome(published: &Published) -> Result {
    let failed = published.failed().map(|(repository, tag)| {
        let name = format!("{repository}:{}", tag.planned.tag);
        let code = if let TagState::Failed(_) = &tag.state { Code::Other } else { Code::Unverified };
        FailedItem { name, code, message: tag.state.problem().unwrap_or_default() }
    });
    let unstated = published.without_statement().map(|(repository, error)| {
        let message = format!("it has no statement about the publication: {}", ocikit::spec::with_causes(error));
        FailedItem { name: repository.to_string(), code: Code::Other, message }
    });
    let (tags, statements) = (published.failed().count(), published.without_statement().count());
    let message = match (tags, statements) {
        (0, 0) => return Ok(()),
        (0, count) => format!(
            "cannot state the publication in {}; every tag points to the image",
            output::counted(count, "repository", "repositories")
        ),
        (count, _) => {
            let tags = output::counted(count, "tag", "tags");
            let all: usize = published.targets.iter().map(|target| target.tags.len()).sum();
            let others = if count == all { "" } else { "; the others point to the image" };
            format!("cannot publish under {tags}{others}")
        }
    };
    Err(Failure { failed: failed.chain(unstated).collect(), ..Failure::new(Code::Partial, message) }
        .hint("run the same command again; it finishes what is missing"))
}
