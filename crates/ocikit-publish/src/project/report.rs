//! The report of a run: what happened to each image, with the report of its publication.

use std::fmt::Write as _;

use jiff::Timestamp;
use ocikit::Digest;
use ocikit::spec::with_causes;
use serde::Serialize;

use super::build::{BuildReport, Done, ImageOutcome};
use super::model::Project;
use super::plan::{BuildPlan, Decision};
use crate::report::html::{body, document, text};
use crate::report::markdown::{HEAD, cell, rows};
use crate::report::{BuildReport as NineKeys, Report, Status};

/// A report of a run: JSON, Markdown and HTML. `docs/project.md` describes the JSON.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProjectReport {
    /// The outcome.
    pub status: Status,
    /// The registry and path of the images.
    pub registry: String,
    /// The images that the plan considered, in the order of the project.
    pub images: Vec<ReportedImage>,
    /// When it started.
    pub started: String,
    /// When it finished.
    pub finished: String,
    /// The time in between, in seconds.
    pub seconds: f64,
}

/// An image in a report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ReportedImage {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// `built`, `present`, `up-to-date`, `failed` or `skipped`.
    pub status: &'static str,
    /// The digest, if the image exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its publication: the report of `publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication: Option<Report>,
}

impl ProjectReport {
    /// Creates the report of a run. An image that the plan considers and the run did not have to build is up to date, or
    /// belongs to another machine and is left out.
    pub fn of(
        project: &Project,
        plan: &BuildPlan,
        built: &BuildReport,
        registry: &str,
        (started, finished): (Timestamp, Timestamp),
    ) -> ProjectReport {
        let mut images = Vec::new();
        let mut outcomes = built.images.iter().peekable();
        for planned in &plan.images {
            let outcome = outcomes.next_if(|report| report.position == planned.position).map(|report| &report.outcome);
            let (status, digest, problem, publication) = match (outcome, &planned.decision) {
                (Some(outcome), _) => parts(outcome),
                (None, Decision::UpToDate { digest }) => ("up-to-date", Some(*digest), None, None),
                (None, _) => continue,
            };
            let image = &project.images()[planned.position];
            let (name, version) = (image.name.clone(), image.version.value.clone());
            images.push(ReportedImage { name, version, status, digest, problem, publication });
        }
        let is_good = |image: &ReportedImage| image.digest.is_some();
        let status = match (images.iter().all(is_good), images.iter().any(is_good)) {
            (true, _) => Status::Succeeded,
            (false, true) => Status::Partial,
            (false, false) => Status::Failed,
        };
        let seconds = finished.duration_since(started).as_secs_f64();
        let (started, finished) = (started.to_string(), finished.to_string());
        ProjectReport { status, registry: registry.to_owned(), images, started, finished, seconds }
    }

    fn publications(&self) -> impl Iterator<Item = &Report> {
        self.images.iter().filter_map(|image| image.publication.as_ref())
    }

    /// Returns the reports of the image builder, one for each image that was published.
    pub fn build_reports(&self) -> Vec<NineKeys> {
        self.publications().map(Report::build_report).collect()
    }

    /// Returns the outputs of the job for the next one: `images`, the references that were published, and `digests`, those
    /// of all images by name.
    pub fn outputs(&self) -> Vec<(&'static str, String)> {
        let images: Vec<_> = self.publications().flat_map(Report::references).collect();
        let digests =
            self.images.iter().filter_map(|image| Some((image.name.clone(), image.digest?.to_string().into())));
        let digests: serde_json::Map<String, serde_json::Value> = digests.collect();
        vec![("images", serde_json::json!(images).to_string()), ("digests", serde_json::json!(digests).to_string())]
    }

    /// Returns the summary in Markdown: a table of images and architectures, and the problems.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if self.publications().next().is_some() {
            text.push_str(HEAD);
            self.publications().for_each(|report| rows(&mut text, report));
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}", self.counts());
        for image in self.images.iter().filter(|image| image.digest.is_none()) {
            let problem = image.problem.as_deref().unwrap_or("an image that it depends on failed, or the run stopped");
            let _ = writeln!(text, "\n**{} {}**: {}", cell(&image.name), image.status, cell(problem));
        }
        text
    }

    /// Returns a page that shows what happened to each image. It needs no other file.
    pub fn html(&self) -> String {
        document(&self.registry, self.status, |page| {
            let _ = writeln!(page, "<p>{}<br>{:.1} s, {}</p>", self.counts(), self.seconds, text(&self.finished));
            page.push_str("<table><tr><th>Image<th>State<th>Digest</tr>\n");
            for ReportedImage { name, version, status, digest, problem, .. } in &self.images {
                let class = if digest.is_some() { "ok" } else { "bad" };
                let digest = digest.map(|digest| format!("<code>{digest}</code>")).unwrap_or_default();
                let problem = problem.as_deref().map(|problem| format!(": {}", text(problem))).unwrap_or_default();
                let (name, version) = (text(name), text(version));
                let _ = writeln!(
                    page,
                    "<tr><td><code>{name}:{version}</code><td class=\"{class}\">{status}{problem}<td>{digest}</tr>"
                );
            }
            page.push_str("</table>\n");
            for report in self.publications() {
                let _ = writeln!(page, "<details><summary>{}</summary>", text(&report.image));
                body(page, report);
                page.push_str("</details>\n");
            }
        })
    }

    /// Returns the numbers of images in each state, in words.
    fn counts(&self) -> String {
        let count = |status| self.images.iter().filter(|image| image.status == status).count();
        let words = ["built", "present", "up-to-date", "failed", "skipped"].map(|status| (count(status), status));
        let words = words.iter().filter(|(count, _)| *count > 0).map(|(count, status)| format!("{count} {status}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

type Parts = (&'static str, Option<Digest>, Option<String>, Option<Report>);

fn parts(outcome: &ImageOutcome) -> Parts {
    let of = |status, done: &Done| (status, Some(done.digest), None, done.report.as_deref().cloned());
    match outcome {
        ImageOutcome::Built(done) => of("built", done),
        ImageOutcome::Present(done) => of("present", done),
        ImageOutcome::Failed(error) => ("failed", None, Some(with_causes(error)), error.report().cloned()),
        ImageOutcome::Skipped => ("skipped", None, None, None),
    }
}
