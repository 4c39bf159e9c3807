//! Docker's way to keep credentials, which podman and everybody else follow.

mod file;
mod helper;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ocikit_image::{Error, Result, bridge};
use ocikit_spec::Registry;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::{Credential, Keychain, Keychains};
use crate::http::transport::lock;

use file::{Candidate, File};
use helper::Helper;
pub use helper::HelperOptions;

/// A `config.json` of docker or an `auth.json` of podman, and the helpers that it names.
///
/// It is read when it is first needed; one that does not exist is empty. Each helper is asked once for each registry.
///
/// ```no_run
/// # async fn example() -> ocikit_registry::Result<()> {
/// use ocikit_registry::{Credential, DockerConfig};
///
/// let config = DockerConfig::new("/home/me/.docker/config.json");
/// config.login(&"ghcr.io".parse().unwrap(), &Credential::password("me", "secret")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DockerConfig {
    path: PathBuf,
    helpers: HelperOptions,
    file: AsyncMutex<Option<Arc<File>>>,
    asked: Mutex<HashMap<(String, String), Asked>>,
}

/// What a helper said, or is about to say.
type Asked = Arc<OnceCell<Result<Option<Credential>, Arc<Error>>>>;

impl DockerConfig {
    /// The file at this path.
    pub fn new(path: impl Into<PathBuf>) -> DockerConfig {
        DockerConfig::with_helpers(path, HelperOptions::default())
    }

    /// The file at this path, whose helpers are run like this.
    pub fn with_helpers(path: impl Into<PathBuf>, helpers: HelperOptions) -> DockerConfig {
        DockerConfig { path: path.into(), helpers, file: AsyncMutex::default(), asked: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file itself names a credential or a helper for a registry. One that cannot be read does not.
    pub async fn mentions(&self, registry: &Registry) -> bool {
        self.read().await.is_ok_and(|file| file.mentions(registry))
    }

    /// Keeps a credential for a registry: in the helper that the file names for it, or in the file, which then has
    /// the mode 0600. Whatever else is in the file stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] and [`Error::Broken`], naming the file or the helper; then both are as they were.
    pub async fn login(&self, registry: &Registry, credential: &Credential) -> Result<()> {
        let mut cached = self.file.lock().await;
        let file = self.read().await?;
        let kept = match file.keeper(registry) {
            Some(name) => {
                self.helper(name).store(file::server(registry), credential).await?;
                None
            }
            None => Some(credential.clone()),
        };
        let (path, registry) = (self.path.clone(), registry.clone());
        bridge::blocking(move || store::insert(&path, &registry, kept.as_ref())).await?;
        self.forget(&mut cached);
        Ok(())
    }

    /// Forgets what is known of a registry, in the file and in its helper. Says whether anything was in the file.
    ///
    /// # Errors
    ///
    /// As [`DockerConfig::login`].
    pub async fn logout(&self, registry: &Registry) -> Result<bool> {
        let mut cached = self.file.lock().await;
        let file = self.read().await?;
        if let Some(name) = file.keeper(registry) {
            self.helper(name).erase(file::server(registry)).await?;
        }
        let (path, registry) = (self.path.clone(), registry.clone());
        let found = bridge::blocking(move || store::remove(&path, &registry)).await?;
        self.forget(&mut cached);
        Ok(found)
    }

    fn forget(&self, cached: &mut Option<Arc<File>>) {
        *cached = None;
        lock(&self.asked).clear();
    }

    async fn read(&self) -> Result<File> {
        let path = self.path.clone();
        bridge::blocking(move || {
            let text = store::read(&path)?;
            text.map_or_else(
                || Ok(File::default()),
                |text| File::parse(&text).map_err(|problem| Error::broken(path.display(), problem)),
            )
        })
        .await
    }

    fn helper<'a>(&'a self, name: &'a str) -> Helper<'a> {
        Helper { name, options: &self.helpers }
    }
}

#[async_trait]
impl Keychain for DockerConfig {
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>> {
        let file = {
            let mut cached = self.file.lock().await;
            match &*cached {
                Some(file) => file.clone(),
                None => cached.insert(Arc::new(self.read().await?)).clone(),
            }
        };
        let mut failure = None;
        for candidate in file.candidates(registry, path) {
            let found = match candidate {
                Candidate::Here(credential) => Ok(Some(credential)),
                Candidate::Broken(problem) => Err(Error::broken(self.path.display(), problem)),
                Candidate::Helper { name, server } => {
                    let cell = lock(&self.asked).entry((name.clone(), server.clone())).or_default().clone();
                    let ask = || async { self.helper(&name).get(&server).await.map_err(Arc::new) };
                    cell.get_or_init(ask).await.clone().map_err(|error| Error::again(&error))
                }
            };
            match found {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                // Another entry may help.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// Where the files may be that programs keep credentials in, as the environment says.
#[derive(Debug, Clone, Default)]
pub struct CredentialPlaces {
    /// `REGISTRY_AUTH_FILE`: a file.
    pub registry_auth_file: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`: a directory, in which podman has `containers/auth.json`.
    pub runtime_directory: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`: a directory, in which podman has `containers/auth.json` too, by default `.config` at home.
    pub configuration_directory: Option<PathBuf>,
    /// `/run/containers/UID`: a directory, in which podman has `auth.json` where there is no `XDG_RUNTIME_DIR`.
    pub run_directory: Option<PathBuf>,
    /// `DOCKER_CONFIG`: a directory with a `config.json`.
    pub docker_config: Option<PathBuf>,
    /// `HOME`: a directory, in which docker has `.docker/config.json` where `DOCKER_CONFIG` does not say otherwise.
    pub home: Option<PathBuf>,
}

impl CredentialPlaces {
    /// The files in the order in which they are asked.
    ///
    /// podman looks for what `podman login` and `buildah login` wrote in several of them (containers/podman#7563, #26189;
    /// containers/buildah#5333).
    pub fn files(&self) -> Vec<PathBuf> {
        let at_home = |name: &str| self.home.as_ref().map(|home| home.join(name));
        let configuration = self.configuration_directory.clone().or_else(|| at_home(".config"));
        let podman = [self.runtime_directory.as_ref(), configuration.as_ref()].into_iter().flatten();
        let podman = podman.map(|directory| directory.join("containers/auth.json"));
        let run = self.run_directory.as_ref().map(|directory| directory.join("auth.json"));
        let docker = self.docker_config.clone().or_else(|| at_home(".docker"));
        let docker = docker.map(|directory| directory.join("config.json"));
        self.registry_auth_file.clone().into_iter().chain(podman).chain(run).chain(docker).collect()
    }

    /// A keychain of all of them.
    pub fn keychain(&self, helpers: &HelperOptions) -> Keychains {
        let files = self.files().into_iter();
        let keychain = |path| Arc::new(DockerConfig::with_helpers(path, helpers.clone())) as Arc<dyn Keychain>;
        Keychains(files.map(keychain).collect())
    }
}
