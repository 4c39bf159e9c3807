use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use ocikit::{Location, Session};
use ocikit_server::Server;
use serde::Serialize;

use crate::context::{Context, variable};
use crate::failure::{Code, Failure, Result};
use crate::output::{self, Lines, Output};

/// Do the main job once, from beginning to end, with nothing installed and no network
///
/// Takes place in a temporary directory, against a registry inside this process: builds an image if BuildKit is there or
/// takes one that was built before, annotates it, looks at it, signs it, pushes it, verifies it, copies it, and checks that
/// the digest is the same everywhere. Each step is printed as the command that does it.
#[derive(Debug, Args)]
pub(crate) struct Tour {
    /// Do not build, even if BuildKit is there
    #[arg(long)]
    no_build: bool,
}

/// What BuildKit made of a small image for three platforms, in case it is not there to do so.
const BUNDLED: &[u8] = include_bytes!("../../../testdata/buildkit-multi/image.tar");

const ARCHIVE: &str = "container-image.tar";

#[derive(Serialize)]
struct Facts {
    digest: String,
    reference: String,
    built: bool,
}

impl Tour {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let home = std::env::current_dir().map_err(|error| Failure::io("find", "the current directory", &error))?;
        let failed = |error| Failure::io("make", "a temporary directory", &error);
        let directory = tempfile::Builder::new().prefix("ocikit-tour-").tempdir().map_err(failed)?;
        // So that the commands are the ones a user would type there.
        std::env::set_current_dir(directory.path()).map_err(failed)?;
        let outcome = self.steps(context).await;
        std::env::set_current_dir(home).map_err(|error| Failure::io("return to", "the current directory", &error))?;
        outcome
    }

    async fn steps(&self, context: &Context) -> Result {
        let guide = Guide { quiet: context.output.json };
        let server = Server { remember: 0, ..Server::default() }.start().await;
        let server = server.map_err(|error| Failure::new(Code::Other, crate::failure::chain(&error)))?;
        let registry = server.registry();
        guide.say(&format!("A registry for this tour answers at {registry}.\n\n"));

        let built = self.build(&guide).await?;
        guide.step("What is it?", &["kind", ARCHIVE]).await?;
        let annotations =
            ["org.opencontainers.image.revision=6c22711", "org.opencontainers.image.source=https://example.com/app"];
        guide
            .step(
                "Say where it comes from. No layer is moved for that.",
                &[&["annotate", ARCHIVE], &annotations[..]].concat(),
            )
            .await?;
        guide.step("Look at it.", &["inspect", ARCHIVE]).await?;
        guide.step("The digest that registries will know it by.", &["digest", ARCHIVE]).await?;
        guide
            .step(
                "A key to sign with, gone with this tour. Yours gets a password.",
                &["keygen", "--unencrypted", "-o", "tour"],
            )
            .await?;
        guide
            .step(
                "Sign the index and every image in it. The signatures lie in the archive, whose digest stays.",
                &["sign", "--key", "tour.key", "--recursive", ARCHIVE],
            )
            .await?;
        let (one, latest) = (format!("{registry}/tour/app:1"), format!("{registry}/tour/app:latest"));
        guide.step("Push it under two tags. The signatures go along.", &["push", ARCHIVE, &one, &latest]).await?;
        guide
            .step(
                "Push it again: the registry is asked once for each tag and each signature.",
                &["push", ARCHIVE, &one, &latest],
            )
            .await?;
        let verify = ["verify", "--key", "tour.pub", "--recursive"];
        guide.step("Who signed what the registry has?", &[&verify[..], &[&one]].concat()).await?;
        guide.step("Copy it from the registry to a layout.", &["copy", &one, "oci:layout:1"]).await?;
        guide
            .step("There it is verified as well, with no network.", &[&verify[..], &["oci:layout:1"]].concat())
            .await?;
        guide
            .step(
                "And pull it into an archive that docker loads, too.",
                &["pull", &one, "-o", "pulled.tar", "--docker"],
            )
            .await?;

        let session = context.session(&[])?;
        let digest = digest_of(&session, ARCHIVE).await?;
        for place in [&*one, &latest, "oci:layout:1", "pulled.tar"] {
            let found = digest_of(&session, place).await?;
            if found != digest {
                return Err(Failure::new(Code::Unverified, format_args!("{place} has {found}, not {digest}")));
            }
        }
        server.shutdown().await;
        guide.say("The digest is the same in all five places.");
        let facts = Facts { digest, reference: one, built };
        context.output.facts(&facts, || format!("pushed {}", facts.digest))
    }

    /// Builds an image, if that can be done here; whether it was.
    async fn build(&self, guide: &Guide) -> Result<bool> {
        let write = |path: &str, bytes: &[u8]| {
            std::fs::write(path, bytes).map_err(|error| Failure::io("write to", path, &error))
        };
        let daemon = is_installed("buildkitd") && is_installed("runc") || variable("BUILDKIT_HOST").is_some();
        if !self.no_build && is_installed("buildctl") && daemon {
            std::fs::create_dir("app").map_err(|error| Failure::io("make", "a directory", &error))?;
            write("app/Dockerfile", b"FROM scratch\nCOPY hello /hello\nCMD [\"/hello\"]\n")?;
            write("app/hello", b"hello\n")?;
            match guide.step("Build an image.", &["build", "app", "--no-cache-directory"]).await {
                Ok(()) => return Ok(true),
                Err(failure) => {
                    guide.say(&format!(
                        "BuildKit is installed and does not work here: {}\n\n",
                        output::line(&failure.message)
                    ));
                }
            }
        }
        guide.say("BuildKit does not build here, so this takes an image that it built earlier.\n\n");
        write(ARCHIVE, BUNDLED)?;
        Ok(false)
    }
}

/// Prints a step and does it, as if it had been typed.
struct Guide {
    quiet: bool,
}

impl Guide {
    fn say(&self, text: &str) {
        Output { json: false, quiet: self.quiet, mute: false }.say(text.lines().collect::<Lines>());
    }

    async fn step(&self, what: &str, arguments: &[&str]) -> Result {
        self.say(&format!("{what}\n$ ocikit {}", arguments.join(" ")));
        let line = ["ocikit"].into_iter().chain(arguments.iter().copied());
        let cli = crate::Cli::try_parse_from(line).map_err(Failure::usage)?;
        let context = if self.quiet { Context::mute(cli.global) } else { Context::new(cli.global) }?;
        Box::pin(cli.command.run(&context)).await?;
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
