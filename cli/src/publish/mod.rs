//! Arguments of `publish` and what follows from them: tags, the plan, the image, and reports.

mod image;
pub(crate) mod lazy;
mod plan;
mod plugin;
mod report;
mod tags;

pub(crate) use image::ImageArguments;
pub(crate) use plan::{ExchangeBy, Planned, TargetArguments, exchange_kind};
pub(crate) use plugin::PluginInput;
pub(crate) use report::{ReportArguments, ReportForms, outcome, print_plan};
pub(crate) use tags::{Job, TagArguments, state_of_job};

pub(crate) use plugin::{input as plugin_input, with_exit_code};
