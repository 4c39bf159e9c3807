use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use ocikit::image::orphans;
use ocikit::registry::Credential;
use ocikit::{
    AnnotateOn, AnnotateOptions, Annotations, Location, Reference, Referrers, Repository, Root, Session, SessionOptions,
};
use ocikit_publish::config::{Access, Config};
use ocikit_publish::git::Event;
use ocikit_publish::report::{Report, ReportInput};
use ocikit_publish::{Destination, ImageSigner, Plan, PlanError, Published, Signing};
use ocikit_sign::{Format, SignOptions};

use super::publish_plugin::{self, PluginInput};
use super::publish_report::{ReportArguments, print_plan};
use super::publish_tags::{Job, PublishTags, TagArguments};
use super::signify::Recorder;
use crate::context::Context;
use crate::failure::{Code, FailedItem, Failure, Result};
use crate::keys::{self, SignerArguments};
use crate::sigstore::VerificationMaterialArguments;
use crate::values::key_value;

const EXAMPLES: &str = "\
Examples:
  ocikit publish app.tar --to ghcr.io/acme/app --branch main --default-branch --commit 6c22711
  ocikit publish oci:layout:1 --config config.yaml --name app --key ocikit.key
  ocikit publish app.tar --config config.yaml --name app --dry-run --event push --commit 6c22711
  ocikit publish tags --branch feature/x --commit 6c22711";

/// Publish an image under the tags of a CI job, in all its registries
///
/// The event and the git state decide repositories, tags and signatures. No tag changes before every registry has the
/// whole image. A rerun finishes what is missing. Without arguments, takes the job from the variables of the
/// container-image publisher plugin: PLP_ARTIFACT_PATH and others.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Publish {
    #[command(subcommand)]
    command: Option<PublishCommand>,
    #[command(flatten)]
    arguments: PublishArguments,
}

#[derive(Debug, Subcommand)]
enum PublishCommand {
    Tags(PublishTags),
}

#[derive(Debug, Args)]
struct PublishArguments {
    /// Archive, layout or reference to publish
    image: Option<Location>,
    /// Publish to this repository instead of those of --config; repeatable
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["name", "restricted"])]
    to: Vec<Repository>,
    /// Publish under this name below the registries of --config
    #[arg(long, value_name = "NAME", requires = "config")]
    name: Option<String>,
    /// Publish to the restricted registries of --config
    #[arg(long, requires = "config")]
    restricted: bool,
    #[command(flatten)]
    tags: TagArguments,
    /// Set this annotation on index and manifests; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,
    /// Do not copy signatures, attestations and other referrers
    #[arg(long)]
    no_referrers: bool,
    /// Print what would be published without publishing anything
    #[arg(long, short = 'n')]
    dry_run: bool,
    #[command(flatten)]
    signer: SignerArguments,
    /// Sign in this format; repeatable
    #[arg(long, value_parser = keys::format_parser(), value_name = "FORMAT", default_values = ["cosign"])]
    format: Vec<Format>,
    #[command(flatten)]
    vouchers: VerificationMaterialArguments,
    /// Publish without a signature if no signer applies
    #[arg(long)]
    allow_unsigned: bool,
    #[command(flatten)]
    report: ReportArguments,
}

/// What is about to be published.
struct Prepared {
    session: Session,
    root: Root,
    plan: Plan,
    signer: Option<ImageSigner>,
    recorder: Option<Recorder>,
    image: String,
    job: Job,
}

impl Publish {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            Some(PublishCommand::Tags(command)) => command.run(context).await,
            None => match &self.arguments.image {
                Some(image) => self.arguments.run(context, &context.expand_input(image)).await,
                None => {
                    let input = publish_plugin::input(context)?;
                    let PluginInput { artifact, destination, credential, job } = input;
                    let published =
                        self.arguments.publish(context, &artifact, job, vec![destination], Some(credential)).await;
                    published.map_err(publish_plugin::with_exit_code)
                }
            },
        }
    }
}

impl PublishArguments {
    async fn run(&self, context: &Context, image: &Location) -> Result {
        let job = self.tags.job(context)?;
        let destinations: Vec<_> = self.to.iter().cloned().map(Destination::new).collect();
        self.publish(context, image, job, destinations, None).await
    }

    /// Publishes an image; to these destinations, or without any to those of the configuration.
    async fn publish(
        &self,
        context: &Context,
        image: &Location,
        job: Job,
        destinations: Vec<Destination>,
        credential: Option<Credential>,
    ) -> Result {
        let started = Timestamp::now();
        let prepared = self.prepare(context, image, job, destinations, credential).await?;
        let Prepared { session, root, plan, signer, recorder, image, job } = &prepared;
        if self.dry_run {
            return print_plan(context, plan, root, &ocikit_publish::dry_run(session, root, plan).await?);
        }
        let published = ocikit_publish::publish(session, root, plan, signer.as_ref()).await?;
        let mut input = ReportInput::default();
        input.image.clone_from(image);
        input.platforms = platforms(root).await?;
        let recorded = match recorder {
            Some(recorder) => recorder.record(&published).await,
            None => Ok(Vec::new()),
        };
        input.recorded_by = recorded.as_ref().map(Clone::clone).unwrap_or_default();
        (input.started, input.finished) = (started, Timestamp::now());
        let report = Report::of(&published, plan, &input);
        self.report.write(context, job.system, &report)?;
        outcome(&published).and(recorded.map(|_| ()))
    }

    async fn prepare(
        &self,
        context: &Context,
        image: &Location,
        job: Job,
        destinations: Vec<Destination>,
        credential: Option<Credential>,
    ) -> Result<Prepared> {
        let has_key = self.signer.is_given() || self.vouchers.flags().any(|(_, is_given)| is_given);
        let (mut plan, name) = self.plan(&job, destinations, has_key)?;
        let recorder = self.recorder(context, &job, &mut plan)?;
        let locations: Vec<_> = plan.destinations.iter().map(|destination| location(&destination.push)).collect();
        let all: Vec<_> = [image].into_iter().chain(&locations).collect();
        let referrers = if self.no_referrers { Referrers::None } else { Referrers::All };
        let options = SessionOptions::default().referrers(referrers);
        let session = match credential {
            Some(credential) => {
                let credentials: Vec<_> = locations.iter().map(|location| (location, credential.clone())).collect();
                context.session_as(&all, &credentials, publish_plugin::CREDENTIALS, options)?
            }
            None => context.session_with(&all, options)?,
        };
        let (root, present) = session.open_present(image).await.map_err(publish_plugin::of_artifact)?;
        crate::transfer::say_present(context, image, present.as_ref());
        let root = self.annotated(context, root, &job.config).await?;
        let signer = match plan.signing == Signing::Wanted && has_key {
            true => Some(self.image_signer(context).await?),
            false => None,
        };
        if plan.signing == Signing::Wanted && signer.is_none() && !self.dry_run {
            // The services sign after the tags are there.
            plan.signing = Signing::NoSigner;
        }
        Ok(Prepared { session, root, plan, signer, recorder, image: name, job })
    }

    /// Returns the plan and the name of the image.
    fn plan(&self, job: &Job, destinations: Vec<Destination>, has_key: bool) -> Result<(Plan, String)> {
        let Job { config, git, tags, allow_back, .. } = job;
        let mut plan = match destinations.is_empty() {
            true if self.tags.config.is_none() => {
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
                if has_key {
                    plan.signing = match git.event {
                        Event::PullRequest | Event::MergeGroup => Signing::NotForEvent(git.event),
                        _ => Signing::Wanted,
                    };
                }
                plan
            }
        };
        plan.allow_back = *allow_back;
        let is_required = config.rules.get(&git.event).is_some_and(|rule| rule.sign);
        if plan.signing == Signing::NoSigner && is_required && !self.allow_unsigned {
            return Err(ocikit_publish::PublishError::NoSigner.into());
        }
        let name = match (&self.name, &config.name) {
            (Some(name), _) | (None, Some(name)) => name.clone(),
            (None, None) => plan.destinations.first().map(|first| first.read.path().to_owned()).unwrap_or_default(),
        };
        Ok((plan, name))
    }

    /// Returns the signing services that record the tags, if the event asks for it.
    fn recorder(&self, context: &Context, job: &Job, plan: &mut Plan) -> Result<Option<Recorder>> {
        let (Some(config), Some(path)) = (&job.config.signify, &self.tags.config) else { return Ok(None) };
        if plan.signing != Signing::Wanted {
            return Ok(None);
        }
        match Recorder::of(context, path, config, &job.git, self.dry_run) {
            Ok(recorder) => Ok(Some(recorder)),
            Err(failure) if self.allow_unsigned => {
                context.output.say(format!("warning: {}; publishing without these signatures", failure.message));
                Ok(None)
            }
            Err(failure) => Err(failure.hint("add a signer to `sign-config`, or accept it with --allow-unsigned")),
        }
    }

    async fn annotated(&self, context: &Context, root: Root, config: &Config) -> Result<Root> {
        let mut set: Annotations = config.annotations.clone();
        for (key, value) in &self.annotation {
            set.insert(key.clone(), value.clone());
        }
        if set.is_empty() {
            return Ok(root);
        }
        let set = set.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let options = AnnotateOptions::default().set(set).on(AnnotateOn::ManifestsAndIndex);
        let after = ocikit::image::annotate(&root, &options).await?;
        let orphaned = orphans(&root, &after).await?.len();
        if orphaned > 0 {
            context.output.say(format!(
                "warning: {orphaned} signatures or other referrers do not apply to the annotated image and are not published"
            ));
        }
        Ok(after)
    }

    async fn image_signer(&self, context: &Context) -> Result<ImageSigner> {
        let (signer, material) = self.vouchers.signer(&self.signer, context, self.dry_run).await?;
        let mut formats = self.format.clone();
        formats.sort_unstable();
        formats.dedup();
        let options = SignOptions::new(formats, keys::now(context.epoch)?).material(material);
        Ok(ImageSigner::new(Arc::clone(&signer), options))
    }
}

fn location(repository: &Repository) -> Location {
    Location::Registry(Reference::tagged(repository.clone(), ocikit::Tag::latest()))
}

/// Returns the platforms of an image or index, without attestation manifests.
async fn platforms(root: &Root) -> Result<Vec<String>> {
    let found = match root {
        Root::Index(index) => index.platforms().await?,
        Root::Image(image) => vec![image.config().await?.platform().cloned()],
        Root::Other(_) => Vec::new(),
    };
    let names = found.into_iter().flatten().map(|platform| platform.to_string());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("unknown")).collect();
    names.dedup();
    Ok(names)
}

/// Returns the failure if a tag does not point to the image.
fn outcome(published: &Published) -> Result {
    use ocikit_publish::TagState;
    let failed = published.failed().map(|(repository, tag)| {
        let name = format!("{repository}:{}", tag.planned.tag);
        let (code, message) = match &tag.state {
            TagState::Failed(error) => (Code::Other, ocikit::spec::with_causes(error)),
            TagState::Moved(Some(digest)) => (Code::Unverified, format!("it points to {digest}")),
            _ => (Code::Unverified, "it does not exist".to_owned()),
        };
        FailedItem { name, code, message }
    });
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!("cannot publish under {} tags; the others point to the image", failed.len());
    Err(Failure { failed, ..Failure::new(Code::Partial, message) }
        .hint("run the same command again; it finishes what is missing"))
}
