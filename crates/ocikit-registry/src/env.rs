//! The settings of docker and podman, found by environment variables. Feature `env`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_image::{Error, Result};
use zeroize::Zeroizing;

use crate::credentials::{CredentialPlaces, HelperOptions};
use crate::hosts::{HostOptions, ProxyOptions, RegistriesConf};
use crate::options::ClientOptions;

/// Returns the value of an environment variable.
type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// An environment: that of the process, or one that a caller makes up. An empty variable counts as unset.
///
/// ```
/// use ocikit_registry::Environment;
///
/// let variables = [("HTTPS_PROXY", "proxy.example:3128"), ("HOME", "/home/me")];
/// let lookup = move |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
/// let environment = Environment::new(lookup, None);
/// assert!(environment.proxies().proxy_for("https", "ghcr.io", 443).is_some());
/// assert_eq!(environment.credential_places().docker_config, None);
/// ```
#[derive(Clone)]
pub struct Environment {
    lookup: Arc<Lookup>,
    user_id: Option<u32>,
}

impl Environment {
    /// Returns the environment of this process.
    pub fn of_process() -> Environment {
        Environment::new(|name| std::env::var_os(name), user_id())
    }

    /// Returns an environment with these variables, of a user with this ID.
    pub fn new(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static, user_id: Option<u32>) -> Environment {
        Environment { lookup: Arc::new(lookup), user_id }
    }

    /// Returns where tools store credentials: `REGISTRY_AUTH_FILE`, and the files of podman and docker.
    pub fn credential_places(&self) -> CredentialPlaces {
        CredentialPlaces {
            registry_auth_file: self.path("REGISTRY_AUTH_FILE"),
            runtime_directory: self.path("XDG_RUNTIME_DIR"),
            configuration_directory: self.path("XDG_CONFIG_HOME"),
            run_directory: self.user_id.map(|user| PathBuf::from(format!("/run/containers/{user}"))),
            docker_config: self.path("DOCKER_CONFIG"),
            home: self.path("HOME"),
        }
    }

    /// Returns the options of credential helpers, which are looked up in `PATH`.
    pub fn helpers(&self) -> HelperOptions {
        let directories = self.value("PATH").map(|path| std::env::split_paths(&path).collect());
        HelperOptions { directories: directories.unwrap_or_default(), ..HelperOptions::default() }
    }

    /// Returns the proxies, read as Go's `httpproxy` reads them: upper case first, then lower case.
    pub fn proxies(&self) -> ProxyOptions {
        let either = |name: &str| self.text(name).or_else(|| self.text(&name.to_lowercase()));
        // In a CGI program, HTTP_PROXY is controlled by the request header `Proxy` (https://httpoxy.org).
        let http = if self.value("REQUEST_METHOD").is_some() { None } else { either("HTTP_PROXY") };
        ProxyOptions::default()
            .http(http.map(Zeroizing::new))
            .https(either("HTTPS_PROXY").map(Zeroizing::new))
            .except(either("NO_PROXY").unwrap_or_default())
    }

    /// Reads `registries.conf`, and sets the directories of certificates (`certs.d`), of this machine and of this user.
    /// The other settings stay. This function blocks.
    ///
    /// As in containers-registries.conf(5), the file of the user replaces the file and the drop-in directory of the
    /// system, and a file named by `CONTAINERS_REGISTRIES_CONF` replaces both files.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if a file is not valid, [`Error::Failed`] if it cannot be read, or if the file that
    /// `CONTAINERS_REGISTRIES_CONF` names does not exist.
    pub fn add_to(&self, hosts: &mut HostOptions) -> Result<()> {
        let (named, configuration) = (self.path("CONTAINERS_REGISTRIES_CONF"), self.configuration_home());
        if let Some(named) = named.as_ref().filter(|named| !named.is_file()) {
            let (kind, reason) = match named.exists() {
                true => (io::ErrorKind::InvalidInput, "not a regular file"),
                false => (io::ErrorKind::NotFound, "no such file"),
            };
            return Err(Error::failed("read", named.display(), io::Error::new(kind, reason)));
        }
        let (file, directories) = places(named.as_deref(), configuration.as_deref(), &|path| path.exists());
        hosts.registries = RegistriesConf::read(&file, &directories)?;
        let own = configuration.map(|home| home.join("containers/certs.d"));
        let common = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        hosts.certificates = own.into_iter().chain(common).collect();
        Ok(())
    }

    /// Returns the directory of the user's configuration files.
    fn configuration_home(&self) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME").or_else(|| Some(self.path("HOME")?.join(".config")))
    }

    fn value(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.into_string().ok()
    }
}

impl fmt::Debug for Environment {
    /// Omits the variables, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Returns the options that docker and podman would use in this process: their credentials, credential helpers,
    /// `registries.conf` and `certs.d`, and the proxies in `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. This function
    /// blocks.
    ///
    /// # Errors
    ///
    /// As [`Environment::add_to`].
    pub fn from_env() -> Result<ClientOptions> {
        ClientOptions::from_environment(&Environment::of_process())
    }

    /// Returns the options that docker and podman would use in an environment. This function blocks.
    ///
    /// # Errors
    ///
    /// As [`Environment::add_to`].
    pub fn from_environment(environment: &Environment) -> Result<ClientOptions> {
        let mut hosts = HostOptions::default();
        environment.add_to(&mut hosts)?;
        let keychain = Arc::new(environment.credential_places().keychain(&environment.helpers()));
        Ok(ClientOptions { keychain, hosts, proxies: environment.proxies(), ..ClientOptions::default() })
    }
}

/// Returns the `registries.conf` and the drop-in directories to read, in order of increasing precedence.
fn places(
    named: Option<&Path>,
    configuration: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
) -> (PathBuf, Vec<PathBuf>) {
    let system = PathBuf::from("/etc/containers");
    let own = configuration.map(|home| home.join("containers"));
    let drop_ins = |directory: &PathBuf| directory.join("registries.conf.d");
    let own_file = own.as_ref().map(|own| own.join("registries.conf")).filter(|file| exists(file));
    match (named, own_file) {
        (None, Some(file)) => (file, own.iter().map(drop_ins).collect()),
        (named, _) => {
            let file = named.map_or_else(|| system.join("registries.conf"), Path::to_owned);
            (file, [&system].into_iter().chain(&own).map(drop_ins).collect())
        }
    }
}

/// Returns the user ID of this process: the owner of its entry in `/proc`.
#[cfg(unix)]
fn user_id() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

#[cfg(not(unix))]
fn user_id() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let lookup =
            move |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| OsString::from(value));
        Environment::new(lookup, Some(1000))
    }

    #[test]
    fn the_file_of_the_user_replaces_the_file_of_the_system() {
        let system = ("/etc/containers/registries.conf", "/etc/containers/registries.conf.d");
        let own = ("/home/a/.config/containers/registries.conf", "/home/a/.config/containers/registries.conf.d");
        for (named, home, exists, file, directories) in [
            (None, None, false, system.0, vec![system.1]),
            (None, Some("/home/a/.config"), false, system.0, vec![system.1, own.1]),
            (None, Some("/home/a/.config"), true, own.0, vec![own.1]),
            (Some("r.conf"), Some("/home/a/.config"), true, "r.conf", vec![system.1, own.1]),
        ] {
            let found = places(named.map(Path::new), home.map(Path::new), &|_| exists);
            assert_eq!(found, (PathBuf::from(file), directories.into_iter().map(PathBuf::from).collect()));
        }
    }

    #[test]
    fn variables_select_proxies() {
        for (variables, http, https, except) in [
            (&[][..], None, None, ""),
            (&[("HTTP_PROXY", "a"), ("http_proxy", "b")], Some("a"), None, ""),
            (&[("HTTP_PROXY", ""), ("http_proxy", "b"), ("no_proxy", "c,d")], Some("b"), None, "c,d"),
            (&[("HTTPS_PROXY", "a"), ("NO_PROXY", "*")], None, Some("a"), "*"),
            (&[("HTTP_PROXY", "a"), ("HTTPS_PROXY", "b"), ("REQUEST_METHOD", "GET")], None, Some("b"), ""),
        ] {
            let found = environment(variables).proxies();
            let text = |proxy: &Option<Zeroizing<String>>| proxy.as_ref().map(|proxy| proxy.to_string());
            let expected = (http.map(str::to_owned), https.map(str::to_owned), except.to_owned());
            assert_eq!((text(&found.http), text(&found.https), found.except), expected, "{variables:?}");
        }
    }

    #[test]
    fn variables_select_credentials_and_helpers() {
        let found = environment(&[("HOME", "/home/a"), ("DOCKER_CONFIG", ""), ("PATH", "/bin:/usr/bin")]);
        let files =
            ["/home/a/.config/containers/auth.json", "/run/containers/1000/auth.json", "/home/a/.docker/config.json"];
        assert_eq!(found.credential_places().files(), files.map(PathBuf::from));
        assert_eq!(found.helpers().directories, ["/bin", "/usr/bin"].map(PathBuf::from));
        let found = environment(&[("REGISTRY_AUTH_FILE", "auth.json"), ("XDG_RUNTIME_DIR", "/run/a")]);
        let files = ["auth.json", "/run/a/containers/auth.json", "/run/containers/1000/auth.json"];
        assert_eq!(found.credential_places().files(), files.map(PathBuf::from));
        assert!(found.helpers().directories.is_empty());
    }

    #[test]
    fn registries_of_the_user_are_read() {
        let directory = tempfile::TempDir::new().unwrap();
        let own = directory.path().join("containers");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("registries.conf"), "[[registry]]\nlocation = \"a.test\"\nblocked = true\n").unwrap();
        let home = directory.path().to_str().unwrap();
        let options = ClientOptions::from_environment(&environment(&[("XDG_CONFIG_HOME", home)])).unwrap();
        assert!(options.hosts.registries.routes(&"a.test/x".parse().unwrap()).is_err());
        let certificates = [own.join("certs.d"), "/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()];
        assert_eq!(options.hosts.certificates, certificates);
        for (name, problem) in [("none", "no such file"), ("containers", "not a regular file")] {
            let named = directory.path().join(name);
            let variables = [("XDG_CONFIG_HOME", home), ("CONTAINERS_REGISTRIES_CONF", named.to_str().unwrap())];
            let error = ClientOptions::from_environment(&environment(&variables)).unwrap_err();
            assert!(matches!(&error, Error::Failed { source, .. } if source.to_string() == problem), "{error:?}");
        }
    }
}
