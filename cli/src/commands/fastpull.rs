use std::ffi::OsString;

use clap::{Args, Parser};
use ocikit::Reference;

use super::build::Build;
use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::values::tag_of_image;

const EXAMPLES: &str = "\
Examples:
  ocikit fastpull ghcr.io/acme/app:1
  ocikit fastpull ghcr.io/acme/app:1 --platform linux/amd64,linux/arm64 --secret id=token,env=TOKEN
  ocikit fastpull localhost:5000/app --lazy nydus,estargz --lazy-suffix=-{format}";

/// The directory with the context, if CONTEXT_PATH does not name another one.
const CONTEXT: &str = "/workspace";

/// The Dockerfile in the context, if DOCKERFILE does not name another one.
const DOCKERFILE: &str = "Dockerfile";

/// Build an image, push it, and push a lazily pulled one beside it
///
/// The contract of the builder image of fastpull: the context is /workspace or CONTEXT_PATH, the Dockerfile is Dockerfile or
/// DOCKERFILE in it, and credentials come from the configuration of docker. The result is IMAGE and IMAGE-fastpull, a Nydus
/// image, unless --lazy and --lazy-suffix say otherwise. It is `ocikit build --push --lazy nydus` in one word. Prints the digests
/// of both.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fastpull {
    /// Name of the image; without a tag it gets `latest`
    #[arg(value_parser = tag_of_image)]
    image: Reference,
    /// Further arguments of `ocikit build`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BUILD ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// The command line of `build`.
#[derive(Debug, Parser)]
#[command(name = "ocikit build", disable_help_flag = true)]
struct BuildLine {
    #[command(flatten)]
    build: Build,
}

impl Fastpull {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let line = BuildLine::try_parse_from(self.line()).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Failure::usage(first.strip_prefix("error: ").unwrap_or(first))
                .hint("`ocikit build --help` lists the arguments")
        })?;
        line.build.run(context).await
    }

    /// Returns the command line of `build`.
    fn line(&self) -> Vec<OsString> {
        let place = variable("CONTEXT_PATH").unwrap_or_else(|| CONTEXT.to_owned());
        let dockerfile = variable("DOCKERFILE").unwrap_or_else(|| DOCKERFILE.to_owned());
        // As in the original, the Dockerfile is in the context.
        let dockerfile = std::path::Path::new(&place).join(dockerfile);
        let mut line: Vec<OsString> = vec!["ocikit build".into(), place.into()];
        line.extend(["--tag".into(), self.image.to_string().into(), "--push".into()]);
        let names = |flag: &str| {
            let is_flag = |given: &OsString| {
                given.to_str().is_some_and(|given| given == flag || given.starts_with(&format!("{flag}=")))
            };
            self.arguments.iter().any(is_flag)
        };
        if !names("--file") && !names("-f") {
            line.extend(["--file".into(), dockerfile.into()]);
        }
        if !names("--lazy") {
            line.extend(["--lazy".into(), "nydus".into()]);
        }
        line.extend(self.arguments.iter().cloned());
        line
    }
}
