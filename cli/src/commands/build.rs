use std::io;
use std::sync::Arc;

use clap::Args;
use ocikit::layout::TarWriter;
use ocikit::{Location, Reference, Referrers, SessionOptions, Sink};
use ocikit_build::{Builder, Built, Results};

use crate::build::{
    AnnotationArguments, BuildLog, BuildReport, BuilderArguments, InputArguments, LazyBuild, OutputArguments,
    SignBuildArguments, VerifyBuildArguments, check_dockerfile, check_lazy, missing_lazy, print_calls,
    print_dockerfile, signed, with_signatures,
};
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::lazy::LazyArguments;
use crate::report::{TargetOutput, partial};
use crate::waiting::Waiting;

const EXAMPLES: &str = "\
Examples:
  ocikit build .
  ocikit build --runtime auto -o app.tar .
  ocikit build -t ghcr.io/acme/app:1 --push --lazy nydus --secret id=token,env=TOKEN .
  ocikit build --builder linux/amd64=tcp://a:1234 --builder linux/arm64=tcp://b:1234 .";

/// Build an image with BuildKit and write or push it, annotated
///
/// Uses the BuildKit at BUILDKIT_HOST, or starts one for this build. Without a Dockerfile, --runtime generates one. Reads the result from a pipe, adds annotations
/// from GIT_REPOSITORY_URL and GIT_SHA, and writes it to every output while it arrives. Nothing is visible before the
/// build has succeeded. Without CONTEXT, PLP_SOURCE_PATH, PLP_BUILD_PATH and PLP_CACHE_PATH name the directories.
/// Prints the digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Build {
    // The flags, and how they become options of the library: `cli/src/build`.
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    outputs: OutputArguments,
    #[command(flatten)]
    annotations: AnnotationArguments,
    #[command(flatten)]
    builder: BuilderArguments,
    #[command(flatten)]
    lazy: LazyArguments,
    #[command(flatten)]
    sign: SignBuildArguments,
    #[command(flatten)]
    verify: VerifyBuildArguments,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    check: bool,
    /// Print the call of buildctl and build nothing
    #[arg(long, conflicts_with = "check")]
    print: bool,
}

impl Build {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        self.build(context).await.map_err(|failure| match failure.code {
            // The caller of the builder plugin knows the exit codes 0 and 1 only.
            Code::Missing | Code::Unverified | Code::Unreachable if self.inputs.is_plugin() => {
                Failure { code: Code::Other, ..failure }
            }
            _ => failure,
        })
    }

    async fn build(&self, context: &Context) -> Result {
        let lazy = self.lazy.request(None)?;
        let mut solve = self.inputs.solve(context, self.outputs.name())?;
        if self.inputs.prints_dockerfile() {
            return print_dockerfile(context, &solve);
        }
        let options = self.builder.options(&solve.platforms, solve.needed_entitlements())?;
        if self.print {
            return print_calls(context, &solve, &options.nodes);
        }
        if self.check {
            return check_dockerfile(context, solve, &options).await;
        }
        let gates = self.verify.gates(&mut solve).await?;
        self.annotations.check(&solve, &options.nodes)?;
        let outputs = self.outputs.outputs(context, self.inputs.is_plugin())?;
        self.outputs.check(&outputs)?;
        check_lazy(&lazy, &outputs)?;
        let archive = self.outputs.archive(&self.inputs.options.platform);
        // The signatures are copied with the image.
        let referrers = if self.sign.is_given() { Referrers::All } else { Referrers::None };
        let session = SessionOptions::default().archive(archive.clone()).referrers(referrers);
        let session = context.session_with(&outputs.images.iter().collect::<Vec<_>>(), session)?;
        let key = self.sign.key(context).await?;
        let archive = archive.modified(context.epoch.unwrap_or_default());
        let stream: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", io::stdout(), archive));
        let mut targets = session.targets(&outputs.images, Some(stream)).await;
        targets.check()?;
        let mut results = Results::default();
        results.upload = match &outputs.uploaded_to {
            Some(repository) => Some(context.upload(repository).await?),
            None => None,
        };
        results.image = (!outputs.images.is_empty() && results.upload.is_none()).then(|| targets.sink());
        results.exports.clone_from(&outputs.exports);

        let builder = Builder::find(&options).await?;
        solve.buildctl = builder.buildctl().to_owned();
        let log = BuildLog::begin(context.progress.of_build());
        let built = ocikit_build::build(&solve, builder.nodes(), Some(log.clone()), &results).await;
        builder.stop().await;
        let mut built = built.map_err(|error| log.name_in(error))?;
        let root = match (&outputs.uploaded_to, built.uploaded) {
            (Some(repository), Some(digest)) => {
                let pushed = Location::Registry(Reference::digested(repository.clone(), digest));
                Some(session.open(&pushed).await?)
            }
            _ => built.root.take(),
        };
        let Some(root) = root else {
            publish_exports(built).await?;
            return BuildReport::of(&outputs).print(context);
        };
        let root = gates.check_bases(context, &root).await?;
        let root = self.annotations.apply(context, &root).await?;
        let signatures = self.sign.sign(context, key.clone(), &root, &session, &outputs.images).await?;
        let root = with_signatures(root, &signatures).await?;
        gates.check_result(&root, &outputs.images).await?;
        let mut report = BuildReport::of(&outputs);
        let (mut written, mut failures) = (Vec::new(), Vec::new());
        for (image, copied) in outputs.images.iter().zip(targets.publish(&root, &outputs.names).await) {
            match signed(context, copied, &root, &signatures, image) {
                Ok(copied) => {
                    report.targets.push(TargetOutput::of(image, &copied));
                    written.push(image.clone());
                }
                Err(failure) => failures.push((image.to_string(), failure)),
            }
        }
        let lazy = LazyBuild { context, session: &session, request: &lazy, outputs: &outputs, sign: &self.sign, key };
        let (root, lazy, missing) = lazy.make(root, &written).await;
        if failures.is_empty() {
            publish_exports(built).await?;
            self.outputs.write_files(&root, &written, &lazy).await?;
        }
        report.signatures = signatures.iter().map(|signature| signature.root.digest()).collect();
        (report.root, report.lazy) = (Some(&root), lazy);
        // The digest of an image that is nowhere is no result.
        if failures.is_empty() || !written.is_empty() {
            report.print(context)?;
        }
        if failures.is_empty() {
            return missing_lazy(missing);
        }
        failures.extend(missing.into_iter().map(|item| (item.name, Failure::new(item.code, item.message))));
        partial(failures, written.len(), "outputs")
    }
}

/// Makes the exported files visible. A pipe waits for its reader.
async fn publish_exports(built: Built) -> Result {
    let publishing = tokio::task::spawn_blocking(move || {
        let _waiting = Waiting::new();
        built.publish_exports()
    });
    let published = publishing.await.map_err(|error| Failure::new(Code::Other, error))?;
    Ok(published?)
}
