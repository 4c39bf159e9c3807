//! One file per command: its arguments, whose comments are the help, a `run`, and words.

mod annotate;
mod build;
mod completion;
mod copy;
mod digest;
mod gc;
mod inspect;
mod kind;
pub(crate) mod login;
mod logout;
mod pull;
mod push;
mod serve;
mod sync;
mod tour;
mod validate;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Result;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Annotate(annotate::Annotate),
    Build(build::Build),
    Completion(completion::Completion),
    Copy(copy::Copy),
    Digest(digest::Digest),
    Gc(gc::Gc),
    Inspect(inspect::Inspect),
    Kind(kind::Kind),
    Login(login::Login),
    Logout(logout::Logout),
    Pull(pull::Pull),
    Push(push::Push),
    Serve(serve::Serve),
    Sync(sync::Sync),
    Tour(tour::Tour),
    Validate(validate::Validate),
    Version(version::Version),
}

impl Command {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match self {
            Command::Annotate(command) => command.run(context).await,
            Command::Build(command) => command.run(context).await,
            Command::Completion(command) => command.run(context),
            Command::Copy(command) => command.run(context).await,
            Command::Digest(command) => command.run(context).await,
            Command::Gc(command) => command.run(context).await,
            Command::Inspect(command) => command.run(context).await,
            Command::Kind(command) => command.run(context).await,
            Command::Login(command) => command.run(context).await,
            Command::Logout(command) => command.run(context).await,
            Command::Pull(command) => command.run(context).await,
            Command::Push(command) => command.run(context).await,
            Command::Serve(command) => command.run(context).await,
            Command::Sync(command) => command.run(context).await,
            Command::Tour(command) => command.run(context).await,
            Command::Validate(command) => command.run(context).await,
            Command::Version(command) => command.run(context),
        }
    }
}
