use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::image::{ScratchDirectory, ScratchKind};
use ocikit::{Location, Session};
use ocikit_server::Server;
use serde_json::json;

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Code, Failure, Result};
use crate::output::{self, Lines, Output};
use crate::program::Program;

const EXAMPLES: &str = "\
Examples:
  ocikit tour
  ocikit tour --no-build";

/// Run the main workflow offline against a built-in registry
///
/// Works in a temporary directory: builds an image if BuildKit is installed, or uses a bundled one, then annotates,
/// inspects, signs, pushes, verifies, copies and pulls it, and checks that the digest is the same everywhere. Prints
/// each step as the command that runs it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tour {
    /// Use the bundled image even if BuildKit is installed
    #[arg(long)]
    no_build: bool,
}

/// A small image for three platforms, built with BuildKit, for machines without BuildKit.
const BUNDLED: &[u8] = include_bytes!("../../../testdata/buildkit-multi/image.tar");

const ARCHIVE: &str = "container-image.tar";

impl Tour {
    pub(crate) async fn run(&self, context: &Context, program: &Program) -> Result {
        let home = std::env::current_dir().map_err(|error| Failure::io("find", "the current directory", &error))?;
        let failed = |error| Failure::io("make", "a temporary directory", &error);
        let directory =
            ScratchDirectory::create(&ScratchDirectory::default_parent(), ScratchKind::Tour).map_err(failed)?;
        // The printed commands use relative paths, so that a user can run them.
        std::env::set_current_dir(directory.path()).map_err(failed)?;
        let outcome = self.steps(context, program).await;
        std::env::set_current_dir(home).map_err(|error| Failure::io("return to", "the current directory", &error))?;
        outcome
    }

    async fn steps(&self, context: &Context, program: &Program) -> Result {
        let guide = TourGuide { quiet: context.output.json, program };
        let server = Server::default().remember(0).start().await;
        let server = server.map_err(|error| Failure::new(Code::Other, ocikit::spec::with_causes(&error)))?;
        let registry = server.registry();
        guide.say(&format!("Started a registry at {registry} for this tour.\n\n"));

        let built = self.build(&guide).await?;
        let (one, latest) = (format!("{registry}/tour/app:1"), format!("{registry}/tour/app:latest"));
        let (revision, source) =
            ("org.opencontainers.image.revision=6c22711", "org.opencontainers.image.source=https://example.com/app");
        let steps: [(&str, &[&str]); 12] = [
            ("Print the kind of the archive.", &["kind", ARCHIVE]),
            ("Add annotations in place. No layer is copied.", &["annotate", ARCHIVE, revision, source]),
            ("Show the image.", &["inspect", ARCHIVE]),
            ("Print the digest that the image has in every registry.", &["digest", ARCHIVE]),
            (
                "Create a key pair for this tour. Without --unencrypted, the private key gets a password.",
                &["keygen", "--unencrypted", "-o", "tour"],
            ),
            (
                "Sign the index and every image in it. The signatures are stored in the archive; the digest does not change.",
                &["sign", "--key", "tour.key", "--recursive", ARCHIVE],
            ),
            ("Push the image under two tags. The signatures are copied too.", &["push", ARCHIVE, &one, &latest]),
            (
                "Push it again: this takes one request for each tag and each signature.",
                &["push", ARCHIVE, &one, &latest],
            ),
            ("Verify the signatures in the registry.", &["verify", "--key", "tour.pub", "--recursive", &one]),
            ("Copy the image from the registry to a layout.", &["copy", &one, "oci:layout:1"]),
            (
                "Verify the signatures in the layout, without a network.",
                &["verify", "--key", "tour.pub", "--recursive", "oci:layout:1"],
            ),
            (
                "Pull the image into an archive that `docker load` accepts.",
                &["pull", &one, "-o", "pulled.tar", "--docker"],
            ),
        ];
        for (what, arguments) in steps {
            guide.step(what, arguments).await?;
        }

        let session = context.session(&[])?;
        let digest = digest_of(&session, ARCHIVE).await?;
        for place in [&*one, &latest, "oci:layout:1", "pulled.tar"] {
            let found = digest_of(&session, place).await?;
            if found != digest {
                return Err(Failure::new(
                    Code::Unverified,
                    format_args!("digest mismatch: {place} has {found}, expected {digest}"),
                ));
            }
        }
        server.shutdown().await;
        guide.say("The digest is the same in all five locations.");
        let result = json!({ "digest": digest, "reference": one, "built": built });
        context.output.result(&result, || format!("pushed {digest}"))
    }

    /// Builds an image if BuildKit works on this machine, or else writes the bundled one. Returns whether it was built.
    async fn build(&self, guide: &TourGuide<'_>) -> Result<bool> {
        let write = |path: &str, bytes: &[u8]| {
            std::fs::write(path, bytes).map_err(|error| Failure::io("write to", path, &error))
        };
        let daemon = is_installed("buildkitd") && is_installed("runc") || variable("BUILDKIT_HOST").is_some();
        if !self.no_build && is_installed("buildctl") && daemon {
            std::fs::create_dir("app").map_err(|error| Failure::io("make", "a directory", &error))?;
            write("app/Dockerfile", b"FROM scratch\nCOPY hello /hello\nCMD [\"/hello\"]\n")?;
            write("app/hello", b"hello\n")?;
            match guide.step("Build an image with BuildKit.", &["build", "app", "--no-cache-directory"]).await {
                Ok(()) => return Ok(true),
                Err(failure) => {
                    guide.say(&format!(
                        "BuildKit is installed but the build failed: {}\n\n",
                        output::line(&failure.message)
                    ));
                }
            }
        }
        guide.say("Using a bundled image that was built with BuildKit.\n\n");
        write(ARCHIVE, BUNDLED)?;
        Ok(false)
    }
}

/// Prints the steps of the tour and runs them as commands.
struct TourGuide<'a> {
    quiet: bool,
    program: &'a Program,
}

impl TourGuide<'_> {
    fn say(&self, text: &str) {
        Output { json: false, quiet: self.quiet, mute: false }.say(text.lines().collect::<Lines>());
    }

    async fn step(&self, what: &str, arguments: &[&str]) -> Result {
        self.say(&format!("{what}\n$ ocikit {}", arguments.join(" ")));
        let line = ["ocikit"].into_iter().chain(arguments.iter().copied());
        (self.program.run)(line.collect(), self.quiet).await?;
        self.say("\n");
        Ok(())
    }
}

async fn digest_of(session: &Session, place: &str) -> Result<String> {
    let location: Location = place.parse()?;
    let source = session.source(&location).await?;
    Ok(source.resolve(&location.name()).await?.digest.to_string())
}

fn is_installed(program: &str) -> bool {
    let directories = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<PathBuf>>());
    directories.into_iter().flatten().any(|directory| Path::new(&directory).join(program).is_file())
}
