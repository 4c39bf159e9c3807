use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::{Digest, Location, Reference, Root};
use ocikit_publish::signify::{self, Accepted, Config, Job, Service, Target};
use ocikit_sign::{Http, HttpOptions, TlsSettings};
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
  ocikit signify --config config.yaml --repo acme/app --dry-run ghcr.io/acme/app:1";

/// Record the digests of tags with the Signify service
///
/// The service signs with its own keys, and nothing is stored with the images. The section `sign-config` of the image
/// builder's configuration selects the signers by source repository and job type. Prints the answer of each signer;
/// fails if no signer is selected or a signer does not accept the request.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Signify {
    /// Images to record, by tag
    #[arg(required = true)]
    reference: Vec<Reference>,
    /// Read the configuration of the image builder from this file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
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
    /// Print the request without sending it
    #[arg(long)]
    dry_run: bool,
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
        let config =
            Config::parse(&file::read_text(&self.config)?).map_err(|error| failure_of(error).in_file(&self.config))?;
        let selected = config.select(&self.sources()?, &self.job()).map_err(failure_of)?;
        // All certificates are read before the first request, so that a broken one leaves nothing half done.
        let clients = selected.services.iter().map(|service| self.client(context, service));
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

    fn client(&self, context: &Context, service: &Service) -> Result<Http> {
        let path = self.config.parent().unwrap_or(Path::new("")).join(&service.secret);
        let secret = keys::read_secret(&path)?;
        let identity = signify::identity(&secret).map_err(|error| failure_of(error).in_file(&path))?;
        let common = context.http_options()?;
        let tls = TlsSettings { identity: Some(identity), ..common.tls };
        let options = HttpOptions { tls, total: service.timeout, ..common };
        Http::new(&options).map_err(|error| Failure::from(error).in_file(&path))
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

fn failure_of(error: signify::Error) -> Failure {
    match error {
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

    fn with(self, Accepted { status, body, attempts }: Accepted) -> SignerOutput<'a> {
        SignerOutput { status: Some(status), attempts: Some(attempts), answer: Some(body), ..self }
    }

    fn words(&self) -> String {
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        format!("{} {}{status}", self.name, self.outcome)
    }
}
