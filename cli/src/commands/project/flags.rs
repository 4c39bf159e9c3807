use clap::Parser;
use ocikit_build::{Attestation, Dockerfile, Solve};
use ocikit_publish::project::Project;

use crate::build::InputArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// The flags behind `--`.
#[derive(Debug, Parser)]
#[command(name = "flags after `--`", no_binary_name = true, disable_help_flag = true)]
struct SolveFlags {
    #[command(flatten)]
    inputs: InputArguments,
}

/// Returns the options of every build: the flags behind `--`, and provenance for images that are published.
///
/// `registry_argument` is the build argument of the references to images of the project.
pub(super) fn solve(
    context: &Context,
    project: &Project,
    registry_argument: &str,
    flags: &[String],
    provenance: bool,
) -> Result<Solve> {
    // The directory of an image, which replaces it later, is only there because a build has one.
    let Some(first) = project.images().first() else { return Err(Failure::usage("the project has no images")) };
    let directory = project.root().join(&first.directory).display().to_string();
    let mut flags =
        SolveFlags::try_parse_from(flags.iter().chain([&"--no-cache-directory".to_owned()])).map_err(|error| {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).lines().next().unwrap_or_default().to_owned();
            Failure::usage(format_args!("cannot use the flags after `--`: {text}"))
        })?;
    if flags.inputs.context.is_some() {
        return Err(Failure::usage("cannot use a build context after `--`: each image has its own"));
    }
    flags.inputs.context = Some(directory);
    let mut solve = flags.inputs.solve(context, None)?;
    if solve.dockerfile != Dockerfile::File(project.root().join(first.dockerfile_path())) {
        return Err(Failure::usage("cannot use --file after `--`: each image has its own Dockerfile"));
    }
    if !solve.platforms.is_empty() {
        return Err(Failure::usage("cannot use --platform after `--`: the metadata of each image have its platforms")
            .hint("give --platform before `--` to build every image for these platforms only"));
    }
    if solve.build_arguments.iter().any(|(name, _)| name == registry_argument) {
        return Err(Failure::usage(format_args!(
            "cannot use --build-arg {registry_argument} after `--`: it has the registry of the project"
        ))
        .hint("name the registry with --remote-registry or --local-registry"));
    }
    if provenance {
        solve.attestations.insert(0, Attestation::provenance("true")?);
    }
    Ok(solve)
}
