//! One file per command: its arguments, whose comments are the help, a `run`, and words.

mod annotate;
mod build;
mod cat;
mod completion;
mod copy;
mod diff;
mod digest;
pub(crate) mod inspect;
mod kind;
pub(crate) mod login;
mod logout;
mod ls;
mod pull;
mod push;
mod serve;
mod tour;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Result;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Annotate(annotate::Annotate),
    Build(build::Build),
    Cat(cat::Cat),
    Completion(completion::Completion),
    Copy(copy::Copy),
    Diff(diff::Diff),
    Digest(digest::Digest),
    Inspect(inspect::Inspect),
    Kind(kind::Kind),
    Login(login::Login),
    Logout(logout::Logout),
    Ls(ls::Ls),
    Pull(pull::Pull),
    Push(push::Push),
    Serve(serve::Serve),
    Tour(tour::Tour),
    Version(version::Version),
}

impl Command {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match self {
            Command::Annotate(command) => command.run(context).await,
            Command::Build(command) => command.run(context).await,
            Command::Cat(command) => command.run(context).await,
            Command::Completion(command) => command.run(context),
            Command::Copy(command) => command.run(context).await,
            Command::Diff(command) => command.run(context).await,
            Command::Digest(command) => command.run(context).await,
            Command::Inspect(command) => command.run(context).await,
            Command::Kind(command) => command.run(context).await,
            Command::Login(command) => command.run(context).await,
            Command::Logout(command) => command.run(context).await,
            Command::Ls(command) => command.run(context).await,
            Command::Pull(command) => command.run(context).await,
            Command::Push(command) => command.run(context).await,
            Command::Serve(command) => command.run(context).await,
            Command::Tour(command) => command.run(context).await,
            Command::Version(command) => command.run(context),
        }
    }
}
