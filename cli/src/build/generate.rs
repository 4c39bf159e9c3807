use std::path::Path;

use clap::Args;
use ocikit_build::{BuildContext, Dockerfile, GenerateOptions, Generated, Runtime, Solve};

use crate::context::Context;
use crate::failure::{Failure, Result};

/// The generation of a Dockerfile.
#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    /// Generate a Dockerfile for this runtime, or for that of the project
    ///
    /// nodejs, python, go, ruby, rust, java or php, with a version: nodejs20, python312. `auto` finds the runtime by the
    /// files of the project, and uses its Dockerfile if it has one.
    #[arg(long, value_name = "RUNTIME|auto", conflicts_with = "file")]
    runtime: Option<Choice>,
    /// Start the generated Dockerfile from this image
    #[arg(long, value_name = "REFERENCE", requires = "runtime")]
    base: Option<String>,
    /// Print the generated Dockerfile and build nothing
    #[arg(long, requires = "runtime")]
    pub(crate) print_dockerfile: bool,
}

#[derive(Debug, Clone)]
enum Choice {
    Auto,
    Runtime(Runtime),
}

impl std::str::FromStr for Choice {
    type Err = ocikit_build::Error;

    fn from_str(text: &str) -> std::result::Result<Choice, ocikit_build::Error> {
        match text {
            "auto" => Ok(Choice::Auto),
            runtime => runtime.parse().map(Choice::Runtime),
        }
    }
}

impl GenerateArguments {
    /// Replaces the Dockerfile of a build by a generated one, if that is wanted.
    pub(crate) fn apply(&self, context: &Context, solve: &mut Solve) -> Result {
        let Some(choice) = &self.runtime else { return Ok(()) };
        let BuildContext::Directory(directory) = &solve.context else {
            return Err(Failure::usage("cannot generate a Dockerfile: the context is not a directory or a tar"));
        };
        let own = directory.join("Dockerfile");
        let mut options = GenerateOptions::default();
        options.runtime = match choice {
            Choice::Auto if own.exists() => return self.keep(context, &own),
            Choice::Auto => None,
            Choice::Runtime(runtime) => Some(runtime.clone()),
        };
        options.base.clone_from(&self.base);
        let Generated { runtime, dockerfile, ignore, notes, .. } = ocikit_build::generate(directory, &options)?;
        if own.exists() {
            context.output.say(format!("{} is not used: --runtime generates another one", own.display()));
        }
        context.output.say(format!("generated a Dockerfile for {runtime}"));
        notes.iter().for_each(|note| context.output.say(format!("warning: {note}")));
        solve.dockerfile = Dockerfile::Generated { text: dockerfile, ignore };
        Ok(())
    }

    /// Keeps the Dockerfile that the project has.
    fn keep(&self, context: &Context, own: &Path) -> Result {
        if self.print_dockerfile {
            return Err(Failure::usage(format_args!("cannot generate a Dockerfile: {} exists", own.display()))
                .hint("name the runtime instead of `auto`"));
        }
        context.output.say(format!("using {}", own.display()));
        Ok(())
    }
}
