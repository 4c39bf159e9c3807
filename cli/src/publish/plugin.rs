//! `publish` without arguments: the environment and the exit codes of the container-image publisher plugin.

use ocikit::registry::Credential;
use ocikit::{Error, Location};
use ocikit_publish::Destination;
use ocikit_publish::ci::System;
use ocikit_publish::config::Config;
use ocikit_publish::plugin::{PluginError, PluginJob};
use ocikit_publish::tags::{AllowedEnvironment, FixedScheme, TagRequest, compute};

use super::tags::{Job, failure_of};
use crate::context::Context;
use crate::environment::variables;
use crate::failure::{Code, Failure, Result};
use crate::keys;

/// Where the credentials come from.
pub(crate) const CREDENTIALS: &str = "PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD";

/// The exit codes of the plugin.
const FAILED: u8 = 1;
const DENIED: u8 = 2;
const BROKEN_ARTIFACT: u8 = 3;
const WRONG_ENVIRONMENT: u8 = 4;

/// What the environment asks for.
pub(crate) struct PluginInput {
    pub(crate) artifact: Location,
    pub(crate) destination: Destination,
    pub(crate) credential: Credential,
    pub(crate) job: Job,
}

/// Reads the environment.
pub(crate) fn input(context: &Context) -> Result<PluginInput> {
    let environment = variables();
    if !PluginJob::is_meant(&environment) {
        return Err(Failure::usage("cannot publish: no image is given")
            .hint("give an archive, a layout or a reference; `ocikit publish --help` has examples"));
    }
    let plugin = PluginJob::read(&environment).map_err(|error| {
        let failure = Failure::usage(&error);
        let failure = match error {
            PluginError::Missing(name) => failure.hint(format_args!("set {name}")),
            _ => failure,
        };
        exit(failure, WRONG_ENVIRONMENT)
    })?;
    let mut request = TagRequest::default();
    request.fixed = Some(FixedScheme::default());
    let now = keys::now(context.epoch).map_err(|failure| exit(failure, WRONG_ENVIRONMENT))?;
    let tags = compute(&request, &plugin.git, &AllowedEnvironment::default(), now);
    let tags = tags.map_err(|error| exit(failure_of(error), WRONG_ENVIRONMENT))?;
    let system = System::detect(&environment).unwrap_or_default();
    let job = Job { config: Config::default(), path: None, system, git: plugin.git, tags, allow_back: false };
    let artifact = Location::Archive { path: plugin.artifact, name: ocikit::Name::Only };
    Ok(PluginInput { artifact, destination: Destination::new(plugin.repository), credential: plugin.credential, job })
}

/// Gives a failure of publishing the exit code of the plugin.
pub(crate) fn with_exit_code(failure: Failure) -> Failure {
    let code = match (failure.exit, failure.code) {
        (Some(code), _) => code,
        (None, Code::Denied) => DENIED,
        (None, _) => FAILED,
    };
    exit(failure, code)
}

/// Returns the failure for an artifact that cannot be opened. Only the plugin has an exit code for it.
pub(crate) fn of_artifact(error: Error) -> Failure {
    let failure = Failure::from(error);
    match PluginJob::is_meant(&variables()) {
        true => exit(failure, BROKEN_ARTIFACT),
        false => failure,
    }
}

fn exit(failure: Failure, code: u8) -> Failure {
    Failure { exit: Some(code), ..failure }
}
