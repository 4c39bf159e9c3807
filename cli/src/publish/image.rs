use clap::Args;
use ocikit::{Location, Root, Session};
use ocikit_publish::{BuildError, BuiltImage, Changes, LayerFormat, build_arguments, change};

use super::plugin;
use super::tags::Job;
use crate::build::{BuilderArguments, GenerateArguments, SolveArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::lazy::{LazyArguments, say_warnings};
use crate::values::key_value;

/// What is published: an image that exists, or a build.
#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    /// Archive, layout or reference to publish
    #[arg(conflicts_with_all = ["build", "SolveArguments", "GenerateArguments", "BuilderArguments", "export_tags"])]
    pub(crate) image: Option<Location>,
    /// Set this annotation on index and manifests; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,
    /// Offer the layers in this format; repeatable
    ///
    /// gzip, estargz, zstd, zstd-chunked, nydus or soci. With several, the index lists each image once in each format, gzip
    /// first.
    #[arg(long, value_name = "FORMAT")]
    layer_format: Vec<LayerFormat>,
    #[command(flatten)]
    pub(crate) lazy: LazyArguments,
    /// Do not copy signatures, attestations and other referrers
    #[arg(long)]
    pub(crate) no_referrers: bool,
    /// Build the image from this directory, git URL or tar URL
    ///
    /// The build gets the commit as the build argument BUILD_COMMIT_SHA.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) build: Option<String>,
    /// Give the build each tag as the build argument TAG_NAME
    #[arg(long, requires = "build")]
    export_tags: bool,
    #[command(flatten)]
    generate: GenerateArguments,
    #[command(flatten)]
    solve: SolveArguments,
    #[command(flatten)]
    builder: BuilderArguments,
}

/// An image to publish. A build is in a temporary directory, which is removed when this is dropped.
pub(crate) struct Opened {
    pub(crate) root: Root,
    /// The digests that its images had before they were changed.
    pub(crate) annotated_from: Vec<ocikit::Digest>,
    _built: Option<BuiltImage>,
}

impl ImageArguments {
    /// Opens an image or, without one, builds it; then sets the annotations and converts the layers.
    pub(crate) async fn open(
        &self,
        context: &Context,
        session: &Session,
        image: Option<&Location>,
        job: &Job,
    ) -> Result<Opened> {
        let (root, built) = match image {
            Some(image) => {
                let (root, present) = session.open_present(image).await.map_err(plugin::of_artifact)?;
                crate::pipe::say_present(context, image, present.as_ref());
                (root, None)
            }
            None => {
                let built = self.build(context, session, job).await?;
                (built.root.clone(), Some(built))
            }
        };
        let mut changes = Changes::default();
        changes.annotations = job.config.annotations.clone();
        for (key, value) in &self.annotation {
            changes.annotations.insert(key.clone(), value.clone());
        }
        changes.formats = self.formats(job).to_vec();
        changes.directory = Some(std::env::temp_dir());
        let changed = change(&root, &changes).await?;
        say_warnings(context, &changed.warnings);
        if changed.orphans > 0 {
            context.output.say(format!(
                "warning: {} signatures or other referrers do not apply to the changed image and are not published",
                changed.orphans
            ));
        }
        Ok(Opened { root: changed.root, annotated_from: changed.annotated_from, _built: built })
    }

    /// Returns the formats of the layers: those of the flags, or of the configuration.
    pub(crate) fn formats<'a>(&'a self, job: &'a Job) -> &'a [LayerFormat] {
        if self.layer_format.is_empty() { &job.config.formats } else { &self.layer_format }
    }

    async fn build(&self, context: &Context, session: &Session, job: &Job) -> Result<BuiltImage> {
        if self.generate.print_dockerfile {
            return Err(Failure::usage("cannot publish a Dockerfile that is only printed")
                .hint("use `ocikit build --print-dockerfile`"));
        }
        let mut solve = self.solve.solve(context, &self.generate, self.build.as_deref(), None)?;
        let added = build_arguments(&job.tags, &job.git, self.export_tags, &solve.build_arguments);
        solve.build_arguments.extend(added);
        let options = self.builder.options(&solve.platforms, solve.needed_entitlements())?;
        let built = ocikit_publish::build(session, &solve, &options, context.progress.of_build()).await;
        built.map_err(|error| match error {
            BuildError::Build(error) => error.into(),
            BuildError::Store(error) => error.into(),
            error => Failure::new(crate::failure::Code::Other, error),
        })
    }
}
