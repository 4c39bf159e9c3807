//! What `build` prints.

use ocikit::{Digest, Root};
use ocikit_build::{Builder, BuilderOptions, Dockerfile, Export, Node, Solve};
use serde::Serialize;

use crate::build::lazy_output::LazyOutput;
use crate::build::outputs::Outputs;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::{self, Lines};
use crate::report::{TargetOutput, say, warn_of_zstd};

#[derive(Serialize)]
struct BuildOutput {
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
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
    signatures: Vec<Digest>,
    /// The lazily pulled images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lazy: Vec<LazyOutput>,
}

/// The outcome of a build.
pub(crate) struct BuildReport<'a> {
    /// The outputs that were requested.
    pub(crate) outputs: &'a Outputs,
    /// The image; `None` if files were exported only.
    pub(crate) root: Option<&'a Root>,
    /// The targets that have the image.
    pub(crate) targets: Vec<TargetOutput>,
    /// The digests of the signatures.
    pub(crate) signatures: Vec<Digest>,
    /// The lazily pulled images.
    pub(crate) lazy: Vec<LazyOutput>,
}

impl BuildReport<'_> {
    /// Returns the outcome of a build without an image.
    pub(crate) fn of(outputs: &Outputs) -> BuildReport<'_> {
        BuildReport { outputs, root: None, targets: Vec::new(), signatures: Vec::new(), lazy: Vec::new() }
    }

    /// Prints the outcome.
    pub(crate) fn print(self, context: &Context) -> Result {
        let BuildReport { outputs, root, targets, signatures, lazy } = self;
        let path = |export: &Export| match export {
            Export::Directory(path) | Export::Tar(path) => path.display().to_string(),
        };
        let exports: Vec<_> = outputs.exports.iter().map(path).collect();
        exports.iter().for_each(|export| context.output.say(format!("{export}: exported")));
        let archive = outputs.archive_file();
        match &archive {
            Some((path, size)) if targets.len() == 1 => {
                context.output.say(format!("{path}: {}", output::bytes(*size)));
                warn_of_zstd(context, &targets);
            }
            _ => say(context, &targets),
        }
        if outputs.images.iter().any(crate::file::writes_to_stdout) {
            return Ok(());
        }
        let (archive, size) = archive.unzip();
        let digest = root.map(Root::digest);
        let result = BuildOutput { archive, digest, size, targets, exports, signatures, lazy };
        context.output.result(&result, || match digest {
            Some(digest) => {
                let lazy = result.lazy.iter().flat_map(LazyOutput::digests).filter(|found| **found != digest);
                Lines::from_iter([&digest].into_iter().chain(lazy).map(ToString::to_string))
            }
            None => Lines::from_iter(result.exports.iter()),
        })
    }
}

/// Prints the generated Dockerfile.
pub(crate) fn print_dockerfile(context: &Context, solve: &Solve) -> Result {
    #[derive(Serialize)]
    struct DockerfileOutput<'a> {
        dockerfile: &'a str,
    }
    let Dockerfile::Generated { text, .. } = &solve.dockerfile else { return Ok(()) };
    context.output.result(&DockerfileOutput { dockerfile: text }, || text.lines().map(str::to_owned).collect::<Lines>())
}

/// Prints the calls of `buildctl`. They name secrets and contain none.
pub(crate) fn print_calls(context: &Context, solve: &Solve, nodes: &[Node]) -> Result {
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

/// Checks the Dockerfile, and starts a builder for that if there is none.
pub(crate) async fn check_dockerfile(context: &Context, mut solve: Solve, options: &BuilderOptions) -> Result {
    let builder = Builder::find(options).await?;
    solve.buildctl = builder.buildctl().to_owned();
    let answer = match builder.nodes() {
        [node, ..] => ocikit_build::ask(&solve, node, "lint").await,
        [] => Ok(String::new()),
    };
    builder.stop().await;
    report_lint(context, &answer?)
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
