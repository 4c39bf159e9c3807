//! The arguments that say which tags an image gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ocikit_publish::ci::{Environment, System};
use ocikit_publish::config::Config;
use ocikit_publish::git::{Event, GitState};
use ocikit_publish::tags::{AllowedEnvironment, NamedTag, TagError, TagSet, compute, decode_base64};

use crate::context::Context;
use crate::environment::variables;
use crate::failure::{Failure, Result};
use crate::{file, keys};

/// Which tags an image gets.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tags and git state")]
pub(crate) struct TagArguments {
    /// Read registries, tags and signers from this file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Add this tag, a template with an optional name; repeatable
    ///
    /// Fields: .CommitSHA, .ShortSHA, .PRNumber, .Date, .Time, .Branch, .Tag, .Event, and .Env "NAME".
    #[arg(long, value_name = "[NAME=]TEMPLATE")]
    tag: Vec<NamedTag>,
    /// Add the tags in this text in base64: a JSON array, or tags with commas
    #[arg(long, value_name = "TEXT")]
    tag_base64: Option<String>,
    /// Add this version, and `latest` if it is the newest release
    #[arg(long, value_name = "VERSION")]
    image_version: Option<String>,
    /// Add tags for branch, pull request and git tag by the fixed scheme
    ///
    /// This is the default if no other tags are asked for.
    #[arg(long)]
    git_tags: bool,
    /// Also tag a release with its git tag unchanged
    #[arg(long)]
    keep_v: bool,
    /// Also move `latest` to the newest release
    #[arg(long)]
    latest_release: bool,
    /// Allow templates to read this environment variable; repeatable
    #[arg(long, value_name = "NAME")]
    allow_env: Vec<String>,
    /// Move tags such as `1` and `latest` back to an older version
    #[arg(long)]
    allow_moving_back: bool,
    /// Use this event and the flags below instead of the state of the CI job
    #[arg(long, value_name = "EVENT", value_parser = event)]
    event: Option<Event>,
    /// Publish this commit
    #[arg(long, value_name = "SHA")]
    commit: Option<String>,
    /// Publish this branch
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// The branch is the default branch
    #[arg(long, requires = "branch")]
    default_branch: bool,
    /// Publish this git tag
    #[arg(long, value_name = "NAME")]
    git_tag: Option<String>,
    /// Publish this pull or merge request
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pull_request: Option<u64>,
}

fn event(text: &str) -> Result<Event, String> {
    let found = Event::ALL.into_iter().find(|event| event.name() == text);
    found.ok_or_else(|| format!("it is none of {}", Event::ALL.map(Event::name).join(", ")))
}

/// A job: its configuration and its tags.
pub(crate) struct Job {
    pub(crate) config: Config,
    /// The file of the configuration.
    pub(crate) path: Option<PathBuf>,
    pub(crate) system: System,
    pub(crate) git: GitState,
    pub(crate) tags: TagSet,
    pub(crate) allow_back: bool,
}

impl TagArguments {
    /// Reads the configuration and the git state, and computes the tags.
    pub(crate) fn job(&self, context: &Context) -> Result<Job> {
        let config = self.config()?;
        let (system, git) = self.git()?;
        let mut request = config.tag_request();
        request.version.clone_from(&self.image_version);
        request.named.extend(self.tag.iter().cloned());
        request.more =
            self.tag_base64.as_deref().map(decode_base64).transpose().map_err(failure_of)?.unwrap_or_default();
        if self.git_tags || self.keep_v || self.latest_release || request.is_empty() {
            request.fixed.get_or_insert_default();
        }
        if let Some(scheme) = &mut request.fixed {
            scheme.keep_v |= self.keep_v;
            scheme.latest_release |= self.latest_release;
        }
        let allowed = config.allowed_environment.iter().chain(&self.allow_env).cloned();
        let environment = AllowedEnvironment::new(allowed, &variables());
        let tags = compute(&request, &git, &environment, keys::now(context.epoch)?).map_err(failure_of)?;
        let allow_back = config.allow_back || self.allow_moving_back;
        Ok(Job { config, path: self.config.clone(), system, git, tags, allow_back })
    }

    fn config(&self) -> Result<Config> {
        let Some(path) = &self.config else { return Ok(Config::default()) };
        Config::parse(&file::read_text(path)?)
            .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
    }

    fn git(&self) -> Result<(System, GitState)> {
        let environment = variables();
        let (system, mut git) = match self.event {
            Some(event) => {
                let mut git = GitState::default();
                git.event = event;
                (System::detect(&environment).unwrap_or_default(), git)
            }
            None => state_of_job(&environment)?,
        };
        if self.branch.is_some() {
            git.branch.clone_from(&self.branch);
            git.is_default_branch = self.default_branch;
        }
        git.tag = self.git_tag.clone().or(git.tag);
        git.pull_request = self.pull_request.or(git.pull_request);
        if let Some(commit) = &self.commit {
            (git.base_sha, git.head_sha) = (Some(commit.clone()), None);
        }
        if self.event.is_none() && self.pull_request.is_some() && git.event == Event::Local {
            git.event = Event::PullRequest;
        }
        Ok((system, git))
    }
}

/// Reads the state of the CI job from the environment.
pub(crate) fn state_of_job(environment: &BTreeMap<String, String>) -> Result<(System, GitState)> {
    let read = |path: &str| file::read_named(path);
    let Environment { system, git, .. } = Environment::read(environment, &read)
        .map_err(|error| Failure::usage(error).hint("give the state of the job with --event, --commit and --branch"))?;
    Ok((system, git))
}

/// Returns the failure for tags that cannot be computed.
pub(crate) fn failure_of(error: TagError) -> Failure {
    let failure = Failure::usage(&error);
    match error {
        TagError::NoContext => {
            failure.hint("add --branch, --git-tag or --pull-request, with --commit; or add --tag TAG")
        }
        TagError::NoCommit { .. } => failure.hint("add --commit SHA"),
        TagError::Template { source, .. }
            if matches!(source.problem, ocikit_publish::template::TemplateProblem::NotAllowed(_)) =>
        {
            failure.hint("add --allow-env NAME if everyone may know its value")
        }
        _ => failure,
    }
}
