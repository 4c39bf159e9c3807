//! The report of a publication: JSON, the nine keys of the image builder, Markdown and HTML.

pub(crate) mod html;
pub(crate) mod markdown;
mod model;

pub use model::{
    BuildReport, CountReport, LazyFailureReport, LazyReport, Report, ReportInput, SkippedReport, Status, TagReport,
    TargetReport,
};

#[cfg(test)]
mod tests;
