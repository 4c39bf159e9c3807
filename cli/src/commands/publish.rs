use clap::{Args, Subcommand};
use jiff::Timestamp;
use ocikit::registry::Credential;
use ocikit::{Location, Referrers, SessionOptions};
use ocikit_publish::report::{Report, ReportInput};
use ocikit_publish::{Destination, ImageSigner, Published, Recorded, Recorder, Signing, platforms};

use super::publish_tags::PublishTags;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::publish::lazy;
use crate::publish::{
    ImageArguments, Job, Planned, PluginInput, ReportArguments, TagArguments, TargetArguments, outcome, plugin_input,
    print_plan, with_exit_code,
};
use crate::signing::SigningArguments;

const EXAMPLES: &str = "\
Examples:
  ocikit publish app.tar --to ghcr.io/acme/app --branch main --default-branch --commit 6c22711
  ocikit publish oci:layout:1 --config config.yaml --name app --key ocikit.key
  ocikit publish --build . --platform linux/amd64,linux/arm64 --config config.yaml --name app
  ocikit publish tags --branch feature/x --commit 6c22711";

/// Publish an image under the tags of a CI job, in all its registries
///
/// The event and the git state decide repositories, tags and signatures. No tag changes before every registry has the
/// whole image. A rerun finishes what is missing. Without arguments, takes the job from the variables of the
/// container-image publisher plugin: PLP_ARTIFACT_PATH and others.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    mut_group("SolveArguments", |group| group.requires("build")),
    mut_group("GenerateArguments", |group| group.requires("build")),
    mut_group("BuilderArguments", |group| group.requires("build")),
)]
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
    // The flags, and how they become values of the library: `cli/src/publish`.
    #[command(flatten)]
    image: ImageArguments,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    tags: TagArguments,
    /// Print what would be published without publishing anything
    #[arg(long, short = 'n')]
    dry_run: bool,
    #[command(flatten)]
    signing: SigningArguments,
    #[command(flatten)]
    report: ReportArguments,
}

impl Publish {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let Publish { command, arguments } = self;
        let ImageArguments { image, build, .. } = &arguments.image;
        match (command, image, build) {
            (Some(PublishCommand::Tags(command)), ..) => command.run(context).await,
            (None, None, None) => {
                let PluginInput { artifact, destination, credential, job } = plugin_input(context)?;
                let published = arguments.publish(context, Some(&artifact), job, vec![destination], Some(credential));
                published.await.map_err(with_exit_code)
            }
            (None, image, _) => {
                let image = image.as_ref().map(|image| context.expand_input(image));
                let destinations = arguments.target.to.iter().cloned().map(Destination::new).collect();
                let job = arguments.tags.job(context)?;
                arguments.publish(context, image.as_ref(), job, destinations, None).await
            }
        }
    }
}

impl PublishArguments {
    /// Publishes an image or, without one, a build: to these destinations, or without any to those of the configuration.
    async fn publish(
        &self,
        context: &Context,
        image: Option<&Location>,
        job: Job,
        destinations: Vec<Destination>,
        credential: Option<Credential>,
    ) -> Result {
        let started = Timestamp::now();
        self.report.check(job.system)?;
        let has_key = self.signing.is_given();
        self.signing.check_flags(&[])?;
        let planned = self.target.plan(context, &job, destinations, has_key, self.dry_run)?;
        let Planned { mut plan, name, recorder } = planned;
        if plan.attest.build && self.image.formats(&job).len() > 1 {
            // The statements name one image for each platform.
            return Err(Failure::usage("cannot publish: the attestations of a build apply to one layer format only")
                .hint("leave out --attest-build, or give one --layer-format"));
        }
        let referrers = if self.image.no_referrers { Referrers::None } else { Referrers::All };
        let options = SessionOptions::default().referrers(referrers);
        let session = self.target.session(context, &plan, image, credential, options)?;
        let lazy_request = self.image.lazy.request(Some(&job.config.lazy))?;
        let tags: Vec<_> = plan.tags.tags.iter().map(|planned| planned.tag.clone()).collect();
        lazy_request.check_tags(&tags).map_err(crate::lazy::failure_of)?;
        if self.dry_run && image.is_none() {
            return print_plan(context, &plan, &lazy_request, None, &[]);
        }
        let opened = self.image.open(context, &session, image, &job).await?;
        let root = &opened.root;
        plan.annotated_from.clone_from(&opened.annotated_from);
        if self.dry_run {
            let found = ocikit_publish::dry_run(&session, root, &plan).await?;
            return print_plan(context, &plan, &lazy_request, Some(root), &found);
        }
        let (root, mut lazy_reports) = lazy::in_index(context, &lazy_request, root).await;
        let root = &root;
        if root.digest() != opened.root.digest() {
            // SOCI annotates the images.
            plan.annotated_from.extend(lazy::images(&opened.root));
        }
        let signer = match has_key && (plan.signing == Signing::Wanted || plan.attest.any()) {
            true => {
                let (by, options) = self.signing.method(context, false).await?;
                Some(ImageSigner::by(by, options))
            }
            false => None,
        };
        let mut input = ReportInput::default();
        (input.image, input.platforms, input.started) = (name, platforms(root).await?, started);
        let published = match ocikit_publish::publish(&session, root, &plan, signer.as_ref()).await {
            Ok(published) => published,
            Err(error) => {
                input.finished = Timestamp::now();
                let report = Report::failed(root.descriptor(), &plan, &input, &error);
                self.report.write_failed(context, job.system, &report);
                return Err(error.into());
            }
        };
        let beside = (root, &plan, &published);
        let (images, reports) = lazy::beside(context, &session, &lazy_request, beside, signer.as_ref()).await;
        lazy_reports.extend(reports);
        let all = [&published].into_iter().chain(images.iter().filter_map(|image| image.published.as_ref()));
        let (recorded, unrecorded) = match record(recorder.as_ref(), all).await {
            Ok(recorded) => (recorded, None),
            Err(failure) => (Recorded::default(), Some(failure)),
        };
        input.recorded_by.clone_from(&recorded.accepted);
        input.lazy.clone_from(&lazy_reports);
        input.finished = Timestamp::now();
        let report = Report::of(&published, &plan, &input);
        self.report.write(context, job.system, &report)?;
        outcome(&published)?;
        unrecorded.map_or(Ok(()), Err)?;
        lazy::outcome(&lazy_reports)?;
        let accepted = recorded.accepted.len();
        let failed = recorded.failed.into_iter().map(|(name, error)| (name, crate::signify::failure_of(error)));
        crate::report::partial(failed.collect::<Vec<(String, Failure)>>(), accepted, "signers")
    }
}

/// Records the tags of the image, and of the lazily pulled ones, with the services.
async fn record(recorder: Option<&Recorder>, published: impl Iterator<Item = &Published>) -> Result<Recorded> {
    let mut all = Recorded::default();
    let Some(recorder) = recorder else { return Ok(all) };
    for published in published {
        let recorded = recorder.record(published).await.map_err(crate::signify::failure_of)?;
        all.accepted.extend(recorded.accepted);
        all.failed.extend(recorded.failed);
    }
    all.accepted.sort();
    all.accepted.dedup();
    Ok(all)
}
