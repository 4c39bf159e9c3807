use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ocikit::{Digest, Location, Reference, Root};
use ocikit_publish::signify::{self, Config, Job, Target};

use super::signify_renew::Renew as SignifyRenew;
use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::file;
use crate::output::Lines;
use crate::report::partial;
use crate::signify::{SignerOutput, SignifyOutput, client, failure_of};

const EXAMPLES: &str = "\
Examples:
  ocikit signify --config config.yaml --repo acme/app ghcr.io/acme/app:1
  ocikit signify --config config.yaml --repo acme/app --dry-run ghcr.io/acme/app:1
  ocikit signify renew signify.json";

/// Record the digests of tags with the Signify service
///
/// The service signs with its own keys, and nothing is stored with the images. The section `sign-config` of the image
/// builder's configuration selects the signers by source repository and job type. Prints the answer of each signer;
/// fails if no signer is selected or a signer does not accept the request.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Signify {
    #[command(subcommand)]
    command: Option<SignifyCommand>,
    /// Images to record, by tag
    #[arg(required = true)]
    reference: Vec<Reference>,
    /// Read the configuration of the image builder from this file
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Select signers by this repository; default: $REPO_OWNER/$REPO_NAME
    ///
    /// The default applies only if CI=true.
    #[arg(long, value_name = "ORG/REPO")]
    repo: Option<String>,
    /// Select signers by this type of job; default: $JOB_TYPE
    ///
    /// The default applies only if CI=true.
    #[arg(long, value_name = "KIND")]
    job_type: Option<String>,
    /// Fail unless all images have this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    /// Succeed without a signature if no signer is selected
    #[arg(long)]
    allow_unsigned: bool,
    /// Print the request without sending it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum SignifyCommand {
    Renew(SignifyRenew),
}

impl Signify {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if let Some(SignifyCommand::Renew(command)) = &self.command {
            return command.run(context).await;
        }
        // The parser requires it.
        let path = self.config.as_deref().unwrap_or(Path::new(""));
        let config = Config::parse(&file::read_text(path)?).map_err(|error| failure_of(error).in_file(path))?;
        let selected = match config.select(&self.sources()?, &self.job()) {
            Err(error @ signify::Error::NoService { .. }) if self.allow_unsigned => {
                context.output.say(format!("warning: {error}; nothing is signed"));
                let result = SignifyOutput { request: serde_json::Value::Null, signers: Vec::new(), skipped: &[] };
                return context.output.result(&result, Lines::default);
            }
            selected => selected.map_err(failure_of)?,
        };
        // All certificates are read before the first request, so that a broken one leaves nothing half done.
        let clients = selected.services.iter().map(|service| client(context, path, service));
        let clients = if self.dry_run { Vec::new() } else { clients.collect::<Result<_>>()? };
        let targets = self.targets(context).await?;
        let (mut signers, mut failures) = (Vec::new(), Vec::new());
        if self.dry_run {
            signers.extend(selected.services.iter().map(|service| SignerOutput::of(service, "planned")));
        }
        for (service, client) in selected.services.iter().zip(&clients) {
            match signify::send(service, &targets, client).await {
                Ok(accepted) => signers.push(SignerOutput::of(service, "accepted").with(accepted)),
                Err(error) => {
                    signers.push(SignerOutput::of(service, "failed").because(&error));
                    failures.push((&service.name, failure_of(error)));
                }
            }
        }
        let request = signify::body(&targets);
        let value = serde_json::from_str(&request).unwrap_or_default();
        let result = SignifyOutput { request: value, signers, skipped: &selected.skipped };
        context.output.result(&result, || match self.dry_run {
            true => request.lines().collect::<Lines>(),
            false => result.signers.iter().map(SignerOutput::words).collect(),
        })?;
        let accepted = result.signers.len() - failures.len();
        partial(failures, accepted, "signers")
    }

    /// Returns the source repository.
    fn sources(&self) -> Result<String> {
        let found = || Some(format!("{}/{}", variable("REPO_OWNER")?, variable("REPO_NAME")?));
        let found = self.repo.clone().or_else(|| found().filter(|_| in_ci()));
        found.filter(|name| !name.is_empty()).ok_or_else(|| {
            Failure::usage("cannot select signers: the source repository is not given")
                .hint("add --repo ORG/REPO, or set CI=true, REPO_OWNER and REPO_NAME")
        })
    }

    fn job(&self) -> Job {
        match self.job_type.clone().or_else(|| variable("JOB_TYPE").filter(|_| in_ci())) {
            Some(kind) => Job::Of(kind),
            None if in_ci() => Job::Unknown,
            None => Job::Local,
        }
    }

    /// Resolves the references to their manifest or index, with verified size and digest.
    async fn targets(&self, context: &Context) -> Result<Vec<Target>> {
        let locations: Vec<_> = self.reference.iter().cloned().map(Location::Registry).collect();
        let session = context.session(&locations.iter().collect::<Vec<_>>())?;
        let mut targets = Vec::new();
        for (reference, location) in self.reference.iter().zip(&locations) {
            let root: Root = session.open(location).await?;
            ocikit_sign::expect_digest(&root, self.expect)?;
            targets.push(Target::new(reference, root.descriptor()).map_err(failure_of)?);
        }
        Ok(targets)
    }
}

fn in_ci() -> bool {
    variable("CI").as_deref() == Some("true")
}
