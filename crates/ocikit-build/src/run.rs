use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ocikit_image::{
    ComposeOptions, Member, Name, OnDuplicate, Root, ScratchDirectory, ScratchKind, Sink, create_index,
};
use ocikit_layout::Pipe;
use ocikit_spec::{Digest, Platform};
use tokio::sync::watch;

use crate::address::Node;
use crate::cache::CacheInUse;
use crate::compress::Compressing;
use crate::error::{Error, Result};
use crate::export::{Export, StagedExport};
use crate::inputs::{BuildContext, Dockerfile};
use crate::progress::{Observer, Progress, Reader};
use crate::solve::{LayerCompression, Outputs, Solve};
use crate::upload::{self, Upload, UploadFiles};
use crate::watched::{self, Leftovers, Program, Watched};

/// The results of a build.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Results {
    /// The target for the layers of the image; `None` to build no image.
    pub image: Option<Arc<dyn Sink>>,
    /// An upload of the image by BuildKit itself. Only one node can do that, and the layers have the compression of BuildKit.
    pub upload: Option<Upload>,
    /// The files to export.
    pub exports: Vec<Export>,
}

/// A finished build. Nothing is visible yet: the image has no name in its target, and exported files are in a temporary
/// place.
#[derive(Debug)]
#[must_use = "exported files become visible when they are published"]
pub struct Built {
    /// The image or index, the source of the copy that completes the target. `None` if no image was requested.
    pub root: Option<Root>,
    /// The digest of the image that BuildKit uploaded for [`Results::upload`].
    pub uploaded: Option<Digest>,
    exports: Vec<StagedExport>,
}

impl Built {
    /// Makes the exported files visible.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if a file cannot be moved.
    pub fn publish_exports(self) -> Result<()> {
        self.exports.into_iter().try_for_each(StagedExport::publish)
    }
}

/// Builds on one or several nodes. The layers of the image are written to the target while BuildKit exports them.
///
/// With several nodes, each solves its platforms at the same time as the others. Their images are then read one after
/// another, so that the same build gives the same archive, and become one index.
///
/// # Errors
///
/// [`Error::Start`] if `buildctl` is missing, [`Error::Solve`] if BuildKit fails, [`Error::TimedOut`], and those of the
/// target. Nothing is then visible in the target, and every `buildctl` has ended.
pub async fn build(
    solve: &Solve,
    nodes: &[Node],
    observer: Option<Arc<dyn Observer>>,
    results: &Results,
) -> Result<Built> {
    solve.check()?;
    match solve.time_limit {
        None => run(solve, nodes, observer, results).await,
        Some(limit) => {
            let built = tokio::time::timeout(limit, run(solve, nodes, observer, results)).await;
            built.unwrap_or(Err(Error::TimedOut { limit }))
        }
    }
}

async fn run(solve: &Solve, nodes: &[Node], observer: Option<Arc<dyn Observer>>, results: &Results) -> Result<Built> {
    watched::find(&solve.buildctl)?;
    if nodes.len() > 1 && !results.exports.is_empty() {
        let reason = "several builders would write the files of several platforms to the same paths";
        return Err(Error::option("output", "type=local")(reason));
    }
    if results.upload.is_some() && (nodes.len() > 1 || solve.compression.is_some()) {
        let reason = "it works with one builder and without a choice of compression";
        return Err(Error::option("push", "by BuildKit")(reason));
    }
    let uploading = match &results.upload {
        Some(upload) => Some((upload, Arc::new(UploadFiles::create(upload, solve.docker_config.as_deref()).await?))),
        None => None,
    };
    let mut solves: Vec<_> = (0..nodes.len()).map(|position| solve.for_node(position, nodes.len())).collect();
    let caches: Vec<_> = solves.iter_mut().map(|solve| use_cache(solve, observer.as_deref())).collect();
    let exports: Vec<_> = results.exports.iter().map(StagedExport::new).collect::<Result<_>>()?;
    let encoder = solve.compression.as_ref().and_then(LayerCompression::encoder);
    let compressing = match (&results.image, encoder) {
        (Some(image), Some(encoder)) => Some(Arc::new(Compressing::new(image.clone(), encoder))),
        _ => None,
    };
    let image = compressing.clone().map(|sink| sink as Arc<dyn Sink>).or_else(|| results.image.clone());
    let turn = watch::Sender::new(0);
    let single = nodes.len() == 1;
    let mut runs = Vec::new();
    for (position, ((node, solve), cache)) in nodes.iter().zip(&solves).zip(&caches).enumerate() {
        let named = observer.clone().filter(|_| !single).map(|observer| {
            let node = node.platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(",");
            Arc::new(OfNode { node, observer }) as Arc<dyn Observer>
        });
        let upload = uploading.as_ref().map(|(upload, files)| (*upload, &**files));
        let wanted =
            Outputs { image: image.is_some(), upload, exports: &exports, cache: cache.as_ref(), ..Outputs::default() };
        let run = Run::begin(solve, node, &wanted, wanted.image, named.or_else(|| observer.clone()))?;
        runs.push(run.finish(image.as_ref(), position, &turn));
    }
    let ended = futures::future::try_join_all(runs).await?;
    let uploaded = uploading.map(|(_, files)| files.digest()).transpose()?;
    for cache in caches.into_iter().flatten() {
        // The build succeeded; without a cache the next one is only slower.
        let _ = cache.replace();
    }
    let mut roots = Vec::new();
    for pipe in ended.into_iter().flatten() {
        roots.push(Root::open(Arc::new(pipe), &Name::Only).await?);
    }
    let root = match roots.len() {
        0 => None,
        1 => roots.pop(),
        _ => Some(one_index(roots).await?),
    };
    let root = match (root, &compressing) {
        (Some(root), Some(compressing)) => Some(compressing.root(&root).await?),
        (root, _) => root,
    };
    Ok(Built { root, uploaded, exports })
}

/// Prepares the cache in a directory. One that cannot be used is left out, after a warning: the build is only slower.
fn use_cache(solve: &mut Solve, observer: Option<&dyn Observer>) -> Option<CacheInUse> {
    match CacheInUse::begin(solve.cache.as_ref()?) {
        Ok(used) => Some(used),
        Err(error) => {
            let cache = solve.cache.take()?;
            let message = format!("building without a cache at {}: {error}", cache.directory.display());
            if let Some(observer) = observer {
                observer.progress(&Progress::Warning { message });
            }
            None
        }
    }
}

/// Returns one index with the images and attestations of all nodes.
async fn one_index(roots: Vec<Root>) -> Result<Root> {
    let mut options = ComposeOptions::default();
    options.flatten = true;
    options.on_duplicate = OnDuplicate::Keep;
    let members: Vec<_> = roots.into_iter().map(Member::new).collect();
    Ok(Root::Index(create_index(&members, &options).await?.index))
}

/// Asks the Dockerfile frontend a question and returns its answer, as docker's `--call` does: `lint` checks the
/// Dockerfile, `outline` lists its arguments, `targets` lists its stages.
///
/// # Errors
///
/// As [`build`].
pub async fn ask(solve: &Solve, node: &Node, question: &str) -> Result<String> {
    solve.check()?;
    watched::find(&solve.buildctl)?;
    let mut run = Run::begin(solve, node, &Outputs { subrequest: Some(question), ..Outputs::default() }, true, None)?;
    let Some(mut stdout) = run.stdout.take() else { return Ok(String::new()) };
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        stdout.read_to_end(&mut answer).map(|_| answer)
    });
    run.end().await?;
    let answer = answer.await.map_err(io::Error::other).and_then(|answer| answer);
    let answer = answer.map_err(Error::failed("read the answer of buildctl"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A running `buildctl`.
struct Run {
    running: Watched,
    /// The address of the daemon.
    address: String,
    stdout: Option<ChildStdout>,
    reader: Arc<Mutex<Reader>>,
    listening: tokio::task::JoinHandle<()>,
    /// The repository to which the daemon uploads the image.
    uploads: Option<String>,
    /// The directory with a Dockerfile that is not a file.
    _scratch: Option<ScratchDirectory>,
}

impl Run {
    fn begin(
        solve: &Solve,
        node: &Node,
        outputs: &Outputs<'_>,
        is_read: bool,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Run> {
        let scratch = match (&solve.dockerfile, &solve.context) {
            (Dockerfile::Text(text), _) => Some(scratch(text, "")?),
            (Dockerfile::Generated { text, ignore }, _) => Some(scratch(text.as_bytes(), ignore)?),
            (Dockerfile::File(_) | Dockerfile::InContext(_), BuildContext::Empty) => Some(scratch(&[], "")?),
            (Dockerfile::File(_) | Dockerfile::InContext(_), _) => None,
        };
        let outputs = Outputs { scratch: scratch.as_ref().map(ScratchDirectory::path), ..*outputs };
        let docker_config = outputs.upload.and_then(|(_, files)| files.docker_config());
        let leftovers = Leftovers {
            always: scratch
                .iter()
                .chain(solve.received.as_deref())
                .map(ScratchDirectory::path)
                .chain(docker_config.as_deref())
                .collect(),
            on_failure: outputs
                .exports
                .iter()
                .map(StagedExport::directory)
                .chain(outputs.cache.map(CacheInUse::leftover))
                .collect(),
            ..Leftovers::default()
        };
        let stdout = if is_read { Stdio::piped() } else { Stdio::null() };
        let arguments = solve.arguments(node, &outputs);
        let docker_config = docker_config.as_deref().or(solve.docker_config.as_deref());
        let environment: Vec<_> = docker_config.map(|directory| ("DOCKER_CONFIG", directory)).into_iter().collect();
        let program = Program { path: &solve.buildctl, arguments: &arguments, environment: &environment, user: None };
        let mut running = Watched::start(&program, &leftovers, stdout, Stdio::piped())?;
        let (stdout, stderr) = running.take_output();
        stdout.iter().for_each(enlarge);
        let reader = Arc::new(Mutex::new(Reader::default()));
        let listening = {
            let reader = reader.clone();
            tokio::task::spawn_blocking(move || {
                if let Some(stderr) = stderr {
                    listen(stderr, &reader, observer.as_deref());
                }
            })
        };
        let address = node.address.to_string();
        Ok(Run {
            running,
            address,
            stdout,
            reader,
            listening,
            uploads: outputs.upload.map(|(upload, _)| upload.repository.to_string()),
            _scratch: scratch,
        })
    }

    /// Reads the image when it is the turn of this node, and waits for the end.
    async fn finish(
        mut self,
        to: Option<&Arc<dyn Sink>>,
        position: usize,
        turn: &watch::Sender<usize>,
    ) -> Result<Option<Pipe>> {
        let (Some(stdout), Some(to)) = (self.stdout.take(), to) else {
            self.end().await?;
            return Ok(None);
        };
        let mut turns = turn.subscribe();
        while *turns.borrow_and_update() != position {
            // Another node may still solve for long after this one failed.
            let _ = tokio::time::timeout(POLL_INTERVAL, turns.changed()).await;
            if self.running.ended().is_ok_and(|ended| ended.is_some_and(|status| !status.success())) {
                break;
            }
        }
        let at_end = Arc::new(AtomicBool::new(false));
        let stdout = Noting { stdout, at_end: at_end.clone() };
        let drained = Pipe::drain("the image from BuildKit", stdout, to).await;
        // Before the end, `buildctl` fails because nothing reads its output any more, and its message is not the cause.
        let is_output_at_fault = drained.is_err() && !at_end.load(Ordering::SeqCst);
        turn.send_replace(position + 1);
        if drained.is_err() {
            // It may be writing to a pipe without a reader. If it failed first, it has ended by itself.
            end_soon(&mut self.running).await;
        }
        match self.end().await {
            Ok(()) => Ok(Some(drained?)),
            Err(Ended::Failed(error)) if !is_output_at_fault => Err(error),
            Err(Ended::ByUs(error) | Ended::Failed(error)) => Err(drained.err().map_or(error, Error::from)),
        }
    }

    /// Waits for the end.
    async fn end(self) -> Result<(), Ended> {
        let Run { mut running, address, reader, listening, stdout, uploads, _scratch } = self;
        drop(stdout);
        // Not on a thread of its own: when this future is dropped, the program has to end.
        let status = loop {
            match running.ended() {
                Ok(None) => tokio::time::sleep(END_POLL_INTERVAL).await,
                Ok(Some(status)) => break status,
                Err(error) => return Err(Ended::Failed(Error::failed("wait for buildctl")(error))),
            }
        };
        let _ = listening.await;
        if status.success() {
            return Ok(());
        }
        let (message, log) = reader.lock().unwrap_or_else(PoisonError::into_inner).failure();
        // After `TERM` it may end by the signal, or by an exit code without a message.
        let is_ended_by_us = status.code() == Some(TERMINATED) || message.is_none();
        let message = message.unwrap_or_else(|| "buildctl ended without an error message".to_owned());
        let error = match unreachable(&message) {
            Some(problem) => Error::Unreachable { address, problem },
            None => uploads
                .and_then(|repository| upload::failure(&message, &repository))
                .unwrap_or(Error::Solve { message, log }),
        };
        Err(if is_ended_by_us { Ended::ByUs(error) } else { Ended::Failed(error) })
    }
}

/// Returns why `buildctl` reached no daemon, if its message says so: the first thing that it asks for is the list of workers.
fn unreachable(message: &str) -> Option<String> {
    const ASKED: &str = "failed to list workers: Unavailable: ";
    let (_, problem) = message.split_once(ASKED)?;
    let problem = problem.trim_start_matches("connection error: desc = ").trim_matches('"');
    Some(problem.trim_start_matches("transport: ").trim_end_matches("\\n").to_owned())
}

/// The output of `buildctl`, which notes that it ended or cannot be read.
struct Noting {
    stdout: ChildStdout,
    at_end: Arc<AtomicBool>,
}

impl Read for Noting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(buffer);
        let is_end = match &read {
            Ok(0) => !buffer.is_empty(),
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        };
        self.at_end.fetch_or(is_end, Ordering::SeqCst);
        read
    }
}

/// Lets a pipe hold more than its default of 64 KiB, so that the two sides wait for each other less often.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn enlarge(pipe: &ChildStdout) {
    /// The maximum for users other than root, unless `fs.pipe-max-size` differs.
    const PIPE_BYTES: usize = 1 << 20;
    // A user may have used up the memory for pipes. Then it keeps its size.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn enlarge(_: &ChildStdout) {}

/// Why `buildctl` did not succeed.
enum Ended {
    /// It ended without a message, usually after `TERM`, because its output could not be stored.
    ByUs(Error),
    Failed(Error),
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Error {
        let (Ended::ByUs(error) | Ended::Failed(error)) = ended;
        error
    }
}

/// How often a node that waits for its turn looks whether its build has failed.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often a finished node looks whether `buildctl` has ended.
const END_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The exit code of a shell whose program received `TERM`.
const TERMINATED: i32 = 128 + 15;

fn scratch(dockerfile: &[u8], ignore: &str) -> Result<ScratchDirectory> {
    let failed = Error::failed("write the Dockerfile to a temporary directory");
    let directory =
        ScratchDirectory::create(&ScratchDirectory::default_parent(), ScratchKind::Build).map_err(&failed)?;
    for name in ["context", "dockerfile"] {
        fs::create_dir(directory.path().join(name)).map_err(&failed)?;
    }
    fs::write(directory.path().join("dockerfile/Dockerfile"), dockerfile).map_err(&failed)?;
    if !ignore.is_empty() {
        fs::write(directory.path().join("dockerfile/Dockerfile.dockerignore"), ignore).map_err(failed)?;
    }
    Ok(directory)
}

fn listen(stderr: impl Read, reader: &Mutex<Reader>, observer: Option<&dyn Observer>) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        let told = reader.lock().unwrap_or_else(PoisonError::into_inner).read(&String::from_utf8_lossy(&line));
        if let Some(observer) = observer {
            told.iter().for_each(|progress| observer.progress(progress));
        }
        line.clear();
    }
}

/// Ends `buildctl`, unless it ends by itself within a moment with an error message of its own, which is more useful.
async fn end_soon(running: &mut Watched) {
    for _ in 0..20 {
        if !matches!(running.ended(), Ok(None)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.ask_to_end();
}

/// Adds the platforms of a node to the names of its steps.
#[derive(Debug)]
struct OfNode {
    node: String,
    observer: Arc<dyn Observer>,
}

impl Observer for OfNode {
    fn progress(&self, progress: &Progress) {
        let name = |step: &str| format!("{}: {step}", self.node);
        self.observer.progress(&match progress {
            Progress::Started { step } => Progress::Started { step: name(step) },
            Progress::Completed { step, cached } => Progress::Completed { step: name(step), cached: *cached },
            Progress::Failed { step, error } => Progress::Failed { step: name(step), error: error.clone() },
            Progress::Log { step, line } => Progress::Log { step: name(step), line: line.clone() },
            Progress::Warning { message } => Progress::Warning { message: name(message) },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_not_reached_is_recognized() {
        let dialing = "listing workers for Build: failed to list workers: Unavailable: connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused\"";
        let problem = "Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(unreachable(dialing).as_deref(), Some(problem));
        assert_eq!(unreachable("failed to solve: exit code: 7"), None);
    }
}
