//! Credentials in docker's format, which podman and other tools share.

mod file;
mod helper;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ocikit_http::lock;
use ocikit_image::{Error, Result, bridge};
use ocikit_spec::Registry;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::keychain::{Credential, Keychain, Keychains};
use super::scope::CredentialScope;

use file::{Candidate, File};
use helper::Helper;
pub use helper::HelperOptions;

/// Credentials in docker's `config.json` or podman's `auth.json`, and in the helpers that it names.
///
/// The file is read when it is first needed; a missing file counts as empty. Each helper is run once for each registry.
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
    helper_answers: Mutex<HashMap<(String, String), HelperAnswer>>,
}

/// The answer of a helper, or a place for it.
type HelperAnswer = Arc<OnceCell<Result<Option<Credential>, Arc<Error>>>>;

impl DockerConfig {
    /// Uses the file at this path.
    pub fn new(path: impl Into<PathBuf>) -> DockerConfig {
        DockerConfig::with_helpers(path, HelperOptions::default())
    }

    /// Uses the file at this path, with options for its helpers.
    pub fn with_helpers(path: impl Into<PathBuf>, helpers: HelperOptions) -> DockerConfig {
        DockerConfig { path: path.into(), helpers, file: AsyncMutex::default(), helper_answers: Mutex::default() }
    }

    /// Uses the contents of a file that can be read only once, such as a pipe. The path names it in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if it is not in docker's format.
    pub fn parse(path: impl Into<PathBuf>, text: &[u8], helpers: HelperOptions) -> Result<DockerConfig> {
        let path = path.into();
        let file = File::parse(text).map_err(|problem| Error::broken(path.display(), problem))?;
        let file = AsyncMutex::new(Some(Arc::new(file)));
        Ok(DockerConfig { path, helpers, file, helper_answers: Mutex::default() })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file itself has a credential or a helper for exactly this scope. `false` if it cannot be read.
    pub async fn mentions(&self, scope: &CredentialScope) -> bool {
        self.read().await.is_ok_and(|file| file.mentions(scope))
    }

    /// Stores a credential for a registry or for repositories in it: in the helper that the file names, or in the file,
    /// which then has mode 0600. Everything else in the file is preserved.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] and [`Error::Broken`], naming the file or the helper; [`Error::Unsupported`] for a scope with a
    /// path, if a helper stores the credentials of its registry. Then both are unchanged.
    pub async fn login(&self, scope: &CredentialScope, credential: &Credential) -> Result<()> {
        let mut cached = self.file.lock().await;
        let file = self.read().await?;
        let kept = match self.keeper(&file, scope)? {
            Some(helper) => {
                helper.store(&file::server(scope), credential).await?;
                None
            }
            None => Some(credential.clone()),
        };
        let (path, scope) = (self.path.clone(), scope.clone());
        bridge::blocking(move || store::insert(&path, &scope, kept.as_ref())).await?;
        self.forget(&mut cached);
        Ok(())
    }

    /// Removes the credential for exactly this scope, from the file and from its helper. Returns whether the file had an
    /// entry.
    ///
    /// # Errors
    ///
    /// As [`DockerConfig::login`].
    pub async fn logout(&self, scope: &CredentialScope) -> Result<bool> {
        let mut cached = self.file.lock().await;
        let file = self.read().await?;
        // An entry with a path may be in the file although a helper has the registry.
        if let Ok(Some(helper)) = self.keeper(&file, scope) {
            helper.erase(&file::server(scope)).await?;
        }
        let (path, scope) = (self.path.clone(), scope.clone());
        let found = bridge::blocking(move || store::remove(&path, &scope)).await?;
        self.forget(&mut cached);
        Ok(found)
    }

    /// Writes a copy of the file in which a registry has this credential, in the copy itself even where a helper is named for the
    /// registry. It has mode 0600. If this file is missing, the copy has only the credential.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] and [`Error::Broken`], naming one of the files.
    pub async fn copy_with(&self, to: &Path, registry: &Registry, credential: &Credential) -> Result<()> {
        let (from, to, scope, credential) = (self.path.clone(), to.to_owned(), registry.into(), credential.clone());
        bridge::blocking(move || store::copy_with(&from, &to, &scope, &credential)).await
    }

    fn forget(&self, cached: &mut Option<Arc<File>>) {
        *cached = None;
        lock(&self.helper_answers).clear();
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

    /// Returns the helper that stores the credential for a scope.
    fn keeper<'a>(&'a self, file: &'a File, scope: &CredentialScope) -> Result<Option<Helper<'a>>> {
        match file.keeper(scope) {
            Ok(name) => Ok(name.map(|name| self.helper(name))),
            Err(helper) => {
                let what = format!(
                    "the credential helper `{helper}` cannot store credentials for {scope}, only for {}",
                    scope.registry()
                );
                Err(Error::Unsupported { place: self.path.display().to_string(), what })
            }
        }
    }

    fn helper<'a>(&'a self, name: &'a str) -> Helper<'a> {
        Helper { name, options: &self.helpers }
    }
}

impl DockerConfig {
    /// Returns the credential for a repository, and the helper that it is from, if it is from one.
    async fn find(&self, registry: &Registry, path: &str) -> Result<Option<(Credential, Option<String>)>> {
        let file = {
            let mut cached = self.file.lock().await;
            match &*cached {
                Some(file) => file.clone(),
                None => cached.insert(Arc::new(self.read().await?)).clone(),
            }
        };
        let mut failure = None;
        for candidate in file.candidates(registry, path) {
            let mut helper = None;
            let found = match candidate {
                Candidate::Entry(credential) => Ok(Some(credential)),
                Candidate::Broken(problem) => Err(Error::broken(self.path.display(), problem)),
                Candidate::Helper { name, server } => {
                    let cell = lock(&self.helper_answers).entry((name.clone(), server.clone())).or_default().clone();
                    let ask = || async { self.helper(&name).get(&server).await.map_err(Arc::new) };
                    let answer = cell.get_or_init(ask).await.clone().map_err(|error| Error::again(&error));
                    helper = Some(name);
                    answer
                }
            };
            match found {
                Ok(None) => {}
                Ok(Some(credential)) => return Ok(Some((credential, helper))),
                // Another source may have a credential.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

#[async_trait]
impl Keychain for DockerConfig {
    async fn credential(&self, registry: &Registry, path: &str) -> Result<Option<Credential>> {
        Ok(self.find(registry, path).await?.map(|(credential, _)| credential))
    }

    async fn origin(&self, registry: &Registry, path: &str) -> Option<String> {
        let (_, helper) = self.find(registry, path).await.ok()??;
        Some(match helper {
            Some(helper) => format!("the credential helper `{helper}`, which {} names", self.path.display()),
            None => self.path.display().to_string(),
        })
    }
}

/// The files in which tools store credentials, by the environment variables that locate them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CredentialPlaces {
    /// `REGISTRY_AUTH_FILE`: a file.
    pub registry_auth_file: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`: a directory, which contains podman's `containers/auth.json`.
    pub runtime_directory: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`: a directory, which may contain podman's `containers/auth.json` too; `$HOME/.config` by
    /// default.
    pub configuration_directory: Option<PathBuf>,
    /// `/run/containers/UID`: a directory, which contains podman's `auth.json` if `XDG_RUNTIME_DIR` is not set.
    pub run_directory: Option<PathBuf>,
    /// `DOCKER_CONFIG`: a directory with a `config.json`.
    pub docker_config: Option<PathBuf>,
    /// `HOME`: a directory, which contains docker's `.docker/config.json` if `DOCKER_CONFIG` is not set.
    pub home: Option<PathBuf>,
}

ocikit_spec::setters! {
    CredentialPlaces {
        registry_auth_file: Option<PathBuf>,
        runtime_directory: Option<PathBuf>,
        configuration_directory: Option<PathBuf>,
        run_directory: Option<PathBuf>,
        docker_config: Option<PathBuf>,
        home: Option<PathBuf>,
    }
}

impl CredentialPlaces {
    /// Returns the files in the order in which they are read.
    ///
    /// `podman login` and `buildah login` write to several of them (containers/podman#7563, containers/podman#26189,
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

    /// Returns a keychain of all files.
    pub fn keychain(&self, helpers: &HelperOptions) -> Keychains {
        let files = self.files().into_iter();
        let keychain = |path| Arc::new(DockerConfig::with_helpers(path, helpers.clone())) as Arc<dyn Keychain>;
        Keychains(files.map(keychain).collect())
    }
}
