use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::{Digest, Location, Reference, Root};
use ocikit_sign::signify::{self, Accepted, Config, Job, Service, Target};
use ocikit_sign::{Error, Http, HttpOptions};
use serde::Serialize;

use crate::context::{Context, variable};
use crate::failure::{Failure, Result};
use crate::output::Lines;
use crate::report::partial;
use crate::{file, keys};

/// Have Signify record which digests the tags of images have
///
/// The service signs with keys of its own, and nothing is stored with the images. Which signers are asked is told by the
/// configuration of the image builder, its part `sign-config`, by the repository of the sources and the kind of the job.
/// Prints what each of them answered; ends with an error if nobody is asked, or somebody does not accept it.
#[derive(Debug, Args)]
pub(crate) struct Signify {
    /// The images in their registries, by their tags
    #[arg(required = true)]
    reference: Vec<Reference>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The repository of the sources; $REPO_OWNER/$REPO_NAME where CI=true if this is not given
    #[arg(long, value_name = "ORG/REPO")]
    repo: Option<String>,
    /// The kind of the job; $JOB_TYPE where CI=true if this is not given
    #[arg(long, value_name = "KIND")]
    job_type: Option<String>,
    /// Sign only if all of them have this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    /// Only print what would be sent
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Facts<'a> {
    /// What was sent to each signer.
    request: serde_json::Value,
    signers: Vec<SignerFacts<'a>>,
    /// Those that sign for this repository in other kinds of jobs.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    skipped: &'a [&'a str],
}

#[derive(Serialize)]
struct SignerFacts<'a> {
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
        let text = String::from_utf8(file::read(&self.config)?);
        let text = text.map_err(|_| Failure::usage(format_args!("{} is not text", self.config.display())))?;
        let config = Config::parse(&text).map_err(|error| keys::named(&self.config, error))?;
        let selected = config.select(&self.sources()?, &self.job())?;
        // A certificate that cannot be read is found before anybody is asked.
        let clients = selected.services.iter().map(|service| self.client(context, service));
        let clients = if self.dry_run { Vec::new() } else { clients.collect::<Result<_>>()? };
        let targets = self.targets(context).await?;
        let (mut signers, mut failures) = (Vec::new(), Vec::new());
        if self.dry_run {
            signers.extend(selected.services.iter().map(|service| SignerFacts::of(service, "planned")));
        }
        for (service, client) in selected.services.iter().zip(&clients) {
            match signify::send(service, &targets, client).await {
                Ok(accepted) => signers.push(SignerFacts::of(service, "accepted").with(accepted)),
                Err(error) => {
                    let told = Some(error.to_string());
                    signers.push(SignerFacts { error: told, ..SignerFacts::of(service, "failed") });
                    failures.push((&service.name, Failure::from(error)));
                }
            }
        }
        let request = signify::body(&targets);
        let value = serde_json::from_str(&request).unwrap_or_default();
        let facts = Facts { request: value, signers, skipped: &selected.skipped };
        context.output.facts(&facts, || match self.dry_run {
            true => request.lines().collect::<Lines>(),
            false => facts.signers.iter().map(SignerFacts::words).collect(),
        })?;
        let accepted = facts.signers.len() - failures.len();
        partial(failures, accepted, "signers")
    }

    /// The repository of the sources.
    fn sources(&self) -> Result<String> {
        let found = || Some(format!("{}/{}", variable("REPO_OWNER")?, variable("REPO_NAME")?));
        let found = self.repo.clone().or_else(|| found().filter(|_| in_ci()));
        found.filter(|name| !name.is_empty()).ok_or_else(|| {
            Failure::usage("nothing tells the repository of the sources, by which signers are chosen")
                .hint("give --repo ORG/REPO; in CI, REPO_OWNER and REPO_NAME tell it")
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
        let identity = signify::identity(&secret).map_err(|error| keys::named(&path, error))?;
        let options = HttpOptions { identity: Some(identity), total: service.timeout, ..context.http_options()? };
        Http::new(&options).map_err(|error| keys::named(&path, error))
    }

    /// What the references lead to: the manifest or index itself, whose size was checked.
    async fn targets(&self, context: &Context) -> Result<Vec<Target>> {
        let locations: Vec<_> = self.reference.iter().cloned().map(Location::Registry).collect();
        let session = context.session(&locations.iter().collect::<Vec<_>>())?;
        let mut targets = Vec::new();
        for (reference, location) in self.reference.iter().zip(&locations) {
            let root: Root = session.open(location).await?;
            if let Some(expected) = self.expect.filter(|expected| *expected != root.digest()) {
                return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) }.into());
            }
            targets.push(Target::new(reference, root.descriptor())?);
        }
        Ok(targets)
    }
}

fn in_ci() -> bool {
    variable("CI").as_deref() == Some("true")
}

impl<'a> SignerFacts<'a> {
    fn of(service: &'a Service, outcome: &'static str) -> SignerFacts<'a> {
        // A query is nobody's business.
        let endpoint = service.endpoint.split('?').next().unwrap_or_default();
        let name = service.name.as_str();
        SignerFacts { name, endpoint, outcome, status: None, attempts: None, answer: None, error: None }
    }

    fn with(self, Accepted { status, body, attempts }: Accepted) -> SignerFacts<'a> {
        SignerFacts { status: Some(status), attempts: Some(attempts), answer: Some(body), ..self }
    }

    fn words(&self) -> String {
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        format!("{} {}{status}", self.name, self.outcome)
    }
}
