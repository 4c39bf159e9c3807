//! Arguments of `build` and what follows from them: inputs, outputs, annotations, the cache and the BuildKit to use.

mod annotations;
mod builder;
mod cache;
mod generate;
mod inputs;
mod lazy;
mod lazy_output;
mod log;
mod metadata;
mod outputs;
mod report;
mod sign;
mod verify;

pub(crate) use annotations::AnnotationArguments;
pub(crate) use builder::{BuilderArguments, installations};
pub(crate) use generate::GenerateArguments;
pub(crate) use inputs::{InputArguments, SolveArguments};
pub(crate) use lazy::{LazyBuild, check as check_lazy, missing as missing_lazy};
pub(crate) use lazy_output::LazyOutput;
pub(crate) use log::BuildLog;
pub(crate) use outputs::OutputArguments;
pub(crate) use report::{BuildReport, check_dockerfile, print_calls, print_dockerfile};
pub(crate) use sign::{SignBuildArguments, signed, with_signatures};
pub(crate) use verify::VerifyBuildArguments;
