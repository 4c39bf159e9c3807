use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use ocikit_image::Sink;
use ocikit_layout::Pipe;
use ocikit_spec::Platform;

use crate::error::{Error, Result};
use crate::progress::{Observer, Reader};
use crate::watched::{self, Watched};

/// The options of a build.
#[derive(Debug, Clone)]
pub struct Solve {
    /// The `buildctl` program.
    pub buildctl: PathBuf,
    /// The build context, the directory that `COPY` copies from.
    pub context: PathBuf,
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The platforms to build for; that of the daemon if empty.
    pub platforms: Vec<Platform>,
    /// The stage to build; the last if `None`.
    pub target: Option<String>,
    /// The values of `ARG`.
    pub build_arguments: Vec<(String, String)>,
    /// The time of everything in the image, in seconds since 1970, for reproducible builds.
    pub source_date_epoch: Option<u64>,
    /// The build cache.
    pub cache: Option<Cache>,
}

/// The time limit of `buildctl` for a connection to the daemon, in seconds. Its default of 5 is too short for a machine
/// that is busy with other builds; an address that refuses connections fails at once.
const CONNECT_TIMEOUT_SECONDS: u32 = 60;

/// A directory with the build cache. It holds only what the last build used.
#[derive(Debug, Clone)]
pub struct Cache {
    /// The directory.
    pub directory: PathBuf,
}

impl Cache {
    /// Returns the directory of the next state, which then replaces the last one.
    fn next(&self) -> PathBuf {
        let mut name = self.directory.clone().into_os_string();
        name.push(".next");
        name.into()
    }

    fn exists(&self) -> bool {
        self.directory.join("index.json").is_file()
    }

    fn replace(&self) -> io::Result<()> {
        let next = self.next();
        if !next.join("index.json").is_file() {
            return Ok(());
        }
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        fs::rename(next, &self.directory)
    }
}

impl Solve {
    /// Returns the options to build a directory with a `Dockerfile`.
    pub fn of(context: impl Into<PathBuf>) -> Solve {
        let context = context.into();
        Solve {
            buildctl: "buildctl".into(),
            dockerfile: context.join("Dockerfile"),
            context,
            platforms: Vec::new(),
            target: None,
            build_arguments: Vec::new(),
            source_date_epoch: None,
            cache: None,
        }
    }

    /// Returns the arguments of `buildctl` for a daemon with this address.
    fn arguments(&self, address: &str) -> Vec<String> {
        let directory =
            self.dockerfile.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let filename = self.dockerfile.file_name().unwrap_or_default().to_string_lossy();
        let mut arguments = vec![format!("--addr={address}"), format!("--timeout={CONNECT_TIMEOUT_SECONDS}")];
        arguments.extend(["build", "--frontend=dockerfile.v0"].map(str::to_owned));
        arguments.push(format!("--local=context={}", self.context.display()));
        arguments.push(format!("--local=dockerfile={}", directory.display()));
        arguments.push(format!("--opt=filename={filename}"));
        if !self.platforms.is_empty() {
            let platforms: Vec<_> = self.platforms.iter().map(ToString::to_string).collect();
            arguments.push(format!("--opt=platform={}", platforms.join(",")));
        }
        arguments.extend(self.target.iter().map(|target| format!("--opt=target={target}")));
        arguments.extend(self.build_arguments.iter().map(|(name, value)| format!("--opt=build-arg:{name}={value}")));
        let mut output = "--output=type=oci,dest=-".to_owned();
        if let Some(epoch) = self.source_date_epoch {
            arguments.push(format!("--opt=build-arg:SOURCE_DATE_EPOCH={epoch}"));
            output.push_str(",rewrite-timestamp=true");
        }
        if let Some(cache) = &self.cache {
            // A cache that cannot be read or written must not fail the build.
            let field = |key: &str, path: &Path| csv_field(&format!("{key}={}", path.display()));
            arguments
                .push(format!("--export-cache=type=local,mode=max,ignore-error=true,{}", field("dest", &cache.next())));
            if cache.exists() {
                arguments.push(format!("--import-cache=type=local,{}", field("src", &cache.directory)));
            }
        }
        arguments.push(output);
        arguments.push("--progress=rawjson".to_owned());
        arguments
    }
}

/// Escapes a field: `buildctl` parses some arguments as a line of CSV.
fn csv_field(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Builds an image and writes its layers to a sink while BuildKit exports them. Returns the source for the copy that
/// completes the sink.
///
/// # Errors
///
/// [`Error::Start`] if `buildctl` is missing, [`Error::Solve`] if BuildKit fails, and those of the sink. Nothing is
/// then visible in the sink.
pub async fn build(
    solve: &Solve,
    address: &str,
    observer: Option<Arc<dyn Observer>>,
    to: &Arc<dyn Sink>,
) -> Result<Pipe> {
    if let Some(cache) = &solve.cache {
        // An interrupted build may have left it; otherwise it would be kept forever.
        let _ = fs::remove_dir_all(cache.next());
    }
    watched::find(&solve.buildctl)?;
    let mut running = Watched::start(&solve.buildctl, &solve.arguments(address), None, Stdio::piped(), Stdio::piped())?;
    let (Some(stdout), Some(stderr)) = running.take_output() else {
        return Err(Error::failed("read from buildctl")(io::ErrorKind::BrokenPipe.into()));
    };
    let reader = Arc::new(Mutex::new(Reader::default()));
    let listening = {
        let reader = reader.clone();
        tokio::task::spawn_blocking(move || listen(stderr, &reader, observer.as_deref()))
    };
    let drained = Pipe::drain("the image from BuildKit", stdout, to).await;
    if drained.is_err() {
        // It may be writing to a pipe without a reader. If it failed first, it has ended by itself.
        end_soon(&mut running).await;
    }
    let wait = tokio::task::spawn_blocking(move || running.wait());
    let status = wait.await.map_err(io::Error::other).and_then(|status| status);
    let status = status.map_err(Error::failed("wait for buildctl"))?;
    let _ = listening.await;
    let stopped_by_us = drained.is_err() && status.code() == Some(TERMINATED);
    if status.success() || stopped_by_us {
        let pipe = drained?;
        if let Some(cache) = &solve.cache {
            // The build succeeded; without a cache the next one is only slower.
            let _ = cache.replace();
        }
        return Ok(pipe);
    }
    let (message, log) = reader.lock().unwrap_or_else(PoisonError::into_inner).failure();
    Err(Error::Solve { message, log })
}

/// The exit code of a shell whose program received `TERM`.
const TERMINATED: i32 = 128 + 15;

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
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    running.ask_to_end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_what_to_build() {
        let mut solve = Solve::of("src");
        solve.dockerfile = "docker/app.Dockerfile".into();
        solve.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm/v7".parse().unwrap()];
        solve.build_arguments = vec![("A".to_owned(), "x,y=\"z\"".to_owned())];
        solve.source_date_epoch = Some(7);
        solve.target = Some("final".to_owned());
        solve.cache = Some(Cache { directory: "a,b/cache".into() });
        assert_eq!(
            solve.arguments("unix:///s"),
            [
                "--addr=unix:///s",
                "--timeout=60",
                "build",
                "--frontend=dockerfile.v0",
                "--local=context=src",
                "--local=dockerfile=docker",
                "--opt=filename=app.Dockerfile",
                "--opt=platform=linux/amd64,linux/arm/v7",
                "--opt=target=final",
                "--opt=build-arg:A=x,y=\"z\"",
                "--opt=build-arg:SOURCE_DATE_EPOCH=7",
                "--export-cache=type=local,mode=max,ignore-error=true,\"dest=a,b/cache.next\"",
                "--output=type=oci,dest=-,rewrite-timestamp=true",
                "--progress=rawjson",
            ]
        );
    }

    #[test]
    fn a_cache_holds_what_the_last_build_needed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache { directory: directory.path().join("cache") };
        for text in ["one", "two"] {
            fs::create_dir(cache.next()).unwrap();
            fs::write(cache.next().join("index.json"), text).unwrap();
            cache.replace().unwrap();
            assert_eq!(fs::read_to_string(cache.directory.join("index.json")).unwrap(), text);
            assert!(!cache.next().exists());
        }
        cache.replace().unwrap();
        assert!(cache.exists());
    }
}
