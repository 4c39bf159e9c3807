use std::io;
use std::sync::Arc;

use clap::Args;
use ocikit::layout::TarWriter;
use ocikit::{Location, Root, SessionOptions, Sink};
use ocikit_build::{Builder, Built, Dockerfile, Export, Node, Results, Solve};
use serde::Serialize;

use crate::build::{
    AnnotationArguments, BuildLog, BuilderArguments, InputArguments, OutputArguments, Outputs, SignBuildArguments,
    VerifyBaseArguments,
};
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::{self, Lines};
use crate::report::{TargetOutput, partial, say};

const EXAMPLES: &str = "\
Examples:
  ocikit build .
  ocikit build --runtime auto -o app.tar .
  ocikit build -t ghcr.io/acme/app:1 --push --secret id=token,env=TOKEN .
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
    sign: SignBuildArguments,
    #[command(flatten)]
    verify: VerifyBaseArguments,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    check: bool,
    /// Print the call of buildctl and build nothing
    #[arg(long, conflicts_with = "check")]
    print: bool,
}

#[derive(Serialize)]
struct BuildOutput {
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<ocikit::Digest>,
    /// The size of the archive in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<TargetOutput>,
    /// The directories and tar files with the exported files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exports: Vec<String>,
    /// The digests of the signatures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signatures: Vec<ocikit::Digest>,
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
        let mut solve = self.inputs.solve(context, self.outputs.name())?;
        if self.inputs.prints_dockerfile() {
            return print_dockerfile(context, &solve);
        }
        let options = self.builder.options(&solve.platforms, solve.needed_entitlements())?;
        if self.print {
            return print(context, &solve, &options.nodes);
        }
        if self.check {
            let builder = Builder::find(&options).await?;
            solve.buildctl = builder.buildctl().to_owned();
            let answer = match builder.nodes() {
                [node, ..] => ocikit_build::ask(&solve, node, "lint").await,
                [] => Ok(String::new()),
            };
            builder.stop().await;
            return report_lint(context, &answer?);
        }
        let gate = self.verify.gate(&mut solve).await?;
        let outputs = self.outputs.outputs(context, self.inputs.is_plugin())?;
        let archive = self.outputs.archive(&self.inputs.options.platform);
        let session = SessionOptions::default().archive(archive.clone());
        let session = context.session_with(&outputs.images.iter().collect::<Vec<_>>(), session)?;
        let key = self.sign.key(context).await?;
        let archive = archive.modified(context.epoch.unwrap_or_default());
        let stream: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", io::stdout(), archive));
        let mut targets = session.targets(&outputs.images, Some(stream)).await;
        targets.check()?;
        let mut results = Results::default();
        results.image = (!outputs.images.is_empty()).then(|| targets.sink());
        results.exports.clone_from(&outputs.exports);

        let builder = Builder::find(&options).await?;
        solve.buildctl = builder.buildctl().to_owned();
        let log = BuildLog::begin(context.progress.of_build());
        let built = ocikit_build::build(&solve, builder.nodes(), Some(log.clone()), &results).await;
        builder.stop().await;
        let mut built = built.map_err(|error| with_log(error, &log))?;
        let Some(root) = built.root.take() else {
            built.publish_exports()?;
            return report(context, &outputs, None, Vec::new(), Vec::new());
        };
        let root = match &gate {
            Some(gate) => gate.check(context, &root).await?,
            None => root,
        };
        let root = self.annotations.apply(context, &root).await?;
        let signatures = self.sign.sign(context, key, &root, &outputs.images).await?;
        let copied = targets.publish(&root, &outputs.names).await;
        let mut done = Vec::new();
        let mut failures = Vec::new();
        for (image, copied) in outputs.images.iter().zip(copied) {
            match copied {
                Ok(copied) => done.push((image.clone(), TargetOutput::of(image, &copied))),
                Err(error) => failures.push((image.clone(), Failure::from(error))),
            }
        }
        let (written, targets): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        self.sign.attach(&session, &signatures, &written).await?;
        self.complete(built, &root, &written, failures.is_empty()).await?;
        let succeeded = written.len();
        let signatures = signatures.iter().map(|signature| signature.root.digest()).collect();
        report(context, &outputs, Some(&root), targets, signatures)?;
        partial(failures, succeeded, "outputs")
    }

    /// Makes exported files visible and writes the files that describe the result, if every output succeeded.
    async fn complete(&self, built: Built, root: &Root, written: &[Location], succeeded: bool) -> Result {
        if succeeded {
            built.publish_exports()?;
            self.outputs.write_files(root, written).await?;
        }
        Ok(())
    }
}

/// Returns the failure of a build that names the file with its full log.
fn with_log(error: ocikit_build::Error, log: &BuildLog) -> Failure {
    let mut failure = Failure::from(error);
    let path = log.keep().map(|path| format!("full log: {}", path.display()));
    failure.details.extend(path);
    failure
}

fn report(
    context: &Context,
    outputs: &Outputs,
    root: Option<&Root>,
    targets: Vec<TargetOutput>,
    signatures: Vec<ocikit::Digest>,
) -> Result {
    let path = |export: &Export| match export {
        Export::Directory(path) | Export::Tar(path) => path.display().to_string(),
    };
    let exports: Vec<_> = outputs.exports.iter().map(path).collect();
    exports.iter().for_each(|export| context.output.say(format!("{export}: exported")));
    let archive = outputs.archive_file();
    match &archive {
        Some((path, size)) if targets.len() == 1 => context.output.say(format!("{path}: {}", output::bytes(*size))),
        _ => say(context, &targets),
    }
    if outputs.images.iter().any(crate::file::writes_to_stdout) {
        return Ok(());
    }
    let (archive, size) = archive.unzip();
    let digest = root.map(Root::digest);
    let result = BuildOutput { archive, digest, size, targets, exports, signatures };
    context.output.result(&result, || match digest {
        Some(digest) => Lines::from_iter([digest.to_string()]),
        None => Lines::from_iter(result.exports.iter()),
    })
}

/// Prints the generated Dockerfile.
fn print_dockerfile(context: &Context, solve: &Solve) -> Result {
    #[derive(Serialize)]
    struct DockerfileOutput<'a> {
        dockerfile: &'a str,
    }
    let Dockerfile::Generated { text, .. } = &solve.dockerfile else { return Ok(()) };
    context.output.result(&DockerfileOutput { dockerfile: text }, || text.lines().map(str::to_owned).collect::<Lines>())
}

/// Prints the calls of `buildctl`. They name secrets and contain none.
fn print(context: &Context, solve: &Solve, nodes: &[Node]) -> Result {
    #[derive(Serialize)]
    struct CallsOutput {
        calls: Vec<Vec<String>>,
    }
    let started = Node { platforms: Vec::new(), address: "unix://TEMPORARY/buildkitd.sock".parse()? };
    let nodes = if nodes.is_empty() { std::slice::from_ref(&started) } else { nodes };
    let calls: Vec<_> = nodes.iter().map(|node| solve.call(node)).collect();
    context.output.result(&CallsOutput { calls: calls.clone() }, || {
        let words =
            |call: &Vec<String>| call.iter().map(|word| crate::quote::quoted(word)).collect::<Vec<_>>().join(" ");
        calls.iter().map(words).collect::<Lines>()
    })
}

/// Prints the problems that the linter of the Dockerfile frontend found, and fails if there are any.
fn report_lint(context: &Context, answer: &str) -> Result {
    #[derive(Serialize)]
    struct LintOutput {
        warnings: usize,
        text: String,
    }
    let warnings = answer.lines().filter(|line| line.starts_with("WARNING: ")).count();
    let result = LintOutput { warnings, text: answer.trim().to_owned() };
    context.output.result(&result, || match warnings {
        0 => Lines::from_iter(["no problems found".to_owned()]),
        _ => answer.trim().lines().map(str::to_owned).collect::<Lines>(),
    })?;
    match warnings {
        0 => Ok(()),
        count => Err(Failure::new(Code::Unverified, format_args!("the Dockerfile has {count} problems"))),
    }
}
