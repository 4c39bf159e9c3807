//! The build of an agent, from the secrets to the pushed image.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ocikit::registry::hosts::Scheme;
use ocikit::registry::{Credential, Fixed, Keychain, Keychains};
use ocikit::{AnnotateOn, AnnotateOptions, Client, ClientOptions, Location, Session, SessionOptions};
use ocikit_image::Root;
use ocikit_spec::Digest;
use ocikit_spec::annotations::{BASE_DIGEST, BASE_NAME};

use super::config::{AgentNetwork, BuildConfig, RequestedBase};
use super::dockerfile::DockerfileChoice;
use super::options::AgentOptions;
use super::secrets::SecretFiles;
use super::shared::Shared;
use super::source::{SourceHash, inputs_hash};
use crate::attestation::{follow, statements, without_attestations};
use crate::builder::{Builder, reach};
use crate::error::{Error, Result};
use crate::inputs::{Attestation, Dockerfile, NetworkMode};
use crate::materials::{UsedImage, used_images};
use crate::run::{Results, build};
use crate::solve::Solve;

/// How long the cancelled upload sessions of a failed build may take to end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pushed image.
pub(super) struct Pushed {
    pub(super) digest: Digest,
    pub(super) reference: String,
}

/// Builds and pushes within the time limit, unless the build is cancelled. Everything that was started has ended afterwards.
pub(super) async fn run(config: &BuildConfig, options: &AgentOptions, shared: &Shared) -> Result<Pushed> {
    let client = Client::new(client_options(config, &options.client));
    let session = Session::new(client.clone(), SessionOptions::default());
    let job = Job { config, options, shared, session };
    let limited = async {
        match config.timeout {
            None => job.run().await,
            Some(limit) => tokio::time::timeout(limit, job.run()).await.unwrap_or(Err(Error::TimedOut { limit })),
        }
    };
    let pushed = tokio::select! {
        pushed = limited => pushed,
        () = shared.cancelled() => Err(Error::Cancelled),
    };
    if pushed.is_err() {
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, client.settle()).await;
    }
    pushed
}

/// Returns the options of the client with the credential of `build.json`.
fn client_options(config: &BuildConfig, given: &ClientOptions) -> ClientOptions {
    let mut options = given.clone();
    if let Some(token) = &config.registry_token {
        let credential = match &config.registry_username {
            Some(user) => Credential::password(user, token.clone()),
            None => Credential::Bearer(token.clone()),
        };
        let own: Arc<dyn Keychain> = Arc::new(Fixed { registry: Some(config.registry.clone()), credential });
        options.keychain = Arc::new(Keychains(vec![own, options.keychain]));
    }
    if config.registry_plain_http {
        let others = options.hosts.others.clone();
        options.hosts.named.entry(config.registry.clone()).or_insert(others).scheme = Scheme::Http;
    }
    options
}

struct Job<'a> {
    config: &'a BuildConfig,
    options: &'a AgentOptions,
    shared: &'a Shared,
    session: Session,
}

impl Job<'_> {
    async fn run(&self) -> Result<Pushed> {
        let log = |text: &str| self.shared.log.push(None, text);
        let source = self.options.source.clone().unwrap_or_else(|| self.config.source_path.clone());
        let choice = DockerfileChoice::of(self.config, &source)?;
        {
            let mut provenance = self.shared.provenance();
            provenance.dockerfile = Some(choice.origin);
            provenance.ignored_dockerfiles.clone_from(&choice.ignored);
        }
        for ignored in &choice.ignored {
            log(&format!("warning: the Dockerfile from {ignored} is not used: that from {} is", choice.origin));
        }
        choice.notes.iter().for_each(|note| log(&format!("warning: {note}")));
        let secrets = self.secrets().await?;
        let mut solve = self.solve(&source, choice.dockerfile)?;
        if let Some(files) = &secrets {
            solve.docker_config = files.docker_config(self.config)?;
            solve.secrets = files.write(&self.shared.secrets().await)?;
        }
        let source_hash = self.hash(source, &solve.dockerfile).await?;

        let reference = self.config.reference()?.to_string();
        let location = Location::Registry(self.config.reference()?);
        let mut targets = self.session.targets(std::slice::from_ref(&location), None).await;
        targets.check()?;
        let results = Results { image: Some(targets.sink()), ..Results::default() };

        let builder = Builder::find(&self.options.builder).await?;
        solve.buildctl = builder.buildctl().to_owned();
        self.note_version(&solve, &builder).await;
        let built = build(&solve, builder.nodes(), Some(self.shared.log.clone()), &results).await;
        builder.stop().await;
        let root = built?
            .root
            .ok_or_else(|| Error::Solve { message: "BuildKit exported no image".to_owned(), log: String::new() })?;
        let used = used_images(&statements(&root).await?).unwrap_or_default();
        self.note_images(&used, &source_hash);
        let base = self.check_base(&used)?;
        let root = self.finished(&root, base.as_ref()).await?;
        let copied = targets.publish(&root, &[]).await.into_iter().next().transpose()?;
        let digest = copied.map_or_else(|| root.digest(), |copied| copied.root.digest);
        log(&format!("pushed {reference}@{digest}"));
        Ok(Pushed { digest, reference })
    }

    /// Waits for the secrets of the host, and makes a place for them and the credential.
    async fn secrets(&self) -> Result<Option<SecretFiles>> {
        if let Some(token) = &self.config.registry_token {
            self.shared.log.hide(token.reveal());
        }
        if self.config.registry_token.is_none() && self.config.secrets.is_empty() {
            return Ok(None);
        }
        let files = SecretFiles::create(self.options.secrets_directory.as_deref())?;
        if !self.config.secrets.is_empty() {
            let received = tokio::time::timeout(self.options.secrets_timeout, self.shared.secrets()).await;
            let received = received.unwrap_or_default();
            let missing = self.config.secrets.iter().filter(|id| !received.contains_key(*id));
            let missing: Vec<_> = missing.cloned().collect();
            if !missing.is_empty() {
                return Err(Error::MissingSecrets { ids: missing });
            }
        }
        Ok(Some(files))
    }

    fn solve(&self, source: &Path, dockerfile: Dockerfile) -> Result<Solve> {
        let mut solve = Solve::of(source);
        solve.dockerfile = dockerfile;
        let arguments = self.config.build_args.iter();
        solve.build_arguments = arguments.map(|(name, value)| (name.clone(), value.clone())).collect();
        solve.network = match self.config.network {
            AgentNetwork::Egress => None,
            AgentNetwork::Isolated => Some(NetworkMode::None),
        };
        if let Some(reference) = self.config.cache_reference() {
            let insecure = if self.config.registry_plain_http { ",registry.insecure=true" } else { "" };
            solve.cache_from = vec![format!("type=registry,ref={reference}{insecure}").parse()?];
            let to = format!("type=registry,ref={reference},mode=max,ignore-error=true{insecure}");
            solve.cache_to = vec![to.parse()?];
        }
        // It lists the base images with their digests.
        solve.attestations = vec![Attestation::provenance("mode=min")?];
        solve.name = Some(self.config.reference()?.to_string());
        solve.source_date_epoch = self.options.source_date_epoch;
        Ok(solve)
    }

    /// Computes the hash of the source on a thread of its own, which ends when this is dropped.
    async fn hash(&self, source: PathBuf, dockerfile: &Dockerfile) -> Result<Digest> {
        let text = match dockerfile {
            Dockerfile::Text(text) => Some(text.clone()),
            Dockerfile::Generated { text, .. } => Some(text.clone().into()),
            Dockerfile::File(_) | Dockerfile::InContext(_) => None,
        };
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        let hash = tokio::task::spawn_blocking(move || {
            SourceHash::of(&source, text.as_deref(), &|| is_wanted.strong_count() > 0)
        });
        let hash = hash
            .await
            .map_err(|error| Error::failed("compute the hash of the source")(std::io::Error::other(error)))??;
        drop(wanted);
        let mut provenance = self.shared.provenance();
        provenance.source_hash = Some(hash.digest);
        provenance.lockfile_hashes = hash.lock_files;
        Ok(hash.digest)
    }

    /// Asks the daemon for its version. A build without it is still a build.
    async fn note_version(&self, solve: &Solve, builder: &Builder) {
        let Some(node) = builder.nodes().first().cloned() else { return };
        let buildctl = solve.buildctl.clone();
        let version = tokio::task::spawn_blocking(move || reach(&buildctl, &node.address)).await;
        self.shared.provenance().buildkit_version = version.ok().and_then(Result::ok);
    }

    fn note_images(&self, used: &[UsedImage], source: &Digest) {
        let digests: Vec<_> = used.iter().map(|image| image.digest).collect();
        let mut provenance = self.shared.provenance();
        provenance.inputs_hash = Some(inputs_hash(source, &self.config.build_args, &digests));
        provenance.base_images = used.to_vec();
    }

    /// Returns the base image to name in the annotations: the requested one, which must have been used, or the only one.
    fn check_base(&self, used: &[UsedImage]) -> Result<Option<UsedImage>> {
        let base = match (&self.config.base_image, used) {
            (Some(RequestedBase { digest, .. }), _) => {
                let found = used.iter().find(|image| image.digest == *digest);
                let names = || used.iter().map(|image| format!("{}@{}", image.name, image.digest)).collect();
                Some(found.ok_or_else(|| Error::BaseImage { expected: *digest, used: names() })?.clone())
            }
            (None, [base]) => Some(base.clone()),
            (None, _) => None,
        };
        self.shared.provenance().base_image_digest = base.as_ref().map(|base| base.digest);
        Ok(base)
    }

    /// Returns the root to push: annotated, and without the attestations of BuildKit unless they are wanted.
    async fn finished(&self, built: &Root, base: Option<&UsedImage>) -> Result<Root> {
        let root = match self.config.attestations {
            true => built.clone(),
            false => without_attestations(built).await?,
        };
        let Some(base) = base else { return Ok(root) };
        let mut options = AnnotateOptions::default();
        options.on = AnnotateOn::Manifests;
        options.set =
            vec![(BASE_NAME.to_owned(), base.name.clone()), (BASE_DIGEST.to_owned(), base.digest.to_string())];
        let annotated = ocikit_image::annotate(&root, &options).await?;
        Ok(follow(&root, &annotated).await?)
    }
}
