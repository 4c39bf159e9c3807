//! Clients of signing services, for `signify` and `publish`.

use std::path::Path;
use std::time::Duration;

use ocikit_publish::Recorder;
use ocikit_publish::git::GitState;
use ocikit_publish::signify::{self, Accepted, Config, Job, Service};
use ocikit_sign::Http;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::keys;

/// Returns the client for a service, with the certificate from the directory of the configuration.
pub(crate) fn client(context: &Context, config: &Path, service: &Service) -> Result<Http> {
    let path = config.parent().unwrap_or(Path::new("")).join(&service.secret);
    let secret = keys::read_secret(&path)?;
    client_with(context, &path, &secret, Some(service.timeout))
}

/// Returns a client with the certificate in a secret, which a file has.
pub(crate) fn client_with(context: &Context, path: &Path, secret: &[u8], timeout: Option<Duration>) -> Result<Http> {
    let identity = signify::identity(secret).map_err(|error| failure_of(error).in_file(path))?;
    let common = context.http_options()?;
    let (tls, total) = (common.tls.clone().identity(Some(identity)), timeout.unwrap_or(common.total));
    Http::new(&common.tls(tls).total(total)).map_err(|error| Failure::from(error).in_file(path))
}

/// Selects the services that record the tags of a job, and reads all certificates, except for a dry run. Fails if no
/// service is selected.
pub(crate) fn recorder(
    context: &Context,
    path: &Path,
    config: &Config,
    git: &GitState,
    dry_run: bool,
) -> Result<Recorder> {
    let job = git.event.job_type().map_or(Job::Local, |kind| Job::Of(kind.to_owned()));
    let sources = git.full_name();
    let sources = sources.ok_or_else(|| Failure::usage("cannot select signers: the source repository is not known"))?;
    let selected = config.select(&sources, &job).map_err(failure_of)?.services;
    let selected = if dry_run { Vec::new() } else { selected };
    let services = selected.into_iter().map(|service| Ok((service.clone(), client(context, path, service)?)));
    Ok(Recorder::new(services.collect::<Result<_>>()?))
}

/// Returns the failure for an error of a signing service.
pub(crate) fn failure_of(error: signify::Error) -> Failure {
    match error {
        signify::Error::Renewal { .. } => Failure::new(Code::Other, error),
        signify::Error::NotAccepted { .. } => Failure::new(Code::Unreachable, error),
        signify::Error::NoResponse { .. } => Failure::new(Code::Unreachable, error)
            .hint("check the endpoint of the service; if its CA is not a public one, add --ca-file"),
        _ => Failure::usage(error),
    }
}

/// The request, and the answer of each signer.
#[derive(Serialize)]
pub(crate) struct SignifyOutput<'a> {
    /// The request that each signer received.
    pub(crate) request: serde_json::Value,
    pub(crate) signers: Vec<SignerOutput<'a>>,
    /// The signers for this repository that are enabled for other types of jobs only.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) skipped: &'a [&'a str],
}

/// The answer of a signer.
#[derive(Serialize)]
pub(crate) struct SignerOutput<'a> {
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

impl<'a> SignerOutput<'a> {
    pub(crate) fn of(service: &'a Service, outcome: &'static str) -> SignerOutput<'a> {
        let (name, endpoint) = (service.name.as_str(), service.address());
        SignerOutput { name, endpoint, outcome, status: None, attempts: None, answer: None, error: None }
    }

    pub(crate) fn with(self, Accepted { status, body, attempts, .. }: Accepted) -> SignerOutput<'a> {
        SignerOutput { status: Some(status), attempts: Some(attempts), answer: Some(body), ..self }
    }

    pub(crate) fn because(self, error: &signify::Error) -> SignerOutput<'a> {
        SignerOutput { error: Some(error.to_string()), ..self }
    }

    pub(crate) fn words(&self) -> String {
        let status = self.status.map(|status| format!(" {status}")).unwrap_or_default();
        format!("{} {}{status}", self.name, self.outcome)
    }
}
