//! One file per command: its arguments (their doc comments are the help text), its `run` and its output.

#[cfg(unix)]
mod agent;
mod annotate;
mod append;
mod artifact;
mod attach;
mod attest;
mod blob;
mod build;
mod buildkit;
mod cat;
mod completion;
mod config;
mod convert;
mod copy;
mod delete;
mod diff;
mod digest;
mod edit;
mod export;
mod fastpull;
mod flatten;
mod gc;
mod index;
mod inspect;
mod keygen;
mod kind;
pub(crate) mod login;
mod logout;
mod ls;
mod manifest;
mod normalize;
pub(crate) mod probe;
mod project;
mod publish;
mod publish_tags;
mod pull;
mod push;
mod rebase;
mod recompress;
mod referrers;
#[cfg(unix)]
mod repack;
mod repos;
mod serve;
mod sign;
mod signify;
mod signify_renew;
mod sync;
mod tag;
mod tags;
mod tour;
mod tree;
#[cfg(unix)]
mod unpack;
mod validate;
mod verify;
mod verify_token;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Result;
use crate::program::Program;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(unix)]
    Agent(Box<agent::Agent>),
    Annotate(annotate::Annotate),
    Recompress(recompress::Recompress),
    Normalize(normalize::Normalize),
    Flatten(flatten::Flatten),
    Convert(convert::Convert),
    Append(append::Append),
    Artifact(artifact::Artifact),
    Attach(attach::Attach),
    Attest(attest::Attest),
    Blob(blob::Blob),
    Build(Box<build::Build>),
    Buildkit(buildkit::Buildkit),
    Cat(cat::Cat),
    Completion(completion::Completion),
    Config(config::Config),
    #[command(visible_alias = "cp")]
    Copy(copy::Copy),
    Delete(delete::Delete),
    Diff(diff::Diff),
    Digest(digest::Digest),
    Edit(Box<edit::Edit>),
    Export(export::Export),
    Fastpull(fastpull::Fastpull),
    Gc(gc::Gc),
    Index(index::Index),
    Inspect(inspect::Inspect),
    Keygen(keygen::Keygen),
    Kind(kind::Kind),
    Login(login::Login),
    Logout(logout::Logout),
    Ls(ls::Ls),
    Manifest(manifest::Manifest),
    Probe(probe::Probe),
    Project(project::Project),
    Publish(Box<publish::Publish>),
    Pull(pull::Pull),
    Push(push::Push),
    Rebase(rebase::Rebase),
    Referrers(referrers::Referrers),
    #[cfg(unix)]
    Repack(repack::Repack),
    #[command(visible_alias = "catalog")]
    Repos(repos::Repos),
    Serve(serve::Serve),
    Sign(sign::Sign),
    Signify(signify::Signify),
    Sync(sync::Sync),
    Tag(tag::Tag),
    #[command(visible_aliases = ["list-tags", "ls-tags"])]
    Tags(tags::Tags),
    Tour(tour::Tour),
    Tree(tree::Tree),
    #[cfg(unix)]
    Unpack(unpack::Unpack),
    Validate(validate::Validate),
    Verify(verify::Verify),
    VerifyToken(verify_token::VerifyToken),
    Version(version::Version),
}

impl Command {
    /// Returns whether the command calls services around signing: timestamp and certificate authorities, transparency
    /// logs, lists of revoked certificates.
    pub(crate) fn calls_services(&self) -> bool {
        matches!(
            self,
            Command::Attest(_)
                | Command::Build(_)
                | Command::Fastpull(_)
                | Command::Publish(_)
                | Command::Sign(_)
                | Command::Signify(_)
                | Command::Verify(_)
                | Command::VerifyToken(_)
        )
    }

    pub(crate) async fn run(&self, context: &Context, program: &Program) -> Result {
        match self {
            #[cfg(unix)]
            Command::Agent(command) => command.run(context).await,
            Command::Annotate(command) => command.run(context).await,
            Command::Recompress(command) => command.run(context).await,
            Command::Normalize(command) => command.run(context).await,
            Command::Flatten(command) => command.run(context).await,
            Command::Convert(command) => command.run(context).await,
            Command::Append(command) => command.run(context).await,
            Command::Artifact(command) => command.run(context).await,
            Command::Attach(command) => command.run(context).await,
            Command::Attest(command) => command.run(context).await,
            Command::Blob(command) => command.run(context).await,
            Command::Build(command) => command.run(context).await,
            Command::Buildkit(command) => command.run(context).await,
            Command::Cat(command) => command.run(context).await,
            Command::Completion(command) => command.run(context, program),
            Command::Config(command) => command.run(context).await,
            Command::Copy(command) => command.run(context).await,
            Command::Delete(command) => command.run(context).await,
            Command::Diff(command) => command.run(context).await,
            Command::Digest(command) => command.run(context).await,
            Command::Edit(command) => command.run(context).await,
            Command::Export(command) => command.run(context).await,
            Command::Fastpull(command) => command.run(context).await,
            Command::Gc(command) => command.run(context).await,
            Command::Index(command) => command.run(context).await,
            Command::Inspect(command) => command.run(context).await,
            Command::Keygen(command) => command.run(context),
            Command::Kind(command) => command.run(context).await,
            Command::Login(command) => command.run(context).await,
            Command::Logout(command) => command.run(context).await,
            Command::Ls(command) => command.run(context).await,
            Command::Manifest(command) => command.run(context).await,
            Command::Probe(command) => command.run(context).await,
            Command::Project(command) => command.run(context).await,
            Command::Publish(command) => command.run(context).await,
            Command::Pull(command) => command.run(context).await,
            Command::Push(command) => command.run(context).await,
            Command::Rebase(command) => command.run(context).await,
            Command::Referrers(command) => command.run(context).await,
            #[cfg(unix)]
            Command::Repack(command) => command.run(context).await,
            Command::Repos(command) => command.run(context).await,
            Command::Serve(command) => command.run(context).await,
            Command::Sign(command) => command.run(context).await,
            Command::Signify(command) => command.run(context).await,
            Command::Sync(command) => command.run(context).await,
            Command::Tag(command) => command.run(context).await,
            Command::Tags(command) => command.run(context).await,
            Command::Tour(command) => command.run(context, program).await,
            Command::Tree(command) => command.run(context).await,
            #[cfg(unix)]
            Command::Unpack(command) => command.run(context).await,
            Command::Validate(command) => command.run(context).await,
            Command::Verify(command) => command.run(context).await,
            Command::VerifyToken(command) => command.run(context).await,
            Command::Version(command) => command.run(context),
        }
    }
}
