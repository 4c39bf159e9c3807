use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ocikit::{Digest, Location, Reference, Root};
use ocikit_publish::git::GitState;
use ocikit_publish::signify::{self, Accepted, Config, Job, RenewOptions, Service, Target};
use ocikit_publish::{Published, TagState};
use ocikit_sign::Http;
use serde::Serialize;

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;
use crate::report::partial;
use crate::{file, keys};

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
    Renew(Renew),
}

const RENEW_EXAMPLES: &str = "\
Examples:
  ocikit signify renew signify.json
  ocikit signify renew signify.json --days 30";

/// Replace the client certificate in a secret file by a new one
///
/// Gets a token from `tokenURL` with the old certificate, and a certificate for a new key (RSA, 4096 bits) from
/// `certServiceURL`. The file is replaced only after the new certificate was checked.
#[derive(Debug, Args)]
#[command(after_help = RENEW_EXAMPLES)]
struct Renew {
    /// Secret file (JSON) with the old certificate and the addresses
    secret: PathBuf,
    /// Ask for a certificate that is valid for this many days
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Ask for a certificate by this policy of the authority
    #[arg(long, value_name = "NAME", default_value = "sap-cloud-platform-clients")]
    policy: String,
}

#[derive(Serialize)]
struct RenewOutput {
    secret: String,
    renewed: bool,
}

impl Renew {
    async fn run(&self, context: &Context) -> Result {
        let old = keys::read_secret(&self.secret)?;
        let refuse = |error| failure_of(error).in_file(&self.secret);
        let identity = signify::identity(&old).map_err(refuse)?;
        let common = context.http_options()?;
        let tls = common.tls.clone().identity(Some(identity));
        let http = Http::new(&common.tls(tls));
        let http = http.map_err(|error| Failure::from(error).in_file(&self.secret))?;
        let mut options = RenewOptions::default();
        (options.days, options.policy) = (self.days, self.policy.clone());
        let renewed = signify::renew(&old, &http, &options, keys::now(context.epoch)?).await.map_err(refuse)?;
        let text = std::str::from_utf8(&renewed).map_err(Failure::usage)?;
        let mut name = self.secret.clone().into_os_string();
        name.push(".new");
        let beside = PathBuf::from(name);
        keys::write_new(&beside, text)?;
        if let Err(error) = std::fs::rename(&beside, &self.secret) {
            // The new file is of no use without its name.
            let _ = std::fs::remove_file(&beside);
            return Err(Failure::io("write to", self.secret.display(), &error));
        }
        let secret = self.secret.display().to_string();
        context.output.result(&RenewOutput { secret, renewed: true }, || format!("renewed {}", self.secret.display()))
    }
}

#[derive(Serialize)]
struct SignifyOutput<'a> {
    /// The request that each signer received.
    request: serde_json::Value,
    signers: Vec<SignerOutput<'a>>,
    /// The signers for this repository that are enabled for other types of jobs only.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    skipped: &'a [&'a str],
}

#[derive(Serialize)]
struct SignerOutput<'a> {
    name: &'a str,
    endpoint: &'a str,
    /// `accepted`, `failed` or `planned`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
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
                    let message = Some(error.to_string());
                    signers.push(SignerOutput { error: message, ..SignerOutput::of(service, "failed") });
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

/// Returns the client for a service, with the certificate from the directory of the configuration.
fn client(context: &Context, config: &Path, service: &Service) -> Result<Http> {
    let path = config.parent().unwrap_or(Path::new("")).join(&service.secret);
    let secret = keys::read_secret(&path)?;
    let identity = signify::identity(&secret).map_err(|error| failure_of(error).in_file(&path))?;
    let common = context.http_options()?;
    let tls = common.tls.clone().identity(Some(identity));
    let options = common.tls(tls).total(service.timeout);
    Http::new(&options).map_err(|error| Failure::from(error).in_file(&path))
}

/// The services that record the tags of a publication.
pub(crate) struct Recorder {
    services: Vec<(Service, Http)>,
}

impl Recorder {
    /// Selects the services for a job, and reads all certificates, except for a dry run. Fails if no service is selected.
    pub(crate) fn of(
        context: &Context,
        path: &Path,
        config: &Config,
        git: &GitState,
        dry_run: bool,
    ) -> Result<Recorder> {
        let job = git.event.job_type().map_or(Job::Local, |kind| Job::Of(kind.to_owned()));
        let sources = git.full_name();
        let sources =
            sources.ok_or_else(|| Failure::usage("cannot select signers: the source repository is not known"))?;
        let selected = config.select(&sources, &job).map_err(failure_of)?.services;
        let selected = if dry_run { Vec::new() } else { selected };
        let services = selected.into_iter().map(|service| Ok((service.clone(), client(context, path, service)?)));
        Ok(Recorder { services: services.collect::<Result<_>>()? })
    }

    /// Records the tags that point to the image, with the digest that was published, whatever the tags point to now.
    /// Returns the names of the services.
    pub(crate) async fn record(&self, published: &Published) -> Result<Vec<String>> {
        let mut targets = Vec::new();
        for target in &published.targets {
            for tag in target.tags.iter().filter(|tag| matches!(tag.state, TagState::Verified)) {
                let reference = Reference::tagged(target.destination.push.clone(), tag.planned.tag.clone());
                targets.push(Target::new(&reference, &published.root).map_err(failure_of)?);
            }
        }
        let (mut done, mut failures) = (Vec::new(), Vec::new());
        for (service, client) in &self.services {
            match signify::send(service, &targets, client).await {
                Ok(_) => done.push(service.name.clone()),
                Err(error) => failures.push((service.name.clone(), failure_of(error))),
            }
        }
        let accepted = done.len();
        partial(failures, accepted, "signers").map(|()| done)
    }
}

fn failure_of(error: signify::Error) -> Failure {
    match error {
        signify::Error::Renewal { .. } => Failure::new(Code::Other, error),
        signify::Error::NotAccepted { .. } => Failure::new(Code::Unreachable, error),
        signify::Error::NoResponse { .. } => Failure::new(Code::Unreachable, error)
            .hint("check the endpoint of the service; if its CA is not a public one, add --ca-file"),
        _ => Failure::usage(error),
    }
}

fn in_ci() -> bool {
    variable("CI").as_deref() == Some("true")
}

impl<'a> SignerOutput<'a> {
    fn of(service: &'a Service, outcome: &'static str) -> SignerOutput<'a> {
        let (name, endpoint) = (service.name.as_str(), service.address());
        SignerOutput { name, endpoint, outcome, status: None, attempts: None, answer: None, error: None }
    }

    fn with(self, Accepted { status, body, attempts, .. }: Accepted) -> SignerOutput<'a> {
        SignerOutput { status: Some(status), attempts: Some(attempts), answer: Some(body), ..self }
    }

    fn words(&self) -> String {
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        format!("{} {}{status}", self.name, self.outcome)
    }
}
