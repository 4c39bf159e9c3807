use clap::Args;
use ocikit::registry::Credential;
use ocikit::{Location, Reference, Repository, Session, SessionOptions};
use ocikit_publish::config::Access;
use ocikit_publish::login::{Exchange, ExchangeKeychain, ExchangeKind};
use ocikit_publish::{Destination, Plan, PlanError, PublishError, Recorder, Signing};
use ocikit_sign::Http;

use super::plugin;
use super::tags::Job;
use crate::context::Context;
use crate::environment::variables;
use crate::failure::{Failure, Result};

/// Where images go.
#[derive(Debug, Args)]
pub(crate) struct TargetArguments {
    /// Publish to this repository instead of those of --config; repeatable
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["name", "restricted"])]
    pub(crate) to: Vec<Repository>,
    /// Publish under this name below the registries of --config
    #[arg(long, value_name = "NAME", requires = "config")]
    name: Option<String>,
    /// Publish to the restricted registries of --config
    #[arg(long, requires = "config")]
    restricted: bool,
    /// Log in to the registries with the identity of the CI job
    ///
    /// KIND is github, gitlab, ecr, ecr-public, artifact-registry or acr; by default the host of each registry decides.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_parser = exchange_kind)]
    exchange: Option<ExchangeBy>,
    /// Also sign the attestations that BuildKit stored in the index
    #[arg(long)]
    attest_build: bool,
    /// Also sign a statement about the publication: repository, tags, commit
    #[arg(long)]
    attest_published: bool,
    /// Publish without a signature if no signer applies
    #[arg(long)]
    pub(crate) allow_unsigned: bool,
}

/// How tokens are exchanged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ExchangeBy {
    Host,
    Kind(ExchangeKind),
}

/// Parses the value of `--exchange`.
pub(crate) fn exchange_kind(text: &str) -> std::result::Result<ExchangeBy, ocikit_publish::login::UnknownKind> {
    match text {
        "auto" => Ok(ExchangeBy::Host),
        name => name.parse().map(ExchangeBy::Kind),
    }
}

impl ExchangeBy {
    /// Reads what a registry needs from the environment of the job.
    pub(crate) fn of(self, registry: &ocikit::Registry) -> Result<Exchange> {
        let kind = match self {
            ExchangeBy::Host => None,
            ExchangeBy::Kind(kind) => Some(kind),
        };
        let read = |path: &str| crate::file::read_named(path);
        Exchange::read(kind, registry, &variables(), &read).map_err(|error| {
            let failure = Failure::usage(&error);
            match error {
                ocikit_publish::login::ExchangeError::UnknownRegistry { .. } => {
                    failure.hint("name the kind: --exchange=KIND, or log in with `ocikit login`")
                }
                _ => failure,
            }
        })
    }
}

/// A plan, with the name of the image and the services that record the tags.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) name: String,
    pub(crate) recorder: Option<Recorder>,
}

impl TargetArguments {
    /// Returns the plan: for these destinations, or without any for those of the configuration.
    pub(crate) fn plan(
        &self,
        context: &Context,
        job: &Job,
        destinations: Vec<Destination>,
        has_key: bool,
        dry_run: bool,
    ) -> Result<Planned> {
        let Job { config, path, git, tags, allow_back, .. } = job;
        let mut plan = match destinations.is_empty() {
            true if path.is_none() => {
                return Err(Failure::usage("cannot publish: no repository is given")
                    .hint("add --to REPOSITORY, or --config FILE with --name NAME"));
            }
            true => {
                let access = if self.restricted { Access::Restricted } else { Access::Open };
                let has_signer = has_key || config.signify.is_some();
                let plan = Plan::of(config, git, self.name.as_deref(), access, tags.clone(), has_signer);
                plan.map_err(|error| {
                    let failure = Failure::usage(&error);
                    match error {
                        PlanError::NoName => failure.hint("add --name NAME, or `name` in the configuration"),
                        _ => failure,
                    }
                })?
            }
            false => {
                let mut plan = Plan::new(git.event, destinations, tags.clone());
                plan.source = git.clone();
                if has_key { plan.signed_by_event() } else { plan }
            }
        };
        plan.allow_back = *allow_back;
        plan.attest.build |= self.attest_build;
        plan.attest.published |= self.attest_published;
        let is_required = config.rules.get(&git.event).is_some_and(|rule| rule.sign);
        if plan.signing == Signing::NoSigner && is_required && !self.allow_unsigned {
            return Err(PublishError::NoSigner.into());
        }
        if plan.attest.any() && !has_key {
            return Err(Failure::usage("cannot publish: attestations are asked for, and no key signs them")
                .hint("add --key, or the flags of keyless signing"));
        }
        let recorder = self.recorder(context, job, &plan, dry_run)?;
        if plan.signing == Signing::Wanted && !has_key && !dry_run {
            // The services sign after the tags are there.
            plan.signing = Signing::NoSigner;
        }
        let name = match (&self.name, &config.name) {
            (Some(name), _) | (None, Some(name)) => name.clone(),
            (None, None) => plan.destinations.first().map(|first| first.read.path().to_owned()).unwrap_or_default(),
        };
        Ok(Planned { plan, name, recorder })
    }

    /// Returns the signing services that record the tags, if the event asks for it.
    fn recorder(&self, context: &Context, job: &Job, plan: &Plan, dry_run: bool) -> Result<Option<Recorder>> {
        let (Some(config), Some(path)) = (&job.config.signify, &job.path) else { return Ok(None) };
        if plan.signing != Signing::Wanted {
            return Ok(None);
        }
        match crate::signify::recorder(context, path, config, &job.git, dry_run) {
            Ok(recorder) => Ok(Some(recorder)),
            Err(failure) if self.allow_unsigned => {
                context.output.say(format!("warning: {}; publishing without these signatures", failure.message));
                Ok(None)
            }
            Err(failure) => Err(failure.hint("add a signer to `sign-config`, or accept it with --allow-unsigned")),
        }
    }

    /// Returns a session for the destinations of a plan and for an image to read.
    pub(crate) fn session(
        &self,
        context: &Context,
        plan: &Plan,
        image: Option<&Location>,
        credential: Option<Credential>,
        options: SessionOptions,
    ) -> Result<Session> {
        let locations: Vec<_> = plan.destinations.iter().map(|destination| location(&destination.push)).collect();
        let all: Vec<_> = image.into_iter().chain(&locations).collect();
        match (credential, self.exchange) {
            (Some(credential), _) => {
                let credentials: Vec<_> = locations.iter().map(|location| (location, credential.clone())).collect();
                context.session_as(&all, &credentials, plugin::CREDENTIALS, options)
            }
            (None, Some(by)) => {
                let mut exchanges: Vec<Exchange> = Vec::new();
                for destination in &plan.destinations {
                    let registry = destination.push.registry();
                    if !exchanges.iter().any(|known| known.registry() == registry) {
                        exchanges.push(by.of(registry)?);
                    }
                }
                let keychain = ExchangeKeychain::new(exchanges, Http::new(&context.http_options()?)?);
                context.session_by(&all, std::sync::Arc::new(keychain), options)
            }
            (None, None) => context.session_with(&all, options),
        }
    }
}

fn location(repository: &Repository) -> Location {
    Location::Registry(Reference::tagged(repository.clone(), ocikit::Tag::latest()))
}
